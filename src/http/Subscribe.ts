/**
 * `GET /subscribe/<namespace>`: the stream.
 *
 * @internal
 */
import * as HttpServerRequest from "@effect/platform/HttpServerRequest"
import * as HttpServerResponse from "@effect/platform/HttpServerResponse"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Scope from "effect/Scope"
import * as Connection from "../Connection.js"
import * as Pipelined from "../internal/pipelined.js"
import * as Namespace from "../Namespace.js"
import * as NodeConnection from "../node/NodeConnection.js"
import type { Connected } from "../HubClient.js"
import type { EventLogError, HubClosed, LimitReached } from "../SseError.js"
import * as SseEvent from "../SseEvent.js"
import { SseHub } from "../SseHub.js"
import * as Refusal from "./Refusal.js"
import { startOf } from "./Resume.js"
import { splitUrl } from "./url.js"

export interface SubscribeOptions {
  readonly clientAddress: (request: HttpServerRequest.HttpServerRequest) => string
  readonly clientMetadata: ((request: HttpServerRequest.HttpServerRequest) => Effect.Effect<unknown>) | undefined
  readonly connection: "auto" | "portable"
}

/** Any page may read, as with the Go server; no credentials are allowed with `*`. */
const cors = { "access-control-allow-origin": "*", "access-control-expose-headers": "sse-keepalive, sse-reset" }

const allow = "GET, HEAD, OPTIONS"

const head = {
  ...cors,
  // A transforming proxy would hold events back to compress them.
  "cache-control": "no-cache, no-transform",
  "x-accel-buffering": "no",
  "x-content-type-options": "nosniff"
}

const contentType = "text/event-stream"

/** @param path the raw path behind `/subscribe`, without the query */
export const handle = (path: string, options: SubscribeOptions): Handler =>
  Effect.contextWithEffect((context: Context.Context<Needs>) => {
    const request = Context.get(context, HttpServerRequest.HttpServerRequest)
    if (request.method === "GET" || request.method === "HEAD") {
      // Before anything is waited for: a further request may be in the same packet.
      const response = NodeConnection.responseOf(request)
      if (response !== undefined) Pipelined.guard(response.req.socket)
      return options.clientMetadata === undefined || request.method === "HEAD"
        ? subscribe(path, options, context, undefined)
        : Effect.flatMap(options.clientMetadata(request), (metadata) => subscribe(path, options, context, metadata))
    }
    if (request.method === "OPTIONS") return Effect.succeed(preflight)
    return Effect.succeed(Refusal.methodNotAllowed(allow))
  })

type Needs = SseHub | HttpServerRequest.HttpServerRequest | Scope.Scope

type Handler = Effect.Effect<HttpServerResponse.HttpServerResponse, never, Needs>

const preflight = HttpServerResponse.empty({
  headers: {
    ...cors,
    allow,
    "access-control-allow-methods": allow,
    "access-control-allow-headers": "last-event-id, cache-control",
    "access-control-max-age": "86400"
  }
})

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
  path: string,
  options: SubscribeOptions,
  context: Context.Context<Needs>,
  metadata: unknown
): Effect.Effect<HttpServerResponse.HttpServerResponse> => {
  const request = Context.get(context, HttpServerRequest.HttpServerRequest)
  const hub = Context.get(context, SseHub)
  const namespace = Namespace.parse(path === "" ? "/" : path, { maxBytes: hub.maxNamespaceBytes })
  if (Either.isLeft(namespace)) return Effect.succeed(Refusal.invalidNamespace(namespace.left))
  const { headOnly, headers } = headsOf(hub.keepaliveMillis)
  if (request.method === "HEAD") return Effect.succeed(headOnly)
  const start = hub.canResume ? startOf(request) : undefined
  if (typeof start === "string") return Effect.succeed(Refusal.refuse(400, "BadRequest", start, { headers: cors }))
  const connection = open(request, options.connection, hub)
  const connected = hub.connect({
    namespaces: [namespace.right],
    connection,
    requestPath: splitUrl(request.originalUrl)[0],
    address: options.clientAddress(request),
    userAgent: request.headers["user-agent"],
    metadata,
    start
  })
  return (
    "stream" in connection
      ? portable(connected, connection, Context.get(context, Scope.Scope), headers)
      : Effect.map(connected, ({ reset }) => withReset(headOnly, reset))
  ).pipe(
    Effect.catchAll((error) => {
      connection.close()
      return Effect.map(hub.comeBackIn, (millis) => refuse(error, millis, hub.whenFull === "refuse"))
    })
  )
}

/** @param millis when to come back */
const refuse = (error: HubClosed | LimitReached | EventLogError, millis: number | undefined, plainly: boolean) => {
  if (error._tag === "LimitReached" && error.limit === "maxNamespacesPerClient") {
    return Refusal.refuse(400, error._tag, error.message, { headers: cors, details: { limit: error.limit } })
  }
  if (error._tag === "LimitReached" && plainly) {
    return Refusal.refuse(503, error._tag, error.message, {
      headers: { ...cors, "retry-after": String(Math.ceil((millis ?? 1000) / 1000)) },
      details: { limit: error.limit }
    })
  }
  // A browser that is answered anything but 200 never comes back. This one is told when to.
  const body = millis === undefined ? "" : SseEvent.retry(millis)
  return HttpServerResponse.text(body, { contentType, headers: head })
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
  kind: SubscribeOptions["connection"],
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
