/**
 * `/admin/`: the page, the status API behind it, and what an operator can do.
 *
 * @internal
 */
import * as HttpServerRequest from "@effect/platform/HttpServerRequest"
import * as HttpServerResponse from "@effect/platform/HttpServerResponse"
import * as Chunk from "effect/Chunk"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Schedule from "effect/Schedule"
import * as Sink from "effect/Sink"
import * as Stream from "effect/Stream"
import * as Namespace from "../Namespace.js"
import { SseHub } from "../SseHub.js"
import * as SseEvent from "../SseEvent.js"
import * as Access from "./Access.js"
import { page } from "./admin/page.js"
import * as Status from "./admin/status.js"
import type { ClientAddressOptions } from "./ClientAddress.js"
import * as Refusal from "./Refusal.js"
import { splitUrl } from "./url.js"

export interface AdminOptions {
  readonly access: Access.Access
  readonly proxies: ClientAddressOptions
  readonly node: string
}

type Handler = Effect.Effect<HttpServerResponse.HttpServerResponse, never, SseHub | HttpServerRequest.HttpServerRequest>

/** @param path the raw path behind `/admin`, without the query */
export const make = (options: AdminOptions): ((path: string) => Handler) => {
  const refusal = Access.make(options.access, "admin", options.proxies)
  return (path) =>
    Effect.flatMap(refusal, (refused) => (refused === undefined ? route(path, options.node) : Effect.succeed(refused)))
}

const route = (path: string, node: string): Handler =>
  Effect.flatMap(HttpServerRequest.HttpServerRequest, (request) => {
    const query = new URLSearchParams(splitUrl(request.url)[1])
    const get = (handler: Handler): Handler =>
      request.method === "GET" || request.method === "HEAD" ? handler : notAllowed("GET, HEAD")
    if (path === "" || path === "/") {
      // A router that mounts this shows both as "/". What the page links to is relative, so its address must end in one.
      const atPage = splitUrl(request.originalUrl)[0].endsWith("/")
      return get(atPage ? Effect.sync(() => show(crypto.randomUUID())) : Effect.succeed(redirect))
    }
    if (path === "/status.json") return get(status(query, node))
    if (path === "/events") return get(events(node, request.method))
    if (path === "/watch" || path.startsWith("/watch/")) return get(watch(path.slice("/watch".length), request.method))
    const client = /^\/clients\/(\d{1,15})$/.exec(path)?.[1]
    if (client === undefined) return Effect.succeed(Refusal.refuse(404, "NotFound", "the admin page is at /admin/"))
    if (request.method !== "DELETE") return notAllowed("DELETE")
    const foreign = Access.crossSite(request)
    return foreign === undefined ? disconnect(Number(client)) : Effect.succeed(foreign)
  })

const notAllowed = (allow: string): Handler => Effect.succeed(Refusal.methodNotAllowed(allow))

const redirect = HttpServerResponse.empty({ status: 308, headers: { location: "admin/", "cache-control": "no-store" } })

const headers = {
  "cache-control": "no-store",
  "x-content-type-options": "nosniff",
  "cross-origin-resource-policy": "same-origin",
  "referrer-policy": "no-referrer"
}

const show = (nonce: string): HttpServerResponse.HttpServerResponse =>
  HttpServerResponse.text(page(nonce), {
    contentType: "text/html; charset=utf-8",
    headers: {
      ...headers,
      // Only what stands in the page runs, and it talks to nobody but this server.
      "content-security-policy":
        `default-src 'none'; script-src 'nonce-${nonce}'; style-src 'nonce-${nonce}'; connect-src 'self'; img-src data:; ` +
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    }
  })

const status = (params: URLSearchParams, node: string): Handler => {
  const query = readQuery(params)
  if (Either.isLeft(query)) return Effect.succeed(query.left)
  return Effect.flatMap(SseHub, (hub) =>
    Effect.map(Status.document(hub, node, query.right), (json) =>
      HttpServerResponse.text(json, { contentType: "application/json", headers })
    )
  )
}

