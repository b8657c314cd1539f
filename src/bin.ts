#!/usr/bin/env node
/**
 * `effect-sse serve`: the standalone server, configured by flags and the environment.
 *
 * @internal
 */
import * as HttpServer from "@effect/platform/HttpServer"
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import * as Cause from "effect/Cause"
import * as ConfigError from "effect/ConfigError"
import * as ConfigProvider from "effect/ConfigProvider"
import * as Config from "effect/Config"
import * as Console from "effect/Console"
import * as Effect from "effect/Effect"
import { identity } from "effect/Function"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import * as LogLevel from "effect/LogLevel"
import * as Option from "effect/Option"
import * as Redacted from "effect/Redacted"
import { randomBytes } from "node:crypto"
import { parseArgs } from "node:util"
import type { RedisLogOptions } from "./EventLog/Redis.js"
import * as EventLog from "./EventLog.js"
import { tokens } from "./Authorize.js"
import type { JwtOptions } from "./Authorize/Jwt.js"
import type { Access } from "./http/Access.js"
import { demo } from "./node/demo.js"
import * as NodeBus from "./NodeBus.js"
import * as SseServer from "./node/SseServer.js"
import * as Workers from "./node/workers.js"
import * as SseConfig from "./SseConfig.js"
import { EventLogError, TlsError } from "./SseError.js"
import * as SseHub from "./SseHub.js"

const usage = `effect-sse: a Server-Sent Events hub

  effect-sse serve [--host ADDRESS] [--port PORT] [--workers N] [--demo]

  --host   address to listen on          (SSE_HOST, 127.0.0.1)
  --port   port to listen on, 0 = free   (SSE_PORT, 8001)
  --workers  processes that share the port and the clients               (1)
  --demo   broadcast the time on /time and pets on /pets/dogs and /pets/cats

Environment:
  SSE_PUBLISH_TOKEN           what publishers send; made and printed at start if not set
  SSE_JWT_SECRET              subscribers and publishers send JWTs, signed with this
                              (HS256; 32 bytes or more)
  SSE_JWT_JWKS_URL            or with one of the keys that are there (RS256, ES256, EdDSA)
  SSE_JWT_ISSUER, SSE_JWT_AUDIENCE  what they must say in "iss" and "aud"  (anything)
  SSE_JWT_COOKIE              cookie that may carry one               (only Authorization)
  SSE_CORS_ORIGINS            *: pages of any origin may subscribe, without credentials;
                              or origins with commas between, which may do so with
                              credentials, and publish; or off                 (*)
  SSE_TLS_KEY, SSE_TLS_CERT   files of the private key and the certificate (PEM): HTTP/2 and
                              HTTP/1.1 over TLS; read again on SIGHUP        (no TLS)
  SSE_KEEPALIVE               time between keepalives, or off          (15 seconds)
  SSE_MAX_PENDING_BYTES       bytes that may wait for one client       (1048576)
  SSE_MAX_TOTAL_PENDING_BYTES bytes that may wait for all clients      (268435456)
  SSE_STALL_TIMEOUT           how long anything may wait for one       (30 seconds)
  SSE_MAX_CLIENTS             clients at the same time                 (no limit)
  SSE_MAX_CLIENTS_PER_ADDRESS, SSE_MAX_CLIENTS_PER_NAMESPACE           (no limit)
  SSE_WHEN_FULL               what one too many gets: retry (a stream that tells when
                              to come back), refuse (503) or evict-oldest  (retry)
  SSE_MAX_HEADER_BYTES        largest head of a request, URL and headers (16384)
  SSE_MAX_LIFETIME            how long a client may stay               (no limit)
  SSE_DRAIN                   time over which clients are ended at shutdown (1 second)
  SSE_REDIS_URL               redis:// or rediss://: the log that several nodes share
  SSE_REDIS_CLUSTER           or some servers of a Redis Cluster: 10.0.0.1:6379,10.0.0.2:6379
  SSE_REDIS_PREFIX            what its keys begin with                 (effect-sse)
  SSE_REDIS_SHARDS            streams over which namespaces are spread, the same on all
                              nodes; each is read where somebody listens     (1)
  SSE_REDIS_SHARD_DEPTH       segments of a namespace that tell its stream   (1)
  SSE_PUBLISH_TIMEOUT         how long a publish may wait for Redis    (5 seconds)
  SSE_SHUTDOWN_RETRY          when they come back, counted from its end, or off;
                              begin with what a restart takes (2 seconds to 4 seconds)
  SSE_MAX_RETURNS_PER_SECOND  longer, so that not more come in a second    (1000)
  SSE_HISTORY_EVENTS          events kept for clients that were away; they then carry ids
                              (0; on Redis 100000)
  SSE_HISTORY_BYTES, SSE_HISTORY_AGE   further bounds of what is kept  (16777216, none)
  SSE_LATEST                  namespaces that keep their latest value: /prices,/rooms/*/topic
  SSE_AFTER_RESET             how clients go on that missed more than is kept: now or earliest  (now)
  SSE_ADMIN                   who sees the admin page: loopback, open or off  (loopback)
  SSE_METRICS                 who sees /metrics: loopback, open or off        (loopback)
  SSE_LOG                     json, pretty, none, or a line of text for each  (text)
  SSE_TRUSTED_PROXIES         number of proxies, or addresses and CIDR ranges
  SSE_CLIENT_ADDRESS_HEADER   x-forwarded-for, forwarded or x-real-ip  (x-forwarded-for)
`

