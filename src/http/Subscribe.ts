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
  readonly clientAddress: (request: Request) => string
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
    const paths = named(path, request)
    switch (request.method) {
      case "GET":
      case "HEAD":
        return listen(orRoot(paths), options, context)
      case "POST":
        if (!Namespaces.isJson(request)) return Effect.succeed(unsupported)
        return Effect.matchEffect(Namespaces.inBody(request), {
          onFailure: Effect.succeed,
          onSuccess: (listed) => listen([...paths, ...listed], options, context)
        })
      default:
        return Effect.succeed(Refusal.methodNotAllowed(allow))
    }
  })

/** What is named in the URL. */
const named = (path: string, request: Request): ReadonlyArray<string> => {
  const inQuery = Namespaces.inQuery(request)
  return path === "" || path === "/" ? inQuery : [path, ...inQuery]
}

const orRoot = (paths: ReadonlyArray<string>): ReadonlyArray<string> => (paths.length === 0 ? ["/"] : paths)

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
  const wanted = read(paths, request, hub)
  if (HttpServerResponse.isServerResponse(wanted)) return Effect.succeed(wanted)
  const { authorize } = options
  if (authorize === undefined) return subscribe(wanted, options, context, undefined)
  return Effect.matchEffect(Access.check(authorize, request, wanted.namespaces, hub), {
    onFailure: (refused) => refuse(refused, hub),
    onSuccess: (principal) => subscribe(wanted, options, context, principal)
  })
}

/** What is read of a request. */
export type Request = Pick<
  HttpServerRequest.HttpServerRequest,
  "headers" | "method" | "originalUrl" | "remoteAddress" | "url"
>

/** What a request asks for. */
export interface Wanted {
  readonly namespaces: Namespaces.Patterns
  readonly start: Start | undefined
}

/** What a GET asks for; a response says what is wrong. */
export const readUrl = (
  path: string,
  request: Request,
  hub: SseHub["Type"]
): Wanted | HttpServerResponse.HttpServerResponse => read(orRoot(named(path, request)), request, hub)

const read = (
  paths: ReadonlyArray<string>,
  request: Request,
  hub: SseHub["Type"]
): Wanted | HttpServerResponse.HttpServerResponse => {
  const namespaces = Namespaces.parse(paths, hub)
  if (Either.isLeft(namespaces)) return namespaces.left
  const start = hub.canResume ? startOf(request) : undefined
  if (typeof start === "string") return Refusal.refuse(400, "BadRequest", start)
  return { namespaces: namespaces.right, start }
}

/** The head of the stream, at which a connection of Node opens, or a refusal. */
export const answer = (
  registered: ReturnType<typeof register>,
  connection: NodeConnection.NodeConnection,
  hub: SseHub["Type"]
): Effect.Effect<HttpServerResponse.HttpServerResponse> =>
  Effect.map(registered, (connected) => headOf(connected, hub)).pipe(orRefuse(connection, hub))

export const headOf = ({ reset }: Connected, hub: SseHub["Type"]): HttpServerResponse.HttpServerResponse =>
  withReset(headsOf(hub.keepaliveMillis).headOnly, reset)

export const register = (
  { namespaces, start }: Wanted,
  request: Request,
  connection: Connection.Connection,
  { clientAddress }: Pick<SubscribeOptions<never>, "clientAddress">,
  hub: SseHub["Type"],
  principal?: Principal
): ReturnType<SseHub["Type"]["connect"]> =>
  hub.connect({
    namespaces,
    connection,
    requestPath: splitUrl(request.originalUrl)[0],
    address: clientAddress(request),
    userAgent: request.headers["user-agent"],
    principal,
    start
  })

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
  wanted: Wanted,
  options: Omit<SubscribeOptions<never>, "authorize">,
  context: Context.Context<Needs>,
  principal: Principal | undefined
): Effect.Effect<HttpServerResponse.HttpServerResponse> => {
  const request = Context.get(context, HttpServerRequest.HttpServerRequest)
  const hub = Context.get(context, SseHub)
  const { headOnly, headers } = headsOf(hub.keepaliveMillis)
  if (request.method === "HEAD") return Effect.succeed(headOnly)
  const connection = open(request, options.connection, hub)
  const registered = register(wanted, request, connection, options, hub, principal)
  if (!("stream" in connection)) return answer(registered, connection, hub)
  return portable(registered, connection, Context.get(context, Scope.Scope), headers).pipe(orRefuse(connection, hub))
}

const orRefuse =
  (connection: { readonly close: () => void }, hub: SseHub["Type"]) =>
  (
    self: Effect.Effect<HttpServerResponse.HttpServerResponse, Failure>
  ): Effect.Effect<HttpServerResponse.HttpServerResponse> =>
    Effect.catchAll(self, (error) => {
      connection.close()
      return refuse(error, hub)
    })

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
