/** What lets somebody in stays between them and the server: it is looked for wherever the server writes. */
import { assert, describe, it } from "@effect/vitest"
import { HttpLayerRouter, HttpMiddleware, HttpRouter, HttpServer } from "@effect/platform"
import { NodeHttpServer } from "@effect/platform-node"
import { SseHub, SseLayer, SseRoutes, SseTracing } from "effect-sse"
import * as Jwt from "effect-sse/Authorize/Jwt"
import * as SseServer from "effect-sse/node/SseServer"
import { Clock, Effect, Exit, HashMap, Layer, Logger, LogLevel, Tracer } from "effect"
import { createServer } from "node:http"
import { inspect } from "node:util"
import { bySecret, claims, keyServer, secret, sign, signer } from "./support/jwt.js"
import { connect, request } from "./support/rawClient.js"
import { eventually, port } from "./support/server.js"

/** Collects all that is logged, and all that a collector of spans would get. */
const collector = () => {
  const written: Array<string> = []
  const write = (value: unknown) =>
    void written.push(inspect(value, { depth: 10, maxArrayLength: null, maxStringLength: null }))
  const logger = Logger.make(({ annotations, cause, message }) => {
    write([message, HashMap.toEntries(annotations), cause])
  })
  const tracer = Tracer.make({
    context: (f) => f(),
    span: (name, parent, context, links, startTime, kind) => {
      const attributes = new Map<string, unknown>()
      return {
        _tag: "Span",
        name,
        spanId: "1",
        traceId: "1",
        parent,
        context,
        status: { _tag: "Started", startTime },
        attributes,
        links,
        sampled: true,
        kind,
        end: (_, exit) => {
          write([name, attributes])
          if (Exit.isFailure(exit)) write(String(exit.cause))
        },
        attribute: (key, value) => void attributes.set(key, value),
        event: (name, _, attributes) => write([name, attributes]),
        addLinks: () => {}
      }
    }
  })
  return {
    written,
    write,
    layer: Layer.mergeAll(
      Logger.replace(Logger.defaultLogger, logger),
      Logger.minimumLogLevel(LogLevel.All),
      Layer.setTracer(tracer)
    )
  }
}

