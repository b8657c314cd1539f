import { assert, describe, it } from "@effect/vitest"
import { Clock, Effect, Fiber } from "effect"
import { command, node } from "./support/command.js"
import { bySecret, claims, keyServer, secret, sign, signer } from "./support/jwt.js"
import { connect, request } from "./support/rawClient.js"
import { eventually } from "./support/server.js"

const run = (args: ReadonlyArray<string>, env?: Record<string, string>) => node(["dist/bin.js", ...args], env)

const serve = (args: ReadonlyArray<string> = [], env: Record<string, string> = {}) =>
  Effect.gen(function* () {
    const server = yield* run(["serve", "--port", "0", ...args], env)
    const [, port] = yield* server.until(/listens on http:\/\/127\.0\.0\.1:(\d+)/)
    return Object.assign(server, { port: Number(port) })
  })

describe("effect-sse serve", () => {
  it.scopedLive("shows the pets of the demo, and the curl line it prints publishes", () =>
    Effect.gen(function* () {
      const server = yield* serve(["--demo"])
      const client = yield* connect(server.port, "/subscribe/pets")
      yield* client.until((body) => /event:new-(dog|cat)\ndata:\w+\n\n/.test(body))
      const time = yield* connect(server.port, "/subscribe/time")
      yield* time.until((body) => /data:\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d/.test(body))
      const [, line] = yield* server.until(/publish +curl (.*)/)
      const [, header, data, url] = /-H '(.*?)' --data-binary '(.*?)' '(.*?)'/.exec(line!)!
      const [name, value] = header!.split(": ")
      const response = yield* Effect.promise(() =>
        fetch(url!, { method: "POST", headers: { [name!]: value! }, body: `${data} by curl` })
      )
      assert.strictEqual(response.status, 202)
      yield* client.until((body) => body.includes("event:new-dog\ndata:Corgi by curl\n\n"))
    })
  )

  for (const signal of ["SIGTERM", "SIGINT"] as const) {
    it.scopedLive(`exits 0 within 2 s of ${signal} with 50 streams open, each told when to come back`, () =>
      Effect.gen(function* () {
        const server = yield* serve()
        const clients = yield* Effect.replicateEffect(connect(server.port, "/subscribe/"), 50)
        const stalled = yield* connect(server.port, "/subscribe/", { paused: true })
        yield* Effect.forEach(clients, (client) => client.until((body) => body !== ""))
        const start = performance.now()
        server.process.kill(signal)
        assert.strictEqual(yield* server.exit, 0)
        assert.isBelow(performance.now() - start, 2000)
        const retries = new Set<string>()
        for (const client of clients) {
          const { body, clean } = yield* client.ended
          assert.isTrue(clean)
          retries.add(/^:ok\n\nretry:(\d+)\n\n$/.exec(body)![1]!)
        }
        assert.isAbove(retries.size, 25, "drawn at random")
        stalled.socket.destroy()
      })
    )
  }

  it.scopedLive(
    "SIGTERM during 1,000 streams and a flood: what was accepted is delivered, the rest refused, exit 0",
    () =>
      Effect.gen(function* () {
        const server = yield* serve([], { SSE_PUBLISH_TOKEN: "secret" })
        const clients = yield* Effect.replicateEffect(connect(server.port, "/subscribe/"), 1000)
        yield* Effect.forEach(clients, (client) => client.until((body) => body !== ""))
        let accepted = 0
        const statuses = new Set<number>()
        // On connections that are kept, so that they go on when no new ones are taken.
        const publish = Effect.gen(function* () {
          const { status } = yield* Effect.tryPromise(() =>
            fetch(`http://127.0.0.1:${server.port}/publish/flood`, {
              method: "POST",
              headers: { authorization: "Bearer secret" },
              body: "x"
            }).then((response) => response.text().then(() => response))
          )
          statuses.add(status)
          if (status === 202) accepted++
        })
        // Until the server closes them.
        const flood = yield* Effect.fork(
          Effect.replicateEffect(Effect.ignore(Effect.forever(Effect.scoped(publish))), 20).pipe(
            Effect.withConcurrency("unbounded")
          )
        )
        yield* eventually(Effect.sync(() => accepted > 100))
        const start = performance.now()
        server.process.kill("SIGTERM")
        assert.strictEqual(yield* server.exit, 0)
        assert.isBelow(performance.now() - start, 3000, "the drain window and 2 seconds")
        yield* Fiber.interrupt(flood)
        for (const client of clients) {
          const { body, clean } = yield* client.ended
          assert.isTrue(clean)
          assert.match(body, /retry:\d+\n\n$/)
          assert.isAtLeast(body.split("data:x\n\n").length - 1, accepted)
        }
        assert.deepStrictEqual([...statuses], [202, 503])
      })
  )

  it.scopedLive("a second signal ends it at once", () =>
    Effect.gen(function* () {
      const server = yield* serve([], { SSE_DRAIN: "1 minute" })
      const clients = yield* Effect.replicateEffect(connect(server.port, "/subscribe/"), 200)
      yield* Effect.forEach(clients, (client) => client.until((body) => body !== ""))
      server.process.kill("SIGTERM")
      yield* clients[0]!.ended
      server.process.kill("SIGTERM")
      assert.strictEqual(yield* server.exit, "SIGTERM")
    })
  )

  it.scopedLive("ends with npm start, too", () =>
    Effect.gen(function* () {
      const npm = yield* command("npm", ["start"], { SSE_PORT: "0" })
      const [, port] = yield* npm.until(/listens on http:\/\/127\.0\.0\.1:(\d+)/)
      const clients = yield* Effect.replicateEffect(connect(Number(port), "/subscribe/pets"), 50)
      yield* Effect.forEach(clients, (client) => client.until((body) => body.includes("data:")))
      const start = performance.now()
      npm.process.kill("SIGTERM")
      assert.strictEqual(yield* npm.exit, 0)
      for (const client of clients) assert.isTrue((yield* client.ended).clean)
      assert.isBelow(performance.now() - start, 2000)
      const refused = yield* Effect.flip(connect(Number(port), "/"))
      assert.include(refused.message, "ECONNREFUSED")
    })
  )

  it.scopedLive("SSE_LOG=json writes a JSON object a line: the start, a connect and a disconnect", () =>
    Effect.gen(function* () {
      const server = yield* run(["serve", "--port", "0"], { SSE_LOG: "json" })
      const [, port] = yield* server.until(/"address":"http:\/\/127\.0\.0\.1:(\d+)"/)
      const client = yield* connect(Number(port), "/subscribe/pets")
      yield* client.until((body) => body !== "")
      yield* server.until(/"connected"/)
      client.socket.destroy()
      yield* server.until(/"disconnected".*\n/)
      interface Line {
        readonly message: string
        readonly annotations: Record<string, unknown>
      }
      const lines = server
        .output()
        .trim()
        .split("\n")
        .map((line) => JSON.parse(line) as Line)
      const [, connected, disconnected] = lines
        .filter(({ message }) => !message.startsWith("Listening"))
        .map(({ annotations, message }): Record<string, unknown> => ({ message, ...annotations }))
      assert.deepInclude(connected!, { message: "connected", client: 1, namespace: "/pets", address: "127.0.0.1" })
      assert.deepInclude(disconnected!, { message: "disconnected", client: 1, events: 0, reason: "client-closed" })
      assert.isString(disconnected!["duration"])
    })
  )

  it.scopedLive("SSE_LOG=none logs nothing, and a bad one is refused", () =>
    Effect.gen(function* () {
      const server = yield* serve([], { SSE_LOG: "none" })
      const client = yield* connect(server.port, "/subscribe/pets")
      yield* client.until((body) => body !== "")
      server.process.kill("SIGTERM")
      assert.strictEqual(yield* server.exit, 0)
      assert.notInclude(server.output(), "connected")
      const refused = yield* run(["serve", "--port", "0"], { SSE_LOG: "loud" })
      assert.strictEqual(yield* refused.exit, 1)
      assert.include(refused.output(), "SSE_LOG")
    })
  )

  it.scopedLive("SSE_ADMIN=off and SSE_METRICS=open do what they say", () =>
    Effect.gen(function* () {
      const server = yield* serve([], { SSE_ADMIN: "off", SSE_METRICS: "open" })
      const admin = yield* request(server.port, "/admin/status.json")
      assert.deepStrictEqual([admin.status, admin.body], [403, "403 admin endpoint disabled\n"])
      const metrics = yield* request(server.port, "/metrics", { headers: { Host: "sse.example" } })
      assert.include(metrics.body, "# TYPE sse_connections gauge\n")
    })
  )

  it.scopedLive(
    "SSE_HISTORY_EVENTS, SSE_LATEST and SSE_AFTER_RESET keep events and values for those who come later",
    () =>
      Effect.gen(function* () {
        const server = yield* serve([], {
          SSE_PUBLISH_TOKEN: "secret",
          SSE_HISTORY_EVENTS: "2",
          SSE_LATEST: "/prices, /rooms/*/topic",
          SSE_AFTER_RESET: "earliest"
        })
        const publish = (path: string, body: string) =>
          request(server.port, `/publish${path}`, { method: "POST", body, headers: { Authorization: "Bearer secret" } })
        for (const [path, data] of [
          ["/a", "1"],
          ["/rooms/7/topic", "tea"],
          ["/a", "2"],
          ["/a", "3"],
          ["/rooms/7/topic", "coffee"]
        ] as const) {
          assert.strictEqual((yield* publish(path, data)).status, 202)
        }
        const rooms = yield* connect(server.port, "/subscribe/rooms")
        assert.match(yield* rooms.until((body) => body.includes("id:")), /^:ok\n\ndata:coffee\n\nid:\w+-5\n\n$/)
        const gone = yield* connect(server.port, "/subscribe/a", { headers: { "Last-Event-ID": "no-such-id" } })
        yield* gone.until((body) => body.includes("data:3\n\n"))
        assert.match(gone.body(), /"reason":"unknown".*data:2\n/s)
      })
  )

  it.scopedLive("keeps a chosen token out of its output", () =>
    Effect.gen(function* () {
      const server = yield* serve([], { SSE_PUBLISH_TOKEN: "chosen-by-me", SSE_KEEPALIVE: "200 millis" })
      const client = yield* connect(server.port, "/subscribe/")
      yield* client.until((body) => body.includes(":keepalive\n\n"))
      const publish = (token: string) =>
        Effect.promise(() =>
          fetch(`http://127.0.0.1:${server.port}/publish/x`, {
            method: "POST",
            body: "x",
            headers: { authorization: `Bearer ${token}` }
          })
        )
      assert.strictEqual((yield* publish("chosen-by-me")).status, 202)
      assert.strictEqual((yield* publish("other")).status, 403)
      assert.notInclude(server.output(), "chosen-by-me")
    })
  )

  it.scopedLive(
    "SSE_JWT_*: subscribers and publishers send JWTs, by secret and by keys; a ticket opens a stream once",
    () =>
      Effect.gen(function* () {
        const key = yield* signer("ES256", "1")
        const keys = yield* keyServer([key.jwk])
        const server = yield* serve([], {
          SSE_JWT_SECRET: secret,
          SSE_JWT_JWKS_URL: keys.url,
          SSE_JWT_ISSUER: "https://login.example",
          SSE_JWT_AUDIENCE: "live",
          SSE_JWT_COOKIE: "session"
        })
        assert.match(server.output(), /curl -N -H 'Authorization: Bearer \$TOKEN' /)
        const now = Math.floor((yield* Clock.currentTimeMillis) / 1000)
        const who = { iss: "https://login.example", aud: "live" }
        const ask = (path: string, token: string, method = "GET", headers: Record<string, string> = {}) =>
          request(server.port, path, { method, body: "x", headers: { Authorization: `Bearer ${token}`, ...headers } })
        for (const by of [bySecret(), key]) {
          const token = yield* sign(by, claims(now, who))
          const client = yield* connect(server.port, "/subscribe/pets", { headers: { Cookie: `session=${token}` } })
          yield* client.until((body) => body !== "")
          assert.strictEqual((yield* ask("/publish/pets/dogs", token, "POST")).status, 202)
          yield* client.until((body) => body.includes("data:x"))
          assert.strictEqual((yield* ask("/publish/pets", token, "POST")).status, 403)
          assert.strictEqual((yield* ask("/subscribe/", token)).status, 403)
          assert.strictEqual((yield* ask("/subscribe/pets", yield* sign(by, claims(now)))).status, 401)
          const { ticket } = JSON.parse((yield* ask("/tickets?ns=/pets", token, "POST")).body) as { ticket: string }
          const opened = yield* connect(server.port, `/subscribe/pets?ticket=${ticket}`)
          yield* opened.until((body) => body !== "")
          assert.strictEqual((yield* request(server.port, `/subscribe/pets?ticket=${ticket}`)).status, 401)
          for (const hidden of [token, ticket, secret]) assert.notInclude(server.output(), hidden)
        }
        assert.match(server.output(), /connected.*principal=ann/)
        assert.strictEqual((yield* request(server.port, "/subscribe/pets")).status, 401)
      })
  )

  it.scopedLive("with JWTs a publish token is taken, too, when it is set", () =>
    Effect.gen(function* () {
      const server = yield* serve([], { SSE_JWT_SECRET: secret, SSE_PUBLISH_TOKEN: "chosen-by-me" })
      const now = Math.floor((yield* Clock.currentTimeMillis) / 1000)
      const publish = (token: string) =>
        Effect.map(
          request(server.port, "/publish/pets/dogs", {
            method: "POST",
            body: "x",
            headers: { Authorization: `Bearer ${token}` }
          }),
          ({ status }) => status
        )
      assert.strictEqual(yield* publish("chosen-by-me"), 202)
      assert.strictEqual(yield* publish(yield* sign(bySecret(), claims(now))), 202)
      assert.strictEqual(yield* publish("chosen-by-yo"), 401)
    })
  )

  it.scopedLive("SSE_CORS_ORIGINS: these origins, with credentials, or none", () =>
    Effect.gen(function* () {
      const origin = (server: { readonly port: number }, name: string) =>
        Effect.map(
          request(server.port, "/subscribe/a", { method: "HEAD", headers: { Origin: name } }),
          ({ head, status }) => [status, /access-control-allow-origin: (.*)\r/i.exec(head)?.[1]]
        )
      const listed = yield* serve([], { SSE_CORS_ORIGINS: "https://a.example, https://b.example" })
      assert.deepStrictEqual(yield* origin(listed, "https://b.example"), [200, "https://b.example"])
      assert.deepStrictEqual(yield* origin(listed, "https://c.example"), [403, undefined])
      const off = yield* serve([], { SSE_CORS_ORIGINS: "off" })
      assert.deepStrictEqual(yield* origin(off, "https://a.example"), [403, undefined])
      const any = yield* serve([], { SSE_CORS_ORIGINS: "*" })
      assert.deepStrictEqual(yield* origin(any, "https://a.example"), [200, "*"])
    })
  )

  it.scopedLive("says that the port is taken, and exits 1", () =>
    Effect.gen(function* () {
      const first = yield* serve()
      const second = yield* run(["serve", "--port", String(first.port)])
      assert.strictEqual(yield* second.exit, 1)
      assert.match(second.output(), new RegExp(`^effect-sse: the port is taken: .*${first.port}.*--port.*\\n$`))
    })
  )

  for (const [what, args, env, said] of [
    ["a bad port", ["serve", "--port", "70000"], {}, /SSE_PORT.*0 to 65535/],
    ["a port that is no number", ["serve", "--port", "x"], {}, /SSE_PORT/],
    ["a bad keepalive", ["serve"], { SSE_KEEPALIVE: "often" }, /SSE_KEEPALIVE.*"often"/],
    ["a bad history", ["serve"], { SSE_HISTORY_EVENTS: "-1" }, /SSE_HISTORY_EVENTS/],
    ["a bad pattern", ["serve"], { SSE_LATEST: "/a,b" }, /SSE_LATEST.*"b"/],
    ["a bad proxy", ["serve"], { SSE_TRUSTED_PROXIES: "proxy" }, /"proxy" is neither/],
    ["a JWT secret that is too short", ["serve"], { SSE_JWT_SECRET: "short" }, /SSE_JWT_SECRET.*32 bytes/],
    ["an address of keys that is none", ["serve"], { SSE_JWT_JWKS_URL: "keys" }, /SSE_JWT_JWKS_URL/],
    [
      "an issuer without keys",
      ["serve"],
      { SSE_JWT_ISSUER: "https://login.example" },
      /SSE_JWT_SECRET.*SSE_JWT_JWKS_URL/
    ],
    ["an origin that is none", ["serve"], { SSE_CORS_ORIGINS: "a.example" }, /"a.example" is not an origin/],
    ["an address it has not", ["serve", "--host", "192.0.2.1", "--port", "0"], {}, /cannot listen/],
    ["an unknown flag", ["serve", "--prot", "1"], {}, /--prot/],
    ["an unknown command", ["server"], {}, /effect-sse serve/],
    ["no command", [], {}, /effect-sse serve/]
  ] as const) {
    it.scopedLive(`refuses ${what} with a reason and exit code 1`, () =>
      Effect.gen(function* () {
        const server = yield* run(args, env)
        assert.strictEqual(yield* server.exit, 1)
        assert.match(server.output(), said)
        assert.notMatch(server.output(), /\n\s+at /, "no stack trace")
      })
    )
  }

  it.scopedLive("explains itself", () =>
    Effect.gen(function* () {
      const help = yield* run(["--help"])
      assert.strictEqual(yield* help.exit, 0)
      assert.include(help.output(), "SSE_PUBLISH_TOKEN")
    })
  )
})
