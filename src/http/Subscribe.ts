/**
 * `GET /subscribe/<namespace>?ns=<namespace>`: the stream, of one namespace or several. `POST` with a list of them gives the
 * same.
 *
 * @internal
 */
import * as HttpServerRequest from "@effect/platform/HttpServerRequest"
import * as HttpServerResponse from "@effect/platform/HttpServerResponse"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Scope from "effect/Scope"
import type { Authorize } from "../Authorize.js"
import * as Connection from "../Connection.js"
import type { Start } from "../EventLog.js"
import type { Connected, Principal } from "../HubClient.js"
import * as NodeConnection from "../node/NodeConnection.js"
import type { EventLogError, HubClosed, LimitReached, Refused } from "../SseError.js"
import * as SseEvent from "../SseEvent.js"
import { SseHub } from "../SseHub.js"
import * as Access from "./Access.js"
import * as Namespaces from "./Namespaces.js"
import * as Refusal from "./Refusal.js"
import { startOf } from "./Resume.js"
import { splitUrl } from "./url.js"

export interface SubscribeOptions<R> {
  readonly clientAddress: (request: HttpServerRequest.HttpServerRequest) => string
  /** `undefined`: everyone may. */
  readonly authorize: Authorize<R> | undefined
  readonly connection: "auto" | "portable"
}

export const allow = "GET, HEAD, POST, OPTIONS"

const head = {
  // A transforming proxy would hold events back to compress them.
  "cache-control": "no-cache, no-transform",
  "x-accel-buffering": "no",
  "x-content-type-options": "nosniff"
}

const contentType = "text/event-stream"

/** @param path the raw path behind `/subscribe`, without the query */
export const handle = <R>(path: string, options: SubscribeOptions<R>): Handler<R> =>
  Effect.contextWithEffect((context: Context.Context<Needs>): Handler<R> => {
    const request = Context.get(context, HttpServerRequest.HttpServerRequest)
    const isRoot = path === "" || path === "/"
    const named = isRoot ? Namespaces.inQuery(request) : [path, ...Namespaces.inQuery(request)]
    switch (request.method) {
      case "GET":
      case "HEAD":
        return listen(named.length === 0 ? ["/"] : named, options, context)
      case "POST":
        if (!Namespaces.isJson(request)) return Effect.succeed(unsupported)
        return Effect.matchEffect(Namespaces.inBody(request), {
          onFailure: Effect.succeed,
          onSuccess: (listed) => listen([...named, ...listed], options, context)
        })
      default:
        return Effect.succeed(Refusal.methodNotAllowed(allow))
    }
  })

const unsupported = Refusal.refuse(
  415,
  "UnsupportedMediaType",
  'POST takes a list as application/json: {"namespaces":["/pets"]}'
)

const listen = <R>(
  paths: ReadonlyArray<string>,
  options: SubscribeOptions<R>,
  context: Context.Context<Needs>
): Handler<R> => {
  const request = Context.get(context, HttpServerRequest.HttpServerRequest)
  const hub = Context.get(context, SseHub)
  const parsed = Namespaces.parse(paths, hub)
  if (Either.isLeft(parsed)) return Effect.succeed(parsed.left)
  const namespaces = parsed.right
  const start = hub.canResume ? startOf(request) : undefined
  if (typeof start === "string") return Effect.succeed(Refusal.refuse(400, "BadRequest", start))
  const { authorize } = options
  if (authorize === undefined) return subscribe(namespaces, start, options, context, undefined)
  return Effect.matchEffect(Access.check(authorize, request, namespaces, hub), {
    onFailure: (refused) => refuse(refused, hub),
    onSuccess: (principal) => subscribe(namespaces, start, options, context, principal)
  })
}

type Needs = SseHub | HttpServerRequest.HttpServerRequest | Scope.Scope

type Handler<R> = Effect.Effect<HttpServerResponse.HttpServerResponse, never, R | Needs>

/**
 * The heads of streams. A client in a program learns from it when to take the server for dead, and why it was reset; a
 * browser's `EventSource` cannot read it.
 */
const makeHeads = (keepaliveMillis: number | undefined) => {
  const headers = keepaliveMillis === undefined ? head : { ...head, "sse-keepalive": String(keepaliveMillis) }
  // For HEAD, and where the connection takes the socket when the head is written.
  const headOnly = HttpServerResponse.empty({ status: 200, headers: { ...headers, "content-type": contentType } })
  return { headers, headOnly }
}

