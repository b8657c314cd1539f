import { HttpApp } from "@effect/platform"
import { assert, describe, it } from "@effect/vitest"
import { type Connection, EventLog, Namespace, SseConfig, SseHub, SseMetrics, SseRoutes } from "effect-sse"
import { Effect, Exit, FastCheck as fc, Layer, Logger, Scope, Stream, TestClock } from "effect"
import { overflowing } from "../src/internal/budget.js"
import type { Client } from "../src/internal/client.js"
import { eventually } from "./support/server.js"

/** An open response that takes what it is given, or lets it wait. */
const fake = (pending = () => 0) => {
  const seen = { text: "", endedBy: undefined as Connection.EndReason | undefined }
  const connection: Connection.Connection = {
    keepsItselfAlive: true,
    write: (frame) => {
      seen.text += new TextDecoder().decode(frame.bytes)
      return frame.size
    },
    pendingBytes: pending,
    end: (reason) => {
      seen.endedBy = reason
    },
    onClose: () => {}
  }
  return Object.assign(seen, { connection })
}

const join = (namespace: string, address = "", client = fake()) =>
  Effect.flatMap(SseHub.SseHub, (hub) =>
    Effect.as(hub.connect({ namespaces: [Namespace.make(namespace)], connection: client.connection, address }), client)
  )

const count = Effect.flatMap(SseHub.SseHub, (hub) => Effect.map(hub.status, ({ clients }) => clients))

const refusals = (limit: keyof typeof SseMetrics.limitTags) =>
  Effect.sync(() => SseMetrics.refusals.unsafeValue(SseMetrics.limitTags[limit]).count)

