import { assert, describe, it } from "@effect/vitest"
import { SseError, SseHub, type SseConfig } from "effect-sse"
import type * as SseServer from "effect-sse/node/SseServer"
import { Deferred, Duration, Effect, Exit, Layer, Schedule } from "effect"
import type { EventEmitter } from "node:events"
import { writeFileSync } from "node:fs"
import * as Http2 from "node:http2"
import * as Net from "node:net"
import * as Browser from "../support/chromium.js"
import { command, node } from "../support/command.js"
import { connect, request } from "../support/rawClient.js"
import { eventually, port as portOf, serverLayer } from "../support/server.js"
import { certificate, handshake, http2, watch } from "../support/tls.js"

const served = (options?: SseServer.ServerOptions, hub?: SseConfig.HubOptions) =>
  Layer.unwrapScoped(Effect.map(certificate, ({ tls }) => serverLayer({ tls, ...options }, hub)))

const clientCount = (count: number) =>
  Effect.flatMap(SseHub.SseHub, (hub) => eventually(Effect.map(hub.clients, (clients) => clients.length === count)))

const serve = (env: Record<string, string>) =>
  Effect.gen(function* () {
    const server = yield* node(["dist/bin.js", "serve", "--port", "0"], env)
    const [, port] = yield* server.until(/listens on https:\/\/127\.0\.0\.1:(\d+)/)
    return Object.assign(server, { port: Number(port) })
  })

