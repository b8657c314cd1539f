/**
 * The standalone server: the routes on Node's HTTP server, a log line for each connect and disconnect, and a shutdown
 * that ends every stream in bounded time.
 *
 * @since 0.1.0
 */
import type * as HttpApp from "@effect/platform/HttpApp"
import * as HttpMiddleware from "@effect/platform/HttpMiddleware"
import * as HttpRouter from "@effect/platform/HttpRouter"
import type * as HttpServer from "@effect/platform/HttpServer"
import type * as HttpServerError from "@effect/platform/HttpServerError"
import * as HttpServerRequest from "@effect/platform/HttpServerRequest"
import * as NodeHttpServer from "@effect/platform-node/NodeHttpServer"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Predicate from "effect/Predicate"
import type * as Scope from "effect/Scope"
import * as Http from "node:http"
import * as Net from "node:net"
import { hostname } from "node:os"
import { refuse } from "../http/Refusal.js"
import { splitUrl, toRelative } from "../http/url.js"
import type { TlsError } from "../SseError.js"
import { SseHub } from "../SseHub.js"
import * as SseRoutes from "../SseRoutes.js"
import * as Pipelined from "../internal/pipelined.js"
import * as ConnectLog from "./connectLog.js"
import * as DirectSubscribe from "./directSubscribe.js"
import * as KernelQueue from "./KernelQueue.js"
import { defaultHeaderBytes, defaultHost, defaultPort } from "./serverConfig.js"
import * as Tls from "./tls.js"

export {
  /**
   * Reads {@link ServerConfig} from the environment: the variables that it names, `SSE_TRUSTED_PROXIES` (a number of hops, or
   * addresses and CIDR ranges with commas between) and `SSE_CLIENT_ADDRESS_HEADER`.
   *
   * @since 0.1.0
   * @category config
   */
  fromEnv,
  /**
   * What the standalone server reads besides the hub's options.
   *
   * @since 0.1.0
   * @category models
   */
  type ServerConfig
} from "./serverConfig.js"

/**
 * Options of the server; those of the routes are part of them.
 *
 * @since 0.1.0
 * @category models
 */
export interface ServerOptions<
  Subscribe = never,
  Publish = never,
  Admin = never,
  Metrics = never,
  Routes = never
> extends SseRoutes.RoutesOptions<Subscribe, Publish, Admin, Metrics> {
  /** Routes of your own, served beside those of the hub, which come first. */
  readonly routes?: HttpRouter.HttpRouter<unknown, Routes> | undefined
  /** The address to listen on. Default: `127.0.0.1`, reached from this machine only. */
  readonly host?: string | undefined
  /** The port; 0 takes a free one. Default: 8001. */
  readonly port?: number | undefined
  /**
   * Connections the system may hold before they are accepted. The usual 511 make 10,000 clients that come back at once
   * need 14 s; Linux cuts the number to `net.core.somaxconn`. Default: 16,384.
   */
  readonly backlog?: number | undefined
  /**
   * How long a request may take to arrive, head and body; one that takes longer is answered 408 and its connection closed. A
   * third of it for the head. Default: 30 seconds.
   */
  readonly requestTimeout?: Duration.DurationInput | undefined
  /**
   * The largest head of a request in bytes: its URL and all its headers. A larger one is answered 431 and its connection
   * closed. Default: 16 KiB.
   */
  readonly maxHeaderBytes?: number | undefined
  /** How long connections may take to close at shutdown before they are cut. Default: 1 second. */
  readonly closeTimeout?: Duration.DurationInput | undefined
  /**
   * The private key and the certificate, with those that vouch for it behind it; each the path of a PEM file, or PEM. The
   * server then speaks HTTP/2 and HTTP/1.1 over TLS 1.2 or later, and nothing else. Files are read again on SIGHUP: new
   * connections get the new certificate, open ones go on, and what is not usable is logged and changes nothing.
   */
  readonly tls?: { readonly key: string; readonly cert: string } | undefined
  /**
   * Requests and streams that one HTTP/2 connection may have open; a client waits with the next one, or connects once more.
   * Default: 256.
   */
  readonly maxStreamsPerConnection?: number | undefined
}

/**
 * Serves the routes of a hub. Gives the running `HttpServer`, whose address tells the port.
 *
 * When the layer is released it stops accepting, shuts the hub down (each client gets a last `retry:` and a clean end),
 * waits up to `closeTimeout` for connections to close, and cuts the rest.
 *
 * @since 0.1.0
 * @category layers
 * @example
 * ```ts
 * import { NodeRuntime } from "@effect/platform-node"
 * import { SseLayer } from "effect-sse"
 * import * as SseServer from "effect-sse/node/SseServer"
 * import { Layer } from "effect"
 *
 * const program = SseServer.layer({ port: 8001, publishToken: "secret" }).pipe(Layer.provide(SseLayer), Layer.launch)
 *
 * NodeRuntime.runMain(program)
 * ```
 */
