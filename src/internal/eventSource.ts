/**
 * The connections of one client stream: made, read, lost and made again, each step by a pull of the consumer. Nothing runs
 * between the pulls, so a consumer that does not pull stops the reading from the network.
 *
 * @internal
 */
import type * as HttpClient from "@effect/platform/HttpClient"
import type { HttpClientError } from "@effect/platform/HttpClientError"
import * as HttpClientRequest from "@effect/platform/HttpClientRequest"
import type * as HttpClientResponse from "@effect/platform/HttpClientResponse"
import * as Cause from "effect/Cause"
import * as Chunk from "effect/Chunk"
import * as Clock from "effect/Clock"
import * as DateTime from "effect/DateTime"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Option from "effect/Option"
import type * as Schedule from "effect/Schedule"
import * as ScheduleDecision from "effect/ScheduleDecision"
import * as ScheduleIntervals from "effect/ScheduleIntervals"
import * as Schema from "effect/Schema"
import * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import type { ClientOptions, Disconnection, Event, Signal } from "../SseClient.js"
import {
  InvalidRequest,
  NotAnEventStream,
  ReconnectsExhausted,
  RequestRefused,
  type SseClientError
} from "../SseError.js"
import { Decoder, defaultMaxBytes, isSendable } from "./decoder.js"

/** A connection that lasted so long was a good one, whatever it delivered. */
const goodMillis = 10_000
/** A server that asks for less would be stormed. */
const minAskedMillis = 100
const defaultIdleMillis = 45_000
/** Intervals of keepalives that may pass in silence before a connection counts as dead. */
const missedKeepalives = 2.5
/** Characters that are kept of the body of a refusal, and how long it may take. */
const excerptLength = 1024
const excerptTimeout = "2 seconds"

/** An attempt or a connection ended in a way that another attempt may mend. */
class Lost {
  readonly why: Disconnection
  constructor(
    reason: Disconnection["reason"],
    cause?: unknown,
    status?: number,
    readonly retryAfter?: number
  ) {
    this.why = { reason, status, cause }
  }
}

/** What ends a pull: a connection that is lost, the end of the stream (`None`), or its error. */
type Stop = Lost | Option.Option<SseClientError>

const fatal = (error: SseClientError): Effect.Effect<never, Stop> => Effect.fail(Option.some(error))

interface Connection {
  readonly read: Effect.Effect<Chunk.Chunk<Signal>, Stop>
  readonly decoder: Decoder
  readonly openedAt: number
}

/**
 * Makes the pull of one stream. The connection that is open when the scope closes is closed with it.
 *
 * @throws Error as a defect, if the options make no sense
 * @internal
 */
