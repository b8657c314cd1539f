/**
 * This project's hub. `portable` as a further argument: on the portable connection; `history`: events are
 * kept and carry ids. The publisher is a fiber that
 * publishes what is due with `publishAll`; on `/bench/start?namespaces=N` it publishes to random ones of
 * `/bench/<a>/<b>/<c>`, N in all; on `?to=NAMESPACE` to that one.
 */
import { HttpMiddleware, HttpRouter, HttpServer, HttpServerRequest, HttpServerResponse } from "@effect/platform"
import { NodeHttpServer, NodeRuntime } from "@effect/platform-node"
import { type SseEvent, SseHub, SseLayer, SseRoutes } from "effect-sse"
import { Effect, Layer } from "effect"
import { createServer } from "node:http"
import { broadcast, collect, port, readBroadcast, ready } from "../support/broadcast.js"
import { namespaceOf } from "../support/namespaces.js"

const connection = process.argv[3] === "portable" ? "portable" : "auto"

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

Layer.unwrapScoped(Effect.map(Bench, (router) => HttpServer.serve(router))).pipe(
  // As SseServer does.
  HttpMiddleware.withTracerDisabledWhen(() => true),
  Layer.provide(process.argv[3] === "history" ? SseHub.layer({ history: { maxEvents: 100_000 } }) : SseLayer),
  Layer.provide(Layer.effectDiscard(Effect.sync(ready))),
  Layer.provide(NodeHttpServer.layer(createServer, { port, host: "127.0.0.1", backlog: 16_384 })),
  Layer.launch,
  NodeRuntime.runMain
)
