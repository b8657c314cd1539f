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
import * as Config from "effect/Config"
import * as ConfigError from "effect/ConfigError"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Fiber from "effect/Fiber"
import * as FiberRef from "effect/FiberRef"
import * as Layer from "effect/Layer"
import * as LogLevel from "effect/LogLevel"
import type * as Option from "effect/Option"
import * as Predicate from "effect/Predicate"
import * as Redacted from "effect/Redacted"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import * as Http from "node:http"
import * as Net from "node:net"
import { hostname } from "node:os"
// Only its types: what they describe needs a package that may not be there.
import type { JwtOptions } from "../Authorize/Jwt.js"
import * as ClientAddress from "../http/ClientAddress.js"
import * as Cors from "../http/Cors.js"
import { refuse } from "../http/Refusal.js"
import { splitUrl, toRelative } from "../http/url.js"
import type { ClientChange } from "../HubClient.js"
import type { TlsError } from "../SseError.js"
import { SseHub } from "../SseHub.js"
import * as SseRoutes from "../SseRoutes.js"
import * as Pipelined from "../internal/pipelined.js"
import * as DirectSubscribe from "./directSubscribe.js"
import * as KernelQueue from "./KernelQueue.js"
import * as Tls from "./tls.js"

const defaultHost = "127.0.0.1"
const defaultPort = 8001
const defaultHeaderBytes = 16 * 1024

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
        const logging = yield* Effect.forkScoped(
          (yield* isLogged) ? Stream.runForEach(yield* hub.changes, logChange) : Effect.void
        )
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

/** To make a line that nobody reads costs as much as a connect. */
const isLogged = Effect.map(FiberRef.get(FiberRef.currentMinimumLogLevel), LogLevel.lessThanEqual(LogLevel.Info))

const logChange = (change: ClientChange): Effect.Effect<void> => {
  const { address, events, id, namespaces, principal } = change.client
  const who = {
    client: id,
    namespace: namespaces.map(visible).join(" "),
    address,
    ...(principal === undefined ? {} : { principal: visible(principal) })
  }
  return change._tag === "Connected"
    ? Effect.logInfo("connected").pipe(Effect.annotateLogs(who))
    : Effect.logInfo("disconnected").pipe(
        Effect.annotateLogs({
          ...who,
          duration: Duration.format(Duration.millis(change.endedAt - change.client.connectedAt)),
          events,
          reason: change.reason
        })
      )
}

/**
 * Characters that would end the line, that a terminal obeys or does not show, or that turn the direction of what it shows, as
 * escapes. A principal's id may hold any.
 */
const visible = (text: string): string =>
  text.replace(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/gu, (char) => `\\u{${char.codePointAt(0)!.toString(16)}}`)

/**
 * What the standalone server reads besides the hub's options.
 *
 * @since 0.1.0
 * @category models
 */
export interface ServerConfig extends ClientAddress.ClientAddressOptions {
  /** `SSE_HOST`: the address to listen on. Default: `127.0.0.1`, reached from this machine only. */
  readonly host: string
  /** `SSE_PORT`: the port; 0 takes a free one. Default: 8001. */
  readonly port: number
  /** `SSE_MAX_HEADER_BYTES`: the largest head of a request. Default: 16 KiB. */
  readonly maxHeaderBytes: number
  /** `SSE_ADMIN`: who may see and use the admin page: `loopback`, `open` or `off`. Default: `loopback`. */
  readonly admin: "loopback" | "open" | "off"
  /** `SSE_METRICS`: who may read the metrics: `loopback`, `open` or `off`. Default: `loopback`. */
  readonly metrics: "loopback" | "open" | "off"
  /** `SSE_PUBLISH_TOKEN`: what publishers must send. If neither it nor JWTs are set, the server makes one at start and prints it. */
  readonly publishToken: Option.Option<Redacted.Redacted<string>>
  /**
   * `SSE_JWT_SECRET` (of HS256, at least 32 bytes) and `SSE_JWT_JWKS_URL`, one of them or both, turn JWTs on, for subscribers
   * and publishers; `SSE_JWT_ISSUER`, `SSE_JWT_AUDIENCE` and `SSE_JWT_COOKIE` belong to them. See `Authorize/Jwt`.
   */
  readonly jwt: JwtOptions | undefined
  /**
   * `SSE_CORS_ORIGINS`: `*`, or origins with commas between, whose pages may subscribe and publish with credentials, or `off`.
   * Default: `*`, any may subscribe, without credentials.
   */
  readonly cors: Cors.CorsOptions
  /** `SSE_TLS_KEY` and `SSE_TLS_CERT`: the files of the private key and the certificate. Without them, there is no TLS. */
  readonly tls: { readonly key: string; readonly cert: string } | undefined
}

const access = (name: string, what: string): Config.Config<"loopback" | "open" | "off"> =>
  Config.literal(
    "loopback",
    "open",
    "off"
  )(name).pipe(Config.withDefault("loopback" as const), Config.withDescription(what))

const readTrustedProxies = (text: string): ClientAddress.TrustedProxies => {
  const trustedProxies = /^\s*\d+\s*$/.test(text)
    ? Number(text)
    : text
        .split(",")
        .map((range) => range.trim())
        .filter((range) => range !== "")
  // Made to have it checked; it throws what is wrong.
  ClientAddress.make({ trustedProxies })
  return trustedProxies
}

