/**
 * A connection that writes straight to a Node socket.
 *
 * When the head of the response is written, with all that middleware has set, the socket is taken out of the response:
 * the request ends, and from then on frames go to the socket, already in HTTP/1.1 chunk framing. Neither the response's
 * buffers nor the request's fiber live as long as the stream, and a frame is one write of memory shared by all clients. On
 * HTTP/2 frames go to the response's stream, and the request ends as well.
 *
 * Nothing here is imported from Node but types, so the core can offer it without depending on Node.
 *
 * @since 0.1.0
 */
import type { HttpServerRequest } from "@effect/platform/HttpServerRequest"
import type * as Http from "node:http"
import type * as Http2 from "node:http2"
import type * as Net from "node:net"
import { type CloseReason, type Connection, type EndReason, type Frame, isAbrupt } from "../Connection.js"
import * as Pipelined from "../internal/pipelined.js"
import { cut, cutLater, Http2Connection, streamOf } from "./http2Connection.js"

/**
 * A connection on a Node response.
 *
 * @since 0.1.0
 * @category models
 */
export interface NodeConnection extends Connection {
  /**
   * Opens it with a head that Node has written for another response of the same kind.
   *
   * @internal
   */
  takeOver(head: string): void
  /** Closes it, unless it is open; the response is then an ordinary one. */
  close(): void
}

const lastChunk = "0\r\n\r\n"

/**
 * The Node response behind a request, or `undefined` on another platform.
 *
 * It is what `NodeHttpServerRequest.toServerResponse` gives, without importing `@effect/platform-node`.
 *
 * @since 0.1.0
 * @category conversions
 */
export const responseOf = (request: HttpServerRequest): Http.ServerResponse | undefined => {
  const held = "response" in request ? request.response : undefined
  const response: unknown = typeof held === "function" ? held() : held
  return isResponse(response) ? response : undefined
}

const isResponse = (value: unknown): value is Http.ServerResponse =>
  typeof value === "object" && value !== null && "writeHead" in value && "req" in value

/**
 * Whether the socket or HTTP/2 stream of this response can be taken over. That of a request which was pipelined behind
 * another one cannot.
 *
 * @since 0.1.0
 * @category predicates
 */
export const canTakeOver = (response: Http.ServerResponse): boolean =>
  response.req.httpVersionMajor === 1
    ? response.socket !== null && !response.socket.destroyed && typeof response.detachSocket === "function"
    : streamOf(response)?.destroyed === false

/**
 * Destroys a response or what carries it: now, or, if it has not closed by itself, when a client had 5 seconds to receive
 * what still waits.
 *
 * @since 0.1.0
 * @category destructors
 */
export const destroy = (stream: Http.ServerResponse | Net.Socket | Http2.ServerHttp2Session, now: boolean): void => {
  const carrier = "req" in stream ? (streamOf(stream) ?? stream) : stream
  const end = () => ("rstCode" in carrier ? cut(carrier) : carrier.destroy())
  if (now) end()
  else cutLater(stream, end)
}

const stalled = new WeakSet<Net.Socket>()

/**
 * Resets a connection whose peer acknowledges nothing any more, so that the system keeps nothing for it either. A client
 * on it counts as `stalled`.
 *
 * @internal
 */
export const resetStalled = (socket: Net.Socket): void => {
  stalled.add(socket)
  reset(socket)
}

/** A socket that is only closed may leave megabytes with the system, for minutes. What is under TLS cannot be reset. */
const reset = (socket: Net.Socket): void => {
  if (!socket.writableEnded && !("encrypted" in socket)) socket.resetAndDestroy()
  socket.destroy()
}

/**
 * Why a connection closed that nobody here has ended.
 *
 * @internal
 */
export const reasonOf = (socket: Net.Socket): "client-closed" | "stalled" =>
  stalled.has(socket) ? "stalled" : "client-closed"

/**
 * Makes a connection on a response for which {@link canTakeOver} holds. It opens when the head of an event stream is
 * written to the response: status 200, `text/event-stream`. If another head is written, somebody else has answered, and
 * the connection closes, as it does when the response closes before.
 *
 * @since 0.1.0
 * @category constructors
 */
export const make = (response: Http.ServerResponse): NodeConnection => {
  const connection = response.req.httpVersionMajor === 1 ? new TakenOver(response) : new Http2Connection(response)
  const { writeHead } = response
  // The last moment before the head goes out, whoever writes it: later than any middleware and pre-response handler, and
  // without a fiber ref, which costs a copy of all of them.
  response.writeHead = (status: number, ...rest: ReadonlyArray<unknown>) => {
    response.writeHead = writeHead
    Reflect.apply(writeHead, response, [status, ...rest])
    const headers = rest.at(-1) as Http.OutgoingHttpHeaders | undefined
    const type = headers?.["content-type"] ?? response.getHeader("content-type")
    if (status === 200 && String(type).startsWith(mediaType)) connection.takeOver()
    else connection.close()
    return response
  }
  response.on("close", () => connection.close())
  return connection
}

const mediaType = "text/event-stream"

