import { assert, describe, it } from "@effect/vitest"
import { Namespace } from "effect-sse"
import { NamespaceUse } from "../../src/internal/namespaces.js"

describe("NamespaceUse", () => {
  it("remembers a bounded number, those used last", () => {
    const use = new NamespaceUse()
    const busy = Namespace.make("/busy")
    for (let i = 0; i < 100_000; i++) {
      use.of(Namespace.make(`/n/${i}`), i).events++
      if (i % 1000 === 0) use.of(busy, i).events++
    }
    assert.isAtMost(use.all.size, 8192)
    assert.isTrue(use.all.has(Namespace.make("/n/99999")))
    assert.isTrue(use.all.has(Namespace.make("/n/96000")))
    assert.strictEqual(use.all.get(busy)?.events, 100)
  })
})
