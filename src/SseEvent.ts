/**
 * What is published, and the one place that turns it into the text of an event stream (WHATWG HTML section 9.2, `text/event-stream`).
 *
 * @since 0.1.0
 */
import * as Either from "effect/Either"
import { InvalidEvent } from "./SseError.js"

/**
 * An event.
 *
 * @since 0.1.0
 * @category models
 */
export interface SseEvent {
  /** Where it is published; see `Namespace.parse` for what is allowed. */
  readonly namespace: string
  /** The event's name, which `EventSource` dispatches it by. Left out or empty: `message`. No CR, LF or NUL. */
  readonly event?: string | undefined
  /** The payload: text, or bytes of UTF-8. CRLF, CR and LF all arrive as LF. Empty is allowed. */
  readonly data: string | Uint8Array
  /** What a client sends back as `Last-Event-ID`: 1 to 128 visible ASCII characters. */
  readonly id?: string | undefined
  /** How long a client should wait before it connects again, in ms: a whole number from 0 to 2,147,483,647. */
  readonly retry?: number | undefined
}

const decoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true })
const lineEnds = /\r\n|\r|\n/g
const maxRetry = 2_147_483_647

// A parser drops one space after the colon. One is written only where the value begins with a space itself, so nothing is lost.
const field = (name: string, value: string): string => name + (value[0] === " " ? ": " : ":") + value + "\n"

/** The last field of a block: a line for each line of the text, and the blank one. In few steps: each makes a string. */
const lines = (name: string, text: string): string => {
  const whole = name + (text[0] === " " ? ": " : ":") + text
  if (!text.includes("\n") && !text.includes("\r")) return whole + "\n\n"
  // Each line end becomes one with the field's name behind it, and then lines that begin with a space get theirs: every "\n"
  // in the text is one that was put there.
  return whole.replace(lineEnds, `\n${name}:`).replaceAll(`\n${name}: `, `\n${name}:  `) + "\n\n"
}

const loneSurrogate = "has a lone surrogate, which UTF-8 cannot carry"

/**
 * The payload as text; `undefined` if the bytes are not UTF-8.
 *
 * @internal
 */
export const dataText = (data: string | Uint8Array): string | undefined => {
  if (typeof data === "string") return data
  try {
    return decoder.decode(data)
  } catch {
    return undefined
  }
}

/**
 * The block of one event, ended by a blank line: `id`, `retry`, `event`, then a `data` line for each line of the payload.
 *
 * The refusals keep an event whole for every client: a line break in `event` would let a publisher forge other fields,
 * NUL or control characters in `id` and ids beyond ASCII break the reconnect of real clients, and a larger `retry` makes
 * some of them reconnect without pause.
 *
 * @param event the event; its namespace is no part of the block and is not looked at
 * @returns the text, well-formed so that it can be sent as UTF-8; or an {@link InvalidEvent} with the field and the reason
 * @since 0.1.0
 * @category encoding
 * @example
 * ```ts
 * import { SseEvent } from "effect-sse"
 * import { Either } from "effect"
 *
 * const block = SseEvent.encode({ namespace: "/pets/dogs", event: "new-dog", data: "Corgi" })
 * Either.getOrThrow(block) // "event:new-dog\ndata:Corgi\n\n"
 * ```
 */
export const encode = (event: SseEvent): Either.Either<string, InvalidEvent> => {
  const block = toBlock(event)
  return typeof block === "string" ? Either.right(block) : Either.left(block)
}

/**
 * {@link encode} without the `Either`, for the hot path.
 *
 * @internal
 */
export const toBlock = (event: SseEvent): string | InvalidEvent => {
  const text = dataText(event.data)
  if (text === undefined) return invalid("data", "is not valid UTF-8")
  if (!text.isWellFormed()) return invalid("data", loneSurrogate)
  let head = ""
  if (event.id !== undefined) {
    if (!/^[\x21-\x7e]{1,128}$/.test(event.id)) return invalid("id", "must be 1 to 128 visible ASCII characters")
    head += field("id", event.id)
  }
  if (event.retry !== undefined) {
    if (!Number.isInteger(event.retry) || event.retry < 0 || event.retry > maxRetry) {
      return invalid("retry", "must be a whole number of milliseconds from 0 to 2147483647")
    }
    head += field("retry", String(event.retry))
  }
  if (event.event !== undefined && event.event !== "") {
    if (/[\r\n\0]/.test(event.event)) return invalid("event", "must not contain CR, LF or NUL")
    if (!event.event.isWellFormed()) return invalid("event", loneSurrogate)
    head += field("event", event.event)
  }
  return head + lines("data", text)
}

const invalid = (name: InvalidEvent["field"], reason: string): InvalidEvent =>
  new InvalidEvent({ field: name, reason, index: 0 })

/**
 * A comment, which every client ignores; used to send the head at once and to keep a connection alive. Each line of the
 * text becomes a line of the comment.
 *
 * @since 0.1.0
 * @category encoding
 */
export const comment = (text: string): string => lines("", text)

/**
 * A `retry` block without an event: from now on the client waits this long, in ms, before it connects again. Taken as a
 * whole number and held between 0 and 2,147,483,647.
 *
 * @since 0.1.0
 * @category encoding
 */
export const retry = (millis: number): string =>
  field("retry", String(Math.min(Math.max(Math.trunc(millis), 0), maxRetry))) + "\n"

/**
 * A block with an id only: clients remember it as the last event id, and dispatch nothing (WHATWG HTML section 9.2.6).
 *
 * @internal
 */
export const cursor = (id: string): string => field("id", id) + "\n"

/**
 * What a client is told that cannot be given everything it missed.
 *
 * @since 0.1.0
 * @category models
 */
export interface Reset {
  /** See `EventLog.Gap`. */
  readonly reason: "expired" | "unknown" | "restarted"
  /** The last event id it came with. */
  readonly requested: string
  /** The oldest id that is kept of what it listens to. */
  readonly oldest: string | null
}

/**
 * The name of the event that carries a {@link Reset}, as JSON.
 *
 * @since 0.1.0
 * @category constants
 */
export const resetName = "sse-reset"

/**
 * @internal
 */
export const reset = (reset: Reset): string => field("event", resetName) + lines("data", JSON.stringify(reset))

/**
 * A block as `toBlock` and the log make it, without its `id` line.
 *
 * @internal
 */
export const withoutId = (block: string): string =>
  block.startsWith("id:") ? block.slice(block.indexOf("\n") + 1) : block
