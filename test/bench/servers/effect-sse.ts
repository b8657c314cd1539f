/**
 * This project's hub. Further arguments: `portable`: on the portable connection; `history`: events are kept and carry ids;
 * `http2`: on the next port as well, HTTP/2 over TLS. The publisher is a fiber that
 * publishes what is due with `publishAll`; on `/bench/start?namespaces=N` it publishes to random ones of
 * `/bench/<a>/<b>/<c>`, N in all; on `?to=NAMESPACE` to that one.
 */
import { HttpMiddleware, HttpRouter, HttpServer, HttpServerRequest, HttpServerResponse } from "@effect/platform"
import { NodeHttpServer, NodeRuntime } from "@effect/platform-node"
import { type SseEvent, SseHub, SseLayer, SseRoutes } from "effect-sse"
import { Effect, Layer } from "effect"
import { execFileSync } from "node:child_process"
import { mkdtempSync, readFileSync, rmSync } from "node:fs"
import { createServer } from "node:http"
import { createSecureServer } from "node:http2"
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
  return SseRoutes.router({ connection }).pipe(
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

/** With the settings of `SseServer`. */
const secureServer = () => {
  const folder = mkdtempSync(join(tmpdir(), "effect-sse-bench-"))
  const [key, cert] = [join(folder, "key.pem"), join(folder, "cert.pem")]
  execFileSync(
    "openssl",
    [
      "req",
      "-x509",
      "-newkey",
      "ec",
      "-pkeyopt",
      "ec_paramgen_curve:prime256v1",
      "-nodes",
      "-subj",
      "/CN=localhost"
    ].concat(["-keyout", key, "-out", cert]),
    { stdio: "ignore" }
  )
  const settings = { maxConcurrentStreams: 256, maxHeaderListSize: 16 * 1024 }
  const server = createSecureServer({ key: readFileSync(key), cert: readFileSync(cert), settings, allowHTTP1: true })
  rmSync(folder, { recursive: true })
  return server as unknown as ReturnType<typeof createServer>
}

const listen = (server: () => ReturnType<typeof createServer>, port: number) =>
  NodeHttpServer.layer(server, { port, host: "127.0.0.1", backlog: 16_384 })

const serve = (router: Effect.Effect.Success<typeof Bench>) => {
  // A layer that is there twice is built once.
  const on = (server: ReturnType<typeof listen>) => Layer.provide(Layer.fresh(HttpServer.serve(router)), server)
  const plain = on(listen(createServer, port))
  return words.includes("http2") ? Layer.merge(plain, on(listen(secureServer, port + 1))) : plain
}

Layer.unwrapScoped(Effect.map(Bench, serve)).pipe(
  // As SseServer does.
  HttpMiddleware.withTracerDisabledWhen(() => true),
  Layer.provide(words.includes("history") ? SseHub.layer({ history: true }) : SseLayer),
  Layer.provide(Layer.effectDiscard(Effect.sync(ready))),
  Layer.launch,
  NodeRuntime.runMain
)
