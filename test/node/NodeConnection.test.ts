import { HttpApp, HttpRouter, HttpServer, HttpServerRequest, HttpServerResponse } from "@effect/platform"
import { NodeHttpServer, NodeHttpServerRequest } from "@effect/platform-node"
import { assert, describe, it } from "@effect/vitest"
import { SseHub, SseLayer, SseRoutes } from "effect-sse"
import * as NodeConnection from "effect-sse/node/NodeConnection"
import { Deferred, Effect, Fiber, Layer, Schedule, Stream } from "effect"
import * as Http from "node:http"
import * as Http2 from "node:http2"
import { eventually, port, serverLayer } from "../support/server.js"
import { connect, rawRequest } from "../support/rawClient.js"

const clientCount = (count: number) =>
  Effect.flatMap(SseHub.SseHub, (hub) => eventually(Effect.map(hub.clients, (clients) => clients.length === count)))

/** What a subscriber sees of one and the same script. */
const script = (httpVersion: "1.0" | "1.1") =>
  Effect.gen(function* () {
    const hub = yield* SseHub.SseHub
    const client = yield* connect(yield* port, "/subscribe/pets", { httpVersion })
    const head = yield* client.head
    yield* client.until((body) => body.includes("keepalive"))
    yield* hub.publishAll([
      { namespace: "/pets/dogs", event: "new-dog", data: "Corgi\nTerrier" },
      { namespace: "/time", data: "no" },
      { namespace: "/pets", data: "é".repeat(100_000), id: "7" }
    ])
    yield* hub.publish({ namespace: "/pets", data: "" })
    yield* client.until((body) => body.endsWith("data:\n\n"))
    const [status] = yield* hub.clients
    yield* hub.disconnect(status!.id)
    const { body, clean } = yield* client.ended
    return { head: head.replace(/\r\nDate: .*/i, ""), body, clean, bytes: status!.bytes, events: status!.events }
  })

/** One keepalive, soon, and then no more. */
const once = Schedule.intersect(Schedule.spaced("10 millis"), Schedule.recurs(1))

