/**
 * `POST /publish/<namespace>`: one event from the body, or a batch as NDJSON.
 *
 * @internal
 */
import * as HttpServerRequest from "@effect/platform/HttpServerRequest"
import * as HttpServerResponse from "@effect/platform/HttpServerResponse"
import * as Arr from "effect/Array"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as ParseResult from "effect/ParseResult"
import * as Schema from "effect/Schema"
import * as Stream from "effect/Stream"
import type { Authorize } from "../Authorize.js"
import { turn } from "../internal/eventLoop.js"
import * as Namespace from "../Namespace.js"
import { SseHub } from "../SseHub.js"
import type { SseEvent } from "../SseEvent.js"
import * as SseMetrics from "../SseMetrics.js"
import * as Access from "./Access.js"
import type { RateLimit } from "./RateLimit.js"
import * as Refusal from "./Refusal.js"
import { splitUrl } from "./url.js"

export interface PublishOptions<R> {
  readonly authorize: Authorize<R> | undefined
  readonly maxBodyBytes: number
  readonly rateLimit: RateLimit
}

/** @param path the raw path behind `/publish`, without the query */
export const handle = <R>(
  path: string,
  options: PublishOptions<R>
): Effect.Effect<HttpServerResponse.HttpServerResponse, never, R | SseHub | HttpServerRequest.HttpServerRequest> =>
  Effect.gen(function* () {
    const request = yield* HttpServerRequest.HttpServerRequest
    if (request.method !== "POST") return Refusal.methodNotAllowed("POST")
    const hub = yield* SseHub
    const parse = (path: string) => Namespace.parse(path, { maxBytes: hub.maxNamespaceBytes })
    const namespace = yield* parse(path === "" ? "/" : path)
    const { authorize } = options
    const authorized = (namespaces: ReadonlyArray<Namespace.Namespace>): Effect.Effect<unknown, Refused, R> =>
      authorize === undefined || namespaces.length === 0
        ? Effect.void
        : Effect.mapError(
            Access.check(authorize, request, namespaces, hub),
            (refused) => new Refused(Access.answer(refused))
          )
    yield* authorized([namespace])
    const mediaType = mediaTypeOf(request.headers["content-type"])
    const isBatch = mediaType === "application/x-ndjson"
    if (!isBatch && !isPayload(mediaType)) {
      return yield* refusal(
        Refusal.refuse(
          415,
          "UnsupportedMediaType",
          `cannot publish ${mediaType}: send the data as text, JSON or application/octet-stream, or a batch as application/x-ndjson`
        )
      )
    }
    const encoding = request.headers["content-encoding"]
    if (encoding !== undefined && encoding !== "identity") {
      return yield* refusal(Refusal.refuse(415, "UnsupportedMediaType", `cannot read content-encoding ${encoding}`))
    }
    const body = yield* readBody(request, options.maxBodyBytes)
    const takeTurn = (events: number) =>
      Effect.flatMap(options.rateLimit(events), (millis) =>
        millis === 0
          ? Effect.void
          : refusal(Refusal.tooManyRequests("events come faster than this server takes them", millis))
      )
    if (!isBatch) {
      yield* takeTurn(1)
      const position = yield* hub.publish({ namespace, data: body, ...(yield* readQuery(request.url)) })
      return HttpServerResponse.unsafeJson({ position }, { status: 202 })
    }
    const lines = yield* readLines(body, namespace)
    const others = new Set(lines.map(({ event }) => event.namespace))
    others.delete(namespace)
    // What is no namespace is refused by the hub, and the batch with it.
    yield* authorized(Arr.getRights(Array.from(others, parse)))
    yield* takeTurn(lines.length)
    const positions = yield* hub
      .publishAll(lines.map((line) => line.event))
      .pipe(
        Effect.catchTag("InvalidEvent", (error) =>
          refusal(Refusal.invalidEvent(error, { line: lines[error.index]?.number ?? 0 }))
        )
      )
    return HttpServerResponse.unsafeJson({ positions }, { status: 202 })
  }).pipe(
    Effect.catchTags({
      Refused: (refused) => Effect.succeed(refused.response),
      InvalidNamespace: (error) => Effect.succeed(Refusal.invalidNamespace(error)),
      InvalidEvent: (error) => Effect.succeed(Refusal.invalidEvent(error)),
      HubClosed: (error) => Effect.succeed(Refusal.unavailable(error.message)),
      EventLogError: (error) => Effect.succeed(Refusal.unavailable(error.message))
    })
  )

const reasons: Record<number, keyof typeof SseMetrics.publishRefusalTags> = {
  400: "invalid",
  401: "unauthorized",
  403: "forbidden",
  405: "method",
  413: "too-large",
  415: "media-type",
  429: "too-many",
  503: "unavailable"
}

/** Counts an answer that refuses. */
export const counted = (response: HttpServerResponse.HttpServerResponse): HttpServerResponse.HttpServerResponse => {
  const { status } = response
  if (status >= 400) {
    SseMetrics.publishRefusals.unsafeUpdate(1, SseMetrics.publishRefusalTags[reasons[status] ?? "other"])
  }
  return response
}

export class Refused {
  readonly _tag = "Refused"
  constructor(readonly response: HttpServerResponse.HttpServerResponse) {}
}

const refusal = (response: HttpServerResponse.HttpServerResponse): Effect.Effect<never, Refused> =>
  Effect.fail(new Refused(response))