/** A mistake of the operator: told in one line, without a trace. */
class Usage {
  readonly _tag = "Usage"
  constructor(readonly message: string) {}
}

const readArguments = Effect.try({
  try: () =>
    parseArgs({
      args: process.argv.slice(2),
      allowPositionals: true,
      options: {
        host: { type: "string" },
        port: { type: "string" },
        workers: { type: "string" },
        demo: { type: "boolean", default: false },
        help: { type: "boolean", short: "h", default: false }
      }
    }),
  catch: (error) => new Usage(error instanceof Error ? error.message : String(error))
})

/** The platform knows only of plain HTTP. */
const withAddress = <A, E, R>(tls: boolean, use: (address: string) => Effect.Effect<A, E, R>) =>
  HttpServer.addressFormattedWith((address) => use(tls ? address.replace("http:", "https:") : address))

const banner = (token: string, needsToken: boolean, demo: boolean, admin: Access, tls: boolean) =>
  withAddress(tls, (address) =>
    Console.log(
      [
        `effect-sse listens on ${address}`,
        "",
        `  subscribe   curl -N ${needsToken ? '-H "Authorization: Bearer $TOKEN" ' : ""}${address}/subscribe/${demo ? "pets" : ""}`,
        `  publish     curl -H "Authorization: Bearer ${token}" --data-binary 'Corgi' '${address}/publish/pets/dogs?event=new-dog'`,
        ...(admin === "off" ? [] : [`  admin page  ${address}/admin/`]),
        ""
      ].join("\n")
    )
  )

/** In a machine's format, what the banner tells is one line as well. */
const started = (token: string, tls: boolean) =>
  withAddress(tls, (address) => Effect.logInfo("listening").pipe(Effect.annotateLogs({ address, publishToken: token })))

const loggers = {
  text: Layer.empty,
  json: Logger.json,
  pretty: Logger.pretty,
  none: Logger.minimumLogLevel(LogLevel.None)
}

const readLog = Config.literal(
  "text",
  "json",
  "pretty",
  "none"
)("SSE_LOG").pipe(Config.withDefault("text" as const), Config.withDescription("how log lines are written"))

/** The log and the way to the other nodes. Loaded where they are wanted: `ioredis` is optional. */
const redisLayer = (options: RedisLogOptions) =>
  Layer.unwrapEffect(
    Effect.map(
      Effect.tryPromise({
        try: () => Promise.all([import("./EventLog/Redis.js"), import("./NodeBus/Redis.js")]),
        catch: (error) => new Usage(`SSE_REDIS_URL needs the package ioredis: ${String(error)}`)
      }),
      ([RedisLog, RedisBus]) => Layer.merge(RedisLog.layer(options), RedisBus.layer(options))
    )
  )

const hubLayer = Layer.unwrapEffect(
  Effect.map(Config.all([SseConfig.hubFromEnv, SseConfig.redisFromEnv]), ([options, redis]) =>
    Option.isSome(redis)
      ? Layer.provide(SseHub.layerWithLog(options), redisLayer(redis.value))
      : Workers.isWorker
        ? Layer.provide(SseHub.layerWithLog(options), [
            Layer.scoped(EventLog.EventLog, Workers.log),
            Layer.succeed(NodeBus.NodeBus, Workers.bus)
          ])
        : SseHub.layer(options)
  )
)

/** A fresh token for publishers. */
const makeToken = () => randomBytes(18).toString("base64url")

/** Set for workers whose token was made, not chosen. */
const tokenMade = "EFFECT_SSE_TOKEN_MADE"

/** This process only holds the workers, and the log if Redis does not; what is wrong with the settings it says before. */
const supervise = (count: number, settings: Map<string, string>) =>
  Effect.gen(function* () {
    const logger = loggers[yield* readLog]
    const { jwt, publishToken, tls } = yield* SseServer.fromEnv
    const [{ history }, redis] = yield* Config.all([SseConfig.hubFromEnv, SseConfig.redisFromEnv])
    const log = Option.isSome(redis) ? undefined : yield* EventLog.makeMemory(history)
    if (Option.isNone(publishToken) && jwt === undefined) {
      settings.set("SSE_PUBLISH_TOKEN", makeToken())
      settings.set(tokenMade, "yes")
    }
    const env = Object.fromEntries(settings)
    const code = yield* Effect.provide(Workers.run(count, log, env, tls !== undefined), logger)
    // The worker has said why.
    yield* Effect.sync(() => (process.exitCode = code))
  })