describe("NodeConnection", () => {
  for (const httpVersion of ["1.1", "1.0"] as const) {
    it.scopedLive(`gives the same bytes as the portable connection, on HTTP/${httpVersion}`, () =>
      Effect.gen(function* () {
        const run = (connection: "auto" | "portable") =>
          script(httpVersion).pipe(Effect.scoped, Effect.provide(serverLayer({ connection }, { keepalive: once })))
        const node = yield* run("auto")
        const portable = yield* run("portable")
        const expected =
          ":ok\n\n:keepalive\n\nevent:new-dog\ndata:Corgi\ndata:Terrier\n\n" +
          `id:7\ndata:${"é".repeat(100_000)}\n\ndata:\n\n`
        assert.strictEqual(node.body, expected)
        assert.strictEqual(portable.body, expected)
        assert.strictEqual(node.head, portable.head)
        assert.strictEqual(node.events, 3)
        assert.strictEqual(portable.events, 3)
        assert.strictEqual(node.bytes, Buffer.byteLength(expected))
        if (httpVersion === "1.1") assert.isTrue(node.clean && portable.clean)
      })
    )
  }

  it.scopedLive("finds the response that platform-node holds, and takes its socket", () =>
    Effect.gen(function* () {
      const seen = yield* Effect.gen(function* () {
        const answered = yield* Deferred.make<readonly [boolean, boolean]>()
        yield* HttpServer.serveEffect(
          Effect.gen(function* () {
            const request = yield* HttpServerRequest.HttpServerRequest
            const response = NodeConnection.responseOf(request)
            const same = response === NodeHttpServerRequest.toServerResponse(request)
            yield* Deferred.succeed(answered, [same, NodeConnection.canTakeOver(response!)] as const)
            return HttpServerResponse.empty()
          })
        )
        yield* connect(yield* port, "/")
        return yield* Deferred.await(answered)
      }).pipe(Effect.scoped, Effect.provide(NodeHttpServer.layer(Http.createServer, { port: 0 })))
      assert.deepStrictEqual(seen, [true, true])
      const web = HttpServerRequest.fromWeb(new Request("http://localhost/"))
      assert.isUndefined(NodeConnection.responseOf(web))
    })
  )

  it.scopedLive("frees the request: the handler's scope closes while the stream goes on", () =>
    Effect.gen(function* () {
      let finished = 0
      const app = SseRoutes.router().pipe(
        HttpRouter.use((handler) =>
          Effect.zipRight(
            Effect.addFinalizer(() => Effect.sync(() => finished++)),
            handler
          )
        ),
        HttpRouter.toHttpApp
      )
      yield* Effect.gen(function* () {
        const hub = yield* SseHub.SseHub
        const handler = yield* app
        const before = HttpApp.appendPreResponseHandler((_, response) =>
          Effect.succeed(HttpServerResponse.setHeader(response, "x-seen", "yes"))
        )
        yield* HttpServer.serveEffect(
          Effect.zipRight(
            Effect.zipRight(
              Effect.addFinalizer(() => Effect.sync(() => finished++)),
              before
            ),
            handler
          ).pipe(Effect.orDie)
        )
        const client = yield* connect(yield* port, "/subscribe/")
        assert.match(yield* client.head, /x-seen: yes/, "headers set by middleware are sent")
        yield* client.until((body) => body !== "")
        yield* eventually(Effect.sync(() => finished > 0))
        yield* hub.publish({ namespace: "/", data: "still there" })
        yield* client.until((body) => body.includes("still there"))
      }).pipe(
        Effect.scoped,
        Effect.provide(Layer.provideMerge(NodeHttpServer.layer(Http.createServer, { port: 0 }), SseLayer))
      )
    })
  )

  it.scopedLive("leaves alone what a middleware answers instead, and writes the cookies it adds", () =>
    Effect.gen(function* () {
      const hub = yield* SseHub.SseHub
      const app = yield* HttpRouter.toHttpApp(SseRoutes.router())
      yield* HttpServer.serveEffect(
        Effect.gen(function* () {
          const { url } = yield* HttpServerRequest.HttpServerRequest
          const response = yield* Effect.orDie(app)
          return url.endsWith("/no")
            ? HttpServerResponse.text("no", { status: 418 })
            : HttpServerResponse.unsafeSetCookie(response, "seen", "yes")
        })
      )
      const refused = yield* connect(yield* port, "/subscribe/no")
      assert.match(yield* refused.head, /^HTTP\/1\.1 418 /)
      yield* refused.until((body) => body === "no")
      yield* clientCount(0)
      const client = yield* connect(yield* port, "/subscribe/yes")
      assert.match(yield* client.head, /set-cookie: seen=yes/i)
      yield* client.until((body) => body === ":ok\n\n")
      yield* hub.publish({ namespace: "/yes", data: "x" })
      yield* client.until((body) => body.includes("data:x\n\n"))
    }).pipe(
      Effect.scoped,
      Effect.provide(Layer.provideMerge(NodeHttpServer.layer(Http.createServer, { port: 0 }), SseLayer))
    )
  )

  it.scopedLive("drops what a client sends on, and is not answered in the middle of the stream", () =>
    Effect.gen(function* () {
      const hub = yield* SseHub.SseHub
      const client = yield* connect(yield* port, "/subscribe/")
      yield* client.until((body) => body !== "")
      client.socket.write(rawRequest("/subscribe/other") + "garbage\r\n\r\n\0\0" + "x".repeat(100_000))
      yield* hub.publish({ namespace: "/", data: "1" })
      yield* client.until((body) => body.includes("data:1"))
      yield* hub.publish({ namespace: "/", data: "2" })
      assert.strictEqual(yield* client.until((body) => body.includes("data:2\n\n")), ":ok\n\ndata:1\n\ndata:2\n\n")
      yield* clientCount(1)
    }).pipe(Effect.provide(serverLayer()))
  )

  for (const second of ["/subscribe/b", "/nothing", "/publish/x"]) {
    it.scopedLive(`closes a connection on which ${second} is pipelined, and keeps nothing of it`, () =>
      Effect.gen(function* () {
        const hub = yield* SseHub.SseHub
        const listening = yield* port
        const roots = Effect.map(Fiber.roots, (fibers) => Array.from(fibers).length)
        const once = Effect.scoped(
          Effect.gen(function* () {
            const client = yield* connect(listening, "/subscribe/a", {
              body: rawRequest(second),
              headers: { "Content-Length": "0" }
            })
            yield* client.ended
          })
        )
        yield* once
        yield* clientCount(0)
        const before = yield* roots
        yield* Effect.repeatN(once, 19)
        yield* clientCount(0)
        yield* hub.publish({ namespace: "/a", data: "x" })
        assert.isAtMost(yield* roots, before + 2)
      }).pipe(Effect.provide(serverLayer()))
    )
  }

  for (const [when, hook] of [
    ["at once", undefined],
    ["after a while", () => Effect.delay(Effect.succeed({ id: "a" }), "50 millis")]
  ] as const) {
    it.scopedLive(`the same for routes of an app, behind a stream that begins ${when}`, () =>
      Effect.gen(function* () {
        const app = HttpRouter.empty.pipe(
          HttpRouter.get("/ended", HttpServerResponse.text("x".repeat(1000))),
          HttpRouter.get("/endless", HttpServerResponse.stream(Stream.never)),
          HttpRouter.get("/never", Effect.never),
          HttpRouter.concat(SseRoutes.router(hook === undefined ? {} : { subscribe: hook }))
        )
        yield* HttpServer.serveEffect(Effect.orDie(yield* HttpRouter.toHttpApp(app)))
        const listening = yield* port
        const roots = Effect.map(Fiber.roots, (fibers) => Array.from(fibers).length)
        const once = Effect.scoped(
          Effect.gen(function* () {
            const client = yield* connect(listening, "/subscribe/a", {
              body: rawRequest("/ended") + rawRequest("/endless") + rawRequest("/never") + rawRequest("/subscribe/b"),
              headers: { "Content-Length": "0" }
            })
            const { body } = yield* client.ended
            assert.notInclude(body, "xx")
          })
        )
        yield* once
        yield* clientCount(0)
        const before = yield* roots
        yield* Effect.repeatN(once, 19)
        yield* clientCount(0)
        yield* eventually(Effect.map(roots, (count) => count <= before + 2))
      }).pipe(
        Effect.scoped,
        Effect.provide(Layer.provideMerge(NodeHttpServer.layer(Http.createServer, { port: 0 }), SseLayer))
      )
    )
  }

  it.scopedLive("answers pipelined requests in their order when none is a stream, and a stream as the last", () =>
    Effect.gen(function* () {
      const hub = yield* SseHub.SseHub
      const client = yield* connect(yield* port, "/healthz", {
        body: rawRequest("/nothing") + rawRequest("/subscribe/b"),
        headers: { "Content-Length": "0" }
      })
      const received: Array<Buffer> = []
      client.socket.on("data", (data) => received.push(data))
      const text = () => Buffer.concat(received).toString()
      yield* clientCount(1)
      yield* hub.publish({ namespace: "/b", data: "x" })
      yield* eventually(Effect.sync(() => text().includes("data:x")))
      assert.deepStrictEqual(
        Array.from(text().matchAll(/HTTP\/1\.1 (\d+)/g), ([, status]) => status),
        ["200", "404", "200"]
      )
    }).pipe(Effect.provide(serverLayer()))
  )

  it.scopedLive("takes an absolute URL, and answers no error into an open stream", () =>
    Effect.gen(function* () {
      const hub = yield* SseHub.SseHub
      const client = yield* connect(yield* port, "http://localhost/subscribe/a?x=/b", {
        headers: { "Content-Length": "10" }
      })
      yield* client.until((body) => body !== "")
      yield* hub.publish({ namespace: "/a", data: "x" })
      yield* client.until((body) => body.includes("data:x\n\n"))
      const received: Array<Buffer> = []
      client.socket.on("data", (data) => received.push(data))
      client.socket.end("short")
      yield* client.ended
      assert.notInclude(Buffer.concat(received).toString(), "HTTP/1.1")
    }).pipe(Effect.provide(serverLayer()))
  )

  it.scopedLive("a portable stream that is ended gracefully while its client does not read is cut in the end", () =>
    Effect.gen(function* () {
      const hub = yield* SseHub.SseHub
      const stuck = yield* connect(yield* port, "/subscribe/", { paused: true })
      yield* clientCount(1)
      for (let i = 0; i < 16; i++) yield* hub.publish({ namespace: "/n", data: "x".repeat(1024 * 1024) })
      yield* eventually(Effect.map(hub.clients, ([client]) => client?.events === 16))
      const [client] = yield* hub.clients
      assert.isAbove(client!.pendingBytes, 1024 * 1024, "something waits")
      assert.isTrue(yield* hub.disconnect(client!.id))
      // Until the server has let go of the connection, which takes the 5 s a client has.
      yield* Effect.sleep("5500 millis")
      stuck.socket.resume()
      assert.isFalse((yield* stuck.ended).clean)
    }).pipe(Effect.provide(serverLayer({ connection: "portable" }, { maxPendingBytes: 64 * 1024 * 1024 })))
  )

  it.scopedLive("writes straight to a stream of HTTP/2 without TLS, too, and forgets who left", () =>
    Effect.gen(function* () {
      const hub = yield* SseHub.SseHub
      yield* HttpServer.serveEffect(Effect.orDie(yield* HttpRouter.toHttpApp(SseRoutes.router())))
      const session = yield* Effect.acquireRelease(
        Effect.map(port, (port) => Http2.connect(`http://127.0.0.1:${port}`)),
        (session) => Effect.sync(() => session.destroy())
      )
      const stream = session.request({ ":path": "/subscribe/pets" })
      let body = ""
      let head: Http2.IncomingHttpHeaders = {}
      stream.on("response", (headers) => (head = headers))
      stream.on("data", (data: Buffer) => (body += data.toString()))
      yield* eventually(Effect.sync(() => body === ":ok\n\n"))
      assert.strictEqual(Number(head[":status"]), 200)
      assert.strictEqual(head["content-type"], "text/event-stream")
      yield* hub.publish({ namespace: "/pets/dogs", event: "new-dog", data: "Corgi" })
      yield* eventually(Effect.sync(() => body === ":ok\n\nevent:new-dog\ndata:Corgi\n\n"))
      yield* clientCount(1)
      stream.close()
      yield* clientCount(0)
    }).pipe(
      Effect.scoped,
      Effect.provide(
        Layer.provideMerge(
          // Its compatibility API is that of HTTP/1; the types of Node do not say so.
          NodeHttpServer.layer(() => Http2.createServer() as unknown as Http.Server, { port: 0 }),
          SseLayer
        )
      )
    )
  )

  it.scopedLive("delivers what waits before it ends at shutdown", () =>
    Effect.gen(function* () {
      const [client, size] = yield* Effect.gen(function* () {
        const hub = yield* SseHub.SseHub
        const client = yield* connect(yield* port, "/subscribe/", {
          paused: true,
          keep: (piece) => piece.replace(/x+/g, "")
        })
        yield* clientCount(1)
        for (let i = 0; i < 12; i++) yield* hub.publish({ namespace: "/n", data: `${i}:${"x".repeat(1024 * 1024)}` })
        yield* eventually(Effect.map(hub.clients, ([client]) => client?.events === 12))
        const [status] = yield* hub.clients
        return [client, status!.pendingBytes] as const
      }).pipe(
        Effect.tap(([client]) => Effect.sync(() => setTimeout(() => client.socket.resume(), 50))),
        Effect.provide(serverLayer({}, { maxPendingBytes: 64 * 1024 * 1024 }))
      )
      assert.isAbove(size, 1024 * 1024, "something waited")
      const { body, clean } = yield* client.ended
      assert.match(body, /data:11:\n\nretry:\d+\n\n$/)
      assert.isTrue(clean)
    })
  )

  for (const [name, headers] of [
    ["", {}],
    [", also one that offered an upgrade", { Connection: "Upgrade", Upgrade: "h2c" }]
  ] as const) {
    it.scopedLive(`takes a client that shuts down its side for gone, as Node does${name}`, () =>
      Effect.gen(function* () {
        yield* HttpServer.serveEffect(Effect.orDie(yield* HttpRouter.toHttpApp(SseRoutes.router())))
        const client = yield* connect(yield* port, "/subscribe/", { headers })
        yield* client.until((body) => body !== "")
        yield* clientCount(1)
        client.socket.end()
        yield* clientCount(0)
      }).pipe(
        Effect.scoped,
        Effect.provide(
          Layer.provideMerge(
            NodeHttpServer.layer(() => Http.createServer(), { port: 0 }),
            SseLayer
          )
        )
      )
    )
  }

  it.scopedLive("registers nobody who left before the answer", () =>
    Effect.gen(function* () {
      const hub = yield* SseHub.SseHub
      const listening = yield* port
      const clients = yield* Effect.forEach(
        Array.from({ length: 100 }),
        () =>
          Effect.tap(connect(listening, "/subscribe/"), (client) => Effect.sync(() => client.socket.resetAndDestroy())),
        { concurrency: "unbounded" }
      )
      assert.strictEqual(clients.length, 100)
      const witness = yield* connect(listening, "/subscribe/")
      yield* witness.until((body) => body !== "")
      yield* clientCount(1)
      assert.strictEqual((yield* hub.status).clients, 1)
    }).pipe(Effect.provide(serverLayer()))
  )

  for (const connection of ["auto", "portable"] as const) {
    it.scopedLive(`ends a client that stops reading while 99 others get every event (${connection})`, () =>
      Effect.gen(function* () {
        const hub = yield* SseHub.SseHub
        const listening = yield* port
        const stalled = yield* connect(listening, "/subscribe/", { paused: true })
        const others = yield* Effect.replicateEffect(
          connect(listening, "/subscribe/", { keep: (piece) => piece.replace(/x+/g, "") }),
          99
        )
        yield* Effect.forEach(others, (other) => other.until((body) => body !== ""))
        yield* clientCount(100)
        // Far more than the buffers of a loopback connection hold.
        const publisher = yield* Effect.fork(
          Effect.forEach(
            Array.from({ length: 300 }, (_, i) => i),
            (i) =>
              Effect.zipRight(
                hub.publish({ namespace: "/n", data: `${i}:${"x".repeat(64 * 1024)}` }),
                // The healthy ones have taken it before the next one comes.
                eventually(
                  Effect.map(hub.clients, (clients) =>
                    clients.every((client) => client.pendingBytes === 0 || client.id === 1)
                  )
                )
              ),
            { discard: true }
          )
        )
        const last = (body: string) => body.endsWith("data:299:\n\n")
        for (const other of others) {
          const body = yield* other.until(last)
          const numbers = Array.from(body.matchAll(/data:(\d+):/g), ([, n]) => Number(n))
          assert.deepStrictEqual(
            numbers,
            Array.from({ length: 300 }, (_, i) => i)
          )
        }
        yield* Fiber.join(publisher)
        yield* clientCount(99)
        assert.strictEqual((yield* hub.status).ended["pending-overflow"], 1)
        stalled.socket.resume()
        assert.isFalse((yield* stalled.ended).clean)
      }).pipe(Effect.provide(serverLayer({ connection })))
    )

    it.scopedLive(`ends a client that does not read within the stall timeout (${connection})`, () =>
      Effect.gen(function* () {
        const hub = yield* SseHub.SseHub
        const stalled = yield* connect(yield* port, "/subscribe/", { paused: true })
        yield* clientCount(1)
        yield* hub.publish({ namespace: "/n", data: "x".repeat(16 * 1024 * 1024) })
        yield* clientCount(0)
        assert.strictEqual((yield* hub.status).ended.stalled, 1)
        stalled.socket.resume()
        assert.isFalse((yield* stalled.ended).clean)
      }).pipe(
        Effect.provide(serverLayer({ connection }, { maxPendingBytes: 64 * 1024 * 1024, stallTimeout: "300 millis" }))
      )
    )
  }

  it.scopedLive("keeps no memory of 2,000 clients that came and went", () =>
    Effect.gen(function* () {
      const listening = yield* port
      const wave = Effect.scoped(
        Effect.gen(function* () {
          const clients = yield* Effect.replicateEffect(connect(listening, "/subscribe/a/b"), 100)
          yield* Effect.forEach(clients, (client) => client.until((body) => body !== ""))
          yield* clientCount(100)
        })
      ).pipe(Effect.zipRight(clientCount(0)))
      const heap = Effect.gen(function* () {
        // Sockets and finished fibers let go over a few turns.
        yield* Effect.repeatN(
          Effect.async<void>((resume) => void setImmediate(() => resume(Effect.void))),
          20
        )
        globalThis.gc!()
        return process.memoryUsage().heapUsed
      })
      yield* Effect.repeatN(wave, 4)
      const before = yield* heap
      yield* Effect.repeatN(wave, 19)
      const grown = (yield* heap) - before
      assert.isBelow(grown / 2000, 500, "bytes of heap for each client that left")
    }).pipe(Effect.provide(serverLayer()))
  )
})
