import { assert, describe, it } from "@effect/vitest"
import { EventLog, SseHub, SseTest } from "effect-sse"
import { Effect, Layer, Logger, TestClock } from "effect"
import { failingLog } from "./support/failingLog.js"

const publish = (namespace: string, count: number, size = 4) =>
  Effect.flatMap(SseHub.SseHub, (hub) =>
    Effect.zipLeft(
      hub.publishAll(Array.from({ length: count }, (_, i) => ({ namespace, data: String(i).padStart(size, "0") }))),
      SseTest.settled
    )
  )

const numbers = (client: SseTest.RecordedClient) =>
  Effect.map(client.events, (events) => events.map(({ data }) => Number(data)))

const upTo = (from: number, to: number) => Array.from({ length: to - from }, (_, i) => from + i)

const after = (id: string): EventLog.Start => ({ _tag: "After", id })

describe("SseHub with history", () => {
  it.scoped("gives one that reads slowly its past as it reads, while others get what is live at once", () =>
    Effect.gen(function* () {
      const live = yield* SseTest.connect("/a")
      const positions = yield* publish("/a", 2000, 1000)
      const slow = yield* SseTest.connect("/a", { start: after(positions[0]!), reading: false })
      // Neither all of its past is put before it, nor is it ended for that.
      assert.isBelow(yield* slow.pendingBytes, 1024 * 1024)
      const hub = yield* SseHub.SseHub
      yield* hub.publish({ namespace: "/a", data: "2000" })
      assert.deepStrictEqual(yield* numbers(live), upTo(0, 2001))
      while ((yield* slow.read(100_000)) > 0 || (yield* numbers(slow)).length < 2000) yield* TestClock.adjust(0)
      assert.deepStrictEqual(yield* numbers(slow), upTo(1, 2001))
      assert.strictEqual(yield* slow.lastEventId, yield* live.lastEventId)
      yield* slow.startReading
      yield* hub.publish({ namespace: "/a", data: "2001" })
      assert.deepStrictEqual((yield* numbers(slow)).at(-1), 2001)
    }).pipe(Effect.provide(SseTest.layer({ history: true })))
  )

  it.scoped("ends one that does not read its past, as any that does not read", () =>
    Effect.gen(function* () {
      const positions = yield* publish("/a", 2000, 1000)
      const client = yield* SseTest.connect("/a", { start: after(positions[0]!), reading: false })
      assert.isUndefined(yield* client.ended)
      yield* TestClock.adjust("40 seconds")
      assert.strictEqual(yield* client.ended, "stalled")
    }).pipe(Effect.provide(SseTest.layer({ history: true, stallTimeout: "30 seconds" })))
  )

  it.scoped("tells one that reads so slowly that its past is dropped meanwhile", () =>
    Effect.gen(function* () {
      const positions = yield* publish("/a", 1000, 1000)
      const client = yield* SseTest.connect("/a", { start: after(positions[0]!), reading: false })
      const hub = yield* SseHub.SseHub
      // It has been given a page.
      while ((yield* hub.clients)[0]!.events === 0) yield* Effect.yieldNow()
      yield* publish("/b", 1500, 1000)
      yield* publish("/a", 10, 1000)
      yield* client.startReading
      // It is looked at again in real time.
      while (!(yield* client.text).includes("sse-reset")) yield* Effect.yieldNow()
      const events = yield* client.events
      const reset = events.findIndex(({ event }) => event === "sse-reset")
      assert.deepStrictEqual(
        events.slice(0, reset).map(({ data }) => Number(data)),
        upTo(1, reset + 1)
      )
      assert.deepInclude(JSON.parse(events[reset]!.data), { reason: "expired", requested: events[reset - 1]!.id })
      yield* publish("/a", 1)
      assert.strictEqual((yield* client.events).at(-1)!.data, "0000", "and then it is live")
    }).pipe(Effect.provide(SseTest.layer({ history: { maxEvents: 1200 } })))
  )

  it.scoped("gives what is live meanwhile, also more than is held", () =>
    Effect.gen(function* () {
      const positions = yield* publish("/a", 1000, 400)
      const client = yield* SseTest.connect("/a", { start: after(positions[0]!), reading: false })
      for (let i = 0; i < 5; i++) yield* publish("/a", 400, 1000)
      yield* client.startReading
      while ((yield* client.events).length < 2999) yield* Effect.yieldNow()
      const ids = (yield* client.events).map(({ id }) => Number.parseInt(id!.split("-")[1]!, 36))
      assert.deepStrictEqual(ids, upTo(2, 3001))
    }).pipe(Effect.provide(SseTest.layer({ history: true })))
  )

  it.scoped("sends one away whose past the log cannot give: it comes back, and has lost nothing", () =>
    Effect.gen(function* () {
      const positions = yield* publish("/a", 10)
      const client = yield* SseTest.connect("/a", { start: after(positions[3]!) })
      assert.strictEqual(yield* client.awaitEnd, "failed")
      assert.isDefined(yield* client.retry)
      assert.strictEqual(yield* client.lastEventId, positions[3])
      const hub = yield* SseHub.SseHub
      assert.strictEqual((yield* hub.status).ended.failed, 1)
    }).pipe(
      Effect.provide(
        SseHub.layerWithLog(SseTest.defaults).pipe(
          Layer.provide(failingLog("read")),
          Layer.provide(Logger.remove(Logger.defaultLogger))
        )
      )
    )
  )

  it.scoped("counts resumes by what became of them, and events that it gave again", () =>
    Effect.gen(function* () {
      const positions = yield* publish("/a", 10)
      const { reset } = yield* SseTest.connect("/a", { start: after(positions[3]!) })
      assert.isUndefined(reset)
      const gone = yield* SseTest.connect("/a", { start: after("x") })
      assert.deepStrictEqual(gone.reset, { reason: "unknown", requested: "x", oldest: positions[0]! })
      yield* SseTest.settled
      const hub = yield* SseHub.SseHub
      assert.strictEqual((yield* hub.status).deliveries, 6)
      assert.deepStrictEqual(
        (yield* hub.clients).map(({ events }) => events),
        [6, 0]
      )
    }).pipe(Effect.provide(SseTest.layer({ history: true })))
  )

  it.scoped("gives many values in several frames, and the position behind them", () =>
    Effect.gen(function* () {
      const hub = yield* SseHub.SseHub
      yield* hub.publishAll(Array.from({ length: 1000 }, (_, i) => ({ namespace: `/v/${i}`, data: String(i) })))
      yield* SseTest.settled
      const client = yield* SseTest.connect(["/v", "/w"])
      assert.deepStrictEqual(yield* numbers(client), upTo(0, 1000))
      assert.match(yield* client.text, /data:999\n\nid:\S+-rs\n\n$/)
      const narrow = yield* SseTest.connect("/v/17")
      assert.deepStrictEqual(yield* numbers(narrow), [17])
      const since = yield* SseTest.connect("/v", { start: { _tag: "Last", events: 2 } })
      assert.deepStrictEqual(
        yield* numbers(since),
        upTo(0, 1000),
        "values in front of where it begins, and then the rest"
      )
    }).pipe(Effect.provide(SseTest.layer({ history: { rules: [{ namespace: "/v", keep: "latest" }] } })))
  )
})