const readQuery = (params: URLSearchParams): Either.Either<Status.Query, HttpServerResponse.HttpServerResponse> => {
  const refuse = (name: string, rule: string) =>
    Either.left(Refusal.refuse(400, "InvalidQuery", `${name} must be ${rule}`, { details: { field: name } }))
  const limit = params.get("limit") ?? String(Status.defaultLimit)
  if (!/^\d{1,5}$/.test(limit) || Number(limit) < 1 || Number(limit) > Status.maxLimit) {
    return refuse("limit", `a whole number from 1 to ${Status.maxLimit}`)
  }
  const sort = params.get("sort") ?? "age"
  if (sort !== "age" && sort !== "msgs_sent" && sort !== "pending_bytes") {
    return refuse("sort", "age, msgs_sent or pending_bytes")
  }
  const after = params.get("after") ?? "0"
  if (!/^\d{1,15}$/.test(after)) return refuse("after", 'the "next" of an earlier answer')
  if (after !== "0" && sort !== "age") return refuse("after", "left out unless connections are sorted by age")
  const namespace = Namespace.parse(params.get("namespace") ?? "/")
  if (Either.isLeft(namespace)) return Either.left(Refusal.invalidNamespace(namespace.left))
  return Either.right({
    limit: Number(limit),
    after: Number(after),
    namespace: namespace.right,
    filter: (params.get("filter") ?? "").slice(0, 200),
    sort
  })
}

const disconnect = (id: number): Handler =>
  Effect.flatMap(SseHub, (hub) =>
    Effect.map(hub.disconnect(id), (found) =>
      found
        ? HttpServerResponse.empty({ status: 204, headers })
        : Refusal.refuse(404, "NotFound", `there is no client ${id}`)
    )
  )

/** First the last ten minutes, then the hub as a whole each second. */
const events = (node: string, method: string): Handler =>
  Effect.map(SseHub, (hub) =>
    answer(
      method,
      Stream.concat(
        Stream.fromEffect(Effect.map(hub.activity, ({ samples }) => block("history", Status.history(samples)))),
        Stream.repeatEffectWithSchedule(
          Effect.map(Status.summary(hub, node, Namespace.root), (summary) => block("status", summary)),
          Schedule.spaced("1 second")
        )
      ).pipe(Stream.interruptWhen(hub.awaitShutdown))
    )
  )

/** Events that are shown at most each quarter of a second; the page could not show more, nor anyone read them. */
const shownEvents = 50

/** What is published to a namespace and below, as it comes. */
const watch = (path: string, method: string): Handler => {
  const namespace = Namespace.parse(path === "" ? "/" : path)
  if (Either.isLeft(namespace)) return Effect.succeed(Refusal.invalidNamespace(namespace.left))
  return Effect.map(SseHub, (hub) =>
    answer(
      method,
      hub.subscribe(Namespace.toPath(namespace.right)).pipe(
        Stream.aggregateWithin(collect, Schedule.spaced("250 millis")),
        Stream.filter(({ count }) => count > 0),
        Stream.map(({ count, last }) => block("events", { skipped: count - last.length, events: last.map(shown) })),
        // One that is overrun begins again.
        Stream.retry(Schedule.spaced("1 second")),
        Stream.catchAll(() => Stream.empty)
      )
    )
  )
}

interface Collected {
  readonly count: number
  readonly last: ReadonlyArray<SseEvent.SseEvent>
}

const collect = Sink.foldLeftChunks<Collected, SseEvent.SseEvent>(
  { count: 0, last: [] },
  ({ count, last }, events: Chunk.Chunk<SseEvent.SseEvent>) => ({
    count: count + events.length,
    last: [...last, ...Chunk.takeRight(events, shownEvents)].slice(-shownEvents)
  })
)

/** Characters of a payload that are shown. */
const shownData = 2000

const shown = ({ data, event, id, namespace }: SseEvent.SseEvent) => {
  const text = SseEvent.dataText(data) ?? ""
  return { namespace, event: event ?? "message", id: id ?? "", data: text.slice(0, shownData), length: text.length }
}

const block = (event: string, data: unknown): Uint8Array =>
  encoder.encode(Either.getOrThrow(SseEvent.encode({ namespace: "/", event, data: JSON.stringify(data) })))

const encoder = new TextEncoder()

const opening = encoder.encode(SseEvent.comment("ok") + SseEvent.retry(1000))

const answer = (method: string, body: Stream.Stream<Uint8Array>): HttpServerResponse.HttpServerResponse =>
  HttpServerResponse.stream(method === "HEAD" ? Stream.empty : Stream.concat(Stream.make(opening), body), {
    contentType: "text/event-stream",
    headers: { ...headers, "cache-control": "no-store, no-transform", "x-accel-buffering": "no" }
  })
