/**
 * A connection that writes straight to a Node socket.
 *
 * When the body of the response is about to be sent, the socket is taken out of the response: the head goes out, the
 * request ends, and from then on frames go to the socket, already in HTTP/1.1 chunk framing. Neither the response's
 * buffers nor the request's fiber live as long as the stream, and a frame is one write of memory shared by all clients.
 *
 * Nothing here is imported from Node but types, so the core can offer it without depending on Node.
 *
 * @since 0.1.0
 */
import type { HttpServerRequest } from "@effect/platform/HttpServerRequest"
import * as Effect from "effect/Effect"
import * as Stream from "effect/Stream"
import type * as Http from "node:http"
import type * as Net from "node:net"
import { type Connection, type Frame, isAbrupt } from "../Connection.js"

/**
 * A connection on a Node response.
 *
 * @since 0.1.0
 * @category models
 */
export interface NodeConnection extends Connection {
  /** The body to give the response: run, it takes the socket over and ends at once. */
  readonly stream: Stream.Stream<Uint8Array>
  /** Tells that the request is over. If the socket was not taken over by then, the connection closes. */
  readonly close: () => void
}

/** How long a client may take, in ms, to receive what still waits at a graceful end. */
const lingerMillis = 5_000

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
 * Whether the socket of this response can be taken over: HTTP/1 with the socket assigned. HTTP/2, and a request that was
 * pipelined behind another one, cannot.
 *
 * @since 0.1.0
 * @category predicates
 */
export const canTakeOver = (response: Http.ServerResponse): boolean =>
  response.req.httpVersionMajor === 1 &&
  response.socket !== null &&
  !response.socket.destroyed &&
  typeof response.detachSocket === "function"

/**
 * Makes a connection on a response for which {@link canTakeOver} holds.
 *
 * @since 0.1.0
 * @category constructors
 */
export const make = (response: Http.ServerResponse): NodeConnection => {
  // Frames written before the body is asked for: the hub may deliver between the handler and the body.
  let early: Array<Frame> | undefined = []
  let socket: Net.Socket | undefined
  let chunked = true
  let state: "waiting" | "open" | "ending" | "closed" = "waiting"
  let listener: (() => void) | undefined

  const closed = () => {
    if (state === "closed") return
    state = "closed"
    early = undefined
    listener?.()
  }
  const send = (socket: Net.Socket, frame: Frame) => void socket.write(chunked ? frame.chunk : frame.bytes)
  const finish = (socket: Net.Socket) => {
    if (chunked) socket.write(lastChunk)
    socket.destroySoon()
    const timer = setTimeout(() => socket.destroy(), lingerMillis)
    timer.unref()
    socket.once("close", () => clearTimeout(timer))
  }
  const takeOver = () => {
    const frames = early
    const owned = response.socket
    if (frames === undefined || owned === null || owned.destroyed) {
      if (owned !== null) owned.destroy()
      return closed()
    }
    early = undefined
    socket = owned
    chunked = response.chunkedEncoding
    owned.cork()
    response.flushHeaders()
    response.detachSocket(owned)
    // The platform ends the response, which then has nothing more to do with the socket. Node would take the end for that
    // of an ordinary response and detach the socket once more, which it asserts cannot be.
    response.removeAllListeners("finish")
    // Node's HTTP parser would read a further request on this connection and answer it in the middle of the stream.
    // Input is read, so that the client's end is seen, and dropped.
    owned.removeAllListeners("data")
    owned.on("data", ignore)
    // Node's HTTP error listener would answer 400 in the middle of the stream; "close" follows every error.
    owned.removeAllListeners("error")
    owned.on("error", ignore)
    owned.once("close", closed)
    for (const frame of frames) send(owned, frame)
    if (state === "ending") finish(owned)
    else state = "open"
    owned.uncork()
  }

  return {
    keepsItselfAlive: false,
    write: (frame) => {
      if (state === "open") send(socket!, frame)
      else early?.push(frame)
    },
    pendingBytes: () => (socket !== undefined ? socket.writableLength : (early ?? []).reduce(addLength, 0)),
    end: (reason) => {
      if (state !== "waiting" && state !== "open") return
      if (isAbrupt(reason)) {
        if (socket === undefined) closed()
        else socket.destroy()
      } else {
        state = "ending"
        if (socket !== undefined) finish(socket)
      }
    },
    onClose: (onClose) => {
      listener = onClose
      if (state === "closed") onClose()
    },
    close: () => {
      if (socket === undefined) closed()
    },
    stream: Stream.execute(Effect.sync(takeOver))
  }
}

const ignore = () => {}

const addLength = (sum: number, frame: Frame): number => sum + frame.bytes.length
