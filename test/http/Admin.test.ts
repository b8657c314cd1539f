import { HttpApp, HttpRouter, HttpServer, HttpServerResponse } from "@effect/platform"
import { NodeHttpServer } from "@effect/platform-node"
import { assert, describe, it } from "@effect/vitest"
import type { Connection } from "effect-sse"
import { Namespace, SseError, SseHub, SseLayer, SseRoutes } from "effect-sse"
import { Effect, Fiber, Layer, Schema, Stream, TestClock } from "effect"
import { createServer } from "node:http"
import { connect, request } from "../support/rawClient.js"
import { eventually, port, serverLayer } from "../support/server.js"
import { version } from "../../src/internal/version.js"
import packageJson from "../../package.json" with { type: "json" }

/** What the Go server's `/admin/status.json` is decoded into, field for field. */
const GoStatus = Schema.Struct({
  node: Schema.String,
  status: Schema.String,
  reported_at: Schema.Int,
  startup_time: Schema.Int,
  msgs_broadcast: Schema.NonNegativeInt,
  connections: Schema.Array(
    Schema.Struct({
      request_path: Schema.String,
      namespace: Schema.String,
      created_at: Schema.Int,
      client_ip: Schema.String,
      user_agent: Schema.String,
      msgs_sent: Schema.NonNegativeInt
    })
  )
})

const decodeGo = Schema.decodeUnknownSync(Schema.parseJson(GoStatus))

interface Ours {
  readonly connections_total: number
  readonly connections_matching: number
  readonly next: number | null
  readonly disconnects: Record<string, number>
  readonly namespaces: ReadonlyArray<{
    readonly namespace: string
    readonly subscribers: number
    readonly publishes: number
  }>
  readonly recent_disconnects: ReadonlyArray<{ readonly reason: string }>
  readonly connections: ReadonlyArray<{ readonly id: number; readonly principal?: string; readonly metadata?: unknown }>
}

/** A client that reads at once. */
const fake = (): Connection.Connection => ({
  keepsItselfAlive: true,
  write: () => 0,
  pendingBytes: () => 0,
  end: () => {},
  onClose: () => {}
})

const join = (path: string, { address, metadata }: { readonly address?: string; readonly metadata?: unknown } = {}) =>
  Effect.flatMap(SseHub.SseHub, (hub) =>
    hub.connect({
      namespaces: [Namespace.make(path)],
      connection: fake(),
      requestPath: `/subscribe${path}`,
      userAgent: "test",
      address,
      ...(metadata === undefined ? {} : { principal: { id: "one", metadata } })
    })
  )

const openTo = (admin: SseRoutes.RoutesOptions["admin"]) =>
  Effect.map(Effect.runtime<SseHub.SseHub>(), (runtime) => {
    const handler = HttpApp.toWebHandlerRuntime(runtime)(SseRoutes.router({ admin, node: "here" }))
    return (path: string, init?: RequestInit) =>
      Effect.promise(() => handler(new Request(`http://localhost${path}`, init)))
  })

const open = openTo("open")

const text = (response: Response) => Effect.promise(() => response.text())
const ours = (response: Response) => Effect.map(text(response), (body) => JSON.parse(body) as Ours)

