import { HttpLayerRouter, HttpRouter, HttpServer, HttpServerResponse } from "@effect/platform"
import { NodeHttpServer } from "@effect/platform-node"
import { assert, describe, it } from "@effect/vitest"
import { SseHub, SseLayer, SseRoutes } from "effect-sse"
import * as SseServer from "effect-sse/node/SseServer"
import { Deferred, Effect, Exit, Fiber, Duration, HashMap, Layer, Logger, LogLevel, ManagedRuntime } from "effect"
import { EventSource } from "eventsource"
import { createServer } from "node:http"
import { EventSource as UndiciEventSource } from "undici"
import { connect, request } from "../support/rawClient.js"
import { eventually, port, serverLayer } from "../support/server.js"

describe("SseServer", () => {
  it.scopedLive("plays the Go server's README: the time, dogs and cats, to parents and children", () =>
    Effect.gen(function* () {
      const hub = yield* SseHub.SseHub
      const listening = yield* port
      const subscribe = (path: string) => connect(listening, `/subscribe${path}`)
      const [all, time, pets, dogs, cats] = yield* Effect.all(
        [subscribe("/"), subscribe("/time"), subscribe("/pets"), subscribe("/pets/dogs"), subscribe("/pets/cats")],
        { concurrency: "unbounded" }
      )
      for (const client of [all, time, pets, dogs, cats]) yield* client.until((body) => body !== "")
      const noon = "data:12:00:00 pm (UTC)\n\n"
      const corgi = "event:new-dog\ndata:Corgi\n\n"
      const persian = "event:new-cat\ndata:Persian\n\n"
      const terrier = "event:new-dog\ndata:Terrier\n\n"
      const lolcat = "event:new-cat\ndata:LOLcat\n\n"
      yield* hub.publish({ namespace: "/time", data: "12:00:00 pm (UTC)" })
      yield* hub.publish({ namespace: "/pets/dogs", event: "new-dog", data: "Corgi" })
      yield* hub.publish({ namespace: "/pets/cats", event: "new-cat", data: "Persian" })
      yield* hub.publish({ namespace: "/pets/dogs", event: "new-dog", data: "Terrier" })
      yield* hub.publish({ namespace: "/pets/cats", event: "new-cat", data: "LOLcat" })
      for (const [client, events] of [
        [all, noon + corgi + persian + terrier + lolcat],
        [time, noon],
        [pets, corgi + persian + terrier + lolcat],
        [dogs, corgi + terrier],
        [cats, persian + lolcat]
      ] as const) {
        assert.strictEqual(yield* client.until((body) => body.length >= events.length + 5), ":ok\n\n" + events)
      }
    }).pipe(Effect.provide(serverLayer()))
  )

  for (const [name, Source] of [
    ["eventsource", EventSource],
    ["undici", UndiciEventSource]
  ] as const) {
    it.scopedLive(`serves a real EventSource (${name}): opens at once, dispatches by name, keeps every line`, () =>
      Effect.gen(function* () {
        const hub = yield* SseHub.SseHub
        const url = `http://127.0.0.1:${yield* port}/subscribe/pets`
        const opened = yield* Deferred.make<void>()
        const got = yield* Deferred.make<ReadonlyArray<string>>()
        const seen: Array<string> = []
        yield* Effect.acquireRelease(
          Effect.sync(() => {
            const source = new Source(url)
            const see = (event: { readonly type: string; readonly data?: unknown }) => {
              seen.push(`${event.type}=${String(event.data)}`)
              if (seen.length === 3) Deferred.unsafeDone(got, Exit.succeed(seen))
            }
            source.addEventListener("open", () => Deferred.unsafeDone(opened, Exit.void))
            source.addEventListener("message", see)
            source.addEventListener("new-dog", see)
            return source
          }),
          (source) => Effect.sync(() => source.close())
        )
        yield* Deferred.await(opened)
        yield* hub.publish({ namespace: "/pets/dogs", event: "new-dog", data: "Corgi" })
        yield* hub.publish({ namespace: "/pets", data: " two\r\nlines " })
        yield* hub.publish({ namespace: "/pets", data: "\ufeff😀" })
        assert.deepStrictEqual(yield* Deferred.await(got), [
          "new-dog=Corgi",
          "message= two\nlines ",
          "message=\ufeff😀"
        ])
      }).pipe(Effect.provide(serverLayer()))
    )
  }

  it.scopedLive("publishes over HTTP and refuses what no route takes", () =>
    Effect.gen(function* () {
      const base = `http://127.0.0.1:${yield* port}`
      const client = yield* connect(yield* port, "/subscribe/pets")
      yield* client.until((body) => body !== "")
      const send = (path: string, body: string) =>
        Effect.promise(() => fetch(base + path, { method: "POST", body, headers: { authorization: "Bearer secret" } }))
      assert.strictEqual((yield* send("/publish/pets/dogs?event=new-dog", "Corgi")).status, 202)
      yield* client.until((body) => body.includes("event:new-dog\ndata:Corgi\n\n"))
      assert.strictEqual((yield* send("/publish/pets", "x".repeat(1024 * 1024 + 1))).status, 413)
      const missing = yield* Effect.promise(() => fetch(`${base}/nothing`))
      assert.strictEqual(missing.status, 404)
      assert.deepInclude(yield* Effect.promise(() => missing.json() as Promise<object>), { error: "NotFound" })
    }).pipe(Effect.provide(serverLayer()))
  )

  it.scopedLive("serves the app's own routes beside its own, which come first", () => {
    const routes = HttpRouter.empty.pipe(
      HttpRouter.get("/", HttpServerResponse.text("mine")),
      HttpRouter.get("/healthz", HttpServerResponse.text("mine")),
      HttpRouter.get("/broken", Effect.fail("a reason"))
    )
    return Effect.gen(function* () {
      const listening = yield* port
      const answer = (path: string) =>
        Effect.map(
          request(listening, path),
          ({ body, status }) => `${status} ${/^\{"error":"(\w+)"/.exec(body)?.[1] ?? body}`
        )
      assert.strictEqual(yield* answer("/"), "200 mine")
      assert.strictEqual(yield* answer("/healthz"), '200 {"status":"ok"}')
      assert.strictEqual(yield* answer("/broken"), "500 ")
      assert.strictEqual(yield* answer("/nothing"), "404 NotFound")
      yield* (yield* connect(listening, "/subscribe/")).until((body) => body === ":ok\n\n")
    }).pipe(Effect.provide(serverLayer({ routes })))
  })

  it.scopedLive("refuses a chunked body once it is too large", () =>
    Effect.gen(function* () {
      const client = yield* connect(yield* port, "/publish/x", {
        method: "POST",
        headers: { Authorization: "Bearer secret", "Transfer-Encoding": "chunked" }
      })
      const chunk = "x".repeat(1000)
      for (let i = 0; i < 20; i++) client.socket.write(`${chunk.length.toString(16)}\r\n${chunk}\r\n`)
      assert.match(yield* client.head, /^HTTP\/1\.1 413 /)
    }).pipe(Effect.provide(serverLayer({ maxBodyBytes: 10_000 })))
  )

  it.scopedLive("takes heads of maxHeaderBytes, URL and headers together, and answers 431 to larger ones", () =>
    Effect.gen(function* () {
      const listening = yield* port
      const status = (path: string, headers: Record<string, string> = {}) =>
        connect(listening, path, { headers }).pipe(
          Effect.flatMap(({ head }) => head),
          Effect.map((head) => Number(head.split(" ")[1])),
          Effect.scoped
        )
      assert.strictEqual(yield* status("/subscribe/a", { X: "x".repeat(800) }), 200)
      assert.strictEqual(yield* status("/subscribe/a", { X: "x".repeat(1200) }), 431)
      assert.strictEqual(yield* status(`/subscribe/a?${"x".repeat(800)}`), 200)
      assert.strictEqual(yield* status(`/subscribe/a?${"x".repeat(1200)}`), 431)
      assert.strictEqual(yield* status(`/subscribe/a?${"x".repeat(600)}`, { X: "x".repeat(600) }), 431)
    }).pipe(Effect.provide(serverLayer({ maxHeaderBytes: 1024 })))
  )

  it.scopedLive("logs a line for each connect and disconnect", () =>
    Effect.gen(function* () {
      const lines: Array<Record<string, unknown>> = []
      const logger = Logger.make(({ annotations, message }) => {
        lines.push({ message: String(message), ...Object.fromEntries(HashMap.toEntries(annotations)) })
      })
      yield* Effect.gen(function* () {
        const hub = yield* SseHub.SseHub
        const client = yield* connect(yield* port, "/subscribe/pets?token=hidden", {
          headers: { "X-Forwarded-For": "203.0.113.5" }
        })
        yield* client.until((body) => body !== "")
        yield* hub.publish({ namespace: "/pets", data: "x" })
        yield* client.until((body) => body.includes("data:x"))
        client.socket.destroy()
        yield* eventually(Effect.sync(() => lines.length === 2))
        const stays = yield* connect(yield* port, "/subscribe/")
        yield* stays.until((body) => body !== "")
      }).pipe(
        Effect.provide(
          SseServer.layer({ port: 0, trustedProxies: ["127.0.0.1"] }).pipe(
            Layer.provideMerge(SseLayer),
            Layer.provide(Logger.replace(Logger.defaultLogger, logger))
          )
        ),
        Effect.scoped
      )
      const who = { client: 1, namespace: "/pets", address: "203.0.113.5" }
      assert.deepStrictEqual(lines[0], { message: "connected", ...who })
      assert.deepInclude(lines[1], { message: "disconnected", ...who, events: 1, reason: "client-closed" })
      assert.isString(lines[1]?.["duration"])
      assert.deepInclude(lines[3], { message: "disconnected", reason: "shutdown" }, "also at shutdown")
      assert.notInclude(JSON.stringify(lines), "hidden")
    })
  )

  it.scopedLive("logs under a ManagedRuntime, too, and shows what a terminal would hide", () =>
    Effect.gen(function* () {
      const lines: Array<string> = []
      const logger = Logger.make(({ annotations, message }) => {
        const { namespace, principal } = Object.fromEntries(HashMap.toEntries(annotations))
        lines.push(`${String(message)} ${String(namespace)} ${String(principal)}`)
      })
      const subscribe = () => Effect.succeed({ id: "ann\nlevel=ERROR\u001b[31m" })
      const runtime = ManagedRuntime.make(
        SseServer.layer({ port: 0, subscribe }).pipe(
          Layer.provideMerge(SseLayer),
          Layer.provide(Logger.replace(Logger.defaultLogger, logger))
        )
      )
      const listening = yield* Effect.promise(() => runtime.runPromise(port))
      const client = yield* connect(listening, "/subscribe/a%E2%80%AEb")
      yield* client.until((body) => body !== "")
      yield* Effect.promise(() => runtime.dispose())
      const who = "/a\\u{202e}b ann\\u{a}level=ERROR\\u{1b}[31m"
      assert.deepStrictEqual(lines, [`connected ${who}`, `disconnected ${who}`])
    })
  )

  it.effect("says who holds the port", () =>
    Effect.gen(function* () {
      const taken = yield* port
      const exit = yield* Layer.build(SseServer.layer({ port: taken })).pipe(Effect.provide(SseLayer), Effect.exit)
      assert.isTrue(Exit.isFailure(exit) && JSON.stringify(exit).includes("EADDRINUSE"), String(exit))
    }).pipe(Effect.provide(serverLayer()), Effect.scoped)
  )

  describe("ends in bounded time with streams open", () => {
    const server = () => NodeHttpServer.layer(createServer, { port: 0 })
    const value = Layer.scopedDiscard(
      Effect.flatMap(HttpRouter.toHttpApp(SseRoutes.router()), (app) => HttpServer.serveEffect(Effect.orDie(app)))
    )
    const compositions = {
      "SseServer, hub outside": SseServer.layer({ port: 0 }).pipe(Layer.provide(SseHub.layer())),
      "SseServer, hub beside": SseServer.layer({ port: 0 }).pipe(Layer.provideMerge(SseHub.layer())),
      "router value, hub outside the server": value.pipe(Layer.provideMerge(server()), Layer.provide(SseHub.layer())),
      "router value, hub inside the server": value.pipe(Layer.provide(SseHub.layer()), Layer.provideMerge(server())),
      "router layer, hub outside the server": HttpLayerRouter.serve(SseRoutes.layer()).pipe(
        Layer.provideMerge(server()),
        Layer.provide(SseHub.layer())
      ),
      "router layer, hub inside the server": HttpLayerRouter.serve(SseRoutes.layer()).pipe(
        Layer.provide(SseHub.layer()),
        Layer.provideMerge(server())
      )
    }
    for (const [name, layer] of Object.entries(compositions)) {
      it.scopedLive(name, () =>
        Effect.gen(function* () {
          const listening = yield* Deferred.make<number>()
          const program = yield* Effect.gen(function* () {
            yield* Deferred.succeed(listening, yield* port)
            return yield* Effect.never
          }).pipe(Effect.provide(layer), Logger.withMinimumLogLevel(LogLevel.None), Effect.fork)
          const clients = yield* Effect.replicateEffect(connect(yield* Deferred.await(listening), "/subscribe/"), 20)
          yield* Effect.forEach(clients, (client) => client.until((body) => body !== ""))
          const [taken] = yield* Effect.timed(Fiber.interrupt(program))
          assert.isBelow(Duration.toMillis(taken), 2000)
          for (const client of clients) {
            const { body, clean } = yield* client.ended
            assert.isTrue(clean, body)
            assert.match(body, /^:ok\n\nretry:\d+\n\n$/, "each was told when to come back")
          }
        }).pipe(Effect.timeout("10 seconds"))
      )
    }
  })
})