describe("SseHub limits", () => {
  it.scoped("takes maxClients, and one more when one has left", () =>
    Effect.gen(function* () {
      const hub = yield* SseHub.SseHub
      const before = yield* refusals("maxClients")
      yield* join("/a")
      yield* join("/b")
      const error = yield* Effect.flip(join("/c"))
      assert.deepInclude(error, { _tag: "LimitReached", limit: "maxClients", max: 2 })
      assert.strictEqual((yield* refusals("maxClients")) - before, 1)
      yield* hub.disconnect((yield* hub.clients)[0]!.id)
      yield* eventually(Effect.map(count, (clients) => clients === 1))
      yield* join("/c")
      assert.strictEqual(yield* count, 2)
    }).pipe(Effect.provide(SseHub.layer({ maxClients: 2 })))
  )

  it.scoped("counts by address, without those whose address is not known", () =>
    Effect.gen(function* () {
      for (let i = 0; i < 5; i++) yield* join("/a")
      yield* join("/a", "192.0.2.1")
      yield* join("/a", "192.0.2.1")
      yield* join("/a", "192.0.2.2")
      assert.deepInclude(yield* Effect.flip(join("/a", "192.0.2.1")), { limit: "maxClientsPerAddress", max: 2 })
    }).pipe(Effect.provide(SseHub.layer({ maxClientsPerAddress: 2 })))
  )

  it.scoped("counts by namespace and within one client", () =>
    Effect.gen(function* () {
      const hub = yield* SseHub.SseHub
      yield* join("/a")
      yield* join("/a/b")
      assert.deepInclude(yield* Effect.flip(join("/a")), { limit: "maxClientsPerNamespace", max: 1 })
      const many = hub.connect({
        namespaces: [Namespace.make("/x"), Namespace.make("/y"), Namespace.make("/z")],
        connection: fake().connection
      })
      assert.deepInclude(yield* Effect.flip(many), { limit: "maxNamespacesPerClient", max: 2 })
    }).pipe(Effect.provide(SseHub.layer({ maxClientsPerNamespace: 1, maxNamespacesPerClient: 2 })))
  )

  it.scoped("evict-oldest: the oldest of what is full makes room, and is told when to come back", () =>
    Effect.gen(function* () {
      const hub = yield* SseHub.SseHub
      const other = yield* join("/a", "192.0.2.1")
      const oldest = yield* join("/a", "192.0.2.2")
      const second = yield* join("/a", "192.0.2.2")
      const third = yield* join("/a", "192.0.2.2")
      assert.deepStrictEqual(
        [other, oldest, second, third].map(({ endedBy }) => endedBy),
        [undefined, "evicted", undefined, undefined]
      )
      assert.match(oldest.text, /^:ok\n\nretry:\d{4}\n\n$/)
      yield* eventually(Effect.map(count, (clients) => clients === 3))
      assert.strictEqual((yield* hub.status).ended.evicted, 1)
    }).pipe(Effect.provide(SseHub.layer({ maxClientsPerAddress: 2, whenFull: "evict-oldest" })))
  )

  it.scoped("maxLifetime: each is ended between 80 % and 100 % of it, spread, and cleanly", () =>
    Effect.gen(function* () {
      const hub = yield* SseHub.SseHub
      const clients = yield* Effect.forEach(Array.from({ length: 200 }), () => join("/a"))
      yield* TestClock.adjust("79 seconds")
      assert.strictEqual(yield* count, 200)
      const left: Array<number> = []
      for (let second = 80; second <= 101; second++) {
        yield* TestClock.adjust("1 second")
        left.push(clients.filter(({ endedBy }) => endedBy === undefined).length)
      }
      assert.strictEqual(left.at(-1), 0)
      for (let i = 1; i < 20; i++) assert.isAtMost(left[i - 1]! - left[i]!, 20, "a tenth at once")
      assert.isTrue(clients.every(({ endedBy }) => endedBy === "lifetime"))
      yield* eventually(Effect.map(count, (clients) => clients === 0))
      assert.strictEqual((yield* hub.status).ended.lifetime, 200)
    }).pipe(Effect.provide(SseHub.layer({ maxLifetime: "100 seconds" })))
  )

  it.scoped("maxTotalPendingBytes: ends those for which most waits, and no others", () =>
    Effect.gen(function* () {
      const hub = yield* SseHub.SseHub
      const waiting = [900_000, 10, 600_000, 0]
      const clients = yield* Effect.forEach(waiting, (pending, i) =>
        join(
          `/${i}`,
          "",
          fake(() => pending)
        )
      )
      yield* hub.publishAll(waiting.map((_, i) => ({ namespace: `/${i}`, data: "x" })))
      yield* eventually(Effect.map(count, (clients) => clients === 3))
      assert.deepStrictEqual(
        clients.map(({ endedBy }) => endedBy),
        ["hub-overflow", undefined, undefined, undefined]
      )
    }).pipe(Effect.provide(SseHub.layer({ maxTotalPendingBytes: 1_000_000 })))
  )

  const waiting = (namespace: string, pendingBytes: number) =>
    ({ namespaces: [Namespace.make(namespace)], pendingBytes }) as unknown as Client

  it("counts memory that clients of one namespace share once", () => {
    const crowd = Array.from({ length: 1000 }, (_, i) => waiting("/a", 500_000 - i))
    assert.deepStrictEqual(overflowing(crowd, 600_000), [])
    // Two sets: the slowest of the one that holds most go, down to where both fit.
    const [one, two, three] = [waiting("/b", 400_000), waiting("/b", 300_000), waiting("/b", 50_000)]
    assert.deepStrictEqual(overflowing([...crowd.slice(0, 1), three, one, two], 560_000), [crowd[0]!])
    assert.deepStrictEqual(overflowing([waiting("/a", 100_000), three, one, two], 160_000), [one, two])
  })

  it.prop(
    "ends the slowest, as few as will do",
    [
      fc.array(fc.record({ set: fc.constantFrom("/a", "/b", "/c"), pending: fc.nat(100) }), { maxLength: 20 }),
      fc.nat(250)
    ],
    ([all, max]) => {
      const clients = all.map(({ pending, set }) => waiting(set, pending))
      const held = (some: ReadonlyArray<Client>) =>
        ["/a", "/b", "/c"].reduce((sum, set) => {
          const pending = some.filter(({ namespaces }) => namespaces[0] === set).map((client) => client.pendingBytes)
          return sum + Math.max(0, ...pending)
        }, 0)
      const chosen = overflowing(clients, max)
      const rest = (ended: ReadonlyArray<Client>) => clients.filter((client) => !ended.includes(client))
      assert.isAtMost(held(rest(chosen)), max)
      if (chosen.length > 0) assert.isAbove(held(rest(chosen.slice(0, -1))), max)
      const fastest = Math.min(...chosen.map((client) => client.pendingBytes))
      for (const client of rest(chosen)) assert.isAtMost(client.pendingBytes, fastest)
    }
  )

  for (const [whenFull, status] of [
    ["retry", 200],
    ["refuse", 503]
  ] as const) {
    it.scoped(`over HTTP, ${whenFull}: answers ${status} and tells when to come back`, () =>
      Effect.gen(function* () {
        const runtime = yield* Effect.runtime<SseHub.SseHub>()
        const handler = HttpApp.toWebHandlerRuntime(runtime)(SseRoutes.router())
        const get = Effect.promise(() => handler(new Request("http://localhost/subscribe/a")))
        yield* join("/a")
        const times = new Set<string>()
        for (let i = 0; i < 10; i++) {
          const response = yield* get
          const body = yield* Effect.promise(() => response.text())
          assert.strictEqual(response.status, status)
          if (whenFull === "retry") times.add(/^retry:(\d+)\n\n$/.exec(body)![1]!)
          else {
            assert.deepInclude(JSON.parse(body), { error: "LimitReached", limit: "maxClients" })
            times.add(response.headers.get("retry-after")!)
          }
        }
        assert.isAbove(times.size, 1, "spread")
        assert.strictEqual(yield* count, 1)
      }).pipe(Effect.provide(SseHub.layer({ maxClients: 1, whenFull })))
    )
  }

  for (const [maxReturnsPerSecond, width] of [
    [10_000, 300],
    [2000, 500]
  ] as const) {
    it.scopedLive(
      `ends many in steps over the drain window; they come back evenly, at most ${maxReturnsPerSecond} a second`,
      () =>
        Effect.gen(function* () {
          const scope = yield* Scope.make()
          const hub = yield* SseHub.make({
            drainWindow: "200 millis",
            shutdownRetry: ["300 millis", "600 millis"],
            maxReturnsPerSecond
          }).pipe(Effect.provide(EventLog.layerMemory()), Scope.extend(scope))
          const ends: Array<{ readonly at: number; readonly back: number }> = []
          for (let i = 0; i < 1000; i++) {
            const client = fake()
            const { end } = client.connection
            yield* hub.connect({
              namespaces: [Namespace.root],
              connection: {
                ...client.connection,
                end: (reason) => {
                  const at = performance.now()
                  ends.push({ at, back: at + Number(/retry:(\d+)/.exec(client.text)![1]) })
                  end(reason)
                }
              }
            })
          }
          yield* Scope.close(scope, Exit.void)
          assert.strictEqual(ends.length, 1000)
          const first = ends[0]!.at
          assert.isAtLeast(ends.at(-1)!.at - first, 100)
          const count = (bin: (end: (typeof ends)[number]) => number) => {
            const bins = new Map<number, number>()
            for (const end of ends) bins.set(bin(end), (bins.get(bin(end)) ?? 0) + 1)
            return Array.from(bins.values())
          }
          // No step has more than its share.
          assert.isAtMost(Math.max(...count(({ at }) => Math.round(at / 5))), 300)
          // Each 10 ms of the time behind the drain have their own, and few are outside.
          const back = count((end) => Math.floor((end.back - first) / 10))
          assert.isAtMost(Math.max(...back), (10_000 / width) * 1.5)
          assert.isAtMost(ends.filter((end) => end.back - first < 470 || end.back - first > 530 + width).length, 10)
        })
    )
  }

  it.scoped("a hook of the app that fails ends its request only, and is logged once", () => {
    const logged: Array<unknown> = []
    return Effect.gen(function* () {
      const hub = yield* SseHub.SseHub
      const runtime = yield* Effect.runtime<SseHub.SseHub>()
      const handler = HttpApp.toWebHandlerRuntime(runtime)(
        SseRoutes.router({
          subscribe: ({ headers }) =>
            headers["x-bad"] === undefined ? Effect.succeed({ id: "a" }) : Effect.die("secret")
        })
      )
      const get = (headers: Record<string, string>) =>
        Effect.promise(() => handler(new Request("http://localhost/subscribe/a", { headers })))
      const good = yield* get({})
      const bad = yield* get({ "x-bad": "1" })
      assert.strictEqual(bad.status, 500)
      const body = yield* Effect.promise(() => bad.text())
      assert.notInclude(body, "secret")
      assert.strictEqual((JSON.parse(body) as { error: string }).error, "InternalError")
      assert.strictEqual(logged.length, 1)
      yield* hub.publish({ namespace: "/a", data: "x" })
      const text = yield* Stream.fromReadableStream({ evaluate: () => good.body!, onError: String }).pipe(
        Stream.decodeText(),
        Stream.scan("", (all, part) => all + part),
        Stream.takeUntil((all) => all.includes("data:x")),
        Stream.runLast
      )
      assert.strictEqual(text._tag, "Some")
    }).pipe(
      Effect.provide(
        Layer.merge(
          SseHub.layer(),
          Logger.replace(
            Logger.defaultLogger,
            Logger.make(({ message }) => void logged.push(message))
          )
        )
      )
    )
  })

  it.scoped("publishes over HTTP are limited by the second", () =>
    Effect.gen(function* () {
      const runtime = yield* Effect.runtime<SseHub.SseHub>()
      const handler = HttpApp.toWebHandlerRuntime(runtime)(
        SseRoutes.router({ publishToken: "secret", maxPublishesPerSecond: 10 })
      )
      const post = (body: string, type = "text/plain") =>
        Effect.promise(() =>
          handler(
            new Request("http://localhost/publish/a", {
              method: "POST",
              body,
              headers: { authorization: "Bearer secret", "content-type": type }
            })
          )
        )
      for (let i = 0; i < 10; i++) assert.strictEqual((yield* post("x")).status, 202)
      const refused = yield* post("x")
      assert.strictEqual(refused.status, 429)
      assert.strictEqual(refused.headers.get("retry-after"), "1")
      yield* TestClock.adjust("500 millis")
      const batch = Array.from({ length: 5 }, () => '{"data":"x"}').join("\n")
      assert.strictEqual((yield* post(batch, "application/x-ndjson")).status, 202)
      assert.strictEqual((yield* post("x")).status, 429)
      assert.strictEqual((yield* Effect.flatMap(SseHub.SseHub, (hub) => hub.status)).published, 15)
    }).pipe(Effect.provide(SseHub.layer()))
  )

  it.effect("what makes no sense is refused when the hub is made", () =>
    Effect.sync(() => {
      for (const options of [{ maxClients: 0 }, { maxLifetime: "1 milli" }, { maxTotalPendingBytes: -1 }] as const) {
        assert.throws(() => SseConfig.hubSettings(options), /must be at least/)
      }
    })
  )
})
