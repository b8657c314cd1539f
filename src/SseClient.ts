/**
 * The other side: a `Stream` of the events of a server, which reconnects and resumes by itself.
 *
 * It speaks to any server of Server-Sent Events (WHATWG HTML section 9.2) and knows what a hub of this library says
 * besides: the interval of its keepalives, and that a position was lost. It runs on every `HttpClient` of
 * `@effect/platform`, in Node as in a browser.
 *
 * @since 0.1.0
 */
import * as HttpClient from "@effect/platform/HttpClient"
import * as HttpClientRequest from "@effect/platform/HttpClientRequest"
import type * as Headers from "@effect/platform/Headers"
import * as Chunk from "effect/Chunk"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Schedule from "effect/Schedule"
import * as Stream from "effect/Stream"
import * as Take from "effect/Take"
import * as Decoder from "./internal/decoder.js"
import * as EventSource from "./internal/eventSource.js"
import type { EventTooLarge, SseClientError } from "./SseError.js"

/**
 * An event as it arrived.
 *
 * @since 0.1.0
 * @category models
 */
export interface Event {
  readonly _tag: "Event"
  /** The event's name; `message` if the server gave none. */
  readonly event: string
  /** The payload, its lines parted by LF. */
  readonly data: string
  /**
   * The last event id: this event's own, or that of the last one before that had one; empty if there was none. Given as
   * `lastEventId` to a later stream, that stream goes on behind this event.
   */
  readonly id: string
}

/**
 * The server answered, and events can come.
 *
 * @since 0.1.0
 * @category models
 */
export interface Connected {
  readonly _tag: "Connected"
  /** The position it was asked to go on from; empty if none was known. */
  readonly lastEventId: string
  /** The headers of the answer. */
  readonly headers: Headers.Headers
}

/**
 * The server cannot go on from the position it was asked for: events were lost. What is known from events should be read
 * anew from elsewhere. Said by a hub of this library, as an event named `sse-reset`.
 *
 * @since 0.1.0
 * @category models
 */
export interface Reset {
  readonly _tag: "Reset"
  /** `expired`: it is no longer kept; `restarted`: it is of an earlier life of the server; `unknown`: it never was. */
  readonly reason: "expired" | "unknown" | "restarted"
  /** The position that was asked for. */
  readonly requested: string
  /** The oldest position that is kept; `null` if none is. */
  readonly oldest: string | null
}

/**
 * Why there is no connection.
 *
 * @since 0.1.0
 * @category models
 */
export interface Disconnection {
  /**
   * - `ended`: the server ended its answer, as it does when it shuts down or is full
   * - `broken`: the connection broke while it was read
   * - `silent`: nothing came for as long as `idleTimeout` says
   * - `refused`: it answered 408, 425, 429 or 5xx, which pass
   * - `unreachable`: there was no answer
   */
  readonly reason: "ended" | "broken" | "silent" | "refused" | "unreachable"
  /** The status of a refusal. */
  readonly status: number | undefined
  /** The error of the `HttpClient`, if it had one. */
  readonly cause: unknown
}

/**
 * There is no connection, and there will be another attempt.
 *
 * @since 0.1.0
 * @category models
 */
export interface Disconnected extends Disconnection {
  readonly _tag: "Disconnected"
  /** Time until the next attempt, in ms. */
  readonly retryInMillis: number
}

/**
 * All that happens on a stream, in its order.
 *
 * @since 0.1.0
 * @category models
 */
export type Signal = Connected | Event | Reset | Disconnected

/**
 * Where a stream begins that has no position to go on from: with the `earliest` event that is kept, with so many of the
 * latest ones, or with those of so long a time. Sent as `?since=`, which a hub of this library takes.
 *
 * @since 0.1.0
 * @category models
 */
export type Since = "earliest" | number | Duration.Duration | Extract<Duration.DurationInput, string>

/**
 * Options of a stream.
 *
 * @since 0.1.0
 * @category models
 */
export interface ClientOptions {
  /**
   * When to reconnect. It starts anew after a connection that delivered an event or an id, or that lasted 10 seconds. When it
   * is done, the stream fails with `ReconnectsExhausted`. Default: {@link defaultSchedule}.
   *
   * A server that asks for a time by `retry:` gets it: such a connection is followed by the next after that time instead of
   * the schedule's (at least 100 ms), and a failed attempt after both together. `Retry-After` does the same for once.
   */
  readonly schedule?: Schedule.Schedule<unknown, Disconnection> | undefined
  /** The longest time that a server can ask for, by `retry:` or `Retry-After`. Default: 1 hour. */
  readonly maxServerDelay?: Duration.DurationInput | undefined
  /**
   * How long nothing may come, from the request on, before the connection is given up as dead. Counted while the stream
   * waits for the network, not while its consumer is busy. `false`: for ever. Default: two and a half times the
   * interval of keepalives that the server tells in the header `sse-keepalive`, 45 seconds if it tells none.
   */
  readonly idleTimeout?: Duration.DurationInput | false | undefined
  /**
   * The largest event, in bytes of its fields on the wire; a larger one fails the stream with `EventTooLarge`. What is held
   * in memory is this and what one read of the network gives. Default: 2 MiB.
   */
  readonly maxEventBytes?: number | undefined
  /** The position to go on from: the `id` of the last event that was dealt with. Default: none. */
  readonly lastEventId?: string | undefined
  /** Where to begin without a position; asked for until the first event or id arrives. Default: with what comes now. */
  readonly since?: Since | undefined
}

/**
 * When a stream reconnects if it is not told otherwise: after a time drawn between nothing and a bound, which begins with a
 * second and doubles up to 30 seconds. Drawn from all of the range ("full jitter"), so that the clients of a server that
 * went away do not come back as one.
 *
 * @since 0.1.0
 * @category constants
 */
