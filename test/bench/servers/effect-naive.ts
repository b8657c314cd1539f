/** Effect as one would first write it: for each client a Stream from the PubSub, filtered, merged with its keepalive. */
import { HttpRouter, HttpServer, HttpServerRequest, HttpServerResponse } from "@effect/platform"
import { NodeHttpServer, NodeRuntime } from "@effect/platform-node"
import { Effect, Layer, PubSub, Schedule, Stream } from "effect"
import { createServer } from "node:http"
import { broadcast, collect, port, readBroadcast, ready } from "../support/broadcast.js"

const encoder = new TextEncoder()

const app = Effect.gen(function* () {
  const pubsub = yield* PubSub.unbounded<{ readonly namespace: string; readonly data: string }>()
  const keepalive = Stream.fromSchedule(Schedule.spaced("15 seconds")).pipe(
    Stream.map(() => encoder.encode(":keepalive\n\n"))
  )
  return HttpRouter.empty.pipe(
    HttpRouter.get(
      "/subscribe/*",
      Effect.sync(() =>
        HttpServerResponse.stream(
          Stream.make(encoder.encode(":ok\n\n")).pipe(
            Stream.concat(
              Stream.fromPubSub(pubsub).pipe(
                Stream.filter(({ namespace }) => namespace.startsWith("/bench")),
                Stream.map(({ data }) => encoder.encode(`data:${data}\n\n`)),
                Stream.merge(keepalive, { haltStrategy: "left" })
              )
            )
          ),
          { contentType: "text/event-stream" }
        )
      )
    ),
    HttpRouter.get(
      "/bench/start",
      Effect.map(HttpServerRequest.HttpServerRequest, (request) => {
        broadcast(readBroadcast(request.url), (data) => pubsub.unsafeOffer({ namespace: "/bench", data }))
        return HttpServerResponse.text("started\n")
      })
    ),
    HttpRouter.get("/bench/gc", Effect.as(Effect.sync(collect), HttpServerResponse.text("done\n")))
  )
})

Layer.unwrapEffect(Effect.map(app, (router) => HttpServer.serve(router))).pipe(
  Layer.provide(Layer.effectDiscard(Effect.sync(ready))),
  Layer.provide(NodeHttpServer.layer(createServer, { port, host: "127.0.0.1", backlog: 16_384 })),
  Layer.launch,
  NodeRuntime.runMain
)
