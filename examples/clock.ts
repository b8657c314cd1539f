/**
 * The time on a page: one publisher, every browser.
 *
 *     npx tsx examples/clock.ts     then open http://localhost:8001/
 */
import { HttpRouter, HttpServer, HttpServerResponse } from "@effect/platform"
import { NodeHttpServer, NodeRuntime } from "@effect/platform-node"
import { SseHub, SseLayer, SseRoutes } from "effect-sse"
import { Clock, Config, DateTime, Effect, Layer, Schedule } from "effect"
import { createServer } from "node:http"

const page = `<!doctype html>
<meta charset="utf-8">
<title>clock</title>
<h1 id="time">connecting</h1>
<script>
  const source = new EventSource("/subscribe/time")
  source.onmessage = (event) => { document.getElementById("time").textContent = event.data }
  source.onerror = () => { document.getElementById("time").textContent = "connecting again" }
</script>`

/** Publishes the time every second for as long as the program runs. */
const Ticker = Layer.scopedDiscard(
  Effect.gen(function* () {
    const hub = yield* SseHub.SseHub
    yield* Effect.flatMap(Clock.currentTimeMillis, (now) =>
      hub.publish({ namespace: "/time", data: DateTime.formatLocal(DateTime.unsafeMake(now), { timeStyle: "medium" }) })
    ).pipe(Effect.repeat(Schedule.fixed("1 second")), Effect.forkScoped)
  })
)

const Server = HttpServer.serve(SseRoutes.router().pipe(HttpRouter.get("/", HttpServerResponse.html(page)))).pipe(
  HttpServer.withLogAddress
)

const ServerLayer = Layer.unwrapEffect(
  Effect.map(Config.withDefault(Config.integer("PORT"), 8001), (port) =>
    NodeHttpServer.layer(createServer, { host: "127.0.0.1", port })
  )
)

Layer.merge(Server, Ticker).pipe(Layer.provide(SseLayer), Layer.provide(ServerLayer), Layer.launch, NodeRuntime.runMain)
