import { HttpApp, HttpLayerRouter, HttpRouter, HttpServerResponse } from "@effect/platform"
import { assert, describe, it } from "@effect/vitest"
import { Namespace, SseHub, SseLayer, SseRoutes } from "effect-sse"
import { Context, Effect, Layer, type Scope, TestClock } from "effect"

/** A response body read on demand. */
const reader = (response: Response) => {
  const reader = response.body!.getReader()
  let body = ""
  return {
    until: (predicate: (body: string) => boolean) =>
      Effect.promise(async () => {
        while (!predicate(body)) {
          const { done, value } = await reader.read()
          if (done) break
          body += new TextDecoder().decode(value)
        }
        return body
      }),
    cancel: Effect.promise(() => reader.cancel())
  }
}

type Send = (path: string, init?: RequestInit) => Effect.Effect<Response>

/** The app as a web handler whose fibers run on the test's clock. */
const handlerOf = <E>(
  app: HttpApp.Default<E, SseHub.SseHub | Scope.Scope>
): Effect.Effect<Send, never, SseHub.SseHub> =>
  Effect.map(Effect.runtime<SseHub.SseHub>(), (runtime) => {
    const handler = HttpApp.toWebHandlerRuntime(runtime)(app)
    return (path, init) => Effect.promise(() => handler(new Request(`http://localhost${path}`, init)))
  })

const send = (options: SseRoutes.RoutesOptions = { publishToken: "secret" }) => handlerOf(SseRoutes.router(options))

const token = { authorization: "Bearer secret" }
const json = (response: Response) => Effect.promise(() => response.json() as Promise<Record<string, unknown>>)

