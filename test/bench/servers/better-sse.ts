/** better-sse: a session for each client in one channel. */
import { createChannel, createSession } from "better-sse"
import { createServer } from "node:http"
import { broadcast, collect, port, readBroadcast, ready } from "../support/broadcast.js"

const channel = createChannel()

createServer((request, response) => {
  const url = request.url ?? "/"
  if (url.startsWith("/bench/start")) {
    // The data is text; its default serializer would quote it.
    broadcast(readBroadcast(url), (data) => channel.broadcast(data, "message", { eventId: "1" }))
    return response.end("started\n")
  }
  if (url === "/bench/gc") {
    collect()
    return response.end("done\n")
  }
  void createSession(request, response, { keepAlive: 15_000, serializer: String }).then((session) =>
    channel.register(session)
  )
}).listen({ port, host: "127.0.0.1", backlog: 16_384 }, ready)
