import { assert, describe, it } from "@effect/vitest"
import { type HubStatus, Namespace, NamespacePattern, SseHub, SseTest } from "effect-sse"
import { Chunk, Effect, FastCheck as fc, Fiber, Stream } from "effect"

const path = (...segments: ReadonlyArray<string>) =>
  fc.array(fc.constantFrom(...segments), { maxLength: 3 }).map((segments) => "/" + segments.join("/"))
const publishedTo = path("a", "b", "c", "%2A")
const listenedTo = path("a", "b", "c", "*", "*", "%2A")

/** What a pattern matches, without a word of the code that is tested. */
const reference = (pattern: string, published: string): boolean => {
  const [wanted, given] = [pattern, published].map((text) => text.split("/").filter((segment) => segment !== ""))
  return wanted!.every((segment, i) => (segment === "*" ? given![i] !== undefined : segment === given![i]))
}

const cases = fc.record({
  subscriptions: fc.array(fc.array(listenedTo, { minLength: 1, maxLength: 5 }), { minLength: 1, maxLength: 5 }),
  batches: fc.array(fc.array(publishedTo, { minLength: 1, maxLength: 5 }), { minLength: 1, maxLength: 8 }),
  /** How many batches have gone by before those come who resume. */
  late: fc.nat(8)
})

const named = (paths: ReadonlyArray<string>): readonly [string, ...ReadonlyArray<string>] => [
  paths[0]!,
  ...paths.slice(1)
]

describe("SseHub: many namespaces, and patterns", () => {
  it.effect.prop(
    "each gets what matches one of its patterns, once and in order: live, in the process, from history, and as values",
    [cases],
    ([{ batches, late, subscriptions }]) =>
      Effect.gen(function* () {
        const hub = yield* SseHub.SseHub
        const all = batches.flat()
        const expected = subscriptions.map((patterns) =>
          all.flatMap((published, n) => (patterns.some((pattern) => reference(pattern, published)) ? [String(n)] : []))
        )
        const live = yield* Effect.forEach(subscriptions, (patterns) => SseTest.connect(named(patterns)))
        const inProcess = yield* Effect.forEach(subscriptions, (patterns) =>
          Effect.fork(Stream.runCollect(hub.subscribe(named(patterns))))
        )
        yield* SseTest.settled
        let n = 0
        const resumed: Array<SseTest.RecordedClient> = []
        for (const [i, batch] of [...batches, []].entries()) {
          if (i === Math.min(late, batches.length)) {
            for (const patterns of subscriptions) {
              resumed.push(yield* SseTest.connect(named(patterns), { start: { _tag: "Earliest" } }))
            }
          }
          yield* hub.publishAll(batch.map((namespace) => ({ namespace, data: String(n++) })))
        }
        for (const [i, wanted] of expected.entries()) {
          const name = subscriptions[i]!.join(" ")
          const dataOf = (client: SseTest.RecordedClient) =>
            Effect.map(client.events, (events) => events.map(({ data }) => data))
          assert.deepStrictEqual(yield* dataOf(live[i]!), wanted, name)
          assert.deepStrictEqual(yield* dataOf(resumed[i]!), wanted, `${name}, from history`)
          const last = yield* SseTest.connect(named(subscriptions[i]!), { start: { _tag: "Last", events: 3 } })
          assert.deepStrictEqual(yield* dataOf(last), wanted.slice(-3), `${name}, the last`)
        }
        yield* hub.shutdown
        for (const [i, fiber] of inProcess.entries()) {
          const events = Chunk.toReadonlyArray(yield* Fiber.join(fiber))
          assert.deepStrictEqual(
            events.map(({ data }) => data),
            expected[i]
          )
        }
      }).pipe(Effect.scoped, Effect.provide(SseTest.layer({ history: true }))),
    { fastCheck: { numRuns: 60 } }
  )

  it.scoped("a wildcard subscriber gets the latest value of each namespace that keeps its", () =>
    Effect.gen(function* () {
      const hub = yield* SseHub.SseHub
      const publish = (namespace: string, data: string) => hub.publish({ namespace, data })
      yield* publish("/rooms/1/topic", "old")
      yield* publish("/rooms/1/topic", "cats")
      yield* publish("/rooms/2/topic", "dogs")
      yield* publish("/rooms/2/count", "7")
      yield* SseTest.settled
      const client = yield* SseTest.connect(["/rooms/*/topic", "/*/2/topic"])
      assert.deepStrictEqual(
        (yield* client.events).map(({ data }) => data),
        ["cats", "dogs"]
      )
    }).pipe(Effect.provide(SseTest.layer({ history: { rules: [{ namespace: "/rooms/*", keep: "latest" }] } })))
  )

  it.scoped("what is published to a star is not a pattern", () =>
    Effect.gen(function* () {
      const hub = yield* SseHub.SseHub
      const all = yield* SseTest.connect("/rooms/*")
      const star = yield* SseTest.connect("/rooms/%2A")
      const seven = yield* SseTest.connect("/rooms/7")
      yield* hub.publish({ namespace: "/rooms/*", data: "to the room with the name of a star" })
      yield* hub.publish({ namespace: "/rooms/7", data: "to seven" })
      const counts = yield* Effect.forEach([all, star, seven], (client) =>
        Effect.map(client.events, (events) => events.length)
      )
      assert.deepStrictEqual(counts, [2, 1, 1])
    }).pipe(Effect.provide(SseTest.layer()))
  )

  it.scoped("shows patterns as they are, drops those that others cover, and shares what is the same", () =>
    Effect.gen(function* () {
      const hub = yield* SseHub.SseHub
      yield* SseTest.connect(["/rooms/7/alerts", "/rooms/*/alerts/", "/time", "/time/noon"])
      yield* SseTest.connect(["/time", "/rooms/*/alerts"])
      yield* SseTest.connect("/rooms/%2A")
      assert.deepStrictEqual(
        (yield* hub.clients).map(({ namespaces }) => namespaces.join(" ")),
        ["/rooms/*/alerts /time", "/rooms/*/alerts /time", "/rooms/%2A"]
      )
      assert.strictEqual((yield* hub.status).subscriptions, 2)
      const status = (namespace: string, subscribers: number): HubStatus.NamespaceStatus => ({
        namespace: NamespacePattern.make(namespace),
        subscribers,
        events: 0,
        lastEventAt: undefined
      })
      assert.deepStrictEqual(yield* hub.namespaces, [
        status("/rooms/*/alerts", 2),
        status("/time", 2),
        status("/rooms/%2A", 1)
      ])
      const present = (pattern: string) =>
        hub.presence(pattern).pipe(
          Stream.takeUntil(({ client }) => client.namespaces.includes(Namespace.make("/rooms/*"))),
          Stream.runCount
        )
      assert.strictEqual(yield* present("/rooms"), 3)
      assert.strictEqual(yield* present("/rooms/*"), 3)
      assert.strictEqual(yield* present("/rooms/%2A"), 1, "who listens to all rooms is in none of them")
    }).pipe(Effect.provide(SseTest.layer()))
  )

  it.effect("refuses what is no pattern", () =>
    Effect.gen(function* () {
      const hub = yield* SseHub.SseHub
      const error = yield* Effect.flip(Stream.runDrain(hub.subscribe(["/a", "/*//b"])))
      assert.deepInclude(error, { _tag: "InvalidNamespace", rule: "empty-segment", input: "/*//b" })
    }).pipe(Effect.provide(SseTest.layer()))
  )
})
