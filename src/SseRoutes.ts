/**
 * The HTTP side: the stream, the publish API and what operators look at, as a router value and as a router layer over the
 * same handlers.
 *
 * @since 0.1.0
 */
import * as HttpLayerRouter from "@effect/platform/HttpLayerRouter"
import * as HttpRouter from "@effect/platform/HttpRouter"
import * as HttpServerRequest from "@effect/platform/HttpServerRequest"
import type * as HttpServerResponse from "@effect/platform/HttpServerResponse"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Layer from "effect/Layer"
import * as Predicate from "effect/Predicate"
import * as Redacted from "effect/Redacted"
import * as Scope from "effect/Scope"
import * as Tracer from "effect/Tracer"
import { type Authorize, tokens } from "./Authorize.js"
import * as Access from "./http/Access.js"
import * as Admin from "./http/Admin.js"
import * as ClientAddress from "./http/ClientAddress.js"
import * as Cors from "./http/Cors.js"
import * as Health from "./http/Health.js"
import type { IdempotencyOptions } from "./http/Idempotent.js"
import * as Metrics from "./http/Metrics.js"
import * as OpenApi from "./http/OpenApi.js"
import * as Publish from "./http/Publish.js"
import * as RateLimit from "./http/RateLimit.js"
import * as Refusal from "./http/Refusal.js"
import * as Subscribe from "./http/Subscribe.js"
import * as Ticket from "./http/Ticket.js"
import { splitUrl } from "./http/url.js"
import * as Idempotency from "./Idempotency.js"
import * as Pipelined from "./internal/pipelined.js"
import { responseOf } from "./node/NodeConnection.js"
import { SseHub } from "./SseHub.js"
import * as Tickets from "./Tickets.js"

/**
 * Options of the routes. The type parameters are what the hooks of `subscribe`, `publish`, `admin` and `metrics` need.
 *
 * @since 0.1.0
 * @category models
 */
export interface RoutesOptions<Subscribe = never, Publish = never, Admin = never, Metrics = never>
  extends ClientAddress.ClientAddressOptions {
  /**
   * Who may subscribe. Run before anything is answered, for each client that comes; what it says of a client is shown with
   * it wherever it is shown, and told by `hub.presence`. Default: `open`, everyone.
   */
  readonly subscribe?: Access.Access<Subscribe> | undefined
  /** Who may publish over HTTP. Default: whoever has the `publishToken`; without one nobody (403). */
  readonly publish?: Access.Access<Publish> | undefined
  /** What publishers send as `Authorization: Bearer <token>`: short for `publish: Authorize.tokens({ publisher: token })`. */
  readonly publishToken?: Redacted.Redacted<string> | string | undefined
  /** Who may see and use the admin page and its API. Default: `loopback`. */
  readonly admin?: Access.Access<Admin> | undefined
  /** Who may read the metrics. Default: `loopback`. */
  readonly metrics?: Access.Access<Metrics> | undefined
  /** Which pages of other origins may subscribe, and publish. Default: any may subscribe, without credentials. */
  readonly cors?: Cors.CorsOptions | undefined
  /**
   * Where one-time tickets are kept; `false`: there are none. Default: where `subscribe` is a hook, in the memory of this
   * process.
   */
  readonly tickets?: Tickets.Tickets["Type"] | false | undefined
  /** How long a ticket may be used. Default: 30 seconds. */
  readonly ticketLifetime?: Duration.DurationInput | undefined
  /** Where it is remembered what was published with an `Idempotency-Key`; `false`: such requests are refused. Default: in the memory of this process. */
  readonly idempotency?: Idempotency.Idempotency["Type"] | false | undefined
  /** For how long. Default: 10 minutes. */
  readonly idempotencyWindow?: Duration.DurationInput | undefined
  /** The largest body of a publish, in bytes; a larger one is refused (413). Default: 1 MiB. */
  readonly maxBodyBytes?: number | undefined
  /** Events that are taken in a second over HTTP, from all publishers; more are refused (429). Default: no limit. */
  readonly maxPublishesPerSecond?: number | undefined
  /**
   * `auto`: where the server is Node's, streams are written straight to the socket or HTTP/2 stream, at a fraction of the cost.
   * `portable`: always as a `Stream` through the `HttpServer`. The bytes are the same. Default: `auto`.
   */
  readonly connection?: "auto" | "portable" | undefined
  /** The name of this server in the status. Default: `effect-sse`; the standalone server says its host's name. */
  readonly node?: string | undefined
}