describe("a hub on a log that outlives it", () => {
  it.scoped("goes on with the same ids", () =>
    Effect.gen(function* () {
      const log = yield* EventLog.makeMemory(true)
      const on = <A, E>(program: Effect.Effect<A, E, SseHub.SseHub>) =>
        Effect.provide(
          program,
          SseHub.layerWithLog(SseTest.defaults).pipe(Layer.provide(Layer.succeed(EventLog.EventLog, log)))
        )
      const [first] = yield* on(publish("/a", 3))
      yield* on(
        Effect.scoped(
          Effect.gen(function* () {
            const client = yield* SseTest.connect("/a", { start: after(first!) })
            yield* publish("/a", 1)
            assert.deepStrictEqual(yield* numbers(client), [1, 2, 0])
          })
        )
      )
      assert.strictEqual(yield* log.size, 4)
    })
  )
})

it("a hub refuses rules and bounds that make no sense", () => {
  const make = (history: EventLog.HistoryOptions) =>
    Effect.runSyncExit(Effect.scoped(Layer.build(SseHub.layer({ history }))))._tag
  assert.strictEqual(make({ maxEvents: 0 }), "Failure")
  assert.strictEqual(make({ rules: [{ namespace: "//", keep: "latest" }] }), "Failure")
  assert.strictEqual(make({}), "Success")
})

