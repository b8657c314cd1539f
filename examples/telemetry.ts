/**
 * A hub whose metrics, and short spans for each publish and connect, go to an OpenTelemetry collector by OTLP over HTTP.
 *
 *     OTLP_URL=http://localhost:4318 npx tsx examples/telemetry.ts
 */
import { Otlp } from "@effect/opentelemetry"
import { FetchHttpClient, HttpServer } from "@effect/platform"
import { NodeRuntime } from "@effect/platform-node"
import { SseHub, SseLayer, SseTracing } from "effect-sse"
import * as SseServer from "effect-sse/node/SseServer"
import { Config, Effect, Layer, Schedule } from "effect"

const Telemetry = Layer.unwrapEffect(
  Effect.map(Config.string("OTLP_URL").pipe(Config.withDefault("http://localhost:4318")), (baseUrl) =>
    Otlp.layerJson({
      baseUrl,
      resource: { serviceName: "effect-sse-example" },
      metricsExportInterval: "2 seconds",
      tracerExportInterval: "2 seconds"
    })
  )
).pipe(Layer.provide(FetchHttpClient.layer))

const publisher = Effect.gen(function* () {
  const hub = yield* SseHub.SseHub
  yield* Effect.repeat(hub.publish({ namespace: "/time/ticks", data: "tick" }), Schedule.spaced("1 second"))
})

const Server = Layer.unwrapEffect(
  Effect.map(Config.withDefault(Config.integer("PORT"), 8001), (port) => SseServer.layer({ port }))
)

const Main = Layer.scopedDiscard(Effect.zipRight(HttpServer.logAddress, Effect.forkScoped(publisher))).pipe(
  Layer.provide(Server),
  Layer.provide(SseTracing.layer),
  Layer.provide(SseLayer),
  Layer.provide(Telemetry)
)

NodeRuntime.runMain(Layer.launch(Main))