describe("TLS", () => {
  it.scopedLive("speaks HTTP/2 to who asks for it, HTTP/1.1 to who does not, and TLS 1.2 at least", () =>
    Effect.gen(function* () {
      const port = yield* portOf
      assert.strictEqual(yield* handshake(port, { ALPNProtocols: ["h2", "http/1.1"] }), "first h2 TLSv1.3")
      assert.strictEqual(yield* handshake(port, { ALPNProtocols: ["http/1.1"] }), "first http/1.1 TLSv1.3")
      assert.strictEqual(yield* handshake(port), "first false TLSv1.3")
      assert.strictEqual(yield* handshake(port, { maxVersion: "TLSv1.2" }), "first false TLSv1.2")
      const old = { minVersion: "TLSv1", maxVersion: "TLSv1.1", ciphers: "DEFAULT@SECLEVEL=0" } as const
      assert.match(String(yield* Effect.flip(handshake(port, old))), /alert protocol version|unsupported protocol/)
      assert.match(
        String(yield* Effect.flip(handshake(port, { ALPNProtocols: ["spdy/3"] }))),
        /no application protocol/
      )
      const plain = yield* connect(port, "/")
      assert.isFalse((yield* plain.ended).clean, "plain HTTP is not answered")
    }).pipe(Effect.provide(served()))
  )

  it.scopedLive("gives the same bytes over HTTP/2 and HTTP/1.1, written straight or not", () =>
    Effect.gen(function* () {
      const once = Schedule.intersect(Schedule.spaced("10 millis"), Schedule.recurs(1))
      const run = (connection: "auto" | "portable") =>
        Effect.gen(function* () {
          const hub = yield* SseHub.SseHub
          const port = yield* portOf
          const first = yield* connect(port, "/subscribe/pets", { tls: true })
          const second = (yield* http2(port)).get("/subscribe/pets")
          yield* first.until((body) => body.includes("keepalive"))
          yield* second.until((body) => body.includes("keepalive"))
          yield* hub.publishAll([
            { namespace: "/pets/dogs", event: "new-dog", data: "Corgi\nTerrier" },
            { namespace: "/time", data: "no" },
            { namespace: "/pets", data: "é".repeat(100_000), id: "7" }
          ])
          yield* hub.publish({ namespace: "/pets", data: "" })
          yield* first.until((body) => body.endsWith("data:\n\n"))
          yield* second.until((body) => body.endsWith("data:\n\n"))
          const clients = yield* hub.clients
          for (const { id } of clients) yield* hub.disconnect(id)
          const ended = yield* first.ended
          assert.isTrue(ended.clean)
          assert.deepStrictEqual(yield* second.ended, { body: ended.body, code: 0 })
          return { body: ended.body, head: second.head(), bytes: clients.map(({ bytes }) => bytes) }
        }).pipe(Effect.scoped, Effect.provide(served({ connection }, { keepalive: once })))
      const straight = yield* run("auto")
      const portable = yield* run("portable")
      const expected =
        ":ok\n\n:keepalive\n\nevent:new-dog\ndata:Corgi\ndata:Terrier\n\n" +
        `id:7\ndata:${"é".repeat(100_000)}\n\ndata:\n\n`
      assert.strictEqual(straight.body, expected)
      assert.strictEqual(portable.body, expected)
      assert.deepStrictEqual(straight.bytes, [Buffer.byteLength(expected), Buffer.byteLength(expected)])
      const names = (head: object) => Object.keys(head).sort()
      assert.deepStrictEqual(names(straight.head), names(portable.head))
      assert.strictEqual(straight.head["content-type"], "text/event-stream")
    })
  )

  it.scopedLive("answers every route over HTTP/2, without a header that belongs to a connection", () =>
    Effect.gen(function* () {
      const warnings: Array<string> = []
      const warn = (warning: Error) => void warnings.push(warning.message)
      process.on("warning", warn)
      yield* Effect.addFinalizer(() => Effect.sync(() => process.off("warning", warn)))
      const { session } = yield* http2(yield* portOf)
      const ask = (headers: Record<string, string>, body?: string) =>
        Effect.gen(function* () {
          const stream = watch(session.request(headers, { endStream: body === undefined }))
          if (body !== undefined) stream.stream.end(body)
          yield* stream.ended
          // RFC 9113 section 8.2.2.
          for (const name of ["connection", "proxy-connection", "keep-alive", "transfer-encoding", "upgrade"]) {
            assert.notProperty(stream.head(), name)
          }
          return stream.head()[":status"]
        })
      const bearer = { authorization: "Bearer secret" }
      for (const [expected, headers, body] of [
        [200, { ":path": "/healthz" }],
        [200, { ":path": "/admin/" }],
        [200, { ":path": "/admin/status.json" }],
        [200, { ":path": "/metrics" }],
        [200, { ":path": "/subscribe/pets", ":method": "HEAD" }],
        [400, { ":path": "/subscribe/a//b" }],
        [404, { ":path": "/nothing" }],
        [405, { ":path": "/subscribe/pets", ":method": "DELETE" }],
        [204, { ":path": "/subscribe/pets", ":method": "OPTIONS", origin: "https://a.example" }],
        [401, { ":path": "/publish/pets", ":method": "POST" }, "x"],
        [202, { ":path": "/publish/pets", ":method": "POST", ...bearer }, "x"],
        [413, { ":path": "/publish/pets", ":method": "POST", ...bearer }, "x".repeat(1024 * 1024 + 1)],
        // No way around HTTP/1.1's upgrade.
        [405, { ":method": "CONNECT", ":authority": "127.0.0.1:1" }]
      ] as const) {
        assert.strictEqual(yield* ask(headers, body), expected, JSON.stringify(headers))
      }
      assert.deepStrictEqual(warnings, [])
    }).pipe(Effect.provide(served()))
  )

  it.scopedLive("takes PEM as well as files, and says what is wrong with either", () =>
    Effect.gen(function* () {
      const one = yield* certificate
      const other = yield* certificate
      const { cert, key } = one.pem()
      const start = (tls: { readonly key: string; readonly cert: string }) =>
        portOf.pipe(
          Effect.flatMap((port) => handshake(port)),
          Effect.provide(Layer.unwrapEffect(Effect.sync(() => serverLayer({ tls }))))
        )
      assert.strictEqual(yield* start({ key, cert }), "first false TLSv1.3")
      assert.strictEqual(yield* start({ key: one.tls.key, cert }), "first false TLSv1.3")
      for (const [tls, reason] of [
        [{ key: `${one.tls.key}x`, cert }, /^TLS: the file of the key: ENOENT: no such file or directory$/],
        [{ key, cert: "/" }, /^TLS: the file of the certificate: EISDIR/],
        [{ key, cert: other.tls.cert }, /not usable: .*mismatch/],
        [{ key: cert, cert }, /not usable: /],
        [{ key, cert: "-----BEGIN nothing" }, /not usable: /]
      ] as const) {
        const exit = yield* Effect.exit(start(tls))
        const error = Exit.isFailure(exit) && exit.cause._tag === "Die" ? exit.cause.defect : undefined
        assert.instanceOf(error, SseError.TlsError)
        assert.match(error.message, reason)
        assert.notInclude(error.message, key.split("\n")[1]!)
      }
    })
  )

  it.scopedLive("SIGHUP: new connections get the new certificate, streams go on; a bad one changes nothing", () =>
    Effect.gen(function* () {
      const { renew, tls } = yield* certificate
      const server = yield* serve({ SSE_TLS_KEY: tls.key, SSE_TLS_CERT: tls.cert, SSE_PUBLISH_TOKEN: "secret" })
      const first = yield* connect(server.port, "/subscribe/", { tls: true })
      const second = (yield* http2(server.port)).get("/subscribe/")
      let published = 0
      const goOn = Effect.gen(function* () {
        const answer = yield* request(server.port, "/publish/x", {
          tls: true,
          method: "POST",
          headers: { Authorization: "Bearer secret" },
          body: String(++published)
        })
        assert.strictEqual(answer.status, 202)
        yield* first.until((body) => body.endsWith(`data:${published}\n\n`))
        yield* second.until((body) => body.endsWith(`data:${published}\n\n`))
      })
      yield* goOn
      renew("second")
      assert.strictEqual(yield* handshake(server.port), "first false TLSv1.3", "not before it is asked to")
      server.process.kill("SIGHUP")
      yield* server.until(/certificate renewed.*validTo/)
      assert.strictEqual(yield* handshake(server.port), "second false TLSv1.3")
      assert.strictEqual(yield* handshake(server.port, { ALPNProtocols: ["h2"] }), "second h2 TLSv1.3")
      yield* goOn
      writeFileSync(tls.cert, "nothing")
      server.process.kill("SIGHUP")
      yield* server.until(/level=ERROR.*certificate not renewed: TLS/)
      assert.strictEqual(yield* handshake(server.port), "second false TLSv1.3")
      yield* goOn
      renew("third")
      server.process.kill("SIGHUP")
      yield* server.until(/renewed[^]*not renewed[^]*certificate renewed/)
      assert.strictEqual(yield* handshake(server.port), "third false TLSv1.3")
      yield* goOn
      assert.notMatch(server.output(), /[\w+/]{40}/, "nothing that looks like a key is written")
    })
  )

  for (const [env, said] of [
    [{ SSE_TLS_KEY: "/nowhere" }, /SSE_TLS_CERT.*SSE_TLS_KEY is set; TLS needs both/],
    [{ SSE_TLS_KEY: "/nowhere", SSE_TLS_CERT: "/nowhere" }, /^effect-sse: TLS: the file of the key: ENOENT.*\n$/]
  ] as const) {
    it.scopedLive(`refuses to start with ${Object.keys(env).join(" and ")} of nothing`, () =>
      Effect.gen(function* () {
        const server = yield* node(["dist/bin.js", "serve", "--port", "0"], env)
        assert.strictEqual(yield* server.exit, 1)
        assert.match(server.output(), said)
      })
    )
  }
})

