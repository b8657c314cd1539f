import { assert, describe, it } from "@effect/vitest"
import { type HttpServer } from "@effect/platform"
import { SseHub, SseLayer, SseRoutes } from "effect-sse"
import type { CorsOptions } from "effect-sse/http/Cors"
import * as Jwt from "effect-sse/Authorize/Jwt"
import { Cause, Clock, Effect, Exit, Layer } from "effect"
import { createServer, type Server } from "node:http"
import type { AddressInfo } from "node:net"
import * as Browser from "../support/chromium.js"
import { bySecret, claims, secret, sign } from "../support/jwt.js"
import { connect } from "../support/rawClient.js"
import { eventually, port, serverLayer } from "../support/server.js"
import { handlerOf, said } from "../support/web.js"

const app = "https://app.example.com"

const headersOf = (response: Response) =>
  Object.fromEntries(
    Array.from(response.headers).filter(([name]) => name.startsWith("access-control-") || name === "vary")
  )

const routes = (cors?: CorsOptions) =>
  Effect.map(
    handlerOf(SseRoutes.router({ ...Jwt.make({ secret, cookie: "jwt" }), publish: "open", cors })),
    (send) =>
      (method: string, path: string, headers: Record<string, string> = {}) =>
        send(path, { method, headers: { host: "sse.example.com", ...headers } })
  )

const preflight = (method: string, headers: string) => ({
  origin: app,
  "access-control-request-method": method,
  "access-control-request-headers": headers
})