/**
 * What hooks need besides what each request has.
 *
 * @since 0.1.0
 * @category models
 */
export type Needs<R> = HttpRouter.HttpRouter.ExcludeProvided<R>

type Handler<R = never> = Effect.Effect<
  HttpServerResponse.HttpServerResponse,
  never,
  R | SseHub | HttpServerRequest.HttpServerRequest | Scope.Scope
>

const handlers = <RS, RP, RA, RM>(options: RoutesOptions<RS, RP, RA, RM>) => {
  const cors = Cors.make(options.cors)
  const subscriber = Access.toHook(options.subscribe ?? "open", "subscribe", options)
  const ticket = typeof options.subscribe === "function" ? ticketOptions(options.subscribe, options) : undefined
  const subscribe: Subscribe.SubscribeOptions<RS> = {
    clientAddress: ClientAddress.make(options),
    authorize: ticket === undefined ? subscriber : Ticket.accept(ticket),
    connection: options.connection ?? "auto"
  }
  const admin = Admin.make({
    access: options.admin ?? "loopback",
    proxies: options,
    node: options.node ?? "effect-sse"
  })
  const metrics = Metrics.make({ access: options.metrics ?? "loopback", proxies: options })
  const publish: Publish.PublishOptions<RP> = {
    authorize: Access.toHook(publishAccess(options), "publish", options, publishDisabled),
    maxBodyBytes: options.maxBodyBytes ?? 1024 * 1024,
    rateLimit: RateLimit.make(options.maxPublishesPerSecond ?? Infinity),
    idempotency: idempotencyOptions(options)
  }
  /** Lets pages of other origins in, or keeps them out. */
  const shared = <R>(request: HttpServerRequest.HttpServerRequest, allow: string, handler: Handler<R>): Handler<R> => {
    if (request.method === "OPTIONS") return Effect.succeed(cors.preflight(request, allow))
    const refused = cors.refusal(request)
    return Effect.map(refused === undefined ? handler : Effect.succeed(refused), (response) =>
      cors.onto(request, response)
    )
  }
  /** @param seen whether the URL that a handler sees has the route's own path in front */
  return (seen: boolean): ReadonlyArray<readonly [path: `/${string}`, handler: Handler<RS | RP | RA | RM>]> => {
    const route = (path: `/${string}`, handle: Handle<RS | RP | RA | RM>) =>
      [path, at(seen ? path.length : 0, handle)] as const
    return [
      route("/subscribe", (path, request) =>
        Ticket.conceal(request.url, shared(request, Subscribe.allow, Subscribe.handle(path, subscribe)))
      ),
      route(
        "/tickets",
        exactly<RS>((_, request) =>
          ticket === undefined ? notFound : shared(request, "POST, OPTIONS", Ticket.handle(ticket))
        )
      ),
      route("/publish", (path, request) => {
        const handler = Publish.handle(path, publish)
        if (cors.listed) return Effect.map(shared(request, "POST, OPTIONS", handler), Publish.counted)
        // A page elsewhere cannot send a token, but the browser might send what else lets its user in.
        const foreign = isBearer(request) ? undefined : Access.crossSite(request)
        const answer = foreign === undefined || request.method !== "POST" ? handler : Effect.succeed(foreign)
        return Effect.map(answer, Publish.counted)
      }),
      route("/admin", admin),
      route(
        "/metrics",
        exactly<RM>(() => metrics)
      ),
      route(
        "/openapi.json",
        exactly<never>((_, request) => shared(request, "GET, HEAD, OPTIONS", OpenApi.handle))
      ),
      route(
        "/healthz",
        exactly<never>(() => Health.handle)
      )
    ]
  }
}