/** Loaded when it is needed: its package may not be installed. */
const jwtHooks = (options: JwtOptions) =>
  Effect.map(
    Effect.tryPromise({
      try: () => import("./Authorize/Jwt.js"),
      catch: (error) => new Usage(`JWTs need the package jose (npm install jose): ${String(error)}`)
    }),
    (Jwt) => Jwt.make(options)
  )

const serve = (withDemo: boolean) =>
  Effect.gen(function* () {
    const log = yield* readLog
    const { jwt: jwtOptions, publishToken, ...config } = yield* SseServer.fromEnv
    const jwt = jwtOptions === undefined ? undefined : yield* jwtHooks(jwtOptions)
    const token = Option.getOrElse(publishToken, () => Redacted.make(makeToken()))
    const byToken = tokens({ publisher: token })
    const stores = Workers.isWorker ? yield* Workers.stores : {}
    const server = SseServer.layer({
      ...config,
      ...stores,
      subscribe: jwt?.subscribe,
      publish:
        jwt === undefined
          ? byToken
          : Option.isNone(publishToken)
            ? jwt.publish
            : (request, namespaces) =>
                Effect.orElse(byToken(request, namespaces), () => jwt.publish(request, namespaces))
    })
    // A token the operator chose is known to them and stays out of the output.
    const shown =
      Option.isSome(publishToken) && process.env[tokenMade] === undefined
        ? "$SSE_PUBLISH_TOKEN"
        : jwt === undefined
          ? Redacted.value(token)
          : "$TOKEN"
    const tls = config.tls !== undefined
    const tell = log === "json" ? started(shown, tls) : banner(shown, jwt !== undefined, withDemo, config.admin, tls)
    const main = Effect.zipRight(
      Effect.zipRight(Workers.allListen, tell),
      withDemo && (!Workers.isWorker || Workers.isFirst) ? demo : Effect.never,
      { concurrent: true }
    ).pipe(Workers.isWorker ? Effect.raceFirst(Workers.stopped) : identity)
    yield* main.pipe(
      Effect.provide(Layer.provideMerge(server, hubLayer).pipe(Layer.provideMerge(loggers[log]))),
      Workers.isWorker ? Effect.ensuring(Workers.leave) : identity
    )
  }).pipe(Effect.scoped)

/** An empty setting is none; but one that keeps people out must not let them in because it got lost on its way. */
const keepsOut = /^SSE_JWT_(?:SECRET|JWKS_URL)$/

const main = Effect.gen(function* () {
  const { positionals, values } = yield* readArguments
  if (values.help) return yield* Console.log(usage)
  if (positionals.length !== 1 || positionals[0] !== "serve") return yield* Effect.fail(new Usage(`\n${usage}`))
  const settings = new Map(
    Object.entries(process.env).flatMap(([name, value = ""]) =>
      value === "" && !keepsOut.test(name) ? [] : [[name, value]]
    )
  )
  if (values.host !== undefined) settings.set("SSE_HOST", values.host)
  if (values.port !== undefined) settings.set("SSE_PORT", values.port)
  const workers = values.workers ?? "1"
  if (!/^[1-9]\d{0,2}$/.test(workers)) return yield* Effect.fail(new Usage("--workers takes a number from 1 to 999"))
  yield* Effect.withConfigProvider(
    workers === "1" || Workers.isWorker ? serve(values.demo) : supervise(Number(workers), settings),
    ConfigProvider.fromMap(settings)
  )
})

const describe = (error: unknown): string | undefined => {
  if (error instanceof Usage) return error.message
  if (ConfigError.isConfigError(error)) return String(error)
  if (error instanceof EventLogError) return `Redis: ${error.reason}`
  if (typeof error !== "object" || error === null || !("_tag" in error)) return undefined
  if (error instanceof TlsError) return error.message
  if (error._tag !== "ServeError" || !("cause" in error)) return undefined
  const cause = error.cause
  if (!(cause instanceof Error)) return undefined
  return "code" in cause && cause.code === "EADDRINUSE"
    ? `the port is taken: ${cause.message}. Choose another with --port or SSE_PORT`
    : `cannot listen: ${cause.message}`
}

NodeRuntime.runMain(
  Effect.tapErrorCause(main, (cause) => {
    if (Cause.isInterruptedOnly(cause)) return Effect.void
    const failure = Cause.failureOption(cause)
    const known = Option.flatMapNullable(failure, describe)
    return Option.isSome(known) ? Console.error(`effect-sse: ${known.value}`) : Effect.logError(cause)
  }),
  // The format is SSE_LOG's to choose, not the terminal's.
  { disableErrorReporting: true, disablePrettyLogger: true }
)