describe("Admin", () => {
  describe("status.json", () => {
    it.scoped("is the Go server's document", () =>
      Effect.gen(function* () {
        yield* TestClock.adjust("1000 seconds")
        const hub = yield* SseHub.SseHub
        const get = yield* open
        yield* join("/pets/dogs", { address: "192.0.2.1" })
        yield* TestClock.adjust("90 seconds")
        yield* join("/")
        yield* hub.publish({ namespace: "/pets/dogs", data: "Corgi" })
        yield* hub.publish({ namespace: "/time", data: "noon" })
        yield* eventually(Effect.map(hub.status, ({ deliveries }) => deliveries === 3))
        const response = yield* get("/admin/status.json")
        assert.strictEqual(response.headers.get("content-type"), "application/json")
        assert.deepStrictEqual(decodeGo(yield* text(response), { onExcessProperty: "ignore" }), {
          node: "here",
          status: "OK",
          reported_at: 1090,
          startup_time: 0,
          msgs_broadcast: 2,
          connections: [
            {
              request_path: "/subscribe/pets/dogs",
              namespace: "/pets/dogs",
              created_at: 1000,
              client_ip: "192.0.2.1",
              user_agent: "test",
              msgs_sent: 1
            },
            {
              request_path: "/subscribe/",
              namespace: "/",
              created_at: 1090,
              client_ip: "",
              user_agent: "test",
              msgs_sent: 2
            }
          ]
        })
      }).pipe(Effect.provide(SseLayer))
    )

    it.scoped("counts by namespace and by reason, and shows what the app knows of a client", () =>
      Effect.gen(function* () {
        const hub = yield* SseHub.SseHub
        const get = yield* open
        const cyclic: { self?: unknown } = {}
        cyclic.self = cyclic
        yield* join("/a", { metadata: { user: "Ann", level: 3 } })
        yield* join("/a", { metadata: cyclic })
        const gone = yield* join("/b")
        yield* hub.disconnect(gone.id)
        yield* eventually(Effect.map(hub.clients, (clients) => clients.length === 2))
        for (let i = 0; i < 20; i++) {
          yield* hub.publishAll([
            { namespace: "/a", data: "x" },
            { namespace: "/c", data: "y" }
          ])
          yield* eventually(Effect.map(hub.status, ({ deliveries }) => deliveries === 2 * (i + 1)))
        }
        const status = yield* ours(yield* get("/admin/status.json"))
        assert.strictEqual(status.connections_total, 2)
        assert.strictEqual(status.disconnects["disconnected"], 1)
        assert.deepStrictEqual(
          status.recent_disconnects.map(({ reason }) => reason),
          ["disconnected"]
        )
        assert.deepStrictEqual(
          status.namespaces.map(({ namespace, publishes, subscribers }) => [namespace, subscribers, publishes]),
          [
            ["/a", 2, 20],
            ["/c", 0, 20]
          ]
        )
        assert.deepStrictEqual(
          status.connections.map(({ metadata, principal }) => [principal, metadata]),
          [
            ["one", { user: "Ann", level: 3 }],
            ["one", "(not JSON)"]
          ]
        )
        const below = yield* ours(yield* get("/admin/status.json?namespace=/c"))
        assert.deepStrictEqual([below.namespaces.length, below.connections.length], [1, 0])
        const ann = yield* ours(yield* get("/admin/status.json?filter=ANN"))
        assert.deepStrictEqual([ann.connections_total, ann.connections_matching], [2, 1])
        const none = yield* ours(yield* get("/admin/status.json?filter=null"))
        assert.strictEqual(none.connections_matching, 0)
      }).pipe(Effect.provide(SseLayer))
    )

    it.scoped("pages through 2,500 connections, each once, with exact totals", () =>
      Effect.gen(function* () {
        const get = yield* open
        for (let i = 0; i < 2500; i++) yield* join(i % 2 === 0 ? "/even" : "/odd")
        const seen: Array<number> = []
        let next: number | null = 0
        while (next !== null) {
          const page: Ours = yield* ours(yield* get(`/admin/status.json?limit=400&namespace=/even&after=${next}`))
          assert.strictEqual(page.connections_total, 2500)
          assert.strictEqual(page.connections_matching, 1250)
          assert.isAtMost(page.connections.length, 400)
          seen.push(...page.connections.map(({ id }) => id))
          next = page.next
        }
        assert.strictEqual(seen.length, 1250)
        assert.strictEqual(new Set(seen).size, 1250)
        assert.deepStrictEqual(
          seen,
          seen.toSorted((a, b) => a - b)
        )
        assert.strictEqual((yield* ours(yield* get("/admin/status.json"))).connections.length, 1000)
      }).pipe(Effect.provide(SseLayer))
    )

    it.scoped("gives other fibers their turn while it makes a long answer", () =>
      Effect.gen(function* () {
        const get = yield* open
        for (let i = 0; i < 10_000; i++) yield* join("/many")
        let longest = 0
        let last = performance.now()
        const look = () => {
          const now = performance.now()
          longest = Math.max(longest, now - last)
          last = now
        }
        const looking = setInterval(look, 0)
        const answer = yield* text(yield* get("/admin/status.json?limit=10000"))
        look()
        clearInterval(looking)
        assert.strictEqual((JSON.parse(answer) as Ours).connections.length, 10_000)
        // 9 ms were measured; this machine may be busy.
        assert.isBelow(longest, 200)
      }).pipe(Effect.provide(SseLayer))
    )

    it.scoped("says what is wrong with a query", () =>
      Effect.gen(function* () {
        const get = yield* open
        for (const query of ["limit=0", "limit=x", "limit=10001", "after=-1", "sort=name", "after=5&sort=msgs_sent"]) {
          const response = yield* get(`/admin/status.json?${query}`)
          assert.strictEqual(response.status, 400, query)
          assert.strictEqual((JSON.parse(yield* text(response)) as { error: string }).error, "InvalidQuery")
        }
        assert.strictEqual((yield* get("/admin/status.json?namespace=x")).status, 400)
        assert.strictEqual((yield* get("/admin/nothing")).status, 404)
        assert.strictEqual((yield* get("/admin/status.json", { method: "POST" })).status, 405)
      }).pipe(Effect.provide(SseLayer))
    )
  })

  describe("access", () => {
    const routes = ["/admin", "/admin/", "/admin/status.json", "/admin/events", "/admin/watch/pets", "/admin/clients/1"]

    it.scoped("a stream ends when what lets its viewer in expires or is revoked, within a second", () =>
      Effect.gen(function* () {
        const hub = yield* SseHub.SseHub
        const get = yield* openTo(() => Effect.succeed({ id: "ann", issuedAt: 0, expiresAt: 60_000 }))
        const watch = (path: string) => Effect.flatMap(get(path), (response) => Effect.fork(text(response)))
        const [first, second] = [yield* watch("/admin/watch/a"), yield* watch("/admin/watch/b")]
        yield* eventually(Effect.map(hub.status, ({ subscriptions }) => subscriptions === 2))
        yield* TestClock.adjust("59 seconds")
        assert.strictEqual((yield* hub.status).subscriptions, 2)
        yield* TestClock.adjust("2 seconds")
        assert.include(yield* Fiber.join(first), ":ok")
        yield* Fiber.join(second)
        assert.strictEqual((yield* get("/admin/watch/")).status, 401)

        const until = yield* openTo(() => Effect.succeed({ id: "bob", issuedAt: 0 }))
        const third = yield* Effect.flatMap(until("/admin/watch/"), (response) => Effect.fork(text(response)))
        yield* eventually(Effect.map(hub.status, ({ subscriptions }) => subscriptions === 1))
        yield* hub.revoke("bob")
        yield* TestClock.adjust("1 second")
        yield* Fiber.join(third)
      }).pipe(Effect.provide(SseLayer))
    )

    it.scoped("off: refuses every admin route as the Go server does", () =>
      Effect.gen(function* () {
        const listening = yield* port
        for (const path of routes) {
          for (const method of ["GET", "DELETE"]) {
            const answer = yield* request(listening, path, { method })
            assert.deepStrictEqual([answer.status, answer.body], [403, "403 admin endpoint disabled\n"], path)
          }
        }
        assert.strictEqual((yield* request(listening, "/healthz")).status, 200)
      }).pipe(Effect.provide(serverLayer({ admin: "off" })))
    )

    it.scoped("loopback: answers this machine, and none that only seems to be it", () =>
      Effect.gen(function* () {
        const listening = yield* port
        const ask = (path: string, headers: Record<string, string>) =>
          Effect.map(request(listening, path, { headers }), ({ status }) => status)
        for (const path of ["/admin/status.json", "/metrics"]) {
          assert.strictEqual(yield* ask(path, { Host: `127.0.0.1:${listening}` }), 200)
          assert.strictEqual(yield* ask(path, { Host: `localhost:${listening}` }), 200)
          assert.strictEqual(yield* ask(path, { Host: "[::1]:80" }), 200)
          // A page elsewhere whose name was made to mean this machine.
          assert.strictEqual(yield* ask(path, { Host: "evil.example" }), 403)
          assert.strictEqual(yield* ask(path, { Host: "localhost.evil.example" }), 403)
          // Through a proxy on this machine, of which the server was not told.
          for (const header of ["X-Forwarded-For", "Forwarded", "X-Real-IP", "Via"]) {
            assert.strictEqual(yield* ask(path, { [header]: "127.0.0.1" }), 403)
          }
        }
      }).pipe(Effect.provide(serverLayer()))
    )

    it.scoped("loopback: behind a trusted proxy the client's own address counts", () =>
      Effect.gen(function* () {
        const listening = yield* port
        const ask = (address: string) =>
          Effect.map(
            request(listening, "/admin/status.json", { headers: { "X-Forwarded-For": address } }),
            ({ status }) => status
          )
        assert.strictEqual(yield* ask("127.0.0.1"), 200)
        assert.strictEqual(yield* ask("192.0.2.7"), 403)
        assert.strictEqual(yield* ask("127.0.0.1, 192.0.2.7"), 403)
        // What cannot be read, or is not the header that the proxy was said to write, proves nothing.
        for (const header of ["unknown", "192.0.2.7:bad", "127.0.0.1, unknown"]) {
          assert.strictEqual(yield* ask(header), 403, header)
        }
        for (const header of ["X-Real-IP", "Forwarded", "Via"]) {
          const { status } = yield* request(listening, "/admin/status.json", { headers: { [header]: "127.0.0.1" } })
          assert.strictEqual(status, 403, header)
        }
      }).pipe(Effect.provide(serverLayer({ trustedProxies: ["127.0.0.1"] })))
    )

    it.scoped("loopback: a proxy on this machine that is not among the trusted ones", () =>
      Effect.gen(function* () {
        const headers = { "X-Forwarded-For": "192.0.2.7" }
        assert.strictEqual((yield* request(yield* port, "/admin/status.json", { headers })).status, 403)
      }).pipe(Effect.provide(serverLayer({ trustedProxies: ["10.0.0.0/8"] })))
    )

    it.scoped("loopback: Forwarded that names nobody", () =>
      Effect.gen(function* () {
        const listening = yield* port
        const ask = (value: string) =>
          Effect.map(
            request(listening, "/admin/status.json", { headers: { Forwarded: value } }),
            ({ status }) => status
          )
        for (const value of ["for=unknown", "for=_hidden", "proto=https"])
          assert.strictEqual(yield* ask(value), 403, value)
        assert.strictEqual(yield* ask("for=127.0.0.1;proto=https"), 200)
      }).pipe(Effect.provide(serverLayer({ trustedProxies: ["127.0.0.1"], header: "forwarded" })))
    )

    it.scoped("an effect decides by the request", () =>
      Effect.gen(function* () {
        const listening = yield* port
        const ask = (headers: Record<string, string>) =>
          Effect.map(request(listening, "/admin/status.json", { headers }), ({ status }) => status)
        assert.strictEqual(yield* ask({ Cookie: "operator=yes" }), 200)
        assert.strictEqual(yield* ask({}), 401)
        assert.strictEqual(yield* ask({ Cookie: "operator=no" }), 403)
      }).pipe(
        Effect.provide(
          serverLayer({
            admin: ({ headers }) =>
              headers["cookie"] === undefined
                ? Effect.fail(HttpServerResponse.empty({ status: 401, headers: { "www-authenticate": "Basic" } }))
                : headers["cookie"] === "operator=yes"
                  ? Effect.succeed({ id: "operator" })
                  : new SseError.Refused({ kind: "forbidden", reason: "not an operator" })
          })
        )
      )
    )
  })

  describe("disconnect", () => {
    it.scopedLive("ends a client, for this site's pages and for programs, not for other sites", () =>
      Effect.gen(function* () {
        const hub = yield* SseHub.SseHub
        const listening = yield* port
        const client = yield* connect(listening, "/subscribe/a")
        yield* client.until((body) => body !== "")
        const { id } = (yield* hub.clients)[0]!
        const send = (headers: Record<string, string>, method = "DELETE") =>
          Effect.map(request(listening, `/admin/clients/${id}`, { method, headers }), ({ status }) => status)
        assert.strictEqual(yield* send({ "Sec-Fetch-Site": "cross-site" }), 403)
        assert.strictEqual(yield* send({ "Sec-Fetch-Site": "same-site" }), 403)
        assert.strictEqual(yield* send({ Origin: "http://evil.example" }), 403)
        assert.strictEqual(yield* send({ Origin: "null" }), 403)
        assert.strictEqual(yield* send({}, "POST"), 405)
        assert.strictEqual((yield* hub.clients).length, 1)
        // The page itself, behind a proxy that asks for another host than the browser did.
        const behind = { Host: "localhost:1", Origin: "https://sse.example", "Sec-Fetch-Site": "same-origin" }
        assert.strictEqual(yield* send(behind), 204)
        assert.isTrue((yield* client.ended).clean)
        assert.strictEqual((yield* hub.status).ended.disconnected, 1)
        assert.strictEqual(yield* send({ Host: "localhost:1", Origin: "http://localhost:1" }), 404)
        assert.strictEqual(yield* send({}), 404)
      }).pipe(Effect.provide(serverLayer()))
    )
  })

  describe("page", () => {
    it.scoped("is one document under a strict policy, also where it is mounted", () =>
      Effect.gen(function* () {
        const get = yield* open
        const moved = yield* get("/admin")
        assert.deepStrictEqual([moved.status, moved.headers.get("location")], [308, "admin/"])
        const response = yield* get("/admin/")
        const policy = response.headers.get("content-security-policy")!
        const nonce = /script-src 'nonce-([^']+)'/.exec(policy)![1]!
        assert.include(policy, "default-src 'none'")
        const html = yield* text(response)
        assert.include(html, `<script nonce="${nonce}">`)
        assert.notMatch(html, /(?:src|href)="(?!data:|status\.json)/)
        assert.notInclude(yield* text(yield* get("/admin/")), nonce)
      }).pipe(Effect.provide(SseLayer))
    )

    it.scopedLive("is fed by events, first with what was, and ends with the hub", () =>
      Effect.gen(function* () {
        const hub = yield* SseHub.SseHub
        const client = yield* connect(yield* port, "/admin/events")
        const body = yield* client.until((body) => body.includes("event:status\n"))
        assert.match(body, /^:ok\n\nretry:1000\n\nevent:history\ndata:\[.*\]\n\nevent:status\ndata:\{"node":/)
        yield* hub.shutdown
        assert.isTrue((yield* client.ended).clean)
      }).pipe(Effect.provide(serverLayer()))
    )

    it.scoped("a watch of a hub that has closed ends", () =>
      Effect.gen(function* () {
        const hub = yield* SseHub.SseHub
        const get = yield* open
        yield* hub.shutdown
        assert.strictEqual(yield* text(yield* get("/admin/watch/x")), ":ok\n\nretry:1000\n\n")
      }).pipe(Effect.provide(SseLayer))
    )

    it.scopedLive("has a bounded number of streams open, and counts those that left", () =>
      Effect.gen(function* () {
        const listening = yield* port
        const open = () => connect(listening, "/admin/watch/x")
        const clients = yield* Effect.forEach(Array.from({ length: 64 }), open)
        yield* Effect.forEach(clients, (client) => client.until((body) => body !== ""))
        assert.strictEqual((yield* request(listening, "/admin/events")).status, 503)
        clients[0]!.socket.destroy()
        const answered = Effect.flatMap(open(), (client) => Effect.map(client.head, (head) => head.includes(" 200 ")))
        yield* eventually(Effect.scoped(answered))
      }).pipe(Effect.provide(serverLayer()))
    )

    it.scopedLive("ends who takes nothing for the stall timeout, and nobody else", () =>
      Effect.gen(function* () {
        yield* HttpServer.serveEffect(Effect.orDie(yield* HttpRouter.toHttpApp(SseRoutes.router())))
        const listening = yield* port
        const open = (path: string) =>
          Effect.tap(connect(listening, path), (client) => client.until((body) => body !== ""))
        const watching = yield* open("/admin/watch/a")
        const stuck = yield* Effect.forEach(["/admin/watch/a?stuck", "/admin/events?stuck"], open)
        const start = performance.now()
        yield* Effect.forEach(stuck, (client) => client.ended, { concurrency: "unbounded" })
        assert.isAtLeast(performance.now() - start, 300 - 50)
        const hub = yield* SseHub.SseHub
        yield* hub.publish({ namespace: "/a", data: "still here" })
        yield* watching.until((body) => body.includes("still here"))
      }).pipe(
        Effect.scoped,
        Effect.provide(
          Layer.provideMerge(
            NodeHttpServer.layer(
              () =>
                // What a full network looks like to who writes.
                createServer().on("request", ({ url }, response) => {
                  const { write } = response
                  if (url?.endsWith("?stuck") === true) {
                    response.write = (...args: ReadonlyArray<unknown>) => Reflect.apply(write, response, args) && false
                  }
                }),
              { port: 0 }
            ),
            SseHub.layer({ stallTimeout: "300 millis" })
          )
        )
      )
    )

    it.scopedLive("watches a namespace and what is below, a bounded number at a time", () =>
      Effect.gen(function* () {
        const hub = yield* SseHub.SseHub
        const client = yield* connect(yield* port, "/admin/watch/caf%C3%A9")
        yield* eventually(Effect.map(hub.status, ({ subscriptions }) => subscriptions === 1))
        yield* hub.publishAll([
          ...Array.from({ length: 200 }, (_, i) => ({ namespace: "/café/a", data: String(i) })),
          { namespace: "/other", data: "no" },
          { namespace: "/café", event: "last", data: "x".repeat(3000) }
        ])
        const body = yield* client.until((body) => body.includes('"event":"last"'))
        const watched = body
          .split("\n")
          .filter((line) => line.startsWith("data:"))
          .map((line) => JSON.parse(line.slice(5)) as { skipped: number; events: Array<Record<string, unknown>> })
        const events = watched.flatMap(({ events }) => events)
        assert.strictEqual(events.length + watched.reduce((sum, { skipped }) => sum + skipped, 0), 201)
        assert.isAtMost(events.length, 50 * watched.length)
        assert.deepInclude(events.at(-1), { namespace: "/café", event: "last", data: "x".repeat(2000), length: 3000 })
      }).pipe(Effect.provide(serverLayer()))
    )
  })

  it.scoped("healthz: 200, and 503 while the hub drains", () =>
    Effect.gen(function* () {
      const hub = yield* SseHub.SseHub
      const get = yield* open
      const ok = yield* get("/healthz")
      assert.deepStrictEqual([ok.status, yield* text(ok)], [200, '{"status":"ok"}'])
      yield* hub.shutdown
      const draining = yield* get("/healthz")
      assert.deepStrictEqual([draining.status, yield* text(draining)], [503, '{"status":"draining"}'])
      assert.strictEqual((yield* get("/healthz", { method: "POST" })).status, 405)
      assert.strictEqual((yield* get("/healthz/x")).status, 404)
    }).pipe(Effect.provide(SseLayer))
  )

  it.scopedLive("the app tells what it knows of a client that subscribes", () =>
    Effect.gen(function* () {
      const hub = yield* SseHub.SseHub
      const client = yield* connect(yield* port, "/subscribe/a", { headers: { Cookie: "user=ann" } })
      yield* client.until((body) => body !== "")
      const joined = yield* Stream.runHead(hub.presence("/a"))
      assert.deepInclude(
        joined.pipe((one) => (one._tag === "Some" ? one.value.client : {})),
        {
          metadata: { user: "user=ann" }
        }
      )
    }).pipe(
      Effect.provide(
        serverLayer({
          subscribe: ({ headers }) => Effect.succeed({ id: "ann", metadata: { user: headers["cookie"] } })
        })
      )
    )
  )

  it("knows its version", () => assert.strictEqual(version, packageJson.version))
})