const ticketOptions = <R>(
  authorize: Authorize<R>,
  { ticketLifetime = "30 seconds", tickets }: Pick<RoutesOptions, "tickets" | "ticketLifetime">
): Ticket.TicketOptions<R> | undefined => {
  if (tickets === false) return undefined
  const lifetimeMillis = Duration.toMillis(ticketLifetime)
  if (!(lifetimeMillis >= 1000 && lifetimeMillis <= 3_600_000)) {
    throw new Error("ticketLifetime must be from 1 second to 1 hour")
  }
  return { authorize, tickets: tickets ?? Tickets.unsafeMakeMemory(), lifetimeMillis }
}

const idempotencyOptions = ({
  idempotency,
  idempotencyWindow = "10 minutes"
}: Pick<RoutesOptions, "idempotency" | "idempotencyWindow">): IdempotencyOptions | undefined => {
  if (idempotency === false) return undefined
  const windowMillis = Duration.toMillis(idempotencyWindow)
  if (!(windowMillis >= 1000 && Number.isFinite(windowMillis))) {
    throw new Error("idempotencyWindow must be a time of at least 1 second")
  }
  return { store: idempotency ?? Idempotency.unsafeMakeMemory(), windowMillis }
}

const publishAccess = <R>({
  publish,
  publishToken
}: Pick<RoutesOptions<never, R>, "publish" | "publishToken">): Access.Access<R> => {
  if (publishToken === undefined) return publish ?? "off"
  if (publish !== undefined) throw new Error("give publish or publishToken, not both")
  if ((typeof publishToken === "string" ? publishToken : Redacted.value(publishToken)) === "") {
    throw new Error("publishToken is empty")
  }
  return tokens({ publisher: publishToken })
}

const publishDisabled = Refusal.refuse(
  403,
  "PublishDisabled",
  "publishing over HTTP is off: this server has no publish token"
)

const isBearer = ({ headers }: HttpServerRequest.HttpServerRequest): boolean =>
  /^bearer /i.test(headers["authorization"] ?? "")

const notFound: Handler = Effect.succeed(Refusal.refuse(404, "NotFound", "nothing is here"))

type Handle<R> = (rest: string, request: HttpServerRequest.HttpServerRequest) => Handler<R>

const exactly =
  <R>(handle: Handle<R>): Handle<R> =>
  (rest, request) =>
    rest === "" || rest === "/" ? handle(rest, request) : notFound

// The raw URL is used, not the router's parameter, which is decoded: in it "%2F" would look like a slash.
const at = <R>(prefix: number, handle: Handle<R>): Handler<R> =>
  Effect.flatMap(HttpServerRequest.HttpServerRequest, (request) => {
    // Before anything is waited for: a further request may be in the same packet.
    Pipelined.guard(responseOf(request)?.req.socket)
    return Effect.catchAllDefect(
      Effect.interruptible(Effect.suspend(() => handle(splitUrl(request.url)[0].slice(prefix), request))),
      Refusal.failed
    )
  })

/**
 * All routes as an `HttpRouter`, to be served, or mounted in a router of your own under any prefix.
 *
 * | route | answers |
 * |---|---|
 * | `GET /subscribe/<namespace>?ns=<namespace>` | 200 and the stream; `/subscribe/` is everything. `ns` as often as wanted; a segment `*` is any one |
 * | `POST /subscribe` | the same; the body is `{"namespaces":["/pets","/time"]}` |
 * | `HEAD /subscribe/<namespace>` | the same head; nobody is registered |
 * | `POST /tickets?ns=<namespace>` | 201 `{"ticket":"...","expiresIn":30}`, for `?ticket=` of a subscribe, once |
 * | `POST /publish/<namespace>?event=&id=&retry=` | 202 `{"position":"..."}`; the body is the data |
 * | the same with `content-type: application/x-ndjson` | 202 `{"positions":[...]}`; all lines are published or none |
 * | `POST /publish` | the same for any namespaces, as NDJSON or as JSON `{"events":[{"namespace","data"}]}` |
 * | `GET /openapi.json` | what publishes and operates, as OpenAPI 3.1 |
 * | `GET /admin/` | the admin page |
 * | `GET /admin/status.json?limit=&after=&namespace=&filter=&sort=&node=` | the status: the Go server's fields, and more |
 * | `DELETE /admin/clients/<id>` | 204; ends a client's connection |
 * | `DELETE /admin/nodes/<node>/clients/<id>` | 204; the same on any node |
 * | `GET /metrics` | the process's Effect metrics, for Prometheus |
 * | `GET /healthz` | 200 `{"status":"ok"}`, or `degraded` while the log is away; 503 `{"status":"draining"}` when the hub is closing |
 *
 * A publish with an `Idempotency-Key` that comes again is answered as it was, and published once.
 *
 * A refusal has a JSON body `{"error","message"}`: 400 bad input, 401 or 403 who may not, 405 method, 409 and 422 idempotency
 * keys, 413 body too large, 415 media type, 429 too many events, 500 a defect in a hook of yours, 503 publishing while shutting
 * down, 502, 503 and 504 a node that cannot be asked.
 *
 * @throws Error if the options make no sense (see {@link RoutesOptions})
 * @since 0.1.0
 * @category routes
 * @example
 * ```ts
 * import { HttpRouter, HttpServerResponse } from "@effect/platform"
 * import { SseRoutes } from "effect-sse"
 *
 * const app = HttpRouter.empty.pipe(
 *   HttpRouter.get("/", HttpServerResponse.text("hello")),
 *   HttpRouter.mount("/live", SseRoutes.router({ publishToken: "secret" }))
 * )
 * ```
 */