export const defaultSchedule: Schedule.Schedule<unknown> = Schedule.exponential("1 second").pipe(
  Schedule.union(Schedule.spaced("30 seconds")),
  Schedule.jitteredWith({ min: 0, max: 1 })
)

/**
 * The events of a server, for as long as the stream is consumed: it connects, reads, and when the connection ends or goes
 * dead, connects again and goes on behind the last event, by `Last-Event-ID`. Each start of the stream is a client of its
 * own.
 *
 * - **Backpressure.** Bytes are read when the stream is pulled, and not otherwise: what a slow consumer leaves waits in the
 *   socket, and then at the server.
 * - **End.** The stream ends when the server answers 204, and else never; interruption closes the connection at once.
 * - **Errors** are what trying again cannot mend: see `SseClientError`. All else leads to another attempt.
 * - **Loss.** Events that the server could not replay are logged as a warning, and each disconnect at level debug;
 *   {@link streamAll} has them as elements.
 *
 * Redirects are followed if the `HttpClient` does: fetch does; for others there is `HttpClient.followRedirects`.
 *
 * @param request what to send, or a URL to GET. Headers of it are kept; `Accept` is added if there is none
 * @since 0.1.0
 * @category constructors
 * @example
 * ```ts
 * import { FetchHttpClient } from "@effect/platform"
 * import { SseClient } from "effect-sse"
 * import { Effect, Stream } from "effect"
 *
 * const program = SseClient.stream("http://localhost:8001/subscribe/pets").pipe(
 *   Stream.filter(({ event }) => event === "new-dog"),
 *   Stream.runForEach(({ data }) => Effect.log(data)),
 *   Effect.provide(FetchHttpClient.layer)
 * )
 * ```
 */
export const stream = (
  request: HttpClientRequest.HttpClientRequest | string | URL,
  options?: ClientOptions
): Stream.Stream<Event, SseClientError, HttpClient.HttpClient> =>
  Stream.mapChunksEffect(streamAll(request, options), (signals) => {
    const [others, events] = Chunk.partition(signals, isEvent)
    return Chunk.isEmpty(others) ? Effect.succeed(events) : Effect.as(Effect.forEach(others, log), events)
  })

const isEvent = (signal: Signal): signal is Event => signal._tag === "Event"

const log = (signal: Exclude<Signal, Event>): Effect.Effect<void> => {
  switch (signal._tag) {
    case "Connected":
      return Effect.logDebug("effect-sse: connected", { lastEventId: signal.lastEventId })
    case "Reset":
      return Effect.logWarning("effect-sse: events were lost", { reason: signal.reason, requested: signal.requested })
    case "Disconnected":
      return Effect.logDebug(`effect-sse: disconnected (${signal.reason})`, { retryInMillis: signal.retryInMillis })
  }
}

/**
 * As {@link stream}, with all that happens: connections that are made and lost, and positions that the server could not go on
 * from, each in its place between the events.
 *
 * @since 0.1.0
 * @category constructors
 * @example
 * ```ts
 * import { SseClient } from "effect-sse"
 * import { Effect, Match, Stream } from "effect"
 *
 * const program = SseClient.streamAll("http://localhost:8001/subscribe/pets").pipe(
 *   Stream.runForEach(
 *     Match.valueTags({
 *       Connected: () => Effect.log("online"),
 *       Event: ({ data }) => Effect.log(data),
 *       Reset: ({ reason }) => Effect.logWarning(`missed events (${reason}): reading all anew`),
 *       Disconnected: ({ reason, retryInMillis }) => Effect.log(`offline (${reason}), again in ${retryInMillis} ms`)
 *     })
 *   )
 * )
 * ```
 */
export const streamAll = (
  request: HttpClientRequest.HttpClientRequest | string | URL,
  options?: ClientOptions
): Stream.Stream<Signal, SseClientError, HttpClient.HttpClient> =>
  Stream.fromPull(
    Effect.flatMap(HttpClient.HttpClient, (client) =>
      EventSource.make(
        HttpClient.withScope(client),
        typeof request === "object" && HttpClientRequest.TypeId in request ? request : HttpClientRequest.get(request),
        options ?? {},
        options?.schedule ?? defaultSchedule
      )
    )
  )

/**
 * Bytes to events, for a body that one already has: an answer that ends, such as that of a language model, or a file.
 * Whatever the pieces the bytes come in; UTF-8 that is not valid becomes U+FFFD. An event that its end cuts off is left out,
 * as the standard says.
 *
 * @param options see {@link ClientOptions}
 * @since 0.1.0
 * @category decoding
 * @example
 * ```ts
 * import { HttpClient } from "@effect/platform"
 * import { SseClient } from "effect-sse"
 * import { Effect, Stream } from "effect"
 *
 * const events = HttpClient.get("https://example.com/answer").pipe(
 *   Effect.map((response) => SseClient.decode(response.stream)),
 *   Stream.unwrap
 * )
 * ```
 */
export const decode = <E, R>(
  bytes: Stream.Stream<Uint8Array, E, R>,
  options?: Pick<ClientOptions, "maxEventBytes" | "lastEventId">
): Stream.Stream<Event, E | EventTooLarge, R> =>
  Stream.suspend(() => {
    const decoder = new Decoder.Decoder(options?.maxEventBytes ?? Decoder.defaultMaxBytes, options?.lastEventId ?? "")
    return bytes.pipe(
      Stream.mapConcat((bytes): ReadonlyArray<Take.Take<Event, EventTooLarge>> => {
        const events = Take.chunk(Chunk.unsafeFromArray(decoder.push(bytes)))
        return decoder.tooLarge ? [events, Take.fail(decoder.error)] : [events]
      }),
      Stream.flattenTake
    )
  })
