/**
 * `/admin/`: the page, the status API behind it, and what an operator can do.
 *
 * @internal
 */
import * as HttpServerRequest from "@effect/platform/HttpServerRequest"
import * as HttpServerResponse from "@effect/platform/HttpServerResponse"
import * as Chunk from "effect/Chunk"
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Schedule from "effect/Schedule"
import * as Sink from "effect/Sink"
import * as Stream from "effect/Stream"
import { root } from "../Namespace.js"
import * as NamespacePattern from "../NamespacePattern.js"
import * as NodeConnection from "../node/NodeConnection.js"
import { SseHub } from "../SseHub.js"
import * as SseEvent from "../SseEvent.js"
import * as Access from "./Access.js"
import { page } from "./admin/page.js"
import * as Status from "./admin/status.js"
import type { ClientAddressOptions } from "./ClientAddress.js"
import * as Refusal from "./Refusal.js"
import { splitUrl } from "./url.js"

export interface AdminOptions<R> {
  readonly access: Access.Access<R>
  readonly proxies: ClientAddressOptions
  readonly node: string
}

type Handler<R = never> = Effect.Effect<
  HttpServerResponse.HttpServerResponse,
  never,
  R | SseHub | HttpServerRequest.HttpServerRequest
>

/** Streams that are open at the same time: each page has two. */
const maxStreams = 64

/** What all viewers share. */
interface Shared {
  readonly node: string
  streams: number
  /** The status as it was last made: one a second is enough for any number of pages. */
  last: { readonly at: number; readonly block: Uint8Array } | undefined
}

/** @param path the raw path behind `/admin`, without the query */
export const make = <R>(options: AdminOptions<R>): ((path: string) => Handler<R>) => {
  const hook = Access.toHook(options.access, "admin", options.proxies)
  const shared: Shared = { node: options.node, streams: 0, last: undefined }
  return (path) => Access.guard(hook, route(path, shared))
}