export const router = <Subscribe = never, Publish = never, Admin = never, Metrics = never>(
  options: RoutesOptions<Subscribe, Publish, Admin, Metrics> = {}
): HttpRouter.HttpRouter<never, SseHub | Needs<Subscribe | Publish | Admin | Metrics>> => {
  // Mounted as apps and not as routes: a route would be looked up by its decoded path, and one that cannot be decoded
  // would be 404 instead of saying what is wrong with it.
  return handlers(options)(false).reduce(
    (router: HttpRouter.HttpRouter<never, SseHub | Needs<Subscribe | Publish | Admin | Metrics>>, [path, handler]) =>
      HttpRouter.mountApp(router, path, handler),
    HttpRouter.empty
  )
}

/**
 * The same routes as a layer for `HttpLayerRouter`. When the layer is released, before the server is, the hub is shut
 * down, so that open streams end and the server can close.
 *
 * @throws Error if the options make no sense (see {@link RoutesOptions})
 * @since 0.1.0
 * @category layers
 * @example
 * ```ts
 * import { HttpLayerRouter } from "@effect/platform"
 * import { NodeHttpServer } from "@effect/platform-node"
 * import { SseLayer, SseRoutes } from "effect-sse"
 * import { Layer } from "effect"
 * import { createServer } from "node:http"
 *
 * const ServerLayer = HttpLayerRouter.serve(SseRoutes.layer({ publishToken: "secret" })).pipe(
 *   Layer.provide(SseLayer),
 *   Layer.provide(NodeHttpServer.layer(createServer, { port: 8001 }))
 * )
 * ```
 */
export const layer = <Subscribe = never, Publish = never, Admin = never, Metrics = never>(
  options: RoutesOptions<Subscribe, Publish, Admin, Metrics> = {}
): Layer.Layer<never, never, HttpLayerRouter.HttpRouter | SseHub | Needs<Subscribe | Publish | Admin | Metrics>> => {
  type Needed = SseHub | Needs<Subscribe | Publish | Admin | Metrics>
  const routes = handlers(options)(true)
  const hooked = [options.subscribe, options.publish, options.admin, options.metrics].some(Predicate.isFunction)
  return HttpLayerRouter.use((router) =>
    Effect.gen(function* () {
      const hub = yield* SseHub
      // A hook's scope and span are the request's, not the layer's.
      const context = Context.omit(Scope.Scope, Tracer.ParentSpan)(yield* Effect.context<Needed>())
      yield* Effect.addFinalizer(() => hub.shutdown)
      for (const [path, handler] of routes) {
        const provided = (
          hooked ? Effect.provide(handler, context) : Effect.provideService(handler, SseHub, hub)
        ) as Effect.Effect<HttpServerResponse.HttpServerResponse>
        yield* router.add("*", path, provided)
        yield* router.add("*", `${path}/*`, provided)
      }
    })
  )
}
