/**
 * `POST /publish/<namespace>`: one event from the body, or a batch as NDJSON. `POST /publish`: a batch as JSON, too.
 *
 * @internal
 */
import * as HttpServerRequest from "@effect/platform/HttpServerRequest"
import * as HttpServerResponse from "@effect/platform/HttpServerResponse"
import * as Arr from "effect/Array"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as ParseResult from "effect/ParseResult"
import * as Schema from "effect/Schema"
import type { Authorize } from "../Authorize.js"
import type { Principal } from "../HubClient.js"
import { turn } from "../internal/eventLoop.js"
import * as Namespace from "../Namespace.js"
import { SseHub } from "../SseHub.js"
import type { SseEvent } from "../SseEvent.js"
import * as SseMetrics from "../SseMetrics.js"
import * as Access from "./Access.js"
import { readBody, Refused } from "./body.js"
import * as Idempotent from "./Idempotent.js"
import type { RateLimit } from "./RateLimit.js"
import * as Refusal from "./Refusal.js"
import { Event, PlacedEvent } from "./schemas.js"
import { splitUrl } from "./url.js"

export interface PublishOptions<R> {
  readonly authorize: Authorize<R> | undefined
  readonly maxBodyBytes: number
  readonly rateLimit: RateLimit
  /** `undefined`: no keys are taken. */
  readonly idempotency: Idempotent.IdempotencyOptions | undefined
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
    const mediaType = mediaTypeOf(request.headers["content-type"])
    const isLines = mediaType === "application/x-ndjson"
    // Without a path, events say where they go, and a JSON body holds several.
    const unplaced = namespace === Namespace.root
    const isBatch = isLines || (unplaced && mediaType === "application/json")
    const { authorize } = options
    const authorized = (
      namespaces: ReadonlyArray<Namespace.Namespace>
    ): Effect.Effect<Principal | undefined, Refused, R> =>
      authorize === undefined
        ? Effect.succeed(undefined)
        : Effect.mapError(
            Access.check(authorize, request, namespaces, hub),
            (refused) => new Refused(Access.answer(refused))
          )
    // Before the body is read, and again when that has told of other namespaces.
    const principal = yield* authorized(isBatch && unplaced ? [] : [namespace])
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
    const key = yield* Idempotent.keyOf(request, options.idempotency)
    const body = yield* readBody(request, options.maxBodyBytes)
    const place = unplaced ? undefined : namespace
    const batch = isBatch ? yield* isLines ? readLines(body, place) : readList(body) : undefined
    const events = batch?.map(({ event }) => event) ?? [{ namespace, data: body, ...(yield* readQuery(request.url)) }]
    if (batch !== undefined) {
      const others = new Set(events.map(({ namespace }) => namespace))
      if (!unplaced) others.delete(namespace)
      // What is no namespace is refused by the hub, and the batch with it.
      const named = Arr.getRights(Array.from(others, parse))
      if (named.length > 0) yield* authorized(named)
    }
    const publish = Effect.gen(function* () {
      const millis = yield* options.rateLimit(events.length)
      if (millis > 0) {
        return yield* refusal(Refusal.tooManyRequests("events come faster than this server takes them", millis))
      }
      const positions = yield* Effect.catchTag(hub.publishAll(events), "InvalidEvent", (error) =>
        refusal(Refusal.invalidEvent(error, batch?.[error.index]?.where))
      )
      return JSON.stringify(batch === undefined ? { position: positions[0]! } : { positions })
    })
    const answer =
      key === undefined || options.idempotency === undefined
        ? { text: yield* publish, replayed: false }
        : yield* Idempotent.once(
            options.idempotency,
            key,
            principal,
            `${namespace}\n${splitUrl(request.url)[1]}\n${mediaType}`,
            body,
            publish
          )
    return HttpServerResponse.text(answer.text, {
      status: 202,
      contentType: "application/json",
      headers: answer.replayed ? { "idempotency-replayed": "true" } : {}
    })
  }).pipe(
    Effect.catchTags({
      Refused: (refused) => Effect.succeed(refused.response),
      InvalidNamespace: (error) => Effect.succeed(Refusal.invalidNamespace(error)),
      HubClosed: (error) => Effect.succeed(Refusal.unavailable(error.message)),
      EventLogError: (error) => Effect.succeed(Refusal.unavailable(error.message))
    })
  )