describe("SseRoutes", () => {
  describe("subscribe", () => {
    it.scoped("streams events and keepalives", () =>
      Effect.gen(function* () {
        const request = yield* send()
        const hub = yield* SseHub.SseHub
        const response = yield* request("/subscribe/pets?x=/y", { headers: { "user-agent": "test" } })
        assert.strictEqual(response.status, 200)
        assert.strictEqual(response.headers.get("content-type"), "text/event-stream")
        assert.strictEqual(response.headers.get("cache-control"), "no-cache, no-transform")
        assert.strictEqual(response.headers.get("x-accel-buffering"), "no")
        assert.strictEqual(response.headers.get("access-control-allow-origin"), "*")
        assert.isNull(response.headers.get("connection"))
        const body = reader(response)
        assert.strictEqual(yield* body.until((body) => body !== ""), ":ok\n\n")
        const [client] = yield* hub.clients
        assert.deepInclude(client, {
          namespaces: [Namespace.make("/pets")],
          requestPath: "/subscribe/pets",
          userAgent: "test"
        })
        yield* TestClock.adjust("15 seconds")
        yield* body.until((body) => body.includes("keepalive"))
        yield* hub.publish({ namespace: "/pets/dogs", event: "new-dog", data: "Corgi" })
        assert.strictEqual(
          yield* body.until((body) => body.includes("Corgi\n\n")),
          ":ok\n\n:keepalive\n\nevent:new-dog\ndata:Corgi\n\n"
        )
        yield* body.cancel
        yield* TestClock.adjust("1 millis")
        assert.deepStrictEqual(yield* hub.clients, [])
      }).pipe(Effect.provide(SseLayer))
    )

    it.scoped("takes the root with and without a slash", () =>
      Effect.gen(function* () {
        const request = yield* send()
        const hub = yield* SseHub.SseHub
        for (const path of ["/subscribe", "/subscribe/", "/subscribe?a=/b"]) yield* request(path)
        assert.deepStrictEqual(
          (yield* hub.clients).map(({ namespaces }) => namespaces),
          [[Namespace.root], [Namespace.root], [Namespace.root]]
        )
      }).pipe(Effect.provide(SseLayer))
    )

    it.scoped("keeps an encoded slash in its segment", () =>
      Effect.gen(function* () {
        const request = yield* send()
        yield* request("/subscribe/a%2Fb/c;d")
        const [client] = yield* (yield* SseHub.SseHub).clients
        assert.deepStrictEqual(client?.namespaces, [Namespace.make("/a%2Fb/c;d")])
      }).pipe(Effect.provide(SseLayer))
    )

    it.scoped("answers HEAD and OPTIONS without registering", () =>
      Effect.gen(function* () {
        const request = yield* send()
        const head = yield* request("/subscribe/pets", { method: "HEAD" })
        assert.strictEqual(head.status, 200)
        assert.strictEqual(head.headers.get("content-type"), "text/event-stream")
        const options = yield* request("/subscribe/pets", { method: "OPTIONS" })
        assert.strictEqual(options.status, 204)
        assert.strictEqual(options.headers.get("allow"), "GET, HEAD, POST, OPTIONS")
        assert.deepStrictEqual(yield* (yield* SseHub.SseHub).clients, [])
      }).pipe(Effect.provide(SseLayer))
    )

    it.scoped("refuses other methods and bad namespaces with a reason", () =>
      Effect.gen(function* () {
        const request = yield* send()
        const put = yield* request("/subscribe/pets", { method: "PUT" })
        assert.strictEqual(put.status, 405)
        assert.strictEqual(put.headers.get("allow"), "GET, HEAD, POST, OPTIONS")
        for (const [path, rule] of [
          ["/subscribe/%zz", "bad-percent-encoding"],
          ["/subscribe/%ff", "bad-utf8"],
          ["/subscribe//a", "empty-segment"],
          ["/subscribe/a%00", "control-character"],
          ["/subscribe/" + "a".repeat(3000), "too-long"]
        ] as const) {
          const response = yield* request(path)
          assert.strictEqual(response.status, 400, path)
          assert.deepInclude(yield* json(response), { error: "InvalidNamespace", rule }, path)
        }
      }).pipe(Effect.provide(SseLayer))
    )

    it.scoped("ends with the hub, and then tells others when to come back", () =>
      Effect.gen(function* () {
        const request = yield* send()
        const hub = yield* SseHub.SseHub
        const body = reader(yield* request("/subscribe/"))
        yield* hub.shutdown
        assert.match(yield* body.until(() => false), /^:ok\n\nretry:\d+\n\n$/)
        const late = yield* request("/subscribe/")
        assert.strictEqual(late.status, 200, "an EventSource that gets anything else gives up")
        assert.strictEqual(late.headers.get("content-type"), "text/event-stream")
        assert.match(yield* Effect.promise(() => late.text()), /^retry:[1-5]\d{3}\n\n$/)
      }).pipe(Effect.provide(SseLayer))
    )

    it.scoped("forgets a client whose response a middleware threw away", () =>
      Effect.gen(function* () {
        const request = yield* handlerOf(
          Effect.map(SseRoutes.router(), () => HttpServerResponse.text("no", { status: 418 }))
        )
        assert.strictEqual((yield* request("/subscribe/")).status, 418)
        yield* TestClock.adjust("1 millis")
        assert.deepStrictEqual(yield* (yield* SseHub.SseHub).clients, [])
      }).pipe(Effect.provide(SseLayer))
    )
  })

  describe("publish", () => {
    const post = (request: Send, path: string, body?: BodyInit, headers: Record<string, string> = {}) =>
      request(path, { method: "POST", headers: { ...token, ...headers }, ...(body === undefined ? {} : { body }) })

    it.scoped("publishes the body and answers with the position", () =>
      Effect.gen(function* () {
        const request = yield* send()
        const body = reader(yield* request("/subscribe/pets"))
        const response = yield* post(request, "/publish/pets/dogs?event=new-dog&id=7&retry=100", "Corgi\nTerrier")
        assert.strictEqual(response.status, 202)
        assert.match(String((yield* json(response))["position"]), /^[0-9A-Za-z]{4}-1$/)
        yield* post(request, "/publish/pets", "%20plain", { "content-type": "application/x-www-form-urlencoded" })
        yield* post(request, "/publish/pets")
        assert.strictEqual(
          yield* body.until((body) => body.endsWith("data:\n\n")),
          ":ok\n\nid:7\nretry:100\nevent:new-dog\ndata:Corgi\ndata:Terrier\n\ndata:%20plain\n\ndata:\n\n"
        )
      }).pipe(Effect.provide(SseLayer))
    )

    it.scoped("publishes a batch as NDJSON, whole or not at all", () =>
      Effect.gen(function* () {
        const request = yield* send()
        const hub = yield* SseHub.SseHub
        const body = reader(yield* request("/subscribe/"))
        const ndjson = { "content-type": "application/x-ndjson; charset=utf-8" }
        const batch = `{"data":"a","event":"e"}\r\n\n{"data":"b","namespace":"/other","id":"9"}\n`
        const response = yield* post(request, "/publish/pets", batch, ndjson)
        assert.strictEqual(response.status, 202)
        assert.strictEqual(((yield* json(response))["positions"] as Array<string>).length, 2)
        yield* body.until((body) => body.endsWith("event:e\ndata:a\n\nid:9\ndata:b\n\n"))
        for (const [line, details] of [
          [`{"data":1}`, { error: "BadRequest", line: 2 }],
          [`{"dat":"x"}`, { error: "BadRequest", line: 2 }],
          [`{"data":"x","x":1}`, { error: "BadRequest", line: 2 }],
          [`[1]`, { error: "BadRequest", line: 2 }],
          [`{"data":`, { error: "BadRequest", line: 2 }],
          [`{"data":"x","event":"a\\nb"}`, { error: "InvalidEvent", field: "event", line: 2 }],
          [`{"data":"x","namespace":"no"}`, { error: "InvalidEvent", field: "namespace", line: 2 }],
          [`{"data":"x","__proto__":{"data":"y"}}`, { error: "BadRequest", line: 2 }]
        ] as const) {
          const refused = yield* post(request, "/publish/pets", `{"data":"first"}\n${line}\n{"data":"last"}`, ndjson)
          assert.strictEqual(refused.status, 400, line)
          assert.deepInclude(yield* json(refused), details, line)
        }
        for (const empty of ["", "\n\n"]) {
          assert.strictEqual((yield* post(request, "/publish/pets", empty, ndjson)).status, 400)
        }
        assert.strictEqual((yield* hub.status).published, 2)
      }).pipe(Effect.provide(SseLayer))
    )

    it.scoped("refuses with status and reason", () =>
      Effect.gen(function* () {
        const request = yield* send({ publishToken: "secret", maxBodyBytes: 10 })
        const check = (response: Response, status: number, error: string) =>
          Effect.gen(function* () {
            assert.strictEqual(response.status, status)
            const body = yield* json(response)
            assert.strictEqual(body["error"], error)
            assert.isString(body["message"])
          })
        const plain = (headers: Record<string, string>) => request("/publish/x", { method: "POST", body: "x", headers })
        yield* check(yield* plain({}), 401, "Unauthorized")
        yield* check(yield* plain({ authorization: "Basic c2VjcmV0" }), 401, "Unauthorized")
        for (const wrong of ["secrets", "secre", "Secret", "s", "secretsecret"]) {
          yield* check(yield* plain({ authorization: `Bearer ${wrong}` }), 403, "Forbidden")
        }
        const get = yield* request("/publish/x", { headers: token })
        yield* check(get, 405, "MethodNotAllowed")
        assert.strictEqual(get.headers.get("allow"), "POST")
        yield* check(yield* post(request, "/publish/%zz", "x"), 400, "InvalidNamespace")
        yield* check(yield* post(request, "/publish?evnt=a/b", "x"), 400, "BadRequest")
        yield* check(yield* post(request, "/publish/x?event=a%0Ab", "x"), 400, "InvalidEvent")
        yield* check(yield* post(request, "/publish/x?id=%00", "x"), 400, "InvalidEvent")
        yield* check(yield* post(request, "/publish/x?retry=-1", "x"), 400, "InvalidEvent")
        yield* check(yield* post(request, "/publish/x?retry=", "x"), 400, "InvalidEvent")
        yield* check(yield* post(request, "/publish/x?evnt=a", "x"), 400, "BadRequest")
        yield* check(yield* post(request, "/publish/x?event=a&event=b", "x"), 400, "BadRequest")
        yield* check(yield* post(request, "/publish/x", new Uint8Array([0xff])), 400, "InvalidEvent")
        yield* check(yield* post(request, "/publish/x", "x".repeat(11)), 413, "BodyTooLarge")
        yield* check(
          yield* post(request, "/publish/x", "x", { "content-type": "image/png" }),
          415,
          "UnsupportedMediaType"
        )
        yield* check(
          yield* post(request, "/publish/x", "x", { "content-encoding": "gzip" }),
          415,
          "UnsupportedMediaType"
        )
        const hub = yield* SseHub.SseHub
        assert.strictEqual((yield* hub.status).published, 0)
        yield* hub.shutdown
        yield* check(yield* post(request, "/publish/x", "x"), 503, "Unavailable")
      }).pipe(Effect.provide(SseLayer))
    )

    it.scoped("is off without a token", () =>
      Effect.gen(function* () {
        const request = yield* send({})
        const response = yield* post(request, "/publish/x", "x")
        assert.strictEqual(response.status, 403)
        assert.deepInclude(yield* json(response), { error: "PublishDisabled" })
        assert.throws(() => SseRoutes.router({ publishToken: "" }), /empty/)
      }).pipe(Effect.provide(SseLayer))
    )
  })

  describe("mounted", () => {
    const check = (request: Send, prefix: string) =>
      Effect.gen(function* () {
        const hub = yield* SseHub.SseHub
        const body = reader(yield* request(`${prefix}/subscribe/a%2Fb`))
        yield* body.until((body) => body !== "")
        const all = reader(yield* request(`${prefix}/subscribe`))
        const [client] = yield* hub.clients
        assert.deepInclude(client, { namespaces: [Namespace.make("/a%2Fb")], requestPath: `${prefix}/subscribe/a%2Fb` })
        const published = yield* request(`${prefix}/publish/a%2Fb/c?event=e`, {
          method: "POST",
          headers: token,
          body: "x"
        })
        assert.strictEqual(published.status, 202)
        assert.strictEqual(yield* body.until((body) => body.includes("x\n\n")), ":ok\n\nevent:e\ndata:x\n\n")
        yield* all.until((body) => body.includes("x\n\n"))
        assert.strictEqual((yield* request(`${prefix}/subscribe/a`, { method: "PUT" })).status, 405)
        const other = yield* request("/other")
        assert.strictEqual(yield* Effect.promise(() => other.text()), "other")
      })

    it.scoped("in an HttpRouter under any prefix", () =>
      Effect.gen(function* () {
        const app = HttpRouter.empty.pipe(
          HttpRouter.get("/other", HttpServerResponse.text("other")),
          HttpRouter.mount("/api/live", SseRoutes.router({ publishToken: "secret" }))
        )
        yield* check(yield* handlerOf(app), "/api/live")
      }).pipe(Effect.provide(SseLayer))
    )

    it.scoped("in an HttpRouter with prefixAll", () =>
      Effect.gen(function* () {
        const app = SseRoutes.router({ publishToken: "secret" }).pipe(
          HttpRouter.prefixAll("/live"),
          HttpRouter.get("/other", HttpServerResponse.text("other"))
        )
        yield* check(yield* handlerOf(app), "/live")
      }).pipe(Effect.provide(SseLayer))
    )

    for (const prefix of ["", "/live"]) {
      it.scoped(`in an HttpLayerRouter under "${prefix}"`, () =>
        Effect.gen(function* () {
          const context = yield* Layer.build(HttpLayerRouter.layer)
          const router = Context.get(context, HttpLayerRouter.HttpRouter)
          const prefixed = prefix === "" ? router : router.prefixed(prefix)
          yield* Layer.build(
            Layer.mergeAll(
              SseRoutes.layer({ publishToken: "secret" }).pipe(
                Layer.provide(Layer.succeed(HttpLayerRouter.HttpRouter, prefixed))
              ),
              HttpLayerRouter.add("GET", "/other", HttpServerResponse.text("other")).pipe(
                Layer.provide(Layer.succeedContext(context))
              )
            )
          )
          yield* check(yield* handlerOf(router.asHttpEffect()), prefix)
        }).pipe(Effect.provide(SseLayer))
      )
    }
  })
})
