import { assert, describe, it } from "@effect/vitest"
import { Namespace, NamespacePattern } from "effect-sse"
import { Effect } from "effect"
import * as Dispatcher from "../../src/internal/dispatcher.js"
import { ImmediateRef } from "../../src/internal/immediate.js"
import { NamespaceUse } from "../../src/internal/namespaces.js"
import * as Registry from "../../src/internal/registry.js"

/** Three who listen in three ways; when the first of them gets something, three more come. */
const make = Effect.gen(function* () {
  const registry = new ImmediateRef(Registry.empty)
  const got: Array<string> = []
  const add = (id: number, namespace: string, then: () => void = () => {}) =>
    registry.unsafeModify((current) => {
      const take = (what: string) => {
        got.push(`${what} for ${id}`)
        then()
      }
      const namespaces = [NamespacePattern.make(namespace)]
      const subscriber = { id, namespaces, deliver: () => take("events"), reset: () => take("gap") }
      return [undefined, Registry.add(current, subscriber)]
    })
  let come = () => ["/", "/*", "/a"].forEach((namespace, i) => add(4 + i, namespace))
  const first = () => {
    come()
    come = () => {}
  }
  add(1, "/", first)
  add(2, "/*", first)
  add(3, "/a", first)
  const dispatcher = yield* Dispatcher.make(
    registry,
    new NamespaceUse(),
    1024,
    () => {},
    () => false
  )
  return { got, dispatcher }
})

const event = (position: string) => {
  const namespace = Namespace.make("/a")
  return { position, namespace, event: { namespace, data: "" }, text: "data:\n\n" }
}

describe("dispatcher", () => {
  it.scoped("gives a round to those who were there when it began", () =>
    Effect.gen(function* () {
      const { dispatcher, got } = yield* make
      dispatcher.offer([event("1")])
      yield* dispatcher.flush
      assert.deepStrictEqual(got.splice(0).sort(), ["events for 1", "events for 2", "events for 3"])
      dispatcher.offer([event("2")])
      yield* dispatcher.flush
      assert.strictEqual(got.length, 6)
    })
  )

  it.scoped("tells of a gap those who were there when it was found", () =>
    Effect.gen(function* () {
      const { dispatcher, got } = yield* make
      dispatcher.gap({ reason: "restarted", position: "2-1" })
      yield* dispatcher.flush
      assert.deepStrictEqual(got.sort(), ["gap for 1", "gap for 2", "gap for 3"])
    })
  )
})