const reasons: Record<number, keyof typeof SseMetrics.publishRefusalTags> = {
  400: "invalid",
  401: "unauthorized",
  403: "forbidden",
  405: "method",
  409: "conflict",
  413: "too-large",
  415: "media-type",
  422: "conflict",
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

/** Events read before the event loop gets its turn. */
const slice = 256

/** An event of a batch, and where in the body it stands. */
interface Read {
  readonly event: SseEvent
  readonly where: { readonly line: number } | { readonly index: number }
}

const strict = { onExcessProperty: "error" } as const
const decodeLine = Schema.decodeUnknownEither(Schema.parseJson(Event), strict)
const decodeEvent = Schema.decodeUnknownEither(PlacedEvent, strict)
const decodeList = Schema.decodeUnknownEither(
  Schema.parseJson(Schema.Struct({ events: Schema.Array(Schema.Unknown) })),
  strict
)

/** @returns a text says what is wrong */
const toEvent = (
  { json, ...event }: typeof Event.Type,
  namespace: string | undefined,
  where: Read["where"]
): Read | string => {
  const place = event.namespace ?? namespace
  if (place === undefined) return "namespace: is missing"
  const data = event.data ?? textOf(json)
  return data === undefined ? `json: ${tooDeep}` : { event: { ...event, namespace: place, data }, where }
}

/** The parser takes any depth; what walks through a value afterwards has only the stack. */
const tooDeep = "is nested too deeply"

const textOf = (json: unknown): string | undefined => {
  try {
    return JSON.stringify(json)
  } catch {
    return undefined
  }
}

/** Characters of a message, which repeats what was sent. */
const maxReason = 300

const reasonOf = (error: ParseResult.ParseError): string => {
  try {
    const issue = ParseResult.ArrayFormatter.formatErrorSync(error)[0]
    const where = issue === undefined || issue.path.length === 0 ? "" : `${issue.path.map(String).join(".")}: `
    const reason = `${where}${issue?.message ?? "not an event"}`
    return reason.length > maxReason ? reason.slice(0, maxReason) + "…" : reason
  } catch {
    return tooDeep
  }
}

const toText = (body: Uint8Array): Effect.Effect<string, Refused> =>
  Effect.try({
    try: () => new TextDecoder("utf-8", { fatal: true }).decode(body),
    catch: () => new Refused(Refusal.refuse(400, "BadRequest", "the body is not valid UTF-8"))
  })

/** @param namespace of events that name none; `undefined`: each must */
const readLines = (body: Uint8Array, namespace: string | undefined): Effect.Effect<ReadonlyArray<Read>, Refused> =>
  Effect.gen(function* () {
    const events: Array<Read> = []
    for (const [index, line] of (yield* toText(body)).split("\n").entries()) {
      if (index % slice === slice - 1) yield* turn
      if (line.trim() === "") continue
      const where = { line: index + 1 }
      const decoded = decodeLine(line)
      if (Either.isLeft(decoded)) return yield* badRequest(`line ${where.line}: ${reasonOf(decoded.left)}`, where)
      const event = toEvent(decoded.right, namespace, where)
      if (typeof event === "string") return yield* badRequest(`line ${where.line}: ${event}`, where)
      events.push(event)
    }
    return events.length === 0 ? yield* badRequest("the batch has no events") : events
  })

const readList = (body: Uint8Array): Effect.Effect<ReadonlyArray<Read>, Refused> =>
  Effect.gen(function* () {
    const list = decodeList(yield* toText(body))
    if (Either.isLeft(list)) return yield* badRequest(`the body is not {"events":[...]}: ${reasonOf(list.left)}`)
    const events: Array<Read> = []
    for (const [index, one] of list.right.events.entries()) {
      if (index % slice === slice - 1) yield* turn
      const decoded = decodeEvent(one)
      if (Either.isLeft(decoded)) return yield* badRequest(`events.${index}: ${reasonOf(decoded.left)}`, { index })
      const event = toEvent(decoded.right, undefined, { index })
      if (typeof event === "string") return yield* badRequest(`events.${index}: ${event}`, { index })
      events.push(event)
    }
    return events.length === 0 ? yield* badRequest("the batch has no events") : events
  })