describe("secrets", () => {
  it.scopedLive(
    "no token, ticket or cookie appears in a log, a span, the admin page, a metric or an error body",
    () => {
      const { layer, write, written } = collector()
      return Effect.gen(function* () {
        const key = yield* signer("ES256", "1")
        const keys = yield* keyServer([])
        keys.state.status = 500
        const now = Math.floor((yield* Clock.currentTimeMillis) / 1000)
        const good = yield* sign(bySecret(), claims(now, { sse: { subscribe: ["/"], publish: ["/"], admin: true } }))
        const bad = {
          expired: yield* sign(bySecret(), claims(now, { exp: now - 10 })),
          unverified: yield* sign(key, claims(now)),
          weak: yield* sign(bySecret(), claims(now, { sse: {} })),
          text: "not-a-token-but-secret"
        }
        const jwt = Jwt.make({ secret, keys: keys.url, cookie: "session" })

        const tickets: Array<string> = []
        const bodies: Array<string> = []
        yield* Effect.gen(function* () {
          const hub = yield* SseHub.SseHub
          const listening = yield* port
          const send = (path: string, headers: Record<string, string>, method = "GET", body = "") =>
            Effect.map(Effect.scoped(request(listening, path, { headers, method, body })), ({ body, head, status }) => {
              bodies.push(head, body)
              return { body, status }
            })
          const ticket = Effect.gen(function* () {
            const { body } = yield* send("/tickets?ns=/a", { Authorization: `Bearer ${good}` }, "POST")
            const { ticket } = JSON.parse(body) as { ticket: string }
            // This is the one answer that has it.
            bodies.pop()
            tickets.push(ticket)
            return ticket
          })

          // In, by each way there is.
          const used = yield* ticket
          for (const [path, headers] of [
            ["/subscribe/a", { Authorization: `Bearer ${good}` }],
            ["/subscribe/a", { Cookie: `session=${good}` }],
            [`/subscribe/a?ticket=${used}`, {}],
            [`http://localhost/subscribe/a?ticket=${yield* ticket}`, {}]
          ] as ReadonlyArray<readonly [string, Record<string, string>]>) {
            const client = yield* connect(listening, path, { headers })
            yield* client.until((body) => body !== "")
            bodies.push(yield* client.head, client.body())
          }
          assert.strictEqual((yield* hub.clients).length, 4)
          assert.strictEqual((yield* send("/publish/a", { Authorization: `Bearer ${good}` }, "POST", "x")).status, 202)

          // Not in, for each reason there is, with the secret wherever it may stand.
          for (const token of [...Object.values(bad), used]) {
            for (const path of ["/subscribe/a", "/tickets?ns=/a", "/publish/a", "/admin/", "/metrics", "/nothing"]) {
              const and = path.includes("?") ? "&" : "?"
              for (const method of ["GET", "POST", "OPTIONS", "DELETE"]) {
                const unavailable = token === bad.unverified
                const header = yield* send(path, { Authorization: `Bearer ${token}` }, method)
                assert.isTrue(unavailable || header.status !== 202, `${method} ${path}`)
                yield* send(path, { Cookie: `session=${token}`, Origin: "http://evil.example" }, method)
                yield* send(`${path}${and}ticket=${token}`, {}, method)
                yield* send(`${path}${and}access_token=${token}`, {}, method)
                yield* send(`http://localhost${path}${and}ticket=${token}`, {}, method)
              }
            }
          }
          assert.strictEqual((yield* hub.clients).length, 4)

          // What those see who look.
          const admin = { Authorization: `Bearer ${good}` }
          for (const path of ["/admin/", "/admin/status.json", "/metrics"]) {
            const { body, status } = yield* send(path, admin)
            assert.strictEqual(status, 200)
            written.push(body)
          }
          assert.isTrue(written.some((text) => text.includes('"principal":"ann"')))
          const events = yield* connect(listening, "/admin/events", { headers: admin })
          written.push(yield* events.until((body) => body.includes("event:status")))
          for (const change of yield* hub.clients) write(change)
          yield* hub.revoke("ann")
          yield* eventually(Effect.sync(() => written.filter((text) => text.includes("revoked")).length >= 4))
        }).pipe(
          Effect.provide(
            SseServer.layer({ port: 0, ...jwt }).pipe(
              Layer.provideMerge(Layer.provide(SseTracing.layer, SseHub.layer())),
              Layer.provide(layer)
            )
          ),
          Effect.scoped
        )

        // It did look.
        for (const seen of ["connected", "sse.connect", "sse.publish", "http.server", "cannot be verified"]) {
          assert.isTrue(
            written.some((text) => text.includes(seen)),
            seen
          )
        }
        assert.isAbove(tickets.length, 1)
        for (const secret of [good, ...Object.values(bad), ...tickets]) {
          // Not even the signature alone, or the claims.
          for (const part of new Set([secret, ...secret.split(".")])) {
            if (part.length < 20) continue
            for (const text of [...written, ...bodies]) assert.notInclude(text, part)
          }
        }
      })
    },
    60_000
  )

  it.scopedLive("nor in what the platform writes in an app of one's own", () => {
    const { layer, written } = collector()
    return Effect.gen(function* () {
      const jwt = Jwt.make({ secret })
      const now = Math.floor((yield* Clock.currentTimeMillis) / 1000)
      const token = yield* sign(bySecret(), claims(now))
      const tickets: Array<string> = []
      for (const [prefix, server] of [
        // With its logger, as is the default.
        ["", HttpLayerRouter.serve(SseRoutes.layer(jwt))],
        [
          "/live",
          HttpServer.serve(HttpRouter.mount(HttpRouter.empty, "/live", SseRoutes.router(jwt)), HttpMiddleware.logger)
        ]
      ] as const) {
        yield* Effect.gen(function* () {
          const listening = yield* port
          const answer = yield* request(listening, `${prefix}/tickets?ns=/pets`, {
            method: "POST",
            headers: { Authorization: `Bearer ${token}` }
          })
          const { ticket } = JSON.parse(answer.body) as { ticket: string }
          tickets.push(ticket)
          const client = yield* connect(listening, `${prefix}/subscribe/pets?ticket=${ticket}`)
          yield* client.until((body) => body !== "")
          for (const again of [`ticket=${ticket}`, `a=b&%74icket=${ticket}&c=d`]) {
            assert.strictEqual((yield* request(listening, `${prefix}/subscribe/pets?${again}`)).status, 401)
          }
          assert.strictEqual((yield* request(listening, `${prefix}/subscribe/a//b?ticket=${ticket}`)).status, 400)
        }).pipe(
          Effect.provide(
            server.pipe(
              Layer.provideMerge(NodeHttpServer.layer(createServer, { port: 0 })),
              Layer.provide(SseLayer),
              Layer.provide(layer)
            )
          ),
          Effect.scoped
        )
      }
      for (const seen of ["Sent HTTP response", "/tickets", "/live/tickets", "url.query", "REDACTED"]) {
        assert.isTrue(
          written.some((text) => text.includes(seen)),
          seen
        )
      }
      assert.strictEqual(tickets.length, 2)
      for (const secret of [token, ...tickets]) for (const text of written) assert.notInclude(text, secret)
    })
  })
})