describe("Cors", () => {
  it.scoped("by default: any origin, without credentials; nobody elsewhere publishes", () =>
    Effect.gen(function* () {
      const send = yield* routes()
      const cookie = `jwt=${yield* sign(bySecret(), claims(0))}`
      const any = {
        "access-control-allow-origin": "*",
        "access-control-expose-headers": "idempotency-replayed, retry-after, sse-keepalive, sse-reset"
      }
      for (const headers of [{ origin: app }, { origin: "null" }, {}] as ReadonlyArray<Record<string, string>>) {
        const open = yield* send("GET", "/subscribe/pets", { ...headers, cookie })
        assert.deepStrictEqual([open.status, headersOf(open)], [200, any])
        const refused = yield* send("GET", "/subscribe/pets", headers)
        assert.deepStrictEqual([refused.status, headersOf(refused)], [401, any], "a page may read why")
        const ticket = yield* send("POST", "/tickets?ns=/pets", { ...headers, cookie })
        assert.deepStrictEqual([ticket.status, headersOf(ticket)], [201, any])
      }
      for (const [path, method, allow] of [
        ["/subscribe/pets", "GET", "GET, HEAD, POST, OPTIONS"],
        ["/tickets", "POST", "POST, OPTIONS"]
      ] as const) {
        const answer = yield* send("OPTIONS", path, preflight(method, "authorization,cache-control,last-event-id"))
        assert.strictEqual(answer.status, 204)
        assert.strictEqual(answer.headers.get("allow"), allow)
        assert.deepStrictEqual(headersOf(answer), {
          ...any,
          "access-control-allow-methods": allow,
          "access-control-allow-headers":
            "authorization, cache-control, content-type, idempotency-key, last-event-id, b3, traceparent, tracestate",
          "access-control-max-age": "86400"
        })
      }
      const publish = yield* send("OPTIONS", "/publish/a", preflight("POST", "authorization"))
      assert.deepStrictEqual([publish.status, headersOf(publish)], [405, {}])
      assert.strictEqual(yield* said(yield* send("POST", "/publish/a", { origin: app })), "403 Forbidden")
      assert.strictEqual(
        yield* said(yield* send("POST", "/publish/a", { "sec-fetch-site": "same-site" })),
        "403 Forbidden"
      )
      assert.strictEqual(yield* said(yield* send("POST", "/publish/a")), "202")
      // No page can make a browser send that.
      assert.strictEqual(
        yield* said(yield* send("POST", "/publish/a", { origin: app, authorization: "Bearer x" })),
        "202"
      )
      assert.deepStrictEqual(headersOf(yield* send("OPTIONS", "/admin/", preflight("DELETE", ""))), {})
    }).pipe(Effect.provide(SseLayer))
  )

  for (const [name, origins] of [
    ["a list", [app, "capacitor://localhost", "HTTP://Localhost:80/"]],
    ["a rule", (origin: string) => [app, "capacitor://localhost", "http://localhost"].includes(origin)]
  ] as const) {
    it.scoped(`${name}: these, with credentials, and no others`, () =>
      Effect.gen(function* () {
        const hub = yield* SseHub.SseHub
        const send = yield* routes({ origins, maxAge: "10 minutes" })
        const cookie = `jwt=${yield* sign(bySecret(), claims(0))}`
        for (const origin of [app, "capacitor://localhost", "http://localhost"]) {
          const credentials = {
            vary: "Origin",
            "access-control-allow-origin": origin,
            "access-control-allow-credentials": "true",
            "access-control-expose-headers": "idempotency-replayed, retry-after, sse-keepalive, sse-reset"
          }
          for (const [method, path, status] of [
            ["GET", "/subscribe/pets", 200],
            ["POST", "/tickets?ns=/pets", 201],
            ["POST", "/publish/a", 202]
          ] as const) {
            const answer = yield* send(method, path, { origin, cookie, "sec-fetch-site": "cross-site" })
            assert.deepStrictEqual([answer.status, headersOf(answer)], [status, credentials], path)
            const asked = yield* send("OPTIONS", path, { ...preflight(method, "authorization"), origin })
            assert.deepInclude(headersOf(asked), { ...credentials, "access-control-max-age": "600" })
            assert.include(headersOf(asked)["access-control-allow-methods"], method)
          }
          const refused = yield* send("GET", "/subscribe/time", { origin, cookie })
          assert.deepStrictEqual([refused.status, headersOf(refused)], [403, credentials])
        }
        const before = (yield* hub.clients).length
        for (const origin of [`${app}.evil.com`, "http://app.example.com", `${app}:8443`, "null", ""]) {
          for (const [method, path] of [
            ["GET", "/subscribe/pets"],
            ["POST", "/tickets?ns=/pets"],
            ["POST", "/publish/a"]
          ] as const) {
            const answer = yield* send(method, path, { origin, cookie })
            assert.deepStrictEqual([answer.status, headersOf(answer)], [403, { vary: "Origin" }], `${origin} ${path}`)
            const asked = yield* send("OPTIONS", path, { ...preflight(method, ""), origin })
            assert.deepStrictEqual([asked.status, headersOf(asked)], [204, { vary: "Origin" }])
          }
        }
        assert.strictEqual((yield* hub.clients).length, before)
        // The server's own pages, and programs.
        for (const own of [
          { origin: "https://sse.example.com" },
          { origin: "http://x", "sec-fetch-site": "same-origin" },
          {}
        ]) {
          const answer = yield* send("POST", "/tickets?ns=/pets", { ...(own as Record<string, string>), cookie })
          assert.deepStrictEqual([answer.status, headersOf(answer)], [201, { vary: "Origin" }])
        }
      }).pipe(Effect.provide(SseLayer))
    )
  }

  it.scoped("a list without credentials, and an empty one", () =>
    Effect.gen(function* () {
      const send = yield* routes({ origins: [app], credentials: false })
      const cookie = `jwt=${yield* sign(bySecret(), claims(0))}`
      const answer = yield* send("GET", "/subscribe/pets", { origin: app, cookie })
      assert.isFalse("access-control-allow-credentials" in headersOf(answer))
      const nobody = yield* routes({ origins: [] })
      assert.strictEqual((yield* nobody("GET", "/subscribe/pets", { origin: app, cookie })).status, 403)
      assert.strictEqual((yield* nobody("GET", "/subscribe/pets", { cookie })).status, 200)
    }).pipe(Effect.provide(SseLayer))
  )

  it.scoped("a rule that fails ends its request only", () =>
    Effect.gen(function* () {
      const send = yield* routes({
        origins: () => {
          throw new Error("a defect")
        }
      })
      for (const method of ["GET", "OPTIONS"]) {
        assert.strictEqual(yield* said(yield* send(method, "/subscribe/pets", { origin: app })), "500 InternalError")
      }
    }).pipe(Effect.provide(SseLayer))
  )

  it.effect("what makes no sense is refused when the layer is built", () =>
    Effect.gen(function* () {
      assert.throws(() => SseRoutes.router({ cors: { credentials: true } }), /credentials with any origin/)
      assert.throws(() => SseRoutes.layer({ cors: { origins: "*", credentials: true } }), /credentials with any origin/)
      for (const origin of [
        "*",
        "null",
        "app.example.com",
        `${app}/path`,
        "https://*.example.com",
        "https://u@x",
        ""
      ]) {
        assert.throws(() => SseRoutes.router({ cors: { origins: [origin] } }), /is not an origin/, origin)
      }
      const exit = yield* Effect.exit(
        Layer.build(serverLayer({ cors: { origins: "*", credentials: true } })).pipe(Effect.scoped)
      )
      assert.include(Exit.isFailure(exit) ? Cause.pretty(exit.cause) : "built", "credentials with any origin")
    })
  )
})

/** A page of another origin. */
const page = Effect.acquireRelease(
  Effect.async<Server>((resume) => {
    const server: Server = createServer((_, response) => {
      response.writeHead(200, { "content-type": "text/html", connection: "close" })
      response.end("<!doctype html><title>elsewhere</title>")
    }).listen(0, "127.0.0.1", () => resume(Effect.succeed(server)))
  }),
  (server) => Effect.sync(() => server.close())
)

