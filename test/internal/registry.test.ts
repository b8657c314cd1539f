import { assert, describe, it } from "@effect/vitest"
import { Namespace, NamespacePattern } from "effect-sse"
import { FastCheck as fc } from "effect"
import * as Registry from "../../src/internal/registry.js"

const path = (...segments: ReadonlyArray<string>) =>
  fc.array(fc.constantFrom(...segments), { maxLength: 4 }).map((segments) => "/" + segments.join("/"))
const patterns = fc.uniqueArray(path("a", "b", "*", "*", "%2A", "__proto__").map(NamespacePattern.make), {
  minLength: 1,
  maxLength: 4
})
const step = fc.record({ remove: fc.boolean(), pick: fc.nat(20), patterns })

const subscriber = (id: number, wanted: ReadonlyArray<NamespacePattern.NamespacePattern>): Registry.Subscriber => ({
  id,
  namespaces: NamespacePattern.reduce(wanted),
  deliver: () => {}
})

/** What a pattern matches, without a word of the code that is tested. */
const reference = (pattern: string, published: string): boolean => {
  const [wanted, given] = [pattern, published].map((text) => text.split("/").filter((segment) => segment !== ""))
  return wanted!.every((segment, i) => (segment === "*" ? given![i] !== undefined : segment === given![i]))
}

describe("registry", () => {
  it.prop(
    "finds who a walk over all subscribers finds, each once",
    [fc.array(step, { maxLength: 30 }), path("a", "b", "*", "__proto__").map(Namespace.make)],
    ([steps, published]) => {
      let registry = Registry.empty
      const all: Array<{
        readonly subscriber: Registry.Subscriber
        readonly wanted: ReadonlyArray<NamespacePattern.NamespacePattern>
      }> = []
      steps.forEach((step, id) => {
        if (step.remove && all.length > 0) {
          const [gone] = all.splice(step.pick % all.length, 1)
          registry = Registry.remove(registry, gone!.subscriber)
        } else {
          const added = subscriber(id, step.patterns)
          all.push({ subscriber: added, wanted: step.patterns })
          registry = Registry.add(registry, added)
        }
      })
      const found: Array<number> = []
      Registry.forEachMatch(registry, published, (subscription) => found.push(...subscription.list.map(({ id }) => id)))
      const expected = all
        .filter(({ wanted }) => wanted.some((pattern) => reference(pattern, published)))
        .map(({ subscriber }) => subscriber.id)
      assert.deepStrictEqual(found.sort(), expected.sort())
      for (const { subscriber } of all) registry = Registry.remove(registry, subscriber)
      assert.deepStrictEqual(registry, Registry.empty, "nothing is kept of those who left")
    }
  )

  it("ignores the removal of one that is not there", () => {
    const registry = Registry.add(Registry.empty, subscriber(1, [Namespace.root]))
    assert.strictEqual(Registry.remove(registry, subscriber(2, [Namespace.root])), registry)
    assert.strictEqual(Registry.remove(registry, subscriber(1, [Namespace.make("/a")])), registry)
  })

  it("leaves a list that was read as it is: a round is written over several turns", () => {
    let registry = [1, 2, 3].reduce(
      (registry, id) => Registry.add(registry, subscriber(id, [Namespace.root])),
      Registry.empty
    )
    const ids = () => {
      const found: Array<ReadonlyArray<Registry.Subscriber>> = []
      Registry.forEachMatch(registry, Namespace.make("/a"), ({ list }) => found.push(list))
      return () => found.map((list) => list.map(({ id }) => id))
    }
    const before = ids()
    registry = Registry.add(registry, subscriber(4, [Namespace.root]))
    registry = Registry.remove(registry, subscriber(2, [Namespace.root]))
    assert.deepStrictEqual(before(), [[1, 2, 3]])
    assert.deepStrictEqual(ids()(), [[1, 3, 4]])
  })
})
