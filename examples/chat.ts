/**
 * A chat with any number of rooms. What is said in one has a Schema: the route, the page and a listener in the program rely
 * on it, and what does not fit is refused.
 *
 *     npx tsx examples/chat.ts     then open http://localhost:8001/ in two windows
 */
import { HttpRouter, HttpServer, HttpServerRequest, HttpServerResponse } from "@effect/platform"
import { NodeHttpServer, NodeRuntime } from "@effect/platform-node"
import { SseChannel, SseLayer, SseRoutes } from "effect-sse"
import { Config, Effect, Layer, Schema, Stream } from "effect"
import { createServer } from "node:http"

const Line = Schema.Struct({
  from: Schema.Trim.pipe(Schema.minLength(1), Schema.maxLength(30)),
  text: Schema.Trim.pipe(Schema.minLength(1), Schema.maxLength(500))
})

const Rooms = SseChannel.make({ namespace: "/rooms/:room", event: "said", schema: Line })

const page = `<!doctype html>
<meta charset="utf-8">
<title>chat</title>
<ul id="lines"></ul>
<form id="form"><input name="from" placeholder="name"> <input name="text" placeholder="text"> <button>say</button></form>
<script>
  const room = encodeURIComponent(location.hash.slice(1) || "lobby")
  new EventSource("/subscribe/rooms/" + room).addEventListener("said", (event) => {
    const { from, text } = JSON.parse(event.data)
    document.getElementById("lines").append(Object.assign(document.createElement("li"), { textContent: from + ": " + text }))
  })
  form.onsubmit = (event) => {
    event.preventDefault()
    fetch("/rooms/" + room, { method: "POST", body: JSON.stringify(Object.fromEntries(new FormData(form))) })
    form.text.value = ""
  }
</script>`

const say = Effect.gen(function* () {
  const { room } = yield* HttpRouter.schemaPathParams(Schema.Struct({ room: Schema.String }))
  const line = yield* HttpServerRequest.schemaBodyJson(Line)
  yield* SseChannel.publish(Rooms.at({ room }), line)
  return HttpServerResponse.empty({ status: 204 })
}).pipe(
  Effect.catchTag("ParseError", "RequestError", "ChannelEncodeError", ({ message }) =>
    HttpServerResponse.text(message, { status: 400 })
  )
)

/** Hears what is said in every room. */
const Listener = Layer.scopedDiscard(
  SseChannel.subscribeAll(Rooms).pipe(
    Stream.runForEach(({ params, value }) => Effect.log(`${params.room}: ${value.from} says ${value.text}`)),
    Effect.forkScoped
  )
)

const app = SseRoutes.router().pipe(
  HttpRouter.get("/", HttpServerResponse.html(page)),
  HttpRouter.post("/rooms/:room", say)
)

const ServerLayer = Layer.unwrapEffect(
  Effect.map(Config.withDefault(Config.integer("PORT"), 8001), (port) =>
    NodeHttpServer.layer(createServer, { host: "127.0.0.1", port })
  )
)

Layer.merge(HttpServer.serve(app).pipe(HttpServer.withLogAddress), Listener).pipe(
  Layer.provide(SseLayer),
  Layer.provide(ServerLayer),
  Layer.launch,
  NodeRuntime.runMain
)
