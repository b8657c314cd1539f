import { assert, describe, it } from "@effect/vitest"
import { EventLog, Namespace } from "effect-sse"
import { Effect, FastCheck as fc, TestClock } from "effect"

const entry = (namespace: string, data = "x"): EventLog.NewEntry => ({
  namespace: Namespace.make(namespace),
  event: { namespace, data },
  text: data
})

const dataOf = (entries: ReadonlyArray<EventLog.NewEntry>) => entries.map(({ event }) => event.data)

const found = (since: EventLog.Since) => (since._tag === "Entries" ? dataOf(since.entries) : since.reason)

const root = [Namespace.root]

describe("EventLog.layerMemory", () => {
  it.scoped("gives consecutive places and hands entries to every tail in order", () =>
    Effect.gen(function* () {
      const log = yield* EventLog.makeMemory()
      const first: Array<EventLog.LogEntry> = []
      const second: Array<EventLog.LogEntry> = []
      yield* log.tail({ offer: (entries) => first.push(...entries), ready: Effect.void })
      const one = yield* log.append([entry("/a", "1"), entry("/b", "2")])
      yield* Effect.scoped(
        Effect.zipRight(
          log.tail({ offer: (entries) => second.push(...entries), ready: Effect.void }),
          log.append([entry("/a", "3")])
        )
      )
      const two = yield* log.append([entry("/a", "4")])
      assert.deepStrictEqual(dataOf(first), ["1", "2", "3", "4"])
      assert.deepStrictEqual(dataOf(second), ["3"], "a tail ends with its scope")
      assert.deepStrictEqual(
        [...one, ...two].map((position) => position.split("-")[1]),
        ["1", "2", "4"]
      )
      assert.deepStrictEqual(first.map(({ position }) => position).slice(0, 2), one)
    })
  )

  it.effect("keeps nothing unless asked to, and says so", () =>
    Effect.gen(function* () {
      const log = yield* EventLog.makeMemory()
      const [one, two] = yield* log.append([entry("/a", "1"), entry("/a", "2")])
      assert.strictEqual(found(yield* log.since(one!, root)), "expired")
      assert.deepStrictEqual(found(yield* log.since(two!, root)), [])
    })
  )

  it.effect("gives what came after a position, of the namespaces asked for", () =>
    Effect.gen(function* () {
      const log = yield* EventLog.makeMemory({ historyEvents: 4 })
      const positions = yield* log.append(["/a", "/b", "/a/c", "/ab", "/a"].map((ns, i) => entry(ns, String(i))))
      assert.deepStrictEqual(found(yield* log.since(positions[1]!, [Namespace.make("/a")])), ["2", "4"])
      assert.deepStrictEqual(found(yield* log.since(positions[0]!, root)), ["1", "2", "3", "4"])
      yield* log.append([entry("/a", "5")])
      assert.deepStrictEqual(yield* log.since(positions[0]!, root), {
        _tag: "Gap",
        reason: "expired",
        oldest: positions[2]!
      })
    })
  )

  it.effect("tells unknown positions and those of another life", () =>
    Effect.gen(function* () {
      const before = yield* EventLog.makeMemory({ historyEvents: 4 })
      const [old] = yield* before.append([entry("/a")])
      yield* TestClock.adjust("1 millis")
      const log = yield* EventLog.makeMemory({ historyEvents: 4 })
      const [current] = yield* log.append([entry("/a")])
      const [epoch] = current!.split("-")
      assert.strictEqual(found(yield* log.since(old!, root)), "restarted")
      for (const position of ["", "x", `${epoch}-2`, `${epoch}--1`, `${epoch}-01`, `${epoch}-1.5`, `${epoch}-`]) {
        assert.strictEqual(found(yield* log.since(position, root)), "unknown", position)
      }
      assert.deepStrictEqual(found(yield* log.since(`${epoch}-0`, root)), ["x"])
    })
  )

  it.effect.prop(
    "agrees with a list",
    [fc.integer({ min: 0, max: 6 }), fc.array(fc.constantFrom("/a", "/b", "/a/c"), { maxLength: 20 }), fc.nat(20)],
    ([historyEvents, namespaces, back]) =>
      Effect.gen(function* () {
        const log = yield* EventLog.makeMemory({ historyEvents })
        const all: Array<{ position: string; namespace: string }> = []
        for (const namespace of namespaces) {
          const [position] = yield* log.append([entry(namespace, String(all.length))])
          all.push({ position: position!, namespace })
        }
        const asked = all[all.length - 1 - back]
        if (asked === undefined) return
        const expected = all
          .map(({ namespace }, i) => ({ namespace, data: String(i) }))
          .slice(all.length - back)
          .filter(({ namespace }) => namespace.startsWith("/a"))
          .map(({ data }) => data)
        const since = yield* log.since(asked.position, [Namespace.make("/a")])
        assert.deepStrictEqual(found(since), back > historyEvents ? "expired" : expected)
      })
  )
})
