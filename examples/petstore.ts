/**
 * The program of the Go server's README: the time on /time, dogs on /pets/dogs, cats on /pets/cats, and a page that
 * subscribes to parents and children.
 *
 *     npx tsx examples/petstore.ts     then open http://localhost:8001/
 */
import { HttpRouter, HttpServer, HttpServerResponse } from "@effect/platform"
import { NodeHttpServer, NodeRuntime } from "@effect/platform-node"
import { SseHub, SseLayer, SseRoutes } from "effect-sse"
import { Clock, Config, DateTime, Effect, Layer, Schedule } from "effect"
import { createServer } from "node:http"

const page = `<!doctype html>
<meta charset="utf-8">
<title>petstore</title>
<style>
  body { font: 16px system-ui; display: grid; grid-template-columns: repeat(auto-fit, minmax(14rem, 1fr)); gap: 1rem }
  li { list-style: none }
</style>
<script>
  for (const namespace of ["/", "/time", "/pets", "/pets/dogs", "/pets/cats"]) {
    const section = document.createElement("section")
    section.innerHTML = "<h2></h2><ul></ul>"
    section.querySelector("h2").textContent = namespace
    document.body.append(section)
    const show = (event) => {
      const item = document.createElement("li")
      item.textContent = event.type + ": " + event.data
      const list = section.querySelector("ul")
      list.prepend(item)
      if (list.children.length > 10) list.lastChild.remove()
    }
    const source = new EventSource("/subscribe" + namespace)
    for (const name of ["message", "new-dog", "new-cat"]) source.addEventListener(name, show)
  }
</script>`

const time = Effect.gen(function* () {
  const hub = yield* SseHub.SseHub
  const now = yield* Clock.currentTimeMillis
  yield* hub.publish({
    namespace: "/time",
    data: DateTime.formatLocal(DateTime.unsafeMake(now), { timeStyle: "medium" })
  })
}).pipe(Effect.repeat(Schedule.fixed("1 second")))

const pets = Effect.gen(function* () {
  const hub = yield* SseHub.SseHub
  yield* Effect.sleep("1 second")
  yield* hub.publish({ namespace: "/pets/dogs", event: "new-dog", data: "Corgi" })
  yield* hub.publish({ namespace: "/pets/cats", event: "new-cat", data: "Persian" })
  yield* Effect.sleep("1 second")
  yield* hub.publish({ namespace: "/pets/dogs", event: "new-dog", data: "Terrier" })
  yield* hub.publish({ namespace: "/pets/dogs", event: "new-dog", data: "Dachshund" })
  yield* Effect.sleep("2 seconds")
  yield* hub.publish({ namespace: "/pets/cats", event: "new-cat", data: "LOLcat" })
}).pipe(Effect.forever)

const Publishers = Layer.mergeAll(
  Layer.scopedDiscard(Effect.forkScoped(time)),
  Layer.scopedDiscard(Effect.forkScoped(pets))
)

const Server = HttpServer.serve(SseRoutes.router().pipe(HttpRouter.get("/", HttpServerResponse.html(page)))).pipe(
  HttpServer.withLogAddress
)

const ServerLayer = Layer.unwrapEffect(
  Effect.map(Config.withDefault(Config.integer("PORT"), 8001), (port) =>
    NodeHttpServer.layer(createServer, { host: "127.0.0.1", port })
  )
)

Layer.merge(Server, Publishers).pipe(
  Layer.provide(SseLayer),
  Layer.provide(ServerLayer),
  Layer.launch,
  NodeRuntime.runMain
)
