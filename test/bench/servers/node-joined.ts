/** Plain Node at its limit: what is due in one turn of the event loop is one buffer, written to each socket. */
import { createServer } from "node:http"
import type { Socket } from "node:net"
import { broadcast, collect, port, readBroadcast, ready } from "../support/broadcast.js"

const clients = new Set<Socket>()
let waiting: Array<string> = []

const chunk = (text: string) => Buffer.from(`${Buffer.byteLength(text).toString(16)}\r\n${text}\r\n`)

const flush = () => {
  const joined = chunk(waiting.join(""))
  waiting = []
  for (const client of clients) client.write(joined)
}

createServer((request, response) => {
  const url = request.url ?? "/"
  if (url.startsWith("/bench/start")) {
    broadcast(readBroadcast(url), (data) => {
      if (waiting.push(`data:${data}\n\n`) === 1) setImmediate(flush)
    })
    return response.end("started\n")
  }
  if (url === "/bench/gc") {
    collect()
    return response.end("done\n")
  }
  response.writeHead(200, { "content-type": "text/event-stream", "cache-control": "no-cache" })
  response.flushHeaders()
  const socket = response.socket!
  socket.write(chunk(":ok\n\n"))
  clients.add(socket)
  socket.on("close", () => clients.delete(socket))
}).listen({ port, host: "127.0.0.1", backlog: 16_384 }, ready)

setInterval(() => {
  const keepalive = chunk(":keepalive\n\n")
  for (const client of clients) client.write(keepalive)
}, 15_000)