export const make = (
  client: HttpClient.HttpClient.With<HttpClientError, Scope.Scope>,
  request: HttpClientRequest.HttpClientRequest,
  options: ClientOptions,
  schedule: Schedule.Schedule<unknown, Disconnection>
): Effect.Effect<Effect.Effect<Chunk.Chunk<Signal>, Option.Option<SseClientError>>, never, Scope.Scope> =>
  Effect.gen(function* () {
    const settings = clientSettings(options)
    let lastEventId = settings.lastEventId
    let retry: number | undefined
    let scheduled = schedule.initial
    let delivered = false
    let attemptAt = 0
    let scope: Scope.CloseableScope | undefined
    let connection: Connection | undefined

    const close = Effect.suspend(() => {
      const open = scope
      scope = undefined
      connection = undefined
      return open === undefined ? Effect.void : Scope.close(open, Exit.void)
    }).pipe(Effect.uninterruptible)
    yield* Effect.addFinalizer(() => close)

    const connect = Effect.gen(function* () {
      const wait = attemptAt - (yield* Clock.currentTimeMillis)
      if (wait > 0) yield* Effect.sleep(wait)
      const open = yield* Scope.make()
      scope = open
      const sent = lastEventId
      const response = yield* client
        .execute(toSend(request, sent, delivered ? undefined : settings.since))
        .pipe(Scope.extend(open), Effect.catchAll(answerOf), within(settings.idleMillis ?? defaultIdleMillis))
      const openedAt = yield* Clock.currentTimeMillis
      yield* check(response, openedAt)
      const bytes = yield* Scope.extend(Stream.toPull(response.stream), open)
      const decoder = new Decoder(settings.maxEventBytes, sent)
      const idleMillis = settings.idleMillis ?? keepaliveMillis(response) * missedKeepalives
      connection = { decoder, openedAt, read: read(decoder, within(idleMillis)(bodyOf(bytes))) }
      return Chunk.of<Signal>({ _tag: "Connected", lastEventId: sent, headers: response.headers })
    })

    const read = (decoder: Decoder, bytes: Effect.Effect<Chunk.Chunk<Uint8Array>, Lost>) => {
      // An event that is too large is told when those before it were pulled.
      const pull = Effect.suspend(() => (decoder.tooLarge ? fatal(decoder.error) : next))
      const next: Effect.Effect<Chunk.Chunk<Signal>, Stop> = Effect.flatMap(bytes, (pieces) => {
        const signals: Array<Signal> = []
        for (const piece of pieces) for (const event of decoder.push(piece)) signals.push(toSignal(event))
        lastEventId = decoder.lastEventId
        retry = decoder.retry ?? retry
        delivered ||= decoder.delivered
        return signals.length === 0 ? pull : Effect.succeed(Chunk.unsafeFromArray(signals))
      })
      return pull
    }

    const disconnect = ({ retryAfter, why }: Lost) =>
      Effect.gen(function* () {
        const now = yield* Clock.currentTimeMillis
        const good =
          connection !== undefined && (connection.decoder.delivered || now - connection.openedAt >= goodMillis)
        yield* close
        if (good) scheduled = schedule.initial
        const [state, , decision] = yield* schedule.step(now, why, scheduled)
        scheduled = state
        if (ScheduleDecision.isDone(decision)) return yield* Effect.fail(Option.some(new ReconnectsExhausted(why)))
        const backoff = Math.max(ScheduleIntervals.start(decision.intervals) - now, 0)
        const asked = retryAfter ?? retry
        const retryInMillis = Math.ceil(
          asked === undefined
            ? backoff
            : Math.min(Math.max(asked, minAskedMillis), settings.maxServerMillis) + (good ? 0 : backoff)
        )
        attemptAt = now + retryInMillis
        return Chunk.of<Signal>({ _tag: "Disconnected", ...why, retryInMillis })
      })

    return Effect.suspend((): Effect.Effect<Chunk.Chunk<Signal>, Stop> => connection?.read ?? connect).pipe(
      Effect.catchAll((stop) => (stop instanceof Lost ? disconnect(stop) : Effect.fail(stop)))
    )
  })

interface ClientSettings {
  readonly maxServerMillis: number
  /** `undefined`: as the server says. */
  readonly idleMillis: number | undefined
  readonly maxEventBytes: number
  readonly lastEventId: string
  readonly since: string | undefined
}

const clientSettings = (options: ClientOptions): ClientSettings => {
  const { idleTimeout, lastEventId = "", maxEventBytes = defaultMaxBytes, since } = options
  if (!isSendable(lastEventId)) throw new Error(`lastEventId ${JSON.stringify(lastEventId)} does not fit in a header`)
  if (!(maxEventBytes >= 1)) throw new Error(`maxEventBytes must be at least 1, and is ${maxEventBytes}`)
  if (typeof since === "number" && !(Number.isSafeInteger(since) && since >= 0)) {
    throw new Error(`since must be a whole number of events, and is ${since}`)
  }
  const idleMillis =
    idleTimeout === false ? Infinity : idleTimeout === undefined ? undefined : Duration.toMillis(idleTimeout)
  if (idleMillis === 0) throw new Error("idleTimeout must be more than nothing")
  return {
    maxServerMillis: Duration.toMillis(options.maxServerDelay ?? "1 hour"),
    idleMillis,
    maxEventBytes,
    lastEventId,
    since:
      typeof since === "number" || since === "earliest" || since === undefined
        ? since?.toString()
        : `${Math.ceil(Duration.toSeconds(since))}s`
  }
}

