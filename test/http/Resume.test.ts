import { FetchHttpClient, HttpApp, HttpServer } from "@effect/platform"
import { assert, describe, it } from "@effect/vitest"
import { EventLog, Namespace, type SseConfig, SseChannel, SseClient, SseHub, SseRoutes } from "effect-sse"
import * as SseServer from "effect-sse/node/SseServer"
import { Context, Effect, Exit, Fiber, Layer, Logger, Schema, Scope, Stream } from "effect"
import { EventSource } from "eventsource"
import { EventSource as UndiciEventSource } from "undici"
import * as Browser from "../support/chromium.js"
import { node, root } from "../support/command.js"
import { connect, request } from "../support/rawClient.js"
import { eventually, port, serverLayer } from "../support/server.js"
import { failingLog } from "../support/failingLog.js"

const kept: SseConfig.HubOptions = { history: true }

const subscribe = (path: string, headers?: Record<string, string>) =>
  Effect.flatMap(port, (port) => connect(port, `/subscribe${path}`, headers === undefined ? {} : { headers }))

const publish = (namespace: string, ...data: ReadonlyArray<string>) =>
  Effect.flatMap(SseHub.SseHub, (hub) => hub.publishAll(data.map((data) => ({ namespace, data }))))

/** What events a body holds: their data. */
const dataOf = (body: string) => Array.from(body.matchAll(/^data:(.*)$/gm), ([, data]) => data)

/** Publishes a last event, waits for it, and gives the data that came in front of it. */
const restOf = (
  client: { readonly until: (f: (body: string) => boolean) => Effect.Effect<string, unknown> },
  namespace: string
) =>
  Effect.gen(function* () {
    yield* client.until((body) => body !== "")
    yield* publish(namespace, "last")
    return dataOf(yield* client.until((body) => body.includes("data:last\n\n"))).slice(0, -1)
  })

