import { assert, describe, it } from "@effect/vitest"
import { Namespace } from "effect-sse"
import { FastCheck as fc } from "effect"
import * as Registry from "../../src/internal/registry.js"

const namespaces = fc.uniqueArray(
  fc
    .array(fc.constantFrom("a", "b", "c", "__proto__"), { maxLength: 3 })
    .map((segments) => Namespace.make("/" + segments.join("/"))),
  { minLength: 1, maxLength: 4 }
)
const step = fc.record({ remove: fc.boolean(), pick: fc.nat(20), namespaces })

const subscriber = (id: number, wanted: ReadonlyArray<Namespace.Namespace>): Registry.Subscriber => ({
  id,
  namespaces: Registry.reduce(wanted),
  deliver: () => {}
})

describe("registry", () => {
  it.prop(
    "finds who a walk over all subscribers finds, each once",
    [fc.array(step, { maxLength: 30 }), namespaces],
    ([steps, [published]]) => {
      let registry = Registry.empty
      const all: Array<{
        readonly subscriber: Registry.Subscriber
        readonly wanted: ReadonlyArray<Namespace.Namespace>
      }> = []
      steps.forEach((step, id) => {
        if (step.remove && all.length > 0) {
          const [gone] = all.splice(step.pick % all.length, 1)
          registry = Registry.remove(registry, gone!.subscriber)
        } else {
          const added = subscriber(id, step.namespaces)
          all.push({ subscriber: added, wanted: step.namespaces })
          registry = Registry.add(registry, added)
        }
      })
      const found: Array<number> = []
      Registry.forEachMatch(registry, published!, (subscription) =>
        found.push(...subscription.list.map(({ id }) => id))
      )
      const expected = all
        .filter(({ wanted }) => wanted.some((namespace) => Namespace.matches(namespace, published!)))
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
})
