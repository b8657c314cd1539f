import { HttpApp } from "@effect/platform"
import { assert, describe, it } from "@effect/vitest"
import { Authorize, EventLog, Idempotency, SseHub, SseRoutes, SseTest } from "effect-sse"
import { Context, Deferred, Effect, Fiber, Layer, TestClock } from "effect"
import { turn } from "../../src/internal/eventLoop.js"

const tokens = Authorize.tokens({
  shop: { token: "shop", namespaces: ["/orders", "/stock/*"] },
  ann: { token: "ann", namespaces: ["/orders"] },
  operator: "operator"
})

const routes = (options: SseRoutes.RoutesOptions = {}) =>
  Effect.map(Effect.runtime<SseHub.SseHub>(), (runtime) => {
    const handler = HttpApp.toWebHandlerRuntime(runtime)(SseRoutes.router({ publish: tokens, ...options }))
    return (body: unknown, headers: Record<string, string> = {}, path = "/publish") =>
      Effect.map(
        // As a client that is interrupted, it goes away.
        Effect.promise(async (signal) => {
          const response = await handler(
            new Request(`http://localhost${path}`, {
              method: "POST",
              signal,
              body: typeof body === "string" ? body : JSON.stringify(body),
              headers: { "content-type": "application/json", authorization: "Bearer shop", ...headers }
            })
          )
          return { response, text: await response.text() }
        }),
        ({ response, text }) => ({
          status: response.status,
          replayed: response.headers.get("idempotency-replayed"),
          text,
          json: JSON.parse(text) as {
            error?: string
            message?: string
            positions?: ReadonlyArray<string>
            index?: number
          }
        })
      )
  })

const two = {
  events: [
    { namespace: "/orders/1", event: "paid", json: { amount: 12.5, of: [null, "é"] }, id: "o-1" },
    { namespace: "/stock/chairs", data: "3\nleft" }
  ]
}

