/** What the standalone server answers without the platform's help must be what the router answers. */
import { HttpServer } from "@effect/platform"
import { NodeHttpServer } from "@effect/platform-node"
import { assert, describe, it } from "@effect/vitest"
import { EventLog, type SseConfig, SseHub, SseRoutes } from "effect-sse"
import { Deferred, Effect, Layer, Logger } from "effect"
import { createServer, type RequestListener } from "node:http"
import * as DirectSubscribe from "../../src/node/directSubscribe.js"
import { connect, type RawOptions } from "../support/rawClient.js"
import { eventually, port, serverLayer } from "../support/server.js"

type Options = SseRoutes.RoutesOptions

const quiet = Logger.remove(Logger.defaultLogger)

const mountedLayer = (options: Options, hub: SseConfig.HubOptions) =>
  HttpServer.serve(SseRoutes.router({ publishToken: "secret", ...options })).pipe(
    Layer.provideMerge(NodeHttpServer.layer(() => createServer(), { port: 0, host: "127.0.0.1" })),
    Layer.orDie,
    Layer.provideMerge(SseHub.layer(hub)),
    Layer.provide(quiet)
  )

/** The head and the first text of the body, without what differs from run to run. */
const answer = (path: string, options: RawOptions) =>
  Effect.scoped(
    Effect.gen(function* () {
      const client = yield* connect(yield* port, path, options)
      const head = yield* client.head
      const isOpen = head.startsWith("HTTP/1.1 200") && options.method !== "HEAD" && options.method !== "OPTIONS"
      const body = isOpen ? yield* client.until((body) => body.includes("\n\n")) : ""
      return `${head}\n\n${body}`.replace(/^(Date|id|retry|retry-after):.*$/gim, "$1:")
    })
  )

const requests: ReadonlyArray<readonly [path: string, options?: RawOptions]> = [
  ["/subscribe"],
  ["/subscribe/"],
  ["/subscribe/pets/dogs"],
  ["/subscribe/pets%20and%2Fmore"],
  ["/subscribe/*/dogs"],
  ["/subscribe?ns=/pets&ns=/time"],
  ["/subscribe/pets?ns=/a/../b"],
  ["/subscribe/a//b"],
  ["/subscribe/%ff"],
  [`/subscribe/${"a".repeat(2000)}`],
  [`/subscribe?${"ns=/a&".repeat(100)}`],
  ["/subscribe/pets?since=never"],
  ["/subscribe/pets?since=10"],
  ["/subscribe/pets", { headers: { "Last-Event-ID": "unknown" } }],
  ["/subscribe/pets?ticket=abc&since=earliest"],
  ["/subscribe/pets", { headers: { Origin: "https://a.example" } }],
  ["/subscribe/pets", { headers: { Origin: "https://b.example", "Sec-Fetch-Site": "cross-site" } }],
  ["/subscribe/pets", { method: "HEAD" }],
  ["/subscribe/pets", { method: "OPTIONS", headers: { Origin: "https://a.example" } }],
  ["/subscribe/pets", { method: "DELETE" }],
  ["/subscribe/pets", { httpVersion: "1.0" }],
  ["/subscribe/pets", { headers: { Connection: "close" } }],
  ["/subscribe/cats"],
  // Where the routes are mounted: 404 if that is what the app says, no absolute URLs, and WebSockets are in the way.
  ["/subscriber"],
  ["http://localhost/subscribe/pets/dogs"],
  ["/subscribe/pets/dogs", { headers: { Upgrade: "h2c", Connection: "Upgrade" } }]
]

const onlyHere = 3