describe.skipIf(!Browser.canRun)("Cors in Chromium", () => {
  /** Opens a stream from a page of another origin; gives its first event, or that there was an error. */
  const listen = (
    url: string,
    from: string,
    withCredentials: boolean,
    cookie: { readonly name: string; readonly value: string; readonly url: string } | undefined,
    publish: Effect.Effect<unknown, unknown>
  ) =>
    Effect.gen(function* () {
      const context = yield* Browser.browser
      if (cookie !== undefined) yield* Effect.promise(() => context.addCookies([{ ...cookie, sameSite: "Lax" }]))
      const tab = yield* Effect.promise(() => context.newPage())
      yield* Effect.promise(() => tab.goto(from))
      const opened = yield* Effect.promise(() =>
        tab.evaluate(
          ([url, withCredentials]) =>
            new Promise<string>((resolve) => {
              const source = new EventSource(url, { withCredentials })
              const first = new Promise<string>((got) =>
                source.addEventListener("message", ({ data }) => got(String(data)))
              )
              Object.assign(globalThis, { first })
              source.addEventListener("open", () => resolve("open"))
              source.addEventListener("error", () =>
                resolve(source.readyState === EventSource.CLOSED ? "refused" : "error")
              )
            }),
          [url, withCredentials] as const
        )
      )
      if (opened !== "open") return opened
      yield* publish
      return yield* Effect.promise(() =>
        tab.evaluate(() => (globalThis as unknown as { first: Promise<string> }).first)
      )
    }).pipe(Effect.scoped)

  const setting = Effect.gen(function* () {
    const hub = yield* SseHub.SseHub
    const elsewhere = ((yield* page).address() as AddressInfo).port
    const now = Math.floor((yield* Clock.currentTimeMillis) / 1000)
    const token = yield* sign(bySecret(), claims(now))
    const url = `http://localhost:${yield* port}/subscribe/pets`
    return {
      hub,
      token,
      url,
      from: `http://localhost:${elsewhere}/`,
      cookie: { name: "jwt", value: token, url: `http://localhost:${yield* port}` },
      publish: hub.publish({ namespace: "/pets", data: "Corgi" })
    }
  })

  it.scopedLive(
    "without credentials, from any origin",
    () =>
      Effect.gen(function* () {
        const { from, publish, url } = yield* setting
        assert.strictEqual(yield* listen(url, from, false, undefined, publish), "Corgi")
        assert.strictEqual(yield* listen(url, from, true, undefined, publish), "refused", "credentials need a list")
      }).pipe(Effect.provide(serverLayer())),
    60_000
  )

  const server = (elsewhere: number): Layer.Layer<SseHub.SseHub | HttpServer.HttpServer> =>
    serverLayer({
      subscribe: Jwt.make({ secret, cookie: "jwt" }).subscribe,
      cors: { origins: [`http://localhost:${elsewhere}`] }
    })

  it.scopedLive(
    "with credentials, from an origin that is listed, and from no other",
    () =>
      Effect.gen(function* () {
        const listed = yield* page
        const elsewhere = (listed.address() as AddressInfo).port
        yield* Effect.gen(function* () {
          const { cookie, from, hub, publish, token, url } = yield* setting
          const home = `http://localhost:${elsewhere}/`
          assert.strictEqual(yield* listen(url, home, true, cookie, publish), "Corgi")
          yield* eventually(Effect.map(hub.clients, (clients) => clients.length === 0))
          assert.strictEqual(yield* listen(url, home, false, cookie, publish), "refused", "the cookie is not sent")
          assert.strictEqual(yield* listen(url, from, true, cookie, publish), "refused", "not listed")

          // A page without a cookie gets a ticket by its token, after a preflight, and opens its stream with it.
          const context = yield* Browser.browser
          const tab = yield* Effect.promise(() => context.newPage())
          yield* Effect.promise(() => tab.goto(home))
          const ticket = yield* Effect.promise(() =>
            tab.evaluate(
              async ([url, token]) => {
                const answer = await fetch(url, { method: "POST", headers: { authorization: `Bearer ${token}` } })
                return ((await answer.json()) as { ticket: string }).ticket
              },
              [url.replace("/subscribe/pets", "/tickets?ns=/pets"), token] as const
            )
          )
          assert.strictEqual(yield* listen(`${url}?ticket=${ticket}`, home, false, undefined, publish), "Corgi")
          assert.strictEqual(yield* listen(`${url}?ticket=${ticket}`, home, false, undefined, publish), "refused")
          const program = yield* connect(yield* port, "/subscribe/pets", {
            headers: { Authorization: `Bearer ${token}` }
          })
          yield* program.until((body) => body !== "")
        }).pipe(Effect.provide(server(elsewhere)))
      }),
    120_000
  )
})