export const layer = <Subscribe = never, Publish = never, Admin = never, Metrics = never, Routes = never>(
  options: ServerOptions<Subscribe, Publish, Admin, Metrics, Routes> = {}
): Layer.Layer<
  HttpServer.HttpServer,
  HttpServerError.ServeError | TlsError,
  SseHub | SseRoutes.Needs<Subscribe | Publish | Admin | Metrics | Routes>
> =>
  Layer.unwrapScoped(
    Effect.gen(function* () {
      const { goAway, server } = yield* listener(options)
      const serving = Effect.gen(function* () {
        const hub = yield* SseHub
        const routes = HttpRouter.concat(
          SseRoutes.router({ node: hostname(), ...options }),
          options.routes ?? HttpRouter.empty
        )
        const app = yield* HttpRouter.toHttpApp(routes)
        const logging = yield* ConnectLog.start(hub)
        const handle = yield* app.pipe(
          Effect.catchIf(isRouteNotFound, ({ request }) =>
            // Without the query: what stands there may be a secret, and its reader another one than its writer.
            Effect.succeed(refuse(404, "NotFound", `nothing is at ${splitUrl(request.url)[0].slice(0, 200)}`))
          ),
          withRelativeUrl,
          NodeHttpServer.makeHandler
        )
        const take = yield* DirectSubscribe.make(options)
        yield* listenTo(server, (request, response) => {
          if (!take(request, response)) handle(request, response)
        })
        yield* Effect.addFinalizer(() =>
          Effect.gen(function* () {
            stopAccepting(server)
            goAway()
            yield* hub.shutdown
            yield* closed(server, Duration.toMillis(options.closeTimeout ?? "1 second"))
            yield* Fiber.await(logging)
          })
        )
      })
      return Layer.merge(Layer.scopedDiscard(serving), KernelQueue.layer(server)).pipe(
        HttpMiddleware.withTracerDisabledWhen(isUntraced),
        Layer.provideMerge(
          NodeHttpServer.layer(() => server, {
            host: options.host ?? defaultHost,
            port: options.port ?? defaultPort,
            backlog: options.backlog ?? 16_384
          })
        )
      )
    })
  )

const listener = (
  options: Pick<ServerOptions, "maxHeaderBytes" | "maxStreamsPerConnection" | "requestTimeout" | "tls">
): Effect.Effect<Tls.Listener, TlsError, Scope.Scope> =>
  Effect.suspend(() => {
    const requestTimeout = Duration.toMillis(options.requestTimeout ?? "30 seconds")
    const limits = {
      requestTimeout,
      headersTimeout: requestTimeout / 3,
      connectionsCheckingInterval: Math.min(5000, requestTimeout / 6),
      maxHeaderSize: options.maxHeaderBytes ?? defaultHeaderBytes
    }
    return options.tls === undefined
      ? Effect.succeed({ server: Http.createServer(limits), goAway: () => {} })
      : Tls.make(options.tls, { ...limits, maxStreamsPerConnection: options.maxStreamsPerConnection ?? 256 })
  })

const isRouteNotFound = (error: unknown): error is HttpServerError.RouteNotFound =>
  Predicate.isTagged(error, "RouteNotFound")

const listenTo = (server: Http.Server, onRequest: Http.RequestListener): Effect.Effect<void, never, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.sync(() => {
      server.on("request", onRequest)
      Pipelined.guardServer(server)
    }),
    () => Effect.sync(() => server.off("request", onRequest))
  )

const withRelativeUrl = <E, R>(app: HttpApp.Default<E, R>): HttpApp.Default<E, R> =>
  Effect.flatMap(HttpServerRequest.HttpServerRequest, (request) =>
    request.url.startsWith("/")
      ? app
      : Effect.provideService(
          app,
          HttpServerRequest.HttpServerRequest,
          request.modify({ url: toRelative(request.url) })
        )
  )

/** A span for each connect costs more than the connect. A span has the whole URL, and in a query may be a secret. */
const isUntraced = (request: HttpServerRequest.HttpServerRequest): boolean =>
  request.url.startsWith("/subscribe") || /(?:ticket|token|authorization)/i.test(splitUrl(request.url)[1])

/** Closes the listener only: the rest follows when the hub has said goodbye. */
const stopAccepting = (server: Http.Server): void => void Net.Server.prototype.close.call(server)

/**
 * Waits until no connection is left. Those between two requests are closed, and after so many ms all.
 *
 * In real time, and not by interruption: a fiber that was interrupted, as at SIGTERM, would not wait at all.
 */
const closed = (server: Http.Server, millis: number): Effect.Effect<void> =>
  Effect.async((resume) => {
    const done = () => {
      clearTimeout(timer)
      resume(Effect.void)
    }
    const timer = setTimeout(() => {
      server.closeAllConnections()
      done()
    }, millis)
    server.getConnections((_, count) => {
      if (count === 0) return done()
      server.once("close", done)
      server.closeIdleConnections()
    })
  })