const toSend = (request: HttpClientRequest.HttpClientRequest, lastEventId: string, since: string | undefined) => {
  // Always a new object: the scope of a request is found by it.
  const accepting = HttpClientRequest.setHeader(request, "accept", request.headers["accept"] ?? "text/event-stream")
  if (lastEventId !== "") {
    // The characters of a header are bytes, and an id goes as UTF-8 (WHATWG HTML section 9.2.3).
    const bytes = new TextEncoder().encode(lastEventId)
    return HttpClientRequest.setHeader(accepting, "last-event-id", String.fromCharCode(...bytes))
  }
  return since === undefined ? accepting : HttpClientRequest.setUrlParam(accepting, "since", since)
}

const answerOf = (error: HttpClientError): Effect.Effect<HttpClientResponse.HttpClientResponse, Stop> => {
  // Of a client that fails upon some statuses.
  if (error._tag === "ResponseError") return Effect.succeed(error.response)
  return error.reason === "Transport"
    ? Effect.fail(new Lost("unreachable", error))
    : fatal(new InvalidRequest({ cause: error }))
}

const check = (response: HttpClientResponse.HttpClientResponse, now: number): Effect.Effect<void, Stop> => {
  const { headers, status } = response
  if (status === 200) {
    const contentType = headers["content-type"] ?? ""
    return /^\s*text\/event-stream\s*(?:;|$)/i.test(contentType)
      ? Effect.void
      : fatal(new NotAnEventStream({ contentType }))
  }
  if (status === 204) return Effect.fail(Option.none())
  if (status === 408 || status === 425 || status === 429 || status >= 500) {
    return Effect.fail(new Lost("refused", undefined, status, retryAfterMillis(headers["retry-after"], now)))
  }
  return Effect.flatMap(excerpt(response), (body) => fatal(new RequestRefused({ status, body })))
}

const excerpt = (response: HttpClientResponse.HttpClientResponse): Effect.Effect<string> => {
  const decoder = new TextDecoder()
  return Stream.runFoldWhile(
    response.stream,
    "",
    (text) => text.length < excerptLength,
    (text, bytes) => text + decoder.decode(bytes, { stream: true })
  ).pipe(
    Effect.timeout(excerptTimeout),
    Effect.map((text) => text.slice(0, excerptLength)),
    Effect.catchAllCause(() => Effect.succeed(""))
  )
}

/** `Retry-After` is a number of seconds or a date (RFC 9110 section 10.2.3). */
const retryAfterMillis = (header: string | undefined, now: number): number | undefined => {
  if (header === undefined) return undefined
  if (/^\d+$/.test(header)) return Number(header) * 1000
  // `DateTime` knows zones as offsets only.
  return Option.match(DateTime.make(header.replace(/ GMT$/, " +0000")), {
    onNone: () => undefined,
    onSome: ({ epochMillis }) => Math.max(epochMillis - now, 0)
  })
}

const keepaliveMillis = ({ headers }: HttpClientResponse.HttpClientResponse): number => {
  const header = headers["sse-keepalive"] ?? ""
  return /^[1-9]\d{0,8}$/.test(header) ? Number(header) : defaultIdleMillis / missedKeepalives
}

const within =
  (millis: number) =>
  <A, E, R>(self: Effect.Effect<A, E, R>): Effect.Effect<A, E | Lost, R> =>
    millis === Infinity ? self : Effect.timeoutFail(self, { duration: millis, onTimeout: () => new Lost("silent") })

const bodyOf = <E>(pull: Effect.Effect<Chunk.Chunk<Uint8Array>, Option.Option<E>>) =>
  Effect.catchAllCause(pull, (cause) =>
    Effect.fail(
      Option.match(
        Option.getOrElse(Cause.failureOption(cause), () => Option.some(Cause.squash(cause))),
        {
          onNone: () => new Lost("ended"),
          onSome: (error) => new Lost("broken", error)
        }
      )
    )
  )

const ResetData = Schema.parseJson(
  Schema.Struct({
    reason: Schema.Literal("expired", "unknown", "restarted"),
    requested: Schema.String,
    oldest: Schema.NullOr(Schema.String)
  })
)

const toSignal = (event: Event): Signal => {
  if (event.event !== "sse-reset") return event
  return Option.match(Schema.decodeUnknownOption(ResetData)(event.data), {
    onNone: () => event,
    onSome: (reset) => ({ _tag: "Reset", ...reset })
  })
}
