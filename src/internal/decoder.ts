/**
 * Bytes of an event stream to events (WHATWG HTML section 9.2.6), in whatever pieces the bytes come.
 *
 * @internal
 */
import { createParser } from "eventsource-parser"
import type { Event } from "../SseClient.js"
import { EventTooLarge } from "../SseError.js"
import { byteLength } from "./frame.js"

/** The longest reconnection time in ms: timers of many platforms take no more. */
const maxRetry = 2 ** 31 - 1

/** The longest id, in bytes: servers take little more of a header. */
const maxIdBytes = 4096

/**
 * Whether a header can carry an id.
 *
 * @internal
 */
export const isSendable = (id: string): boolean => !/[\x00-\x1f\x7f]/.test(id) && byteLength(id) <= maxIdBytes

/**
 * The largest event by default: twice what a hub takes by its default.
 *
 * @internal
 */
export const defaultMaxBytes = 2 * 1024 * 1024

/** A line that means something. */
const field = /^(?:(?:data|event|id)[:\n]|retry: ?\d+\n)/

/**
 * The parser of eventsource-parser, and around it what that leaves open: blocks with an `id` and no data, a CR that ends the
 * last line, the start of the stream, and one bound for an event however its bytes are cut.
 *
 * @internal
 */
export class Decoder {
  /** How long the stream asks its clients to wait before they reconnect, in ms. */
  retry: number | undefined
  /** Whether an event or an id came. */
  delivered = false
  /** An event is larger than the bound. No further bytes are taken. */
  tooLarge = false

  private readonly decoder = new TextDecoder()
  private events: Array<Event> = []
  private afterCr = false
  /** Bytes of the fields of the block that has begun, and of the line that has. */
  private block = 0
  private line = 0
  private isComment = false

  private readonly parser = createParser({
    onEvent: ({ data, event = "message", id }) => {
      // One that no header could carry back is ignored, as the standard ignores one with NUL.
      if (id !== undefined && isSendable(id)) this.lastEventId = id
      // Data is followed by an LF of ours: see `push`.
      if (data !== "") this.events.push({ _tag: "Event", event, data: data.slice(0, -1), id: this.lastEventId })
      this.delivered ||= data !== "" || id !== undefined
    },
    onRetry: (millis) => {
      this.retry = Math.min(millis, maxRetry)
    }
  })

  /** @param lastEventId the id to begin with; afterwards that of the last whole block that had one */
  constructor(
    private readonly maxEventBytes: number,
    public lastEventId: string
  ) {
    // In its first text it takes the letters "ï»¿" for a byte order mark, which the TextDecoder has already dropped.
    this.parser.feed("")
  }

  get error(): EventTooLarge {
    return new EventTooLarge({ limit: this.maxEventBytes })
  }

  /** Takes bytes, and gives the events that they complete. */
  push(bytes: Uint8Array): ReadonlyArray<Event> {
    const text = this.lines(this.decoder.decode(bytes, { stream: true }))
    this.events = []
    for (let from = 0; from < text.length && !this.tooLarge;) {
      const end = text.indexOf("\n", from) + 1
      const piece = end === 0 ? text.slice(from) : text.slice(from, end)
      from += piece.length
      if (this.line === 0 && piece === "\n") {
        // A last empty line of data makes the parser tell of blocks without data too, and of their ids.
        if (this.block > 0) this.parser.feed("data\n\n")
        this.block = 0
        continue
      }
      const isWhole = this.line === 0 && end !== 0
      if (this.line === 0) this.isComment = piece.startsWith(":")
      this.line += byteLength(piece)
      this.tooLarge = this.block + this.line > this.maxEventBytes
      if (this.tooLarge) break
      // The parser makes an `Error` of every line that is none of its fields, which takes it a while.
      if (!isWhole || field.test(piece)) this.parser.feed(piece)
      if (end === 0) break
      // A comment is held only until its line ends: a stream may have many without ever a blank line.
      if (!this.isComment) this.block += this.line
      this.line = 0
    }
    return this.events
  }

  /** Makes every line end an LF at once, where the parser would wait for what follows a CR. */
  private lines(text: string): string {
    if (text === "") return text
    const rest = this.afterCr && text.startsWith("\n") ? text.slice(1) : text
    this.afterCr = text.endsWith("\r")
    return rest.includes("\r") ? rest.replace(/\r\n?/g, "\n") : rest
  }
}