describe("what a review found", () => {
  it.scoped("large latest values come in frames that fit, and are shared", () =>
    Effect.gen(function* () {
      const hub = yield* SseHub.SseHub
      for (let i = 0; i < 100; i++) yield* hub.publish({ namespace: `/v/${i}`, data: "x".repeat(20_000) })
      yield* SseTest.settled
      const [slow, fast] = yield* Effect.all([
        SseTest.connect("/v", { reading: false }),
        SseTest.connect("/v", { reading: true })
      ])
      assert.lengthOf(yield* fast.events, 100)
      assert.isBelow(yield* slow.pendingBytes, 300_000, "the rest waits until it reads")
      while ((yield* slow.events).length < 100) yield* slow.read(50_000)
      assert.isUndefined(yield* slow.ended)
    }).pipe(
      Effect.provide(
        SseTest.layer({ maxPendingBytes: 300_000, history: { rules: [{ namespace: "/v", keep: "latest" }] } })
      )
    )
  )

  it.scoped("one with a small limit gets its past in pages that fit, and what is live on top", () =>
    Effect.gen(function* () {
      const positions = yield* publish("/a", 200, 1000)
      const client = yield* SseTest.connect("/a", { start: after(positions[0]!), reading: false })
      const hub = yield* SseHub.SseHub
      for (let i = 0; i < 60; i++) {
        assert.isAtMost(yield* client.pendingBytes, 64 * 1024)
        yield* hub.publish({ namespace: "/a", data: "live" })
        yield* client.read(10_000)
      }
      yield* client.startReading
      while (!(yield* client.text).includes("data:live\n\n")) yield* Effect.yieldNow()
      assert.isUndefined(yield* client.ended)
      assert.lengthOf(yield* client.events, 259)
    }).pipe(Effect.provide(SseTest.layer({ maxPendingBytes: 64 * 1024, history: true })))
  )

  it.scoped("events that are not kept come to one that catches up, and if they are too many it is ended", () =>
    Effect.gen(function* () {
      const positions = yield* publish("/a", 1000, 1000)
      const [client, other] = yield* Effect.all([
        SseTest.connect("/", { start: after(positions[0]!), reading: false }),
        SseTest.connect("/", { start: after(positions[0]!), reading: false })
      ])
      yield* publish("/fleeting", 20, 10)
      yield* publish("/a", 300, 1000)
      yield* client.startReading
      while ((yield* client.events).length < 1319) yield* Effect.yieldNow()
      assert.lengthOf(
        (yield* client.events).filter(({ data }) => data.length === 10),
        20
      )
      yield* publish("/fleeting", 300, 1000)
      assert.strictEqual(yield* other.ended, "pending-overflow")
      assert.isUndefined(yield* client.ended)
    }).pipe(Effect.provide(SseTest.layer({ history: { rules: [{ namespace: "/fleeting", keep: "nothing" }] } })))
  )

  it.scoped("a shutdown gives those who resume what they missed", () =>
    Effect.gen(function* () {
      const positions = yield* publish("/a", 1000)
      const clients = yield* Effect.replicateEffect(
        Effect.suspend(() => SseTest.connect("/a", { start: after(positions[0]!) })),
        20
      )
      const hub = yield* SseHub.SseHub
      yield* hub.publish({ namespace: "/a", data: "1000" })
      yield* hub.shutdown
      for (const client of clients) {
        assert.deepStrictEqual(yield* numbers(client), upTo(1, 1001))
        assert.strictEqual(yield* client.ended, "shutdown")
      }
    }).pipe(Effect.provide(SseTest.layer({ history: true })))
  )
})
