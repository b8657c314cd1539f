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
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import type * as Layer from "effect/Layer"
import * as Redacted from "effect/Redacted"
import type * as Scope from "effect/Scope"
import type * as Access from "./http/Access.js"
import * as Admin from "./http/Admin.js"
import * as ClientAddress from "./http/ClientAddress.js"
import * as Health from "./http/Health.js"
import * as Metrics from "./http/Metrics.js"
import * as Publish from "./http/Publish.js"
import * as RateLimit from "./http/RateLimit.js"
import * as Refusal from "./http/Refusal.js"
import * as Subscribe from "./http/Subscribe.js"
import { splitUrl } from "./http/url.js"
import { SseHub } from "./SseHub.js"

/**
 * Options of the routes.
 *
 * @since 0.1.0
 * @category models
 */
export interface RoutesOptions extends ClientAddress.ClientAddressOptions {
  /** What publishers send as `Authorization: Bearer <token>`. Default: none, and publishing over HTTP is refused (403). */
  readonly publishToken?: Redacted.Redacted<string> | string | undefined
  /** The largest body of a publish, in bytes; a larger one is refused (413). Default: 1 MiB. */
  readonly maxBodyBytes?: number | undefined
  /** Events that are taken in a second over HTTP, from all publishers; more are refused (429). Default: no limit. */
  readonly maxPublishesPerSecond?: number | undefined
  /**
   * `auto`: where the server is Node's, streams are written straight to the socket, at a fraction of the cost.
   * `portable`: always as a `Stream` through the `HttpServer`. The bytes are the same. Default: `auto`.
   */
  readonly connection?: "auto" | "portable" | undefined
  /**
   * What the app knows of a client that connects, such as who is signed in: shown with the client wherever it is shown, and
   * told by `hub.presence`. Run before the client is connected, for each.
   */
  readonly clientMetadata?: ((request: HttpServerRequest.HttpServerRequest) => Effect.Effect<unknown>) | undefined
  /** Who may see and use the admin page and its API. Default: `loopback`. */
  readonly admin?: Access.Access | undefined
  /** Who may read the metrics. Default: `loopback`. */
  readonly metrics?: Access.Access | undefined
  /** The name of this server in the status. Default: `effect-sse`; the standalone server says its host's name. */
  readonly node?: string | undefined
}

type Handler = Effect.Effect<
  HttpServerResponse.HttpServerResponse,
  never,
  SseHub | HttpServerRequest.HttpServerRequest | Scope.Scope
>

const handlers = (options: RoutesOptions = {}) => {
  const subscribe: Subscribe.SubscribeOptions = {
    clientAddress: ClientAddress.make(options),
    clientMetadata: options.clientMetadata,
    connection: options.connection ?? "auto"
  }
  const admin = Admin.make({
    access: options.admin ?? "loopback",
    proxies: options,
    node: options.node ?? "effect-sse"
  })
  const metrics = Metrics.make({ access: options.metrics ?? "loopback", proxies: options })
  const publish: Publish.PublishOptions = {
    token: typeof options.publishToken === "string" ? Redacted.make(options.publishToken) : options.publishToken,
    maxBodyBytes: options.maxBodyBytes ?? 1024 * 1024,
    rateLimit: RateLimit.make(options.maxPublishesPerSecond ?? Infinity)
  }
  if (publish.token !== undefined && Redacted.value(publish.token) === "") throw new Error("publishToken is empty")
  /** @param seen whether the URL that a handler sees has the route's own path in front */
  return (seen: boolean): ReadonlyArray<readonly [path: `/${string}`, handler: Handler]> => {
    const route = (path: `/${string}`, handle: (rest: string) => Handler) =>
      [path, at(seen ? path.length : 0, handle)] as const
    return [
      route("/subscribe", (path) => Subscribe.handle(path, subscribe)),
      route("/publish", (path) => Publish.handle(path, publish)),
      route("/admin", admin),
      route("/metrics", exactly(metrics)),
      route("/healthz", exactly(Health.handle))
    ]
  }
}

const exactly =
  (handler: Handler) =>
  (rest: string): Handler =>
    rest === "" || rest === "/" ? handler : Effect.succeed(Refusal.refuse(404, "NotFound", "nothing is here"))

// The raw URL is used, not the router's parameter, which is decoded: in it "%2F" would look like a slash.
const at = (prefix: number, handle: (path: string) => Handler): Handler =>
  Effect.flatMap(HttpServerRequest.HttpServerRequest, (request) =>
    Effect.catchAllDefect(Effect.interruptible(handle(splitUrl(request.url)[0].slice(prefix))), failed)
  )

/** A defect, as in a hook of the app, ends the one request. It is told to the log, and to the client only that it is. */
const failed = (defect: unknown): Effect.Effect<HttpServerResponse.HttpServerResponse> =>
  Effect.as(
    Effect.logError("effect-sse: a request failed", Cause.die(defect)),
    Refusal.refuse(500, "InternalError", "this request failed; the server's log has the reason")
  )

/**
 * All routes as an `HttpRouter`, to be served, or mounted in a router of your own under any prefix.
 *
 * | route | answers |
 * |---|---|
 * | `GET /subscribe/<namespace>` | 200 and the stream; `/subscribe/` is everything |
 * | `HEAD /subscribe/<namespace>` | the same head; nobody is registered |
 * | `POST /publish/<namespace>?event=&id=&retry=` | 202 `{"position":"..."}`; the body is the data |
 * | the same with `content-type: application/x-ndjson` | 202 `{"positions":[...]}`; all lines are published or none |
 * | `GET /admin/` | the admin page |
 * | `GET /admin/status.json?limit=&after=&namespace=&filter=&sort=` | the status: the Go server's fields, and more |
 * | `DELETE /admin/clients/<id>` | 204; ends a client's connection |
 * | `GET /metrics` | the process's Effect metrics, for Prometheus |
 * | `GET /healthz` | 200 `{"status":"ok"}`, or 503 `{"status":"draining"}` when the hub is closing |
 *
 * A refusal has a JSON body `{"error","message"}`: 400 bad input, 401 or 403 token, 405 method, 413 body too large, 415
 * media type, 429 too many events, 500 a defect in a hook of yours, 503 publishing while shutting down.
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
export const router = (options?: RoutesOptions): HttpRouter.HttpRouter<never, SseHub> => {
  // Mounted as apps and not as routes: a route would be looked up by its decoded path, and one that cannot be decoded
  // would be 404 instead of saying what is wrong with it.
  return handlers(options)(false).reduce(
    (router: HttpRouter.HttpRouter<never, SseHub>, [path, handler]) => HttpRouter.mountApp(router, path, handler),
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
export const layer = (options?: RoutesOptions): Layer.Layer<never, never, HttpLayerRouter.HttpRouter | SseHub> => {
  const routes = handlers(options)(true)
  return HttpLayerRouter.use((router) =>
    Effect.gen(function* () {
      const hub = yield* SseHub
      yield* Effect.addFinalizer(() => hub.shutdown)
      for (const [path, handler] of routes) {
        const provided = Effect.provideService(handler, SseHub, hub)
        yield* router.add("*", path, provided)
        yield* router.add("*", `${path}/*`, provided)
      }
    })
  )
}