describe("POST /publish", () => {
  it.scoped("publishes a list over several namespaces, one behind the other, with a place for each", () =>
    Effect.gen(function* () {
      const publish = yield* routes()
      const all = yield* SseTest.connect("/")
      const one = yield* SseTest.connect("/stock")
      const answer = yield* publish(two)
      assert.strictEqual(answer.status, 202)
      assert.strictEqual(answer.json.positions?.length, 2)
      assert.deepStrictEqual(yield* all.events, [
        { event: "paid", data: '{"amount":12.5,"of":[null,"é"]}', id: "o-1" },
        { event: "message", data: "3\nleft", id: "o-1" }
      ])
      assert.strictEqual((yield* one.events).length, 1)
      const lines = '{"namespace":"/orders/2","json":null}\n{"namespace":"/stock/x","data":""}'
      const batch = yield* publish(lines, { "content-type": "application/x-ndjson" })
      assert.deepStrictEqual([batch.status, batch.json.positions?.length], [202, 2])
      assert.deepStrictEqual(
        (yield* all.events).slice(2).map(({ data }) => data),
        ["null", ""]
      )
    }).pipe(Effect.provide(SseTest.layer()))
  )

  it.scoped("refuses what is nested deeper than the stack, and repeats little of what is wrong", () =>
    Effect.gen(function* () {
      const publish = yield* routes()
      const deep = "[".repeat(200_000) + "]".repeat(200_000)
      const lines = { "content-type": "application/x-ndjson" }
      for (const field of ["data", "json"]) {
        const event = `{"namespace":"/orders","${field}":${deep}}`
        const inList = yield* publish(`{"events":[${event}]}`)
        assert.strictEqual(inList.status, 400)
        assert.match(inList.text, /"events.0: .*nested too deeply","index":0/)
        const inLine = yield* publish(event, lines)
        assert.strictEqual(inLine.status, 400)
        assert.match(inLine.text, /line 1: .*nested too deeply/)
      }
      for (const body of [deep, `{"events":${deep}}`]) assert.strictEqual((yield* publish(body)).status, 400)
      const long = yield* publish({ events: [{ namespace: "/orders", data: { long: "x".repeat(100_000) } }] })
      assert.strictEqual(long.status, 400)
      assert.isBelow(long.text.length, 500)
    }).pipe(Effect.provide(SseTest.layer()))
  )

  it.scoped("takes all or none: each must be valid, and allowed; `/` need not be", () =>
    Effect.gen(function* () {
      const publish = yield* routes()
      const hub = yield* SseHub.SseHub
      const good = { namespace: "/orders", data: "x" }
      for (const [bad, said] of [
        [{ namespace: "/orders" }, "events.1: give data or json"],
        [{ namespace: "/orders", data: "x", json: 1 }, "events.1: give data or json"],
        [{ data: "x" }, "events.1: namespace: is missing"],
        [{ namespace: "/orders", data: 1 }, "events.1: data: "],
        [{ namespace: "/orders", data: "x", colour: "red" }, "events.1: colour: "],
        [{ namespace: "/orders/..", data: "x" }, "invalid event: namespace"],
        [{ namespace: "/orders", data: "x", event: "a\nb" }, "invalid event: event"],
        ["x", "events.1: "]
      ] as const) {
        const answer = yield* publish({ events: [good, bad] })
        assert.deepInclude(answer, { status: 400 }, answer.text)
        assert.strictEqual(answer.json.index, 1, answer.text)
        assert.isTrue(answer.json.message?.startsWith(said), answer.text)
      }
      for (const bad of ["", "[]", "{}", '{"events":[]}', '{"events":{}}', '{"events":[],"x":1}', '"x"']) {
        assert.strictEqual((yield* publish(bad)).status, 400, bad)
      }
      const lines = { "content-type": "application/x-ndjson" }
      const line = yield* publish('{"namespace":"/orders","data":"x"}\n{"data":"x"}', lines)
      assert.include(line.text, '"message":"line 2: namespace: is missing","line":2')
      for (const namespace of ["/", "/users/1", "/stock", "/*"]) {
        assert.strictEqual((yield* publish({ events: [good, { namespace, data: "x" }] })).status, 403, namespace)
      }
      assert.strictEqual((yield* publish(two, { authorization: "Bearer ann" })).status, 403)
      assert.strictEqual((yield* publish("not even JSON", { authorization: "Bearer x" })).status, 403)
      assert.strictEqual((yield* publish("not even JSON", { authorization: "" })).status, 401)
      assert.strictEqual((yield* hub.status).published, 0)
      const root = yield* publish({ events: [{ namespace: "/", data: "x" }] }, { authorization: "Bearer operator" })
      assert.strictEqual(root.status, 202)
    }).pipe(Effect.provide(SseTest.layer()))
  )

  describe("with an Idempotency-Key", () => {
    const key = (key: string, more: Record<string, string> = {}) => ({ "idempotency-key": key, ...more })

    it.scoped("is published once in its time, and answered as it was", () =>
      Effect.gen(function* () {
        const publish = yield* routes({ idempotencyWindow: "5 minutes" })
        const hub = yield* SseHub.SseHub
        const published = Effect.map(hub.status, ({ published }) => published)
        const first = yield* publish(two, key('"k-1"'))
        assert.deepInclude(first, { status: 202, replayed: null })
        for (const again of ['"k-1"', "k-1"]) {
          assert.deepInclude(yield* publish(two, key(again)), { status: 202, replayed: "true", text: first.text })
        }
        assert.strictEqual(yield* published, 2)
        const different = yield* publish({ events: two.events.slice(1) }, key("k-1"))
        assert.strictEqual(different.json.error, "IdempotencyKeyReused")
        assert.strictEqual(different.status, 422)
        const text = { "content-type": "text/plain" }
        assert.strictEqual((yield* publish("x", key("k-1", text), "/publish/orders")).status, 422)
        assert.strictEqual((yield* publish("x", key("k-3", text), "/publish/orders?event=a")).status, 202)
        assert.strictEqual((yield* publish("x", key("k-3", text), "/publish/orders?event=b")).status, 422)
        assert.strictEqual(yield* published, 3)
        const other = yield* publish(two, key("k-1", { authorization: "Bearer operator" }))
        assert.deepInclude(other, { status: 202, replayed: null }, "the key of somebody else")
        assert.strictEqual(yield* published, 5)
        yield* TestClock.adjust("5 minutes")
        assert.deepInclude(yield* publish(two, key("k-1")), { status: 202, replayed: null })
        assert.strictEqual(yield* published, 7)
      }).pipe(Effect.provide(SseTest.layer()))
    )

    it.scoped("what was refused may be sent again, corrected", () =>
      Effect.gen(function* () {
        const publish = yield* routes({ maxPublishesPerSecond: 2 })
        assert.strictEqual(
          (yield* publish({ events: [{ namespace: "/orders", data: "x", id: "é" }] }, key("k"))).status,
          400
        )
        yield* TestClock.adjust("1 second")
        assert.strictEqual((yield* publish(two, key("k"))).status, 202)
        assert.strictEqual((yield* publish(two, key("l"))).status, 429)
        assert.strictEqual((yield* publish(two, key("k"))).replayed, "true", "that costs nothing")
        yield* TestClock.adjust("1 second")
        assert.deepInclude(yield* publish(two, key("l")), { status: 202, replayed: null })
        for (const bad of ["", '"', '"a', "a b", "é", "x".repeat(256), 'a"b']) {
          assert.strictEqual((yield* publish(two, key(bad))).status, 400, bad)
        }
      }).pipe(Effect.provide(SseTest.layer()))
    )

    it.scoped("one that comes while the first is worked on gets 409", () =>
      Effect.gen(function* () {
        const publish = yield* routes()
        const { go, reached } = yield* Slow
        const first = yield* Effect.fork(publish(two, key("k")))
        yield* Deferred.await(reached)
        const second = yield* publish(two, key("k"))
        assert.deepStrictEqual([second.status, second.json.error], [409, "Conflict"])
        yield* Deferred.succeed(go, undefined)
        assert.strictEqual((yield* Fiber.join(first)).status, 202)
        assert.strictEqual((yield* publish(two, key("k"))).replayed, "true")
      }).pipe(Effect.provide(slow))
    )

    it.scoped("is remembered when the client went away before its answer", () =>
      Effect.gen(function* () {
        const publish = yield* routes()
        const { go, reached } = yield* Slow
        const first = yield* Effect.fork(publish(two, key("k")))
        yield* Deferred.await(reached)
        yield* Fiber.interruptFork(first)
        yield* turn
        yield* Deferred.succeed(go, undefined)
        yield* turn
        const again = yield* publish(two, key("k"))
        assert.deepInclude(again, { status: 202, replayed: "true" })
        assert.strictEqual((yield* (yield* SseHub.SseHub).status).published, 2)
      }).pipe(Effect.provide(slow))
    )

    it.scoped("can be kept elsewhere, or nowhere", () =>
      Effect.gen(function* () {
        const store = Idempotency.unsafeMakeMemory()
        const [one, other] = [yield* routes({ idempotency: store }), yield* routes({ idempotency: store })]
        assert.strictEqual((yield* one(two, key("k"))).replayed, null)
        assert.strictEqual((yield* other(two, key("k"))).replayed, "true")
        const none = yield* routes({ idempotency: false })
        assert.strictEqual((yield* none(two, key("k"))).status, 400)
        assert.strictEqual((yield* none(two)).status, 202)
        assert.throws(() => SseRoutes.router({ idempotencyWindow: 0 }), /idempotencyWindow/)
      }).pipe(Effect.provide(SseTest.layer()))
    )
  })
})

/** A log that takes its time: it says that it was reached, and waits. */
class Slow extends Context.Tag("test/Slow")<
  Slow,
  { readonly reached: Deferred.Deferred<void>; readonly go: Deferred.Deferred<void> }
>() {}

const slow = SseHub.layerWithLog(SseTest.defaults).pipe(
  Layer.provide(
    Layer.effect(
      EventLog.EventLog,
      Effect.gen(function* () {
        const log = yield* EventLog.makeMemory()
        const { go, reached } = yield* Slow
        return EventLog.EventLog.of({
          ...log,
          append: (entries) =>
            Deferred.succeed(reached, undefined).pipe(
              Effect.zipRight(Deferred.await(go)),
              Effect.zipRight(log.append(entries))
            )
        })
      })
    )
  ),
  Layer.provideMerge(Layer.effect(Slow, Effect.all({ reached: Deferred.make<void>(), go: Deferred.make<void>() })))
)