const badRequest = (message: string, details?: Record<string, number>): Effect.Effect<never, Refused> =>
  refusal(Refusal.refuse(400, "BadRequest", message, details === undefined ? undefined : { details }))

const mediaTypeOf = (header: string | undefined): string => (header ?? "").split(";")[0]!.trim().toLowerCase()

const isPayload = (mediaType: string): boolean =>
  mediaType === "" ||
  mediaType.startsWith("text/") ||
  mediaType === "application/json" ||
  mediaType.endsWith("+json") ||
  mediaType === "application/octet-stream" ||
  // What curl --data says it sends.
  mediaType === "application/x-www-form-urlencoded"

/** How long, and how much of, a body that is too large is still read after it was refused. */
const lingerTime = "5 seconds"
const lingerBytes = 16 * 1024 * 1024

export const readBody = (
  request: HttpServerRequest.HttpServerRequest,
  maxBytes: number
): Effect.Effect<Uint8Array, Refused> => {
  const tooLarge = new Refused(
    Refusal.refuse(413, "BodyTooLarge", `the body is larger than ${maxBytes} bytes`, { details: { maxBytes } })
  )
  if (Number(request.headers["content-length"] ?? 0) > maxBytes) return Effect.fail(tooLarge)
  return Effect.gen(function* () {
    const result = yield* Deferred.make<Uint8Array, Refused>()
    const parts: Array<Uint8Array> = []
    let size = 0
    // In a fiber of its own: to stop reading closes the connection, and the client would not see why. What comes after a
    // refusal is read for a while, and dropped.
    yield* request.stream.pipe(
      Stream.takeWhile(() => size <= maxBytes + lingerBytes),
      Stream.runForEach((part) => {
        size += part.length
        if (size <= maxBytes) parts.push(part)
        return size > maxBytes ? Deferred.fail(result, tooLarge) : Effect.void
      }),
      Effect.catchTag("RequestError", (error) =>
        // A request without a body is an event with empty data.
        error.description === "can not create stream from empty body" ? Effect.void : Deferred.fail(result, unreadable)
      ),
      Effect.andThen(
        Effect.suspend(() => (size > maxBytes ? Effect.void : Deferred.succeed(result, concat(parts, size))))
      ),
      Effect.raceFirst(Effect.zipRight(Effect.exit(Deferred.await(result)), Effect.sleep(lingerTime))),
      Effect.forkDaemon
    )
    return yield* Deferred.await(result)
  })
}

const unreadable = new Refused(Refusal.refuse(400, "BadRequest", "the body could not be read"))

const concat = (parts: ReadonlyArray<Uint8Array>, size: number): Uint8Array => {
  const whole = new Uint8Array(size)
  let offset = 0
  for (const part of parts) {
    whole.set(part, offset)
    offset += part.length
  }
  return whole
}

const readQuery = (url: string): Effect.Effect<Omit<SseEvent, "namespace" | "data">, Refused> => {
  const query = new URLSearchParams(splitUrl(url)[1])
  for (const name of query.keys()) {
    if (name !== "event" && name !== "id" && name !== "retry") {
      return badRequest(`the query takes event, id and retry, not ${JSON.stringify(name.slice(0, 100))}`)
    }
    if (query.getAll(name).length > 1) return badRequest(`${name} is given more than once`)
  }
  const retry = query.get("retry")
  return Effect.succeed({
    event: query.get("event") ?? undefined,
    id: query.get("id") ?? undefined,
    // Anything but digits becomes NaN, which the event's own check refuses.
    retry: retry === null ? undefined : /^\d+$/.test(retry) ? Number(retry) : Number.NaN
  })
}

const Line = Schema.Struct({
  namespace: Schema.optional(Schema.String),
  event: Schema.optional(Schema.String),
  data: Schema.String,
  id: Schema.optional(Schema.String),
  retry: Schema.optional(Schema.Number)
})

/** Lines read before the event loop gets its turn. */
const slice = 256

const decodeLine = Schema.decodeUnknownEither(Schema.parseJson(Line), { onExcessProperty: "error" })

const readLines = (
  body: Uint8Array,
  namespace: Namespace.Namespace
): Effect.Effect<ReadonlyArray<{ readonly number: number; readonly event: SseEvent }>, Refused> =>
  Effect.gen(function* () {
    const text = yield* Effect.try({
      try: () => new TextDecoder("utf-8", { fatal: true }).decode(body),
      catch: () => new Refused(Refusal.refuse(400, "BadRequest", "the body is not valid UTF-8"))
    })
    const events: Array<{ readonly number: number; readonly event: SseEvent }> = []
    for (const [index, line] of text.split("\n").entries()) {
      if (index % slice === slice - 1) yield* turn
      if (line.trim() === "") continue
      const decoded = decodeLine(line)
      if (Either.isLeft(decoded)) {
        const issue = ParseResult.ArrayFormatter.formatErrorSync(decoded.left)[0]
        const where = issue === undefined || issue.path.length === 0 ? "" : `${issue.path.map(String).join(".")}: `
        return yield* badRequest(`line ${index + 1}: ${where}${issue?.message ?? "not an event"}`, { line: index + 1 })
      }
      events.push({ number: index + 1, event: { ...decoded.right, namespace: decoded.right.namespace ?? namespace } })
    }
    if (events.length === 0) return yield* badRequest("the batch has no events")
    return events
  })
