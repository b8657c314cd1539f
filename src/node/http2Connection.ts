/**
 * A connection that writes straight to a stream of Node's HTTP/2. See `NodeConnection`, of which it is a part.
 *
 * A stream is one of many on its connection: what it has to wait for, its window, is its own (RFC 9113 section 5.2), and so
 * is its end.
 *
 * @internal
 */
import type * as Http from "node:http"
import type * as Http2 from "node:http2"
import { type EndReason, type Frame, isAbrupt } from "../Connection.js"
import type { NodeConnection } from "./NodeConnection.js"

/** RFC 9113 section 7: the stream is no longer needed. Without a code, a client takes a stream that was cut for whole. */
const cancel = 0x8

/**
 * The HTTP/2 stream of a response.
 *
 * @internal
 */
export const streamOf = (response: Http.ServerResponse): Http2.ServerHttp2Stream | undefined =>
  "stream" in response ? (response.stream as Http2.ServerHttp2Stream) : undefined

/**
 * Throws away what waits on a stream, and ends it.
 *
 * @internal
 */
export const cut = (stream: Http2.Http2Stream): void => {
  if (!stream.closed) stream.close(cancel)
  stream.destroy()
}

/** How long a client may take, in ms, to receive what still waits at a graceful end. */
const lingerMillis = 5_000

/**
 * Cuts what has not closed by itself when a client had 5 seconds to receive what still waits.
 *
 * @internal
 */
export const cutLater = (stream: { once(event: "close", listener: () => void): unknown }, cut: () => void): void => {
  const timer = setTimeout(cut, lingerMillis)
  timer.unref()
  stream.once("close", () => clearTimeout(timer))
}

/** @internal */
export class Http2Connection implements NodeConnection {
  readonly keepsItselfAlive = false
  // Frames written before the head: the hub may deliver between the handler and the answer.
  private early: Array<Frame> | undefined = []
  private stream: Http2.ServerHttp2Stream | undefined
  private state: "waiting" | "open" | "ending" | "closed" = "waiting"
  private listener: ((reason: "client-closed" | "shutdown") => void) | undefined

  constructor(private response: Http.ServerResponse | undefined) {}

  write(frame: Frame): number {
    if (this.state === "open") this.stream!.write(frame.bytes)
    else if (this.early !== undefined) this.early.push(frame)
    else return 0
    return frame.size
  }

  pendingBytes(): number {
    if (this.stream !== undefined) return this.stream.writableLength
    return (this.early ?? []).reduce((sum, frame) => sum + frame.size, 0)
  }

  end(reason: EndReason): void {
    if (this.state !== "waiting" && this.state !== "open") return
    if (isAbrupt(reason)) {
      if (this.stream === undefined) this.closed()
      else cut(this.stream)
    } else {
      this.state = "ending"
      if (this.stream !== undefined) this.finish(this.stream)
    }
  }

  onClose(listener: (reason: "client-closed" | "shutdown") => void): void {
    this.listener = listener
    if (this.state === "closed") listener("client-closed")
  }

  close(): void {
    if (this.stream === undefined) this.closed()
  }

  takeOver(): void {
    const { early = [], response } = this
    const stream = response === undefined ? undefined : streamOf(response)
    if (response === undefined || stream === undefined || stream.closed || stream.destroyed) return this.closed()
    this.response = this.early = undefined
    this.stream = stream
    // The response has ended as far as the platform is concerned: its empty body does not end the stream, and the request's
    // fiber is not held to be interrupted.
    response.end = () => response
    response.removeAllListeners("close")
    stream.once("close", () => this.closed())
    for (const frame of early) stream.write(frame.bytes)
    if (this.state === "ending") this.finish(stream)
    else this.state = "open"
  }

  private finish(stream: Http2.ServerHttp2Stream): void {
    stream.end()
    cutLater(stream, () => cut(stream))
  }

  private closed(): void {
    if (this.state === "closed") return
    this.state = "closed"
    this.early = undefined
    this.response = undefined
    this.listener?.("client-closed")
  }
}