const optional = <A>(config: Config.Config<A>): Config.Config<A | undefined> => Config.withDefault(config, undefined)

const readJwt: Config.Config<JwtOptions | undefined> = Config.all({
  secret: optional(
    Config.redacted("SSE_JWT_SECRET").pipe(
      Config.validate({
        message: "SSE_JWT_SECRET must have at least 32 bytes",
        validation: (secret) => Buffer.byteLength(Redacted.value(secret)) >= 32
      })
    )
  ),
  keys: optional(
    Config.url("SSE_JWT_JWKS_URL").pipe(
      Config.validate({
        // They are not sent, and would be in the message that says so.
        message: "must begin with http:// or https://, and have no user and password",
        validation: ({ password, protocol, username }) => /^https?:$/.test(protocol) && username + password === ""
      })
    )
  ),
  issuer: optional(Config.nonEmptyString("SSE_JWT_ISSUER")),
  audience: optional(Config.nonEmptyString("SSE_JWT_AUDIENCE")),
  cookie: optional(Config.nonEmptyString("SSE_JWT_COOKIE"))
}).pipe(
  Config.mapOrFail((jwt) => {
    if (jwt.secret !== undefined || jwt.keys !== undefined) return Either.right(jwt)
    // One who sets an issuer does not want everyone in.
    return Object.values(jwt).every((value) => value === undefined)
      ? Either.right(undefined)
      : Either.left(
          ConfigError.InvalidData(["SSE_JWT_SECRET"], "neither it nor SSE_JWT_JWKS_URL is set; JWTs need one")
        )
  })
)

const readTls = Config.all({
  key: optional(Config.nonEmptyString("SSE_TLS_KEY")),
  cert: optional(Config.nonEmptyString("SSE_TLS_CERT"))
}).pipe(
  Config.mapOrFail(({ cert, key }) => {
    if (key !== undefined && cert !== undefined) return Either.right({ key, cert })
    if (key === undefined && cert === undefined) return Either.right(undefined)
    const [set, missing] = key === undefined ? ["SSE_TLS_CERT", "SSE_TLS_KEY"] : ["SSE_TLS_KEY", "SSE_TLS_CERT"]
    return Either.left(ConfigError.MissingData([missing], `${set} is set; TLS needs both`))
  })
)

const readOrigins = (text: string): Cors.CorsOptions => {
  const origins = text === "*" ? text : text === "off" ? [] : text.split(",").map((origin) => origin.trim())
  // Made to have it checked; it throws what is wrong.
  Cors.make({ origins })
  return { origins }
}

/**
 * Reads `SSE_HOST`, `SSE_PORT`, `SSE_PUBLISH_TOKEN`, `SSE_JWT_SECRET`, `SSE_JWT_JWKS_URL`, `SSE_JWT_ISSUER`, `SSE_JWT_AUDIENCE`,
 * `SSE_JWT_COOKIE`, `SSE_CORS_ORIGINS`, `SSE_TLS_KEY`, `SSE_TLS_CERT`, `SSE_MAX_HEADER_BYTES`, `SSE_ADMIN`, `SSE_METRICS`, `SSE_TRUSTED_PROXIES` (a number of hops, or addresses and CIDR
 * ranges with commas between) and `SSE_CLIENT_ADDRESS_HEADER`.
 *
 * @since 0.1.0
 * @category config
 */
export const fromEnv: Config.Config<ServerConfig> = Config.all({
  host: Config.nonEmptyString("SSE_HOST").pipe(
    Config.withDefault(defaultHost),
    Config.withDescription("address to listen on")
  ),
  port: Config.integer("SSE_PORT").pipe(
    Config.validate({ message: "must be from 0 to 65535", validation: (port) => port >= 0 && port <= 65_535 }),
    Config.withDefault(defaultPort),
    Config.withDescription("port to listen on, 0 for a free one")
  ),
  maxHeaderBytes: Config.integer("SSE_MAX_HEADER_BYTES").pipe(
    Config.validate({ message: "must be at least 256", validation: (bytes) => bytes >= 256 }),
    Config.withDefault(defaultHeaderBytes),
    Config.withDescription("largest head of a request in bytes")
  ),
  admin: access("SSE_ADMIN", "who may see the admin page"),
  metrics: access("SSE_METRICS", "who may read the metrics"),
  publishToken: Config.option(Config.redacted(Config.nonEmptyString("SSE_PUBLISH_TOKEN"))),
  jwt: readJwt,
  tls: readTls,
  cors: Config.string("SSE_CORS_ORIGINS").pipe(
    Config.mapAttempt(readOrigins),
    Config.withDefault<Cors.CorsOptions>({}),
    Config.withDescription("origins whose pages may subscribe and publish with credentials")
  ),
  trustedProxies: Config.string("SSE_TRUSTED_PROXIES").pipe(
    Config.mapAttempt(readTrustedProxies),
    Config.withDefault<ClientAddress.TrustedProxies>(0)
  ),
  header: Config.literal(
    "x-forwarded-for",
    "forwarded",
    "x-real-ip"
  )("SSE_CLIENT_ADDRESS_HEADER").pipe(Config.withDefault("x-forwarded-for"))
})
