import { HttpLayerRouter, HttpServerResponse, type HttpServerRequest } from "@effect/platform"
import { assert, describe, it } from "@effect/vitest"
import { Authorize, NamespacePattern, SseError, SseHub, SseLayer, SseRoutes } from "effect-sse"
import { Context, Effect, FastCheck as fc, Layer, Redacted, type Scope, TestClock } from "effect"
import { connect, request as rawRequest } from "./support/rawClient.js"
import { port, serverLayer } from "./support/server.js"
import { bearer, handlerOf, json, reader, said } from "./support/web.js"

class Sessions extends Context.Tag("test/Sessions")<Sessions, ReadonlyMap<string, string>>() {}

const bySession: Authorize.Authorize<Sessions> = ({ cookies }, namespaces) =>
  Effect.gen(function* () {
    const user = (yield* Sessions).get(cookies["session"] ?? "")
    if (user === undefined) return yield* new SseError.Refused({ kind: "unauthenticated", reason: "sign in first" })
    if (!Authorize.covers([`/users/${user}`], namespaces)) {
      return yield* new SseError.Refused({ kind: "forbidden", reason: "not yours" })
    }
    return { id: user, metadata: { user } }
  })

const sessions = new Map([["s1", "ann"]])
const cookie = (text: string) => ({ headers: { cookie: text } })

