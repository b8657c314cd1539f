/** Plain Node, as one would write it by hand: `res.write` of each event to each response; keepalive by one interval. */
import { createServer, type ServerResponse } from "node:http"
import { broadcast, collect, port, readBroadcast, ready } from "../support/broadcast.js"

const clients = new Set<ServerResponse>()

createServer((request, response) => {
  const url = request.url ?? "/"
  if (url.startsWith("/bench/start")) {
    broadcast(readBroadcast(url), (data) => {
      const frame = Buffer.from(`data:${data}\n\n`)
      for (const client of clients) client.write(frame)
    })
    return response.end("started\n")
  }
  if (url === "/bench/gc") {
    collect()
    return response.end("done\n")
  }
  response.writeHead(200, { "content-type": "text/event-stream", "cache-control": "no-cache" })
  response.write(":ok\n\n")
  clients.add(response)
  response.on("close", () => clients.delete(response))
}).listen({ port, host: "127.0.0.1", backlog: 16_384 }, ready)

setInterval(() => {
  for (const client of clients) client.write(":keepalive\n\n")
}, 15_000)