// A class, and the response let go of: ten thousand of these stay, and what a closure holds would stay with them.
class TakenOver implements NodeConnection {
  readonly keepsItselfAlive = false
  // Frames written before the socket is taken over: the hub may deliver between the handler and the answer.
  private early: Array<Frame> | undefined = []
  private socket: Net.Socket | undefined
  private chunked = true
  private state: "waiting" | "open" | "ending" | "closed" = "waiting"
  private listener: ((reason: CloseReason) => void) | undefined

  constructor(private response: Http.ServerResponse | undefined) {}

  write(frame: Frame): number {
    if (this.state === "open") return this.send(frame)
    this.early?.push(frame)
    return this.early === undefined ? 0 : frame.chunk.length
  }

  pendingBytes(): number {
    return this.socket === undefined ? (this.early ?? []).reduce(addLength, 0) : this.socket.writableLength
  }

  end(reason: EndReason): void {
    if (this.state !== "waiting" && this.state !== "open") return
    if (isAbrupt(reason)) {
      if (this.socket === undefined) this.closed()
      else reset(this.socket)
    } else {
      this.state = "ending"
      if (this.socket !== undefined) this.finish(this.socket)
    }
  }

  onClose(listener: (reason: CloseReason) => void): void {
    this.listener = listener
    if (this.state === "closed") listener("client-closed")
  }

  close(): void {
    if (this.socket === undefined) this.closed()
  }

  /** @param head what Node would write as the head of this response; left out: Node writes it */
  takeOver(head?: string): void {
    const { early = [], response } = this
    const socket = response?.socket
    if (response === undefined || !socket || socket.destroyed) return this.closed()
    this.response = this.early = undefined
    this.socket = socket
    socket.cork()
    if (head === undefined) {
      this.chunked = response.chunkedEncoding
      response.flushHeaders()
      response.detachSocket(socket)
      // Node would take the end of this response for that of an ordinary one, and detach the socket once more.
      response.removeAllListeners("finish")
      response.end()
      for (const frame of early) this.send(frame)
    } else {
      response.detachSocket(socket)
      socket.write(openingOf(head, early))
    }
    detachParser(socket)
    // Of a request that offered an upgrade, Node no longer sees that the client ends the connection.
    socket.allowHalfOpen = false
    // Not "once", which would keep three more objects for each connection: it comes once.
    socket.on("close", () => this.closed(reasonOf(socket)))
    if (this.state === "ending") this.finish(socket)
    else this.state = "open"
    socket.uncork()
    Pipelined.becomeStream(socket, new Occupant(() => this.listener?.("shutdown")))
  }

  private send(frame: Frame): number {
    const bytes = this.chunked ? frame.chunk : frame.bytes
    this.socket!.write(bytes)
    return bytes.length
  }

  private finish(socket: Net.Socket): void {
    if (this.chunked) socket.write(lastChunk)
    socket.destroySoon()
    destroy(socket, false)
  }

  private closed(reason: CloseReason = "client-closed"): void {
    if (this.state === "closed") return
    this.state = "closed"
    this.early = undefined
    this.response = undefined
    this.listener?.(reason)
  }
}

/** Thousands begin with the same bytes. */
let lastOpening: { readonly head: string; readonly frame: Frame | undefined; readonly bytes: Buffer } | undefined

const openingOf = (head: string, frames: ReadonlyArray<Frame>): Buffer => {
  const [frame] = frames
  if (frames.length <= 1 && lastOpening?.head === head && lastOpening.frame === frame) return lastOpening.bytes
  const bytes = Buffer.concat([Buffer.from(head, "latin1"), ...frames.map(({ chunk }) => chunk)])
  if (frames.length <= 1) lastOpening = { head, frame, bytes }
  return bytes
}

/**
 * Takes Node's HTTP parser off a socket. It would read a further request on the connection, and answer it, or an error, in
 * the middle of the stream. Input is read, so that the client's end is seen, and dropped; "close" follows every error.
 *
 * Something else listens in their place: a list from which a name goes becomes a slow one, at 800 bytes for each connection.
 */
const detachParser = (socket: Net.Socket): void => {
  // "data" last: with it Node gives up the parser, and takes its own listeners for "pause" and "resume" away.
  for (const name of ofParser) {
    const listeners = socket.rawListeners(name)
    socket.on(name, ignore)
    for (const listener of listeners) socket.removeListener(name, listener as () => void)
  }
}

/** What Node's HTTP server listens to on the parser's behalf. */
const ofParser = ["error", "drain", "resume", "pause", "data"]

const ignore = () => {}

const addLength = (sum: number, frame: Frame): number => sum + frame.chunk.length

/**
 * Stands for the response on the socket, so that Node sees the connection in use. Where it looks:
 *
 * - A server that closes asks each connection whether its response is `finished`, and cuts those it thinks idle. Asked, the
 *   stream says goodbye and ends itself; so it does whatever the order in which hub and server are released.
 * - On a broken request Node answers 400 unless `_headerSent`.
 *
 * Should Node ask no more, streams are cut when the server closes, as if this were not there.
 */
class Occupant {
  readonly [Pipelined.isStream] = true
  readonly _headerSent = true
  readonly headersSent = true
  constructor(private readonly onServerClose: () => void) {}
  get finished(): boolean {
    this.onServerClose()
    return false
  }
  emit(): boolean {
    return false
  }
}