describe("HTTP/2", () => {
  for (const connection of ["auto", "portable"] as const) {
    it.scopedLive(`a stream that is not read waits alone, and is ended by the stall rule (${connection})`, () =>
      Effect.gen(function* () {
        const hub = yield* SseHub.SseHub
        const client = yield* http2(yield* portOf)
        // What one stream holds unread counts on its connection's window as well (RFC 9113 section 5.2.1).
        client.session.setLocalWindowSize(16 * 1024 * 1024)
        const keep = (data: string) => data.replace(/x+/g, "")
        const stalled = client.get("/subscribe/", { paused: true })
        yield* clientCount(1)
        const siblings = Array.from({ length: 20 }, () => client.get("/subscribe/", { keep }))
        yield* Effect.forEach(siblings, (sibling) => sibling.until((body) => body !== ""))
        for (let i = 0; i < 20; i++) {
          yield* hub.publish({ namespace: "/n", data: `${i}:${"x".repeat(100_000)}` })
          yield* Effect.forEach(siblings, (sibling) => sibling.until((body) => body.includes(`data:${i}:`)))
        }
        const [waiting] = yield* hub.clients
        assert.isAbove(waiting!.pendingBytes, 1_800_000)
        yield* clientCount(20)
        const { ended } = yield* hub.status
        assert.strictEqual(ended.stalled, 1)
        stalled.stream.resume()
        assert.strictEqual((yield* stalled.ended).code, Http2.constants.NGHTTP2_CANCEL, "not taken for whole")
        yield* hub.publish({ namespace: "/n", data: "still there" })
        yield* Effect.forEach(siblings, (sibling) => sibling.until((body) => body.includes("still there")))
      }).pipe(Effect.provide(served({ connection }, { stallTimeout: "1 second", maxPendingBytes: 64 * 1024 * 1024 })))
    )

    it.scopedLive(`a stream for which too much waits is ended, and nobody else (${connection})`, () =>
      Effect.gen(function* () {
        const hub = yield* SseHub.SseHub
        const client = yield* http2(yield* portOf)
        client.session.setLocalWindowSize(16 * 1024 * 1024)
        const stalled = client.get("/subscribe/", { paused: true })
        yield* clientCount(1)
        const sibling = client.get("/subscribe/", { keep: (data) => data.replace(/x+/g, "") })
        yield* sibling.until((body) => body !== "")
        for (let i = 0; i < 20; i++) {
          yield* hub.publish({ namespace: "/n", data: `${i}:${"x".repeat(100_000)}` })
          yield* sibling.until((body) => body.includes(`data:${i}:`))
        }
        yield* clientCount(1)
        assert.strictEqual((yield* hub.status).ended["pending-overflow"], 1)
        stalled.stream.resume()
        assert.strictEqual((yield* stalled.ended).code, Http2.constants.NGHTTP2_CANCEL)
      }).pipe(Effect.provide(served({ connection })))
    )

    it.scopedLive(`knows at once who left: a stream, and a connection with all its streams (${connection})`, () =>
      Effect.gen(function* () {
        const client = yield* http2(yield* portOf)
        const streams = Array.from({ length: 100 }, () => client.get("/subscribe/"))
        yield* Effect.forEach(streams, (stream) => stream.until((body) => body !== ""))
        yield* clientCount(100)
        for (const { stream } of streams.slice(0, 40)) stream.close(Http2.constants.NGHTTP2_CANCEL)
        yield* clientCount(60)
        client.session.destroy()
        yield* clientCount(0)
      }).pipe(Effect.provide(served({ connection })))
    )
  }

  it.scopedLive("limits clients of one address also on one connection, and streams of one connection", () =>
    Effect.gen(function* () {
      const client = yield* http2(yield* portOf)
      const [first, second] = [client.get("/subscribe/"), client.get("/subscribe/")]
      yield* first.until((body) => body !== "")
      yield* second.until((body) => body !== "")
      const third = client.get("/subscribe/")
      assert.match((yield* third.ended).body, /^retry:\d+\n\n$/)
      assert.strictEqual(client.session.remoteSettings.maxConcurrentStreams, 3)
      assert.strictEqual(client.session.remoteSettings.maxHeaderListSize, 16 * 1024)
    }).pipe(Effect.provide(served({ maxStreamsPerConnection: 3 }, { maxClientsPerAddress: 2 })))
  )

  it.scopedLive("ends who opens and cancels streams without end (rapid reset), and serves the others", () =>
    Effect.gen(function* () {
      const hub = yield* SseHub.SseHub
      const port = yield* portOf
      const witness = (yield* http2(port)).get("/subscribe/")
      yield* witness.until((body) => body !== "")
      const attacker = yield* http2(port)
      let closed = false
      let goaway: number | undefined
      attacker.session.on("goaway", (code) => (goaway = code))
      attacker.session.on("close", () => (closed = true))
      for (let round = 0; round < 100 && !closed; round++) {
        for (let i = 0; i < 100 && !attacker.session.destroyed && !attacker.session.closed; i++) {
          attacker.get("/subscribe/").stream.close(Http2.constants.NGHTTP2_CANCEL)
        }
        yield* Effect.async<void>((resume) => void setImmediate(() => resume(Effect.void)))
      }
      yield* eventually(Effect.sync(() => closed))
      assert.isDefined(goaway)
      yield* clientCount(1)
      yield* hub.publish({ namespace: "/", data: "still there" })
      yield* witness.until((body) => body.includes("still there"))
    }).pipe(Effect.provide(served()))
  )

  it.scopedLive("closes a connection that asks for nothing, and ends a request that does not arrive", () =>
    Effect.gen(function* () {
      const port = yield* portOf
      const closes = (emitter: EventEmitter) =>
        Effect.async<void>((resume) => void emitter.once("close", () => resume(Effect.void)))
      const silent = yield* Effect.acquireRelease(
        Effect.sync(() => Net.connect(port, "127.0.0.1")),
        (socket) => Effect.sync(() => socket.destroy())
      )
      const idle = yield* http2(port)
      const busy = yield* http2(port)
      const stays = busy.get("/subscribe/")
      yield* stays.until((body) => body !== "")
      const upload = watch(
        busy.session.request({ ":path": "/publish/x", ":method": "POST", authorization: "Bearer secret" })
      )
      upload.stream.write("a")
      const waiting = [closes(silent), closes(idle.session), upload.ended] as const
      yield* Effect.all(waiting, { concurrency: "unbounded" })
      assert.strictEqual(upload.head()[":status"], 408)
      assert.isFalse(stays.stream.closed, "a stream may stay")
      stays.stream.close()
      yield* closes(busy.session)
    }).pipe(Effect.provide(served({ requestTimeout: "900 millis" })))
  )

  it.scopedLive("refuses a head that is too large", () =>
    Effect.gen(function* () {
      const client = yield* http2(yield* portOf)
      const big = watch(client.session.request({ ":path": "/healthz", "x-big": "y".repeat(20_000) }))
      const { code } = yield* big.ended
      assert.notStrictEqual(big.head()[":status"], 200)
      assert.notStrictEqual(code, Http2.constants.NGHTTP2_NO_ERROR)
      const first = yield* request(yield* portOf, "/healthz", { tls: true, headers: { "X-Big": "y".repeat(20_000) } })
      assert.strictEqual(first.status, 431)
    }).pipe(Effect.provide(served()))
  )

  it.scopedLive("asks a hook who is gone when it answers, and registers nobody", () =>
    Effect.gen(function* () {
      const asked = yield* Deferred.make<void>()
      const answer = yield* Deferred.make<void>()
      yield* Effect.gen(function* () {
        const hub = yield* SseHub.SseHub
        const client = yield* http2(yield* portOf)
        client.get("/subscribe/gone")
        yield* Deferred.await(asked)
        client.session.destroy()
        yield* Deferred.succeed(answer, undefined)
        const other = (yield* http2(yield* portOf)).get("/subscribe/there")
        yield* other.until((body) => body !== "")
        yield* clientCount(1)
        assert.deepStrictEqual(
          (yield* hub.clients).map(({ requestPath }) => requestPath),
          ["/subscribe/there"]
        )
      }).pipe(
        Effect.provide(
          served({
            subscribe: () =>
              Effect.zipRight(Deferred.succeed(asked, undefined), Effect.as(Deferred.await(answer), { id: "a" }))
          })
        )
      )
    })
  )

  it.scopedLive("SIGTERM with 1,000 streams open: each is told when to come back and ends whole; exit 0", () =>
    Effect.gen(function* () {
      const { tls } = yield* certificate
      const server = yield* serve({ SSE_TLS_KEY: tls.key, SSE_TLS_CERT: tls.cert })
      const clients = yield* Effect.replicateEffect(http2(server.port), 10)
      let goaways = 0
      for (const { session } of clients) session.once("goaway", () => goaways++)
      const streams = clients.flatMap((client) => Array.from({ length: 100 }, () => client.get("/subscribe/")))
      yield* Effect.forEach(streams, (stream) => stream.until((body) => body !== ""))
      // One of them reads nothing, one connection has no stream, and one never began.
      const stalled = (yield* http2(server.port)).get("/subscribe/", { paused: true })
      yield* http2(server.port)
      yield* Effect.acquireRelease(
        Effect.sync(() => Net.connect(server.port, "127.0.0.1").on("error", () => {})),
        (socket) => Effect.sync(() => socket.destroy())
      )
      const [taken, code] = yield* Effect.timed(
        Effect.zipRight(
          Effect.sync(() => server.process.kill("SIGTERM")),
          server.exit
        )
      )
      assert.strictEqual(code, 0)
      // A second to send them away, and one to wait for those who do not go.
      assert.isBelow(Duration.toMillis(taken), 4000)
      const retries = new Set<string>()
      for (const stream of streams) {
        const { body, code } = yield* stream.ended
        assert.strictEqual(code, Http2.constants.NGHTTP2_NO_ERROR)
        retries.add(/^:ok\n\nretry:(\d+)\n\n$/.exec(body)![1]!)
      }
      assert.isAbove(retries.size, 500)
      assert.strictEqual(goaways, 10)
      stalled.stream.resume()
      yield* stalled.ended
    })
  )

  const tools = Effect.gen(function* () {
    const url = `https://127.0.0.1:${yield* portOf}`
    return { url, run: (program: string, ...args: ReadonlyArray<string>) => command(program, args) }
  })

  it.scopedLive("curl --http2 and --http1.1 follow a stream", () =>
    Effect.gen(function* () {
      const hub = yield* SseHub.SseHub
      const { run, url } = yield* tools
      for (const [flag, line] of [
        ["--http2", /^HTTP\/2 200/],
        ["--http1.1", /^HTTP\/1\.1 200/]
      ] as const) {
        const curl = yield* run("curl", "-skNi", flag, `${url}/subscribe/pets`)
        yield* curl.until(/:ok\n\n/)
        assert.match(curl.output(), line)
        yield* hub.publish({ namespace: "/pets/dogs", event: "new-dog", data: "Corgi" })
        yield* curl.until(/event:new-dog\ndata:Corgi\n\n/)
        for (const { id } of yield* hub.clients) yield* hub.disconnect(id)
        assert.strictEqual(yield* curl.exit, 0, "the end is a clean one")
      }
    }).pipe(Effect.provide(served()))
  )

  it.scopedLive("nghttp sees a stream's frames, and its end", () =>
    Effect.gen(function* () {
      const hub = yield* SseHub.SseHub
      const { run, url } = yield* tools
      const nghttp = yield* run("nghttp", "-nv", `${url}/subscribe/pets`)
      yield* nghttp.until(/:status: 200[^]*recv DATA frame <length=5,/)
      yield* hub.publish({ namespace: "/pets", data: "Corgi" })
      yield* nghttp.until(/recv DATA frame <length=12, flags=0x00/)
      for (const { id } of yield* hub.clients) yield* hub.disconnect(id)
      assert.strictEqual(yield* nghttp.exit, 0)
      assert.match(nghttp.output(), /recv DATA frame <length=0, flags=0x01[^]*END_STREAM/)
      assert.notMatch(nghttp.output(), /RST_STREAM|error_code=(?!NO_ERROR)/)
    }).pipe(Effect.provide(served()))
  )

  it.scopedLive("h2load: 5,000 requests of 500 streams at a time, all answered, beside a stream", () =>
    Effect.gen(function* () {
      const hub = yield* SseHub.SseHub
      const { run, url } = yield* tools
      const witness = (yield* http2(yield* portOf)).get("/subscribe/")
      const load = yield* run("h2load", "-n", "5000", "-c", "5", "-m", "100", `${url}/healthz`)
      assert.strictEqual(yield* load.exit, 0)
      assert.match(load.output(), /5000 succeeded, 0 failed, 0 errored, 0 timeout/)
      assert.match(load.output(), /status codes: 5000 2xx/)
      yield* hub.publish({ namespace: "/", data: "still there" })
      yield* witness.until((body) => body.includes("still there"))
    }).pipe(Effect.provide(served()))
  )

  describe.skipIf(!Browser.canRun)("Chromium", () => {
    it.scopedLive("opens 100 EventSources of one page on one connection, and each gets its event", () =>
      Effect.gen(function* () {
        const hub = yield* SseHub.SseHub
        const origin = `https://localhost:${yield* portOf}`
        const context = yield* Browser.browserWith({ ignoreHTTPSErrors: true })
        const page = yield* Effect.promise(() => context.newPage())
        yield* Effect.promise(async () => {
          await page.route(`${origin}/page`, (route) =>
            route.fulfill({ contentType: "text/html", body: "<!doctype html>" })
          )
          await page.goto(`${origin}/page`)
          await page.evaluate(() => {
            const seen = { open: 0, got: new Set<string>(), errors: 0 }
            Object.assign(globalThis, { seen })
            for (let i = 0; i < 100; i++) {
              const source = new EventSource(`/subscribe/load/${i}`)
              source.addEventListener("open", () => seen.open++)
              source.addEventListener("error", () => seen.errors++)
              source.addEventListener("message", ({ data }) => {
                if (data === String(i)) seen.got.add(data)
              })
            }
          })
          await page.waitForFunction(() => (globalThis as unknown as { seen: { open: number } }).seen.open === 100)
        })
        yield* clientCount(100)
        for (let i = 0; i < 100; i++) yield* hub.publish({ namespace: `/load/${i}`, data: String(i) })
        const result = yield* Effect.promise(async () => {
          await page.waitForFunction(
            () => (globalThis as unknown as { seen: { got: Set<string> } }).seen.got.size === 100
          )
          await page.evaluate(() => fetch("/healthz").then((response) => response.text()))
          await page.waitForFunction(() => performance.getEntriesByName(`${location.origin}/healthz`).length > 0)
          return page.evaluate(() => {
            const [entry] = performance.getEntriesByName(`${location.origin}/healthz`)
            const { errors } = (globalThis as unknown as { seen: { errors: number } }).seen
            return { errors, protocol: (entry as PerformanceResourceTiming).nextHopProtocol }
          })
        })
        assert.deepStrictEqual(result, { errors: 0, protocol: "h2" })
        yield* Effect.promise(() => page.close())
        yield* clientCount(0)
      }).pipe(Effect.provide(served()))
    )

    for (const protocol of ["h2", "http/1.1"] as const) {
      it.scopedLive(`one EventSource gets the events of 100 namespaces, over ${protocol}`, () =>
        Effect.gen(function* () {
          const hub = yield* SseHub.SseHub
          const origin = `${protocol === "h2" ? "https" : "http"}://localhost:${yield* portOf}`
          const context = yield* Browser.browserWith({ ignoreHTTPSErrors: true })
          const page = yield* Effect.promise(() => context.newPage())
          yield* Effect.promise(() => page.goto(`${origin}/healthz`))
          yield* Effect.promise(() =>
            // As text: it runs in the page.
            page.evaluate(`
              globalThis.got = []
              const namespaces = Array.from({ length: 100 }, (_, i) => "ns=/load/" + i)
              const source = new EventSource("/subscribe?" + namespaces.join("&"))
              source.onmessage = ({ data }) => got.push(data)
            `)
          )
          yield* clientCount(1)
          const names = Array.from({ length: 100 }, (_, i) => String(i))
          yield* hub.publishAll([...names, "other"].map((name) => ({ namespace: `/load/${name}`, data: name })))
          yield* Effect.promise(() => page.waitForFunction("got.length >= 100"))
          assert.deepStrictEqual(yield* Effect.promise(() => page.evaluate("got")), names)
          yield* Effect.promise(() => page.close())
          yield* clientCount(0)
        }).pipe(Effect.provide(protocol === "h2" ? served() : serverLayer()))
      )
    }

    it.scopedLive("over HTTP/1.1 six would", () =>
      Effect.gen(function* () {
        const hub = yield* SseHub.SseHub
        const origin = `http://localhost:${yield* portOf}`
        const context = yield* Browser.browser
        const page = yield* Effect.promise(() => context.newPage())
        yield* Effect.promise(async () => {
          await page.route(`${origin}/page`, (route) =>
            route.fulfill({ contentType: "text/html", body: "<!doctype html>" })
          )
          await page.goto(`${origin}/page`)
          await page.evaluate(() => {
            const sources = Array.from({ length: 100 }, (_, i) => new EventSource(`/subscribe/load/${i}`))
            Object.assign(globalThis, { sources })
          })
        })
        yield* clientCount(6)
        assert.strictEqual((yield* hub.status).clients, 6)
      }).pipe(Effect.provide(serverLayer()))
    )
  })
})