describe("directSubscribe", () => {
  for (const [name, options, hub] of [
    ["by default", {}, {}],
    ["with a history", {}, { history: true }],
    ["for listed origins", { cors: { origins: ["https://a.example"] } }, {}],
    ["behind a proxy", { trustedProxies: 1 }, {}],
    ["with few clients, who are told to come back", {}, { maxClients: 1 }],
    ["with few clients, who are refused", {}, { maxClients: 1, whenFull: "refuse" }],
    ["for nobody", { subscribe: "off" }, {}]
  ] as ReadonlyArray<readonly [string, Options, SseConfig.HubOptions]>) {
    it.scopedLive(`answers as the router does: ${name}`, () =>
      Effect.gen(function* () {
        const all = Effect.gen(function* () {
          if (hub.maxClients !== undefined) yield* (yield* connect(yield* port, "/subscribe/first")).head
          return yield* Effect.forEach(requests, ([path, options = {}]) => answer(path, options))
        })
        const direct = yield* Effect.provide(all, serverLayer(options, hub))
        const routed = yield* Effect.provide(all, mountedLayer(options, hub))
        for (const [i, [path, options]] of requests.slice(0, -onlyHere).entries()) {
          assert.strictEqual(direct[i], routed[i], `${options?.method ?? "GET"} ${path}`)
        }
        const [notFound, absolute, upgrade] = direct.slice(-onlyHere)
        assert.match(notFound!, /^HTTP\/1.1 404/)
        assert.strictEqual(absolute, direct[2]!)
        assert.strictEqual(upgrade, direct[2]!)
      })
    )
  }

  /** A server that answers 299 to what is left to the router. */
  const alone = (options: Options) =>
    Effect.gen(function* () {
      const take = yield* DirectSubscribe.make(options)
      const onRequest: RequestListener = (request, response) => {
        if (!take(request, response)) response.writeHead(299).end()
      }
      const server = yield* Effect.acquireRelease(
        Effect.async<ReturnType<typeof createServer>>((resume) => {
          const server = createServer(onRequest).listen(0, "127.0.0.1", () => resume(Effect.succeed(server)))
        }),
        (server) =>
          Effect.sync(() => {
            server.close()
            server.closeAllConnections()
          })
      )
      const address = server.address()
      return typeof address === "object" ? address!.port : 0
    })

  const statusOf = (port: number, path: string, options?: RawOptions) =>
    Effect.scoped(
      Effect.flatMap(connect(port, path, options), ({ head }) => Effect.map(head, (text) => text.slice(9, 12)))
    )

  it.scopedLive("gives those who come within a second the head that Node wrote, and the next ones another", () =>
    Effect.gen(function* () {
      const port = yield* alone({})
      const open = Effect.scoped(
        Effect.gen(function* () {
          const client = yield* connect(port, "/subscribe/pets")
          const head = yield* client.head
          assert.strictEqual(yield* client.until((body) => body.includes("\n\n")), ":ok\n\n")
          return head
        })
      )
      const heads = new Set<string>()
      const began = performance.now()
      let count = 0
      for (; heads.size < 3 && performance.now() - began < 5000; count++) heads.add(yield* open)
      assert.strictEqual(heads.size, 3, "the time goes on")
      assert.isAbove(count, 6)
      const undated = Array.from(heads, (head) => head.replace(/^date: .*$/im, ""))
      assert.strictEqual(new Set(undated).size, 1)
      const dates = Array.from(heads, (head) => Date.parse(/^date: (.*)$/im.exec(head)![1]!))
      for (const date of dates) assert.isAtMost(Math.abs(date - Date.now()), 10_000)
    }).pipe(Effect.provide(SseHub.layer()))
  )

  it.scopedLive("takes what is a plain stream, and leaves the rest", () =>
    Effect.gen(function* () {
      const port = yield* alone({})
      for (const path of ["/subscribe", "/subscribe/", "/subscribe/a/b?ns=/c", "/subscribe?ns=/*"]) {
        assert.strictEqual(yield* statusOf(port, path), "200", path)
      }
      for (const path of ["/", "/subscriber", "/subscribe/a//b", "/publish/subscribe", "/admin/"]) {
        assert.strictEqual(yield* statusOf(port, path), "299", path)
      }
      assert.strictEqual(yield* statusOf(port, "/subscribe", { method: "HEAD" }), "299")
      const hooked: ReadonlyArray<Options> = [
        { subscribe: "loopback" },
        { subscribe: () => Effect.succeed({ id: "a" }) },
        { connection: "portable" },
        { cors: { origins: [] } }
      ]
      for (const options of hooked) {
        const from = { headers: { Origin: "https://a.example", "Sec-Fetch-Site": "cross-site" } }
        assert.strictEqual(yield* statusOf(yield* alone(options), "/subscribe", from), "299", JSON.stringify(options))
      }
    }).pipe(Effect.provide(SseHub.layer()))
  )

  it.scopedLive("a client that leaves while the log is asked is forgotten, and the log is told", () =>
    Effect.gen(function* () {
      const asked = yield* Deferred.make<void>()
      const told = yield* Deferred.make<void>()
      const log = Layer.effect(
        EventLog.EventLog,
        Effect.map(EventLog.makeMemory(true), (log) => ({
          ...log,
          history: {
            ...log.history!,
            locate: () =>
              Deferred.succeed(asked, undefined).pipe(
                Effect.zipRight(Effect.never),
                Effect.onInterrupt(() => Deferred.succeed(told, undefined))
              )
          }
        }))
      )
      yield* Effect.gen(function* () {
        const hub = yield* SseHub.SseHub
        const port = yield* alone({})
        yield* Effect.scoped(
          Effect.zipRight(connect(port, "/subscribe", { headers: { "Last-Event-ID": "x" } }), Deferred.await(asked))
        )
        yield* Deferred.await(told)
        assert.deepStrictEqual(yield* hub.clients, [])
        assert.strictEqual(yield* statusOf(port, "/subscribe"), "200", "others are served")
        yield* eventually(Effect.map(hub.clients, (all) => all.length === 0))
      }).pipe(Effect.provide(Layer.provide(SseHub.layerWithLog(), log)))
    })
  )

  for (const [name, connect_] of [
    ["in a fiber", () => Effect.die("broken")],
    [
      "before there is one",
      () => {
        throw new Error("broken")
      }
    ]
  ] as ReadonlyArray<readonly [string, SseHub.SseHub["Type"]["connect"]]>) {
    it.scopedLive(`a defect is a 500 that says so, and goes to the log: ${name}`, () =>
      Effect.gen(function* () {
        const lines: Array<string> = []
        const logger = Logger.replace(
          Logger.defaultLogger,
          Logger.make(({ message }) => void lines.push(String(message)))
        )
        const broken = Layer.effect(
          SseHub.SseHub,
          Effect.map(SseHub.SseHub, (hub) => SseHub.SseHub.of({ ...hub, connect: connect_ }))
        ).pipe(Layer.provide(SseHub.layer()), Layer.merge(logger))
        yield* Effect.gen(function* () {
          const client = yield* connect(yield* alone({}), "/subscribe")
          assert.match(yield* client.head, /^HTTP\/1.1 500/)
          assert.include(yield* client.until((body) => body.endsWith("}")), '"error":"InternalError"')
          assert.deepStrictEqual(lines, ["effect-sse: a request failed"])
        }).pipe(Effect.provide(broken))
      })
    )
  }
})