// Hubs of one process have one interval, or a few.
const heads = new Map<number | undefined, ReturnType<typeof makeHeads>>()

const headsOf = (keepaliveMillis: number | undefined) => {
  let made = heads.get(keepaliveMillis)
  if (made === undefined) heads.set(keepaliveMillis, (made = makeHeads(keepaliveMillis)))
  return made
}

const subscribe = (
  namespaces: Namespaces.Patterns,
  start: Start | undefined,
  options: Omit<SubscribeOptions<never>, "authorize">,
  context: Context.Context<Needs>,
  principal: Principal | undefined
): Effect.Effect<HttpServerResponse.HttpServerResponse> => {
  const request = Context.get(context, HttpServerRequest.HttpServerRequest)
  const hub = Context.get(context, SseHub)
  const { headOnly, headers } = headsOf(hub.keepaliveMillis)
  if (request.method === "HEAD") return Effect.succeed(headOnly)
  const connection = open(request, options.connection, hub)
  const connected = hub.connect({
    namespaces,
    connection,
    requestPath: splitUrl(request.originalUrl)[0],
    address: options.clientAddress(request),
    userAgent: request.headers["user-agent"],
    principal,
    start
  })
  return (
    "stream" in connection
      ? portable(connected, connection, Context.get(context, Scope.Scope), headers)
      : Effect.map(connected, ({ reset }) => withReset(headOnly, reset))
  ).pipe(
    Effect.catchAll((error) => {
      connection.close()
      return refuse(error, hub)
    })
  )
}

type Failure = HubClosed | LimitReached | EventLogError | Refused | HttpServerResponse.HttpServerResponse

const refuse = (error: Failure, hub: SseHub["Type"]): Effect.Effect<HttpServerResponse.HttpServerResponse> => {
  if (HttpServerResponse.isServerResponse(error)) return Effect.succeed(error)
  if (error._tag === "Refused" && error.kind !== "unavailable") return Effect.succeed(Access.answer(error))
  if (error._tag === "LimitReached" && error.limit === "maxNamespacesPerClient") {
    return Effect.succeed(Refusal.tooManyNamespaces(error))
  }
  return Effect.map(hub.comeBackIn, (millis) => {
    if (error._tag === "LimitReached" && hub.whenFull === "refuse") {
      return Refusal.refuse(503, error._tag, error.message, {
        headers: { "retry-after": String(Math.ceil((millis ?? 1000) / 1000)) },
        details: { limit: error.limit }
      })
    }
    // A browser that is answered anything but 200 never comes back. This one is told when to.
    const body = millis === undefined ? "" : SseEvent.retry(millis)
    return HttpServerResponse.text(body, { contentType, headers: head })
  })
}

const withReset = (response: HttpServerResponse.HttpServerResponse, reset: SseEvent.Reset | undefined) =>
  reset === undefined ? response : HttpServerResponse.setHeader(response, "sse-reset", reset.reason)

const portable = <E>(
  connected: Effect.Effect<Connected, E>,
  connection: Connection.PortableConnection,
  scope: Scope.Scope,
  headers: Record<string, string>
): Effect.Effect<HttpServerResponse.HttpServerResponse, E> =>
  // The scope's own finalizer and not Effect.acquireRelease, which costs more than all the rest of a connect: it compares
  // all fiber refs.
  Scope.addFinalizer(
    scope,
    Effect.sync(() => connection.close())
  ).pipe(
    Effect.zipRight(connected),
    Effect.map(({ reset }) => withReset(HttpServerResponse.stream(connection.stream, { contentType, headers }), reset))
  )

const open = (
  request: HttpServerRequest.HttpServerRequest,
  kind: SubscribeOptions<never>["connection"],
  hub: SseHub["Type"]
): NodeConnection.NodeConnection | Connection.PortableConnection => {
  const response = NodeConnection.responseOf(request)
  if (response !== undefined && kind === "auto" && NodeConnection.canTakeOver(response)) {
    return NodeConnection.make(response)
  }
  return Connection.makePortable({
    keepalive: hub.keepalive,
    // The fiber that writes the body waits for a client that does not read; only the end of the response frees it.
    onEnd: (abrupt) => {
      if (response !== undefined) NodeConnection.destroy(response, abrupt)
    },
    closeReason: () => (response === undefined ? "client-closed" : NodeConnection.reasonOf(response.req.socket))
  })
}
