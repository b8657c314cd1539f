/**
 * Live updates in an app that has routes of its own: the hub's routes are mounted under /live, and another route
 * publishes.
 *
 *     npx tsx examples/mount.ts
 *     curl -N localhost:8001/live/subscribe/orders
 *     curl -X POST localhost:8001/orders/42
 */
import { HttpRouter, HttpServer, HttpServerResponse } from "@effect/platform"
import { NodeHttpServer, NodeRuntime } from "@effect/platform-node"
import { SseHub, SseLayer, SseRoutes } from "effect-sse"
import { Config, Effect, Layer, Schema } from "effect"
import { createServer } from "node:http"

const app = HttpRouter.empty.pipe(
  HttpRouter.get("/", HttpServerResponse.text("an app\n")),
  HttpRouter.post(
    "/orders/:id",
    Effect.gen(function* () {
      const { id } = yield* HttpRouter.schemaPathParams(Schema.Struct({ id: Schema.NumberFromString }))
      const hub = yield* SseHub.SseHub
      yield* hub.publish({ namespace: `/orders/${id}`, event: "placed", data: JSON.stringify({ id }) })
      return HttpServerResponse.unsafeJson({ id }, { status: 201 })
    }).pipe(
      Effect.catchTag("ParseError", () =>
        Effect.succeed(HttpServerResponse.unsafeJson({ error: "the order's id is a number" }, { status: 400 }))
      )
    )
  ),
  HttpRouter.mount("/live", SseRoutes.router())
)

const ServerLayer = Layer.unwrapEffect(
  Effect.map(Config.withDefault(Config.integer("PORT"), 8001), (port) =>
    NodeHttpServer.layer(createServer, { host: "127.0.0.1", port })
  )
)

HttpServer.serve(app).pipe(
  HttpServer.withLogAddress,
  Layer.provide(SseLayer),
  Layer.provide(ServerLayer),
  Layer.launch,
  NodeRuntime.runMain
)