describe("resume over HTTP", () => {
  it.scopedLive("tells the position at once, puts ids on events, and goes on behind the last one", () =>
    Effect.gen(function* () {
      const first = yield* subscribe("/pets")
      const opened = yield* first.until((body) => body.includes("\n\n", 5))
      const start = /^:ok\n\nid:([0-9A-Za-z]{4}-0)\n\n$/.exec(opened)?.[1]
      assert.isDefined(start, opened)
      const [one, two, three] = yield* publish("/pets/dogs", "1", "2", "3")
      assert.strictEqual(
        yield* first.until((body) => body.includes("data:3\n\n")),
        `:ok\n\nid:${start}\n\nid:${one}\ndata:1\n\nid:${two}\ndata:2\n\nid:${three}\ndata:3\n\n`
      )
      first.socket.destroy()
      yield* publish("/other", "no")
      const [four] = yield* publish("/pets", "4")

      const again = yield* subscribe("/pets", { "Last-Event-ID": two! })
      assert.notMatch(yield* again.head, /^sse-reset:/m)
      assert.deepStrictEqual(yield* restOf(again, "/pets"), ["3", "4"])
      assert.isTrue(again.body().startsWith(`:ok\n\nid:${two}\n\nid:${three}\ndata:3\n\nid:${four}\ndata:4\n\n`))
      const never = yield* subscribe("/pets", { "Last-Event-ID": start! })
      yield* never.until((body) => body.includes("data:last\n\n"))
      assert.deepStrictEqual(dataOf(never.body()), ["1", "2", "3", "4", "last"], "one that saw nothing")
    }).pipe(Effect.provide(serverLayer({}, kept)))
  )

  it.scopedLive("takes the id from the query under the names that polyfills use, and the header first", () =>
    Effect.gen(function* () {
      const [one, two] = yield* publish("/a", "1", "2", "3")
      for (const name of ["last_event_id", "lastEventId", "Last-Event-ID", "evs_last_event_id"]) {
        const client = yield* subscribe(`/a?x=y&${name}=${one}`)
        yield* client.until((body) => body.includes("data:3"))
        assert.deepStrictEqual(dataOf(client.body()).slice(0, 2), ["2", "3"], name)
      }
      const both = yield* subscribe(`/a?last_event_id=${one}`, { "Last-Event-ID": two! })
      assert.deepStrictEqual(yield* restOf(both, "/a"), ["3"])
      const empty = yield* subscribe(`/a?last_event_id=`, { "Last-Event-ID": "" })
      assert.deepStrictEqual(yield* restOf(empty, "/a"), [])
    }).pipe(Effect.provide(serverLayer({}, kept)))
  )

  it.scopedLive("begins at the earliest, so many events or so long back, if it has no id", () =>
    Effect.gen(function* () {
      const [one] = yield* publish("/a", "1", "2", "3")
      for (const [since, expected] of [
        ["earliest", ["1", "2", "3"]],
        ["2", ["2", "3"]],
        ["0", []],
        ["1h", ["1", "2", "3"]],
        ["5%20minutes", ["1", "2", "3"]],
        [`earliest&last_event_id=${one}`, ["2", "3"]]
      ] as const) {
        const client = yield* subscribe(`/a?since=${since}`)
        if (expected.length > 0) yield* client.until((body) => body.includes("data:3\n\n"))
        assert.deepStrictEqual(dataOf(client.body()), [...expected], since)
      }
      const listening = yield* port
      for (const since of ["yesterday", "-1", "1x", "", "Infinity"]) {
        const { body, status } = yield* request(listening, `/subscribe/a?since=${since}`)
        assert.strictEqual(status, 400, since)
        assert.match(body, /"message":"since takes/)
      }
    }).pipe(Effect.provide(serverLayer({}, kept)))
  )

  it.scopedLive("says in-band and in the head that something is missing, and goes on from now", () =>
    Effect.gen(function* () {
      const positions = yield* publish("/a", ...Array.from({ length: 12 }, (_, i) => String(i)))
      const epoch = positions[0]!.split("-")[0]!
      for (const [id, reason] of [
        [positions[0]!, "expired"],
        [`${epoch}-zz`, "unknown"],
        ['"<\\x\u00e9', "unknown"],
        ["x".repeat(5000), "unknown"],
        [`${epoch === "0000" ? "0001" : "0000"}-1`, "restarted"]
      ] as const) {
        const client = yield* subscribe("/a", { "Last-Event-ID": id })
        assert.match(yield* client.head, new RegExp(`^sse-reset: ${reason}\r?$`, "m"))
        const body = yield* client.until((body) => body.includes("id:"))
        const [, json, cursor] = /^:ok\n\nevent:sse-reset\ndata:(.*)\n\nid:(.*)\n\n$/.exec(body) ?? assert.fail(body)
        assert.strictEqual(cursor, positions.at(-1))
        const { oldest, reason: told, requested } = JSON.parse(json!) as Record<string, string>
        assert.deepStrictEqual([told, oldest], [reason, positions[2]!])
        assert.isTrue(requested!.length <= 4097 && Buffer.from(id, "utf8").toString("latin1").startsWith(requested!))
      }
      const browser = yield* Effect.flatMap(port, (port) =>
        Effect.promise(() => fetch(`http://127.0.0.1:${port}/subscribe/a`))
      )
      assert.include(browser.headers.get("access-control-expose-headers"), "sse-reset")
      yield* Effect.promise(() => browser.body!.cancel())
    }).pipe(Effect.provide(serverLayer({}, { history: { maxEvents: 10 } })))
  )

  it.scopedLive("goes on from the earliest if it is told to", () =>
    Effect.gen(function* () {
      const positions = yield* publish("/a", ...Array.from({ length: 12 }, (_, i) => String(i)))
      const client = yield* subscribe("/a", { "Last-Event-ID": positions[0]! })
      yield* client.until((body) => body.includes("data:11\n\n"))
      assert.deepStrictEqual((yield* restOf(client, "/a")).slice(1), ["9", "10", "11"])
    }).pipe(Effect.provide(serverLayer({}, { history: { maxEvents: 3 }, afterReset: "earliest" })))
  )

  it.scopedLive("gives the latest values at once, without ids, and then the position", () =>
    Effect.gen(function* () {
      yield* publish("/prices/eur", "1.0", "1.1")
      const [usd] = yield* publish("/prices/usd", "0.9")
      const client = yield* subscribe("/prices")
      assert.strictEqual(
        yield* client.until((body) => body.includes("id:")),
        `:ok\n\ndata:1.1\n\ndata:0.9\n\nid:${usd}\n\n`
      )
      const [again] = yield* publish("/prices/eur", "1.2", "1.3")
      assert.match(again!, /-4$/)
      const resumed = yield* subscribe("/prices", { "Last-Event-ID": usd! })
      assert.deepStrictEqual(yield* restOf(resumed, "/prices/yen"), ["1.3"], "compacted")
    }).pipe(Effect.provide(serverLayer({}, { history: { rules: [{ namespace: "/prices", keep: "latest" }] } })))
  )

  it.scopedLive("ignores all of it while nothing is kept", () =>
    Effect.gen(function* () {
      yield* publish("/a", "1")
      const client = yield* subscribe("/a?since=nonsense", { "Last-Event-ID": "x" })
      assert.notMatch(yield* client.head, /^sse-reset:/m)
      assert.deepStrictEqual(yield* restOf(client, "/a"), [])
      assert.notInclude(client.body(), "id:")
    }).pipe(Effect.provide(serverLayer()))
  )

  it.scopedLive("tells in the head how often keepalives come", () =>
    Effect.gen(function* () {
      const client = yield* subscribe("/a")
      assert.match(yield* client.head, /^sse-keepalive: 7000\r?$/m)
    }).pipe(Effect.provide(serverLayer({}, { keepalive: "7 seconds" })))
  )

  it.scopedLive("gives the same bytes on the portable connection", () =>
    Effect.gen(function* () {
      const [one] = yield* publish("/a", "1", "2", ...Array.from({ length: 2000 }, (_, i) => `more ${i}`))
      const client = yield* subscribe("/a", { "Last-Event-ID": one! })
      const rest = yield* restOf(client, "/a")
      assert.strictEqual(rest.length, 2001)
      assert.strictEqual(rest.at(-1), "more 1999")
      const gone = yield* subscribe("/a", { "Last-Event-ID": "x" })
      assert.match(yield* gone.head, /^sse-reset: unknown\r?$/m)
    }).pipe(Effect.provide(serverLayer({ connection: "portable" }, kept)))
  )

  it.effect("gives an EventLogError's client a time to come back, and not an answer it gives up on", () =>
    Effect.gen(function* () {
      const handler = HttpApp.toWebHandlerRuntime(yield* Effect.runtime<SseHub.SseHub>())(SseRoutes.router())
      const response = yield* Effect.promise(() =>
        handler(new Request("http://localhost/subscribe/a", { headers: { "last-event-id": "x" } }))
      )
      assert.strictEqual(response.status, 200)
      assert.match(yield* Effect.promise(() => response.text()), /^retry:\d+\n\n$/)
    }).pipe(Effect.provide(SseHub.layerWithLog().pipe(Layer.provide(failingLog("locate")))))
  )
})

const quiet = Logger.remove(Logger.defaultLogger)

/** A server that can be stopped and started again on its port, on a log that outlives it or on a new one. */
const makeServer = Effect.gen(function* () {
  const log = yield* EventLog.makeMemory(true)
  let listening = 0
  const start = (history: "kept" | "lost") =>
    Effect.gen(function* () {
      const scope = yield* Effect.acquireRelease(Scope.make(), (scope) => Scope.close(scope, Exit.void))
      const ownLog = history === "kept" ? log : yield* EventLog.makeMemory(true)
      const context = yield* SseServer.layer({ port: listening }).pipe(
        Layer.provideMerge(SseHub.layerWithLog({ shutdownRetry: ["100 millis", "200 millis"] })),
        Layer.provide(Layer.succeed(EventLog.EventLog, ownLog)),
        Layer.provide(quiet),
        Layer.buildWithScope(scope)
      )
      listening = yield* Effect.provideService(port, HttpServer.HttpServer, Context.get(context, HttpServer.HttpServer))
      return { hub: Context.get(context, SseHub.SseHub), stop: Scope.close(scope, Exit.void), port: listening }
    })
  return { start, publish: (...data: ReadonlyArray<string>) => log.append(data.map(entryOf)) }
})

const entryOf = (data: string): EventLog.NewEntry => ({
  namespace: Namespace.make("/a"),
  event: { namespace: "/a", data },
  text: `data:${data}\n\n`
})

const isThere = (hub: SseHub.SseHub["Type"]) => eventually(Effect.map(hub.clients, (clients) => clients.length === 1))

describe("resume of real clients", () => {
  for (const [name, Source] of [
    ["eventsource", EventSource],
    ["undici", UndiciEventSource]
  ] as const) {
    it.scopedLive(`an EventSource (${name}) goes on over a restart, and learns that history is gone`, () =>
      Effect.gen(function* () {
        const server = yield* makeServer
        const first = yield* server.start("kept")
        const seen: Array<string> = []
        yield* Effect.acquireRelease(
          Effect.sync(() => {
            const source = new Source(`http://127.0.0.1:${first.port}/subscribe/a`)
            const see = (event: Event | MessageEvent) => void seen.push("data" in event ? String(event.data) : "")
            source.addEventListener("message", see)
            source.addEventListener("sse-reset", see)
            return source
          }),
          (source) => Effect.sync(() => source.close())
        )
        yield* isThere(first.hub)
        yield* server.publish("1", "2")
        yield* eventually(Effect.sync(() => seen.length === 2))
        yield* first.stop
        yield* server.publish("3", "4")
        const second = yield* server.start("kept")
        yield* eventually(Effect.sync(() => seen.length === 4))
        yield* server.publish("5")
        yield* eventually(Effect.sync(() => seen.length === 5))
        assert.deepStrictEqual(seen, ["1", "2", "3", "4", "5"])
        yield* second.stop
        const third = yield* server.start("lost")
        yield* isThere(third.hub)
        yield* eventually(Effect.sync(() => seen.length === 6))
        assert.deepInclude(JSON.parse(seen[5]!), { reason: "restarted", oldest: null })
      })
    )
  }

  it.scopedLive("so does an SseClient, with the values of a channel, and it tells what happens", () =>
    Effect.gen(function* () {
      const server = yield* makeServer
      const channel = SseChannel.make({ namespace: "/a", schema: Schema.NumberFromString, encoding: "text" })
      const first = yield* server.start("kept")
      const seen: Array<string> = []
      yield* SseClient.streamAll(`http://127.0.0.1:${first.port}/subscribe/a`).pipe(
        Stream.runForEach((signal) =>
          Effect.gen(function* () {
            if (signal._tag === "Reset") seen.push(`reset: ${signal.reason}`)
            if (signal._tag === "Disconnected") seen.push(signal.reason)
            if (signal._tag === "Event") seen.push(String((yield* channel.decode(signal)) + 0.5))
          })
        ),
        Effect.provide(FetchHttpClient.layer),
        Effect.forkScoped
      )
      yield* isThere(first.hub)
      yield* server.publish("1", "2")
      yield* eventually(Effect.sync(() => seen.length === 2))
      yield* first.stop
      yield* server.publish("3")
      const second = yield* server.start("kept")
      yield* eventually(Effect.sync(() => seen.includes("3.5")))
      yield* second.stop
      yield* server.start("lost")
      yield* eventually(Effect.sync(() => seen.some((what) => what.startsWith("reset"))))
      assert.deepStrictEqual(
        seen.filter((what) => what !== "unreachable"),
        ["1.5", "2.5", "ended", "3.5", "ended", "reset: restarted"]
      )
    })
  )

  it.scopedLive.skipIf(!Browser.canRun)("so does a page in Chromium", () =>
    Effect.gen(function* () {
      const server = yield* makeServer
      const first = yield* server.start("kept")
      const page = yield* Effect.flatMap(Browser.browser, (browser) => Effect.promise(() => browser.newPage()))
      yield* Effect.promise(() => page.goto(`http://127.0.0.1:${first.port}/healthz`))
      yield* Effect.promise(() =>
        // As text: the name would be taken for the import's.
        page.evaluate(`
          globalThis.seen = []
          const source = new EventSource("/subscribe/a")
          source.onmessage = ({ data }) => seen.push(data)
          source.addEventListener("sse-reset", ({ data }) => seen.push(data))
        `)
      )
      const seen = Effect.promise(() =>
        page.evaluate(() => (globalThis as unknown as { readonly seen: ReadonlyArray<string> }).seen)
      )
      const until = (count: number) => eventually(Effect.map(seen, ({ length }) => length === count))
      yield* isThere(first.hub)
      yield* first.stop
      yield* server.publish("1", "2")
      const second = yield* server.start("kept")
      yield* until(2)
      yield* second.stop
      yield* server.publish("3")
      const third = yield* server.start("kept")
      yield* until(3)
      assert.deepStrictEqual(yield* seen, ["1", "2", "3"], "also one that had seen nothing when it was cut off")
      yield* third.stop
      const fourth = yield* server.start("lost")
      yield* isThere(fourth.hub)
      yield* until(4)
      assert.deepInclude(JSON.parse((yield* seen)[3]!), { reason: "restarted" })
    })
  )

  it.scopedLive(
    "200 clients that reconnect every second lose and double nothing of 10,000 events/s",
    () =>
      Effect.gen(function* () {
        const hub = yield* SseHub.SseHub
        const seconds = 30
        let published = 0
        const publisher = yield* Effect.forkScoped(
          Effect.forever(
            Effect.suspend(() => {
              const due = Math.floor(((performance.now() - startedAt) / 1000) * 10_000)
              const events = Array.from({ length: due - published }, (_, i) => ({
                namespace: `/load/${(published + i) % 4}`,
                data: String(published + i)
              }))
              published = due
              return Effect.zipRight(hub.publishAll(events), Effect.sleep("5 millis"))
            })
          )
        )
        const startedAt = performance.now()
        const load = yield* node([`${root}/test/support/reconnecting.mjs`, String(yield* port), "200", String(seconds)])
        yield* load.until(/staying/)
        yield* Fiber.interrupt(publisher)
        load.process.stdin!.write(`${published - 1}\n`)
        const [result] = yield* load.until(/\{.*\}/)
        assert.isAtLeast(published, seconds * 10_000)
        const { fewestConnects, ...rest } = JSON.parse(result) as { readonly fewestConnects: number }
        assert.deepStrictEqual<unknown>(rest, { behind: 0, resets: 0, problems: [] })
        assert.isAtLeast(fewestConnects, seconds - 5)
      }).pipe(Effect.provide(serverLayer({}, { history: { maxEvents: 100_000, maxBytes: 1e8 } }))),
    90_000
  )
})