const route = (path: string, shared: Shared): Handler =>
  Effect.flatMap(HttpServerRequest.HttpServerRequest, (request) => {
    const query = new URLSearchParams(splitUrl(request.url)[1])
    const get = (handler: Handler): Handler =>
      request.method === "GET" || request.method === "HEAD" ? handler : notAllowed("GET, HEAD")
    if (path === "" || path === "/") {
      // A router that mounts this shows both as "/". What the page links to is relative, so its address must end in one.
      const atPage = splitUrl(request.originalUrl)[0].endsWith("/")
      return get(atPage ? Effect.sync(() => show(crypto.randomUUID())) : Effect.succeed(redirect))
    }
    if (path === "/status.json") return get(status(query, shared.node))
    if (path === "/events") return get(stream(shared, request.method, Effect.succeed(events(shared))))
    if (path === "/watch" || path.startsWith("/watch/")) {
      return get(stream(shared, request.method, watch(path.slice("/watch".length))))
    }
    const [, node, client] = /^(?:\/nodes\/([^/]{1,100}))?\/clients\/(\d{1,15})$/.exec(path) ?? []
    if (client === undefined) return Effect.succeed(Refusal.refuse(404, "NotFound", "the admin page is at /admin/"))
    if (request.method !== "DELETE") return notAllowed("DELETE")
    const foreign = Access.crossSite(request)
    return foreign === undefined ? disconnect(node, Number(client)) : Effect.succeed(foreign)
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
    Status.document(hub, node, query.right).pipe(
      Effect.map((json) => HttpServerResponse.text(json, { contentType: "application/json", headers })),
      Effect.catchAll((error) => Effect.succeed(Refusal.otherNode(error)))
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
  if (!Object.hasOwn(Status.sorts, sort)) return refuse("sort", "age, msgs_sent or pending_bytes")
  const after = params.get("after") ?? "0"
  if (!/^\d{1,15}$/.test(after)) return refuse("after", 'the "next" of an earlier answer')
  if (after !== "0" && sort !== "age") return refuse("after", "left out unless connections are sorted by age")
  const node = params.get("node") ?? "self"
  if (after !== "0" && node === "all") return refuse("after", "left out unless connections are those of one node")
  const namespace = NamespacePattern.parse(params.get("namespace") ?? "/")
  if (Either.isLeft(namespace)) return Either.left(Refusal.invalidNamespace(namespace.left))
  return Either.right({
    node,
    limit: Number(limit),
    after: Number(after),
    namespace: namespace.right,
    filter: (params.get("filter") ?? "").slice(0, 200),
    sort: sort as Status.Sort
  })
}

const disconnect = (node: string | undefined, id: number): Handler =>
  Effect.flatMap(SseHub, (hub) =>
    hub.nodes.disconnect(node ?? hub.nodes.id, id).pipe(
      Effect.map((found) =>
        found
          ? HttpServerResponse.empty({ status: 204, headers })
          : Refusal.refuse(404, "NotFound", `there is no client ${id}`)
      ),
      Effect.catchAll((error) => Effect.succeed(Refusal.otherNode(error)))
    )
  )

/** First the last ten minutes, then the hub as a whole each second. */
const events = (shared: Shared) => (hub: SseHub["Type"]) =>
  Stream.concat(
    Stream.fromEffect(Effect.map(hub.activity, ({ samples }) => block("history", Status.history(samples)))),
    Stream.repeatEffectWithSchedule(current(hub, shared), Schedule.spaced("1 second"))
  ).pipe(Stream.interruptWhen(hub.awaitShutdown))

const current = (hub: SseHub["Type"], shared: Shared): Effect.Effect<Uint8Array> =>
  Effect.gen(function* () {
    const now = yield* Clock.currentTimeMillis
    if (shared.last !== undefined && Math.abs(now - shared.last.at) < 900) return shared.last.block
    const made = block("status", yield* Status.summary(hub, shared.node, root))
    shared.last = { at: now, block: made }
    return made
  })

/** Events that are shown at most each quarter of a second; the page could not show more, nor anyone read them. */
const shownEvents = 50

/** What is published to a namespace and below, as it comes. */
const watch = (path: string): Either.Either<Source, HttpServerResponse.HttpServerResponse> =>
  Either.mapBoth(NamespacePattern.parse(path === "" ? "/" : path), {
    onLeft: Refusal.invalidNamespace,
    // The canonical form is a path that is read as the same pattern.
    onRight: (pattern) => (hub: SseHub["Type"]) =>
      hub.subscribe(pattern).pipe(
        Stream.aggregateWithin(collect, Schedule.spaced("250 millis")),
        Stream.filter(({ count }) => count > 0),
        Stream.map(({ count, last }) => block("events", { skipped: count - last.length, events: last.map(shown) })),
        // One that is overrun begins again.
        Stream.retry(
          Schedule.whileInput(
            Schedule.spaced("1 second"),
            ({ _tag }: { readonly _tag: string }) => _tag === "SubscriberTooSlow"
          )
        ),
        Stream.catchAll(() => Stream.empty),
        // A proxy would cut a connection on which nothing comes.
        Stream.merge(
          Stream.map(hub.keepalive, (text) => encoder.encode(text)),
          { haltStrategy: "left" }
        )
      )
  })

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

/** The body of a stream for one viewer. */
type Source = (hub: SseHub["Type"]) => Stream.Stream<Uint8Array>

const stream = (
  shared: Shared,
  method: string,
  source: Effect.Effect<Source, HttpServerResponse.HttpServerResponse>
): Handler =>
  Effect.gen(function* () {
    const body = yield* source
    if (shared.streams >= maxStreams)
      return Refusal.unavailable(`${maxStreams} streams of the admin page are open already`)
    const hub = yield* SseHub
    const counted = Stream.acquireRelease(
      Effect.sync(() => void shared.streams++),
      () => Effect.sync(() => void shared.streams--)
    )
    const response = NodeConnection.responseOf(yield* HttpServerRequest.HttpServerRequest)
    const whole = Stream.flatMap(counted, () =>
      endStalled(Stream.concat(Stream.make(opening), body(hub)), hub.stallMillis, () => {
        if (response !== undefined) NodeConnection.destroy(response, true)
      })
    )
    return HttpServerResponse.stream(method === "HEAD" ? Stream.empty : whole, {
      contentType: "text/event-stream",
      headers: { ...headers, "cache-control": "no-store, no-transform", "x-accel-buffering": "no" }
    })
  }).pipe(Effect.catchAll(Effect.succeed))

/**
 * Ends a viewer that takes nothing for too long: the platform asks for more only when the network has taken what it was
 * given, so from then on it waits. Only the end of the response frees it.
 */
const endStalled = <A>(stream: Stream.Stream<A>, stallMillis: number, end: () => void): Stream.Stream<A> =>
  Stream.unwrapScoped(
    Effect.gen(function* () {
      const clock = yield* Effect.clock
      const pull = yield* Stream.toPull(stream)
      let givenAt: number | undefined
      yield* Effect.sleep(stallMillis / 3).pipe(
        Effect.map(() => {
          if (givenAt !== undefined && clock.unsafeCurrentTimeMillis() - givenAt >= stallMillis) end()
        }),
        Effect.forever,
        Effect.forkScoped
      )
      const next = Effect.suspend(() => {
        givenAt = undefined
        return Effect.tap(pull, () => Effect.sync(() => void (givenAt = clock.unsafeCurrentTimeMillis())))
      })
      return Stream.repeatEffectChunkOption(next)
    })
  )