describe("Authorize", () => {
  describe("covers", () => {
    const key = fc.constantFrom("a", "b", "*", "é", "%2A")
    const path = fc.array(key, { maxLength: 4 }).map((keys) => NamespacePattern.make("/" + keys.join("/")))

    it.prop(
      "what a walk over whole segments covers",
      [fc.array(path, { maxLength: 3 }), path],
      ([patterns, wanted]) => {
        const walk = (pattern: string) => {
          const [ps, ws] = [pattern, wanted].map((text) => text.split("/").filter((segment) => segment !== ""))
          return ps!.length <= ws!.length && ps!.every((segment, i) => segment === "*" || segment === ws![i])
        }
        assert.strictEqual(Authorize.covers(patterns, [wanted]), patterns.some(walk))
      }
    )

    it("every one of the namespaces, by whole segments and canonical form", () => {
      const covers = (patterns: ReadonlyArray<string>, ...wanted: ReadonlyArray<string>) =>
        Authorize.covers(
          patterns,
          wanted.map((text) => NamespacePattern.make(text))
        )
      assert.isTrue(covers(["/pets", "/rooms/*/alerts"], "/pets/dogs", "/rooms/7/alerts", "/rooms/7/alerts/x"))
      assert.isFalse(covers(["/pets", "/rooms/*/alerts"], "/pets/dogs", "/rooms/7"))
      assert.isFalse(covers(["/pets"], "/petstore"))
      assert.isFalse(covers(["/pets"], "/"))
      assert.isFalse(covers(["/*"], "/"))
      assert.isFalse(covers(["/rooms/1"], "/rooms/*"), "one room is not all")
      assert.isFalse(covers(["/rooms/%2A"], "/rooms/*"), "nor is the one with the name of a star")
      assert.isTrue(covers(["/rooms/*"], "/rooms/*", "/rooms/*/alerts", "/rooms/%2A"))
      assert.isTrue(covers(["/rooms"], "/rooms/*"))
      assert.isFalse(covers(["/rooms/*/alerts"], "/rooms/*"))
      assert.isFalse(covers(["/*/x"], "/*/*"))
      assert.isFalse(covers(["/a", "/b"], "/*"), "whatever comes later is neither")
      assert.isTrue(covers(["/"], "/"))
      assert.isTrue(covers(["/caf%C3%A9"], "/café"))
      assert.isFalse(covers(["/a/b"], "/a%2Fb"))
      for (const bad of ["pets", "", "/a/../pets", "//", "/%zz"]) assert.isFalse(covers([bad], "/pets"), bad)
      assert.isFalse(covers([], "/pets"))
    })
  })

  describe("credential", () => {
    const of = (headers: Record<string, string>, cookies: Record<string, string> = {}) =>
      Authorize.credential({ headers, cookies } as unknown as HttpServerRequest.HttpServerRequest, { cookie: "jwt" })

    it("is the header's, or the cookie's where the header has none", () => {
      assert.strictEqual(of({ authorization: "Bearer a.b.c" }), "a.b.c")
      assert.strictEqual(of({ authorization: "bearer  a" }, { jwt: "b" }), "a")
      assert.strictEqual(of({}, { jwt: "b" }), "b")
      assert.strictEqual(of({ authorization: "Basic YTpi" }, { jwt: "b" }), "b")
      assert.isUndefined(of({ authorization: "Basic YTpi" }))
      assert.isUndefined(of({ authorization: "Bearer " }))
      assert.isUndefined(of({}, { jwt: "" }))
      assert.isUndefined(of({}, { other: "b" }))
    })
  })

  describe("tokens", () => {
    const hook = Authorize.tokens({
      all: "everything",
      pets: { token: Redacted.make("only pets"), namespaces: ["/pets"] }
    })

    it.scoped("lets each do what it is for, by its name", () =>
      Effect.gen(function* () {
        const hub = yield* SseHub.SseHub
        const send = yield* handlerOf(SseRoutes.router({ subscribe: hook, publish: hook, admin: hook, metrics: hook }))
        const get = (path: string, token: string) => Effect.flatMap(send(path, bearer(token)), said)
        const post = (path: string, token: string) =>
          Effect.flatMap(send(path, { ...bearer(token), method: "POST", body: "x" }), said)
        assert.strictEqual(yield* get("/subscribe/", "everything"), "200")
        assert.strictEqual(yield* get("/subscribe/pets/dogs", "only pets"), "200")
        assert.strictEqual(yield* get("/subscribe/petstore", "only pets"), "403 Forbidden")
        assert.strictEqual(yield* get("/subscribe/", "only pets"), "403 Forbidden")
        assert.strictEqual(yield* get("/subscribe/", "everythin"), "403 Forbidden")
        assert.strictEqual(yield* post("/publish/time", "everything"), "202")
        assert.strictEqual(yield* post("/publish/pets/dogs", "only pets"), "202")
        assert.strictEqual(yield* post("/publish/time", "only pets"), "403 Forbidden")
        assert.strictEqual(yield* get("/admin/status.json", "everything"), "200")
        assert.strictEqual(yield* get("/admin/status.json", "only pets"), "403 Forbidden")
        assert.strictEqual(yield* get("/metrics", "everything"), "200")
        assert.strictEqual(yield* get("/metrics", "only pets"), "403 Forbidden")
        assert.deepStrictEqual(
          (yield* hub.clients).map(({ principal }) => principal),
          ["all", "pets"]
        )
        const none = yield* send("/subscribe/pets")
        assert.strictEqual(none.headers.get("www-authenticate"), "Bearer")
        assert.strictEqual(yield* said(none), "401 Unauthorized")
        yield* hub.revoke("pets")
        assert.strictEqual(yield* get("/subscribe/pets", "only pets"), "401 Unauthorized")
        assert.strictEqual(yield* post("/publish/pets", "only pets"), "401 Unauthorized")
      }).pipe(Effect.provide(SseLayer))
    )

    it("an empty one is refused when it is made", () => {
      assert.throws(() => Authorize.tokens({ a: "x", b: "" }), /token of b is empty/)
      assert.throws(() => SseRoutes.router({ publishToken: "x", publish: "open" }), /not both/)
    })
  })

  describe("a hook of the app", () => {
    it.scoped("decides by services of its own, before anything is registered", () =>
      Effect.gen(function* () {
        const hub = yield* SseHub.SseHub
        const send = yield* handlerOf(SseRoutes.router({ subscribe: bySession }))
        const refused = yield* send("/subscribe/users/ann")
        assert.strictEqual(refused.status, 401)
        assert.strictEqual(refused.headers.get("content-type"), "application/json")
        assert.strictEqual(refused.headers.get("cache-control"), "no-store")
        assert.deepStrictEqual(yield* json(refused), { error: "Unauthorized", message: "sign in first" })
        assert.strictEqual(yield* said(yield* send("/subscribe/users/ann", cookie("session=s2"))), "401 Unauthorized")
        assert.strictEqual(yield* said(yield* send("/subscribe/users/bob", cookie("session=s1"))), "403 Forbidden")
        assert.strictEqual(yield* said(yield* send("/subscribe/", cookie("session=s1"))), "403 Forbidden")
        const head = yield* send("/subscribe/users/ann", { method: "HEAD" })
        assert.strictEqual(head.status, 401, "HEAD tells no more than GET")
        assert.strictEqual((yield* hub.activity).recentEnds.length, 0)
        assert.deepStrictEqual(yield* hub.clients, [])

        const until = reader(yield* send("/subscribe/users/ann/inbox", cookie("session=s1")))
        yield* until((body) => body !== "")
        assert.deepInclude((yield* hub.clients)[0], { principal: "ann", metadata: { user: "ann" } })
        yield* hub.revoke("ann")
        assert.strictEqual(
          yield* until(() => false),
          ":ok\n\n",
          "it ends, and is not told to come back later than usual"
        )
      }).pipe(Effect.provide(SseLayer), Effect.provideService(Sessions, sessions))
    )

    it.scoped("gets its services from the layer of the routes, and the request's scope", () => {
      const released: Array<string> = []
      const hook: Authorize.Authorize<Sessions | Scope.Scope | HttpServerRequest.HttpServerRequest> = (
        request,
        namespaces
      ) =>
        Effect.zipRight(
          Effect.addFinalizer(() => Effect.sync(() => released.push(request.url))),
          bySession(request, namespaces)
        )
      const routes = SseRoutes.layer({ subscribe: hook }).pipe(
        Layer.provideMerge(SseLayer),
        Layer.provide(Layer.succeed(Sessions, sessions))
      )
      return Effect.gen(function* () {
        const { dispose, handler } = HttpLayerRouter.toWebHandler(routes, { disableLogger: true })
        const send = (init?: RequestInit) =>
          Effect.promise(() => handler(new Request("http://localhost/subscribe/users/ann", init)))
        assert.strictEqual((yield* send()).status, 401)
        assert.deepStrictEqual(released, ["/subscribe/users/ann"])
        const open = yield* send(cookie("session=s1"))
        assert.strictEqual(open.status, 200)
        assert.strictEqual(released.length, 1)
        yield* Effect.promise(() => open.body!.cancel())
        yield* Effect.promise(dispose)
        assert.strictEqual(released.length, 2)
      })
    })

    it.scoped("may answer itself, and what cannot be told now brings a subscriber back", () =>
      Effect.gen(function* () {
        const hub = yield* SseHub.SseHub
        const login: Authorize.Authorize = () => Effect.fail(HttpServerResponse.redirect("/login"))
        const down: Authorize.Authorize = () => new SseError.Refused({ kind: "unavailable", reason: "no database" })
        const send = yield* handlerOf(SseRoutes.router({ subscribe: down, publish: down, admin: login, metrics: down }))
        const stream = yield* send("/subscribe/a")
        assert.strictEqual(stream.status, 200)
        assert.match(yield* Effect.promise(() => stream.text()), /^retry:\d+\n\n$/)
        for (const [path, method] of [
          ["/publish/a", "POST"],
          ["/tickets?ns=/a", "POST"],
          ["/metrics", "GET"]
        ] as const) {
          const response = yield* send(path, { method })
          assert.strictEqual(yield* said(response), "503 Unavailable")
          assert.isString(response.headers.get("retry-after"))
        }
        const admin = yield* send("/admin/")
        assert.deepStrictEqual([admin.status, admin.headers.get("location")], [302, "/login"])
        assert.deepStrictEqual(yield* hub.clients, [])
        assert.strictEqual((yield* hub.status).published, 0)
      }).pipe(Effect.provide(SseLayer))
    )

    it.scoped("is asked for all namespaces of a batch", () =>
      Effect.gen(function* () {
        const asked: Array<ReadonlyArray<string>> = []
        const hook: Authorize.Authorize = (_, namespaces) => {
          asked.push(namespaces)
          return Authorize.covers(["/pets"], namespaces)
            ? Effect.succeed({ id: "shop" })
            : new SseError.Refused({ kind: "forbidden", reason: "only pets" })
        }
        const hub = yield* SseHub.SseHub
        const send = yield* handlerOf(SseRoutes.router({ publish: hook }))
        const post = (...lines: ReadonlyArray<object>) =>
          send("/publish/pets", {
            method: "POST",
            headers: { "content-type": "application/x-ndjson" },
            body: lines.map((line) => JSON.stringify(line)).join("\n")
          })
        const line = (namespace?: string) => ({ data: "x", ...(namespace === undefined ? {} : { namespace }) })
        assert.strictEqual(yield* said(yield* post(line(), line("/pets/dogs"), line("/pets/dogs/"))), "202")
        assert.deepStrictEqual(asked.splice(0), [["/pets"], ["/pets/dogs", "/pets/dogs"]])
        assert.strictEqual(yield* said(yield* post(line(), line("/pets/dogs"), line("/time"))), "403 Forbidden")
        assert.strictEqual(yield* said(yield* post(line("/petstore"))), "403 Forbidden")
        assert.strictEqual(yield* said(yield* post(line("no"))), "400 InvalidEvent")
        assert.strictEqual((yield* hub.status).published, 3)
      }).pipe(Effect.provide(SseLayer))
    )

    it.scoped("that says until when: the stream ends then", () =>
      Effect.gen(function* () {
        const send = yield* handlerOf(
          SseRoutes.router({ subscribe: () => Effect.succeed({ id: "ann", expiresAt: 20_000 }) })
        )
        const until = reader(yield* send("/subscribe/a"))
        yield* until((body) => body !== "")
        yield* TestClock.adjust("20 seconds")
        assert.strictEqual(yield* until(() => false), ":ok\n\n:keepalive\n\n")
        assert.strictEqual(yield* said(yield* send("/subscribe/a")), "401 Unauthorized")
      }).pipe(Effect.provide(SseLayer))
    )
  })

  describe("plain rules", () => {
    it.scoped("subscribe and publish take them, too", () =>
      Effect.gen(function* () {
        const listening = yield* port
        const ask = (path: string, headers: Record<string, string> = {}, method = "GET") =>
          Effect.map(rawRequest(listening, path, { headers, method }), ({ status }) => status)
        assert.strictEqual(yield* ask("/subscribe/a", {}, "HEAD"), 200)
        assert.strictEqual(yield* ask("/subscribe/a", { Host: "sse.example" }), 403)
        assert.strictEqual(yield* ask("/subscribe/a", { "X-Forwarded-For": "192.0.2.1" }), 403)
        assert.strictEqual(yield* ask("/publish/a", {}, "POST"), 202)
        assert.strictEqual(yield* ask("/tickets?ns=/a", {}, "POST"), 404, "nobody needs one")
        // What a page elsewhere can make the operator's browser send.
        assert.strictEqual(yield* ask("/publish/a", { Origin: "http://evil.example" }, "POST"), 403)
        assert.strictEqual(yield* ask("/publish/a", { "Sec-Fetch-Site": "cross-site" }, "POST"), 403)
        const client = yield* connect(listening, "/subscribe/a")
        yield* client.until((body) => body !== "")
        assert.strictEqual((yield* (yield* SseHub.SseHub).clients)[0]?.principal, "loopback")
      }).pipe(Effect.provide(serverLayer({ publishToken: undefined, subscribe: "loopback", publish: "loopback" })))
    )

    it.scoped("off is off", () =>
      Effect.gen(function* () {
        const send = yield* handlerOf(SseRoutes.router({ subscribe: "off", publish: "off" }))
        const subscribe = yield* send("/subscribe/a")
        assert.deepStrictEqual(
          [subscribe.status, yield* Effect.promise(() => subscribe.text())],
          [403, "403 subscribe endpoint disabled\n"]
        )
        assert.strictEqual(yield* said(yield* send("/publish/a", { method: "POST" })), "403 PublishDisabled")
      }).pipe(Effect.provide(SseLayer))
    )
  })
})
