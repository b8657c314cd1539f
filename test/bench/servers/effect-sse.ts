/**
 * This project's standalone server. Further arguments: `mounted`: its routes in an app of one's own; `portable`: on the
 * portable connection; `history`: events are kept and carry ids; `http2`: on the next port as well, HTTP/2 over TLS. The
 * publisher is a fiber that publishes what is due with `publishAll`; on `/bench/start?namespaces=N` it publishes to random
 * ones of `/bench/<a>/<b>/<c>`, N in all; on `?to=NAMESPACE` to that one.
 */
import { HttpMiddleware, HttpRouter, HttpServer, HttpServerRequest, HttpServerResponse } from "@effect/platform"
import { NodeHttpServer, NodeRuntime } from "@effect/platform-node"
import { type SseEvent, SseHub, SseLayer, SseRoutes } from "effect-sse"
import * as SseServer from "effect-sse/node/SseServer"
import { Effect, Layer, Logger, LogLevel } from "effect"
import { execFileSync } from "node:child_process"
import { mkdtempSync, readFileSync, rmSync } from "node:fs"
import { createServer } from "node:http"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { broadcast, collect, port, readBroadcast, ready } from "../support/broadcast.js"
import { namespaceOf } from "../support/namespaces.js"

const words = process.argv.slice(3)
const connection = words.includes("portable") ? "portable" : "auto"

const Bench = Effect.gen(function* () {
  const hub = yield* SseHub.SseHub
  let due: Array<SseEvent.SseEvent> = []
  const some = yield* Effect.makeLatch()
  yield* some.await.pipe(
    Effect.zipRight(
      Effect.suspend(() => {
        const events = due
        due = []
        some.unsafeClose()
        return hub.publishAll(events)
      })
    ),
    Effect.forever,
    Effect.forkScoped
  )
  return HttpRouter.empty.pipe(
    HttpRouter.get(
      "/bench/start",
      Effect.map(HttpServerRequest.HttpServerRequest, (request) => {
        const query = new URL(request.url, "http://localhost").searchParams
        const namespaces = Number(query.get("namespaces") ?? 0)
        const to = query.get("to") ?? "/bench"
        const target = () => (namespaces === 0 ? to : namespaceOf(Math.floor(Math.random() * namespaces)))
        broadcast(readBroadcast(request.url), (data) => {
          due.push({ namespace: target(), data })
          some.unsafeOpen()
        })
        return HttpServerResponse.text("started\n")
      })
    ),
    HttpRouter.get("/bench/gc", Effect.as(Effect.sync(collect), HttpServerResponse.text("done\n")))
  )
})

/** A certificate for the next minutes. */
const selfSigned = () => {
  const folder = mkdtempSync(join(tmpdir(), "effect-sse-bench-"))
  const [key, cert] = [join(folder, "key.pem"), join(folder, "cert.pem")]
  const kind = [
    "-x509",
    "-newkey",
    "ec",
    "-pkeyopt",
    "ec_paramgen_curve:prime256v1",
    "-nodes",
    "-subj",
    "/CN=localhost"
  ]
  execFileSync("openssl", ["req", ...kind, "-keyout", key, "-out", cert], { stdio: "ignore" })
  const pem = { key: readFileSync(key, "utf8"), cert: readFileSync(cert, "utf8") }
  rmSync(folder, { recursive: true })
  return pem
}

const serve = (routes: Effect.Effect.Success<typeof Bench>) => {
  if (words.includes("mounted")) {
    return HttpServer.serve(HttpRouter.concat(SseRoutes.router({ connection }), routes)).pipe(
      // As SseServer does.
      HttpMiddleware.withTracerDisabledWhen(() => true),
      Layer.provide(NodeHttpServer.layer(createServer, { port, host: "127.0.0.1", backlog: 16_384 }))
    )
  }
  const plain = SseServer.layer({ connection, port, routes })
  return words.includes("http2")
    ? Layer.merge(plain, SseServer.layer({ connection, port: port + 1, routes, tls: selfSigned() }))
    : plain
}

Layer.unwrapScoped(Effect.map(Bench, serve)).pipe(
  Layer.tap(() => Effect.sync(ready)),
  Layer.provide(words.includes("history") ? SseHub.layer({ history: true }) : SseLayer),
  // A line for each that comes and goes would be measured as well.
  Layer.provide(Logger.minimumLogLevel(LogLevel.Warning)),
  Layer.launch,
  NodeRuntime.runMain
)
