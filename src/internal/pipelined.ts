/**
 * Requests pipelined behind a stream on the same HTTP/1.1 connection (RFC 9112 section 9.3.2), at whatever route of the app
 * they are.
 *
 * They are never answered: Node keeps their responses back until the one ahead is complete, and tells neither of them when
 * the connection closes. The platform's fibers would wait for ever. So a connection that has become a stream is closed when
 * another request is on it, and all responses that are kept back on a connection are ended with it.
 *
 * @internal
 */
import type { IncomingMessage, ServerResponse } from "node:http"
import type { Socket } from "node:net"

/** What ends the responses that are kept back, by their connection. */
const keptBack = new WeakMap<Socket, Set<() => void>>()
const guarded = new WeakSet<object>()

/** From the first request to the hub's routes on, a server's requests are looked at; all but those pipelined are passed over. */
export const guard = (socket: Socket | undefined): void => {
  const server = socket !== undefined && "server" in socket ? socket.server : undefined
  if (typeof server === "object" && server !== null && "prependListener" in server) {
    guardServer(server as NodeJS.EventEmitter)
  }
}

/** From now on. */
export const guardServer = (server: NodeJS.EventEmitter): void => {
  if (guarded.has(server)) return
  guarded.add(server)
  // Before the platform's own listener, which begins the fiber.
  server.prependListener("request", onRequest)
}

/** What stands for the response on a connection that has become a stream has this. */
export const isStream: unique symbol = Symbol("effect-sse/pipelined/isStream")

/** Makes a stream of a connection. One that already has a further request on it is closed. */
export const becomeStream = (socket: Socket, occupant: { readonly [isStream]: true }): void => {
  Object.assign(socket, { _httpMessage: occupant })
  if ((keptBack.get(socket)?.size ?? 0) > 0) socket.destroy()
}

const onRequest = (request: IncomingMessage, response: ServerResponse): void => {
  if (response.socket !== null || request.httpVersionMajor !== 1) return
  const { socket } = request
  let ends = keptBack.get(socket)
  if (ends === undefined) {
    const made = new Set<() => void>()
    keptBack.set(socket, (ends = made))
    socket.once("close", () => made.forEach((end) => end()))
  }
  const all = ends
  // Node's own listener; it takes the response that finishes for the one ahead.
  const own = response.listeners("finish")
  const end = () => {
    if (response.socket !== null) return
    for (const listener of own) response.off("finish", listener as () => void)
    // Those who wait until it is sent, and those who would end it when its connection closes.
    response.emit("finish")
    response.emit("close")
  }
  all.add(end)
  response.once("close", () => all.delete(end))
  const { _httpMessage: ahead } = socket as { readonly _httpMessage?: object }
  if (ahead !== undefined && isStream in ahead) socket.destroy()
}
