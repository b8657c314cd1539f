/**
 * Options of the hub: documented fields, their defaults, and how they are read from the environment.
 *
 * @since 0.1.0
 */
import * as Config from "effect/Config"
import * as ConfigError from "effect/ConfigError"
import * as Duration from "effect/Duration"
import * as Either from "effect/Either"
import * as Option from "effect/Option"
import * as Redacted from "effect/Redacted"
import * as Schedule from "effect/Schedule"
import type { HistoryOptions, HistoryRule } from "./EventLog.js"
import type { RedisLogOptions } from "./EventLog/Redis.js"
import type { Keepalive } from "./Keepalive.js"
import { defaultMaxBytes } from "./Namespace.js"
import * as NamespacePattern from "./NamespacePattern.js"

/**
 * Options of the hub.
 *
 * @since 0.1.0
 * @category models
 */
export interface HubOptions {
  /** When an idle connection gets a `:keepalive` comment. Default: every 15 seconds. */
  readonly keepalive?: Keepalive | undefined
  /**
   * Bytes that may wait for one client: with more, its connection is ended instead of giving it another event. An event
   * that makes more bytes on the wire than this (and 1 KiB for its other fields) is refused. Default: 1 MiB.
   */
  readonly maxPendingBytes?: number | undefined
  /**
   * How long anything may wait for one client before its connection is ended; with `node/KernelQueue` also how long it may
   * acknowledge nothing of what is under way, so let it be much more than a round trip. Default: 30 seconds.
   */
  readonly stallTimeout?: Duration.DurationInput | undefined
  /** Events that may wait for one in-process subscriber; with more its stream fails. Default: 16,384. */
  readonly maxPendingEvents?: number | undefined
  /**
   * On shutdown each client is told, in a last `retry:`, to come back after a time of its own from this range, so that they
   * come back evenly spread over it. It counts from the end of `drainWindow`. The shorter time should be what a restart
   * takes: a client that comes too early comes again after the same time once more. At least 100 ms; default: 2 to 4
   * seconds. `false`: clients are told nothing.
   */
  readonly shutdownRetry?: readonly [min: Duration.DurationInput, max: Duration.DurationInput] | false | undefined
  /**
   * Clients that come back in a second after a shutdown: for more, the range of `shutdownRetry` is made longer. A server
   * that has just started takes fewer than one that is warm. Default: 1,000.
   */
  readonly maxReturnsPerSecond?: number | undefined
  /** Longest namespace in bytes. Default: 2,048. */
  readonly maxNamespaceBytes?: number | undefined
  /** Clients at the same time. Default: no limit but that of the system. */
  readonly maxClients?: number | undefined
  /** Clients at the same time with one address. Clients without one are not counted. Default: no limit. */
  readonly maxClientsPerAddress?: number | undefined
  /** Clients at the same time that name one namespace. Default: no limit. */
  readonly maxClientsPerNamespace?: number | undefined
  /** Namespaces that one client may name. Default: 100. */
  readonly maxNamespacesPerClient?: number | undefined
  /**
   * What a client gets that is one too many:
   *
   * - `retry`: a stream that tells it when to come back (a time from `shutdownRetry`) and ends. A browser comes back.
   * - `refuse`: 503 with `Retry-After`. A browser's `EventSource` gives up for good.
   * - `evict-oldest`: its place; the oldest client, of the address or namespace if that is what is full, is ended.
   *
   * Default: `retry`.
   */
  readonly whenFull?: "retry" | "refuse" | "evict-oldest" | undefined
  /** Bytes that may wait for all clients together; with more, those for which most waits are ended. Default: 256 MiB. */
  readonly maxTotalPendingBytes?: number | undefined
  /**
   * How long a client may stay, so that clients move to other servers in time: each is ended cleanly between 80 % and 100 %
   * of it. Default: no limit.
   */
  readonly maxLifetime?: Duration.DurationInput | undefined
  /**
   * Time over which clients are ended at shutdown, if they are more than 50, so that they do not come back as one. Default:
   * 1 second.
   */
  readonly drainWindow?: Duration.DurationInput | undefined
  /**
   * What is kept in memory for clients that were away; `true` for the defaults of `EventLog.HistoryOptions`. Events then carry
   * ids. With a log of your own, that decides. Default: `false`, nothing is kept and events carry only ids of publishers.
   */
  readonly history?: HistoryOptions | boolean | undefined
  /**
   * How a client goes on that was told, by an `sse-reset` event, that it cannot have all that it missed: from `now`, or from
   * the `earliest` place from which on nothing is missing. Default: `now`.
   */
  readonly afterReset?: "now" | "earliest" | undefined
}

/**
 * The options of the hub with their defaults filled in, times in ms.
 *
 * @since 0.1.0
 * @category models
 */
export interface HubSettings {
  readonly keepalive: Keepalive
  readonly maxPendingBytes: number
  readonly stallMillis: number
  readonly maxPendingEvents: number
  readonly shutdownRetryMillis: readonly [min: number, max: number] | undefined
  readonly maxNamespaceBytes: number
  readonly maxEventBytes: number
  readonly maxClients: number
  readonly maxClientsPerAddress: number
  readonly maxClientsPerNamespace: number
  readonly maxNamespacesPerClient: number
  readonly whenFull: "retry" | "refuse" | "evict-oldest"
  readonly maxTotalPendingBytes: number
  readonly maxLifetimeMillis: number
  readonly maxReturnsPerSecond: number
  readonly drainMillis: number
  readonly afterReset: "now" | "earliest"
}

/**
 * Fills in the defaults.
 *
 * @throws Error if an option is out of its range
 * @since 0.1.0
 * @category conversions
 */
export const hubSettings = (options: HubOptions = {}): HubSettings => {
  const retry = options.shutdownRetry ?? (["2 seconds", "4 seconds"] as const)
  const maxPendingBytes = atLeast("maxPendingBytes", 1, options.maxPendingBytes ?? 1024 * 1024)
  const settings: HubSettings = {
    keepalive: options.keepalive ?? "15 seconds",
    maxPendingBytes,
    maxEventBytes: maxPendingBytes + 1024,
    stallMillis: atLeast("stallTimeout", 10, Duration.toMillis(options.stallTimeout ?? "30 seconds")),
    maxPendingEvents: atLeast("maxPendingEvents", 1, options.maxPendingEvents ?? 16_384),
    shutdownRetryMillis: retry === false ? undefined : [Duration.toMillis(retry[0]), Duration.toMillis(retry[1])],
    maxNamespaceBytes: atLeast("maxNamespaceBytes", 1, options.maxNamespaceBytes ?? defaultMaxBytes),
    maxClients: limit("maxClients", options.maxClients),
    maxClientsPerAddress: limit("maxClientsPerAddress", options.maxClientsPerAddress),
    maxClientsPerNamespace: limit("maxClientsPerNamespace", options.maxClientsPerNamespace),
    maxNamespacesPerClient: limit("maxNamespacesPerClient", options.maxNamespacesPerClient ?? 100),
    whenFull: options.whenFull ?? "retry",
    maxTotalPendingBytes: atLeast("maxTotalPendingBytes", 1, options.maxTotalPendingBytes ?? 256 * 1024 * 1024),
    maxLifetimeMillis:
      options.maxLifetime === undefined
        ? Infinity
        : atLeast("maxLifetime", 1000, Duration.toMillis(options.maxLifetime)),
    maxReturnsPerSecond: atLeast("maxReturnsPerSecond", 1, options.maxReturnsPerSecond ?? 1000),
    drainMillis: atLeast("drainWindow", 0, Duration.toMillis(options.drainWindow ?? "1 second")),
    afterReset: options.afterReset ?? "now"
  }
  if (settings.keepalive !== false && !Schedule.isSchedule(settings.keepalive)) {
    atLeast("keepalive", 100, Duration.toMillis(settings.keepalive))
  }
  if (settings.drainMillis >= 2 ** 30) throw new Error("drainWindow must be shorter than 12 days")
  const range = settings.shutdownRetryMillis
  if (range !== undefined && !(range[0] >= 100 && range[0] <= range[1] && range[1] < 2 ** 30)) {
    throw new Error("shutdownRetry must be a range of times of at least 100 ms, the shorter one first")
  }
  return settings
}

const atLeast = (name: string, min: number, value: number): number => {
  if (!(value >= min && Number.isFinite(value))) throw new Error(`${name} is ${value}; it must be at least ${min}`)
  return value
}

const limit = (name: string, value: number | undefined): number =>
  value === undefined ? Infinity : atLeast(name, 1, value)

const positive = (name: string, what: string): Config.Config<number> =>
  Config.integer(name).pipe(
    Config.validate({ message: "must be at least 1", validation: (value) => value >= 1 }),
    Config.withDescription(what)
  )

const whole = (name: string, max: number, what: string): Config.Config<number | undefined> =>
  Config.integer(name).pipe(
    Config.validate({ message: `must be from 1 to ${max}`, validation: (value) => value >= 1 && value <= max }),
    Config.withDescription(what),
    optional
  )

const optional = <A>(config: Config.Config<A>): Config.Config<A | undefined> => Config.withDefault(config, undefined)

const time = (name: string, min: number, what: string): Config.Config<Duration.Duration | undefined> =>
  Config.duration(name).pipe(
    Config.validate({
      message: `must be a time of at least ${min} ms`,
      validation: (time) => Duration.isFinite(time) && Duration.toMillis(time) >= min
    }),
    Config.withDescription(what),
    optional
  )

const patterns = Config.string("SSE_LATEST").pipe(
  Config.mapOrFail((text): Either.Either<ReadonlyArray<string>, ConfigError.ConfigError> => {
    const all = text.split(",").map((pattern) => pattern.trim())
    const invalid = all.map((pattern) => NamespacePattern.parse(pattern)).find(Either.isLeft)
    return invalid === undefined
      ? Either.right(all)
      : Either.left(ConfigError.InvalidData(["SSE_LATEST"], invalid.left.message))
  }),
  Config.withDescription("namespaces that keep their latest value"),
  Config.withDefault<ReadonlyArray<string>>([])
)

const historyBounds = Config.all({
  maxEvents: Config.withDefault(
    Config.integer("SSE_HISTORY_EVENTS").pipe(
      Config.validate({ message: "must be at least 0", validation: (value) => value >= 0 }),
      Config.withDescription("events kept for clients that were away")
    ),
    0
  ),
  maxBytes: optional(positive("SSE_HISTORY_BYTES", "bytes of events kept")),
  maxAge: time("SSE_HISTORY_AGE", 1, "how long events are kept"),
  latest: patterns
})

const historyFromEnv: Config.Config<HistoryOptions | undefined> = historyBounds.pipe(
  Config.map(({ latest, maxEvents, ...bounds }) => {
    if (maxEvents === 0 && latest.length === 0) return undefined
    const values = latest.map((namespace): HistoryRule => ({ namespace, keep: "latest" }))
    return maxEvents === 0
      ? { ...bounds, rules: [...values, { namespace: "/", keep: "nothing" }] }
      : { ...bounds, maxEvents, rules: values }
  })
)

/**
 * Reads `SSE_KEEPALIVE`, `SSE_MAX_PENDING_BYTES`, `SSE_MAX_TOTAL_PENDING_BYTES`, `SSE_STALL_TIMEOUT`, `SSE_MAX_CLIENTS`,
 * `SSE_MAX_CLIENTS_PER_ADDRESS`, `SSE_MAX_CLIENTS_PER_NAMESPACE`, `SSE_WHEN_FULL`, `SSE_MAX_LIFETIME`, `SSE_DRAIN`,
 * `SSE_HISTORY_EVENTS` (0 or not set: no history), `SSE_HISTORY_BYTES`, `SSE_HISTORY_AGE`, `SSE_LATEST` (namespaces or patterns
 * that keep their latest value, with commas between), `SSE_AFTER_RESET`, `SSE_SHUTDOWN_RETRY` and
 * `SSE_MAX_RETURNS_PER_SECOND`. What is not set keeps its default.
 *
 * @since 0.1.0
 * @category config
 */
export const hubFromEnv: Config.Config<HubOptions> = Config.all({
  keepalive: Config.string("SSE_KEEPALIVE").pipe(
    Config.mapOrFail((text): Either.Either<Keepalive, ConfigError.ConfigError> => {
      if (text === "off") return Either.right(false)
      const duration = Duration.decodeUnknown(text)
      return duration._tag === "Some" && Duration.toMillis(duration.value) >= 100 && Duration.isFinite(duration.value)
        ? Either.right(duration.value)
        : Either.left(
            ConfigError.InvalidData(["SSE_KEEPALIVE"], `"${text}" is neither "off" nor a time such as "15 seconds"`)
          )
    }),
    Config.withDefault(undefined),
    Config.withDescription("time between keepalives, or off")
  ),
  maxPendingBytes: optional(positive("SSE_MAX_PENDING_BYTES", "bytes that may wait for one client")),
  maxTotalPendingBytes: optional(positive("SSE_MAX_TOTAL_PENDING_BYTES", "bytes that may wait for all clients")),
  stallTimeout: time("SSE_STALL_TIMEOUT", 100, "how long anything may wait for one client"),
  maxClients: optional(positive("SSE_MAX_CLIENTS", "clients at the same time")),
  maxClientsPerAddress: optional(positive("SSE_MAX_CLIENTS_PER_ADDRESS", "clients at the same time with one address")),
  maxClientsPerNamespace: optional(
    positive("SSE_MAX_CLIENTS_PER_NAMESPACE", "clients at the same time that name one namespace")
  ),
  whenFull: optional(
    Config.literal(
      "retry",
      "refuse",
      "evict-oldest"
    )("SSE_WHEN_FULL").pipe(Config.withDescription("what a client gets that is one too many"))
  ),
  maxLifetime: time("SSE_MAX_LIFETIME", 1000, "how long a client may stay"),
  drainWindow: time("SSE_DRAIN", 0, "time over which clients are ended at shutdown"),
  maxReturnsPerSecond: optional(
    positive("SSE_MAX_RETURNS_PER_SECOND", "clients that come back in a second after a shutdown")
  ),
  shutdownRetry: optional(
    Config.string("SSE_SHUTDOWN_RETRY").pipe(
      Config.mapOrFail((text): Either.Either<HubOptions["shutdownRetry"], ConfigError.ConfigError> => {
        if (text === "off") return Either.right(false)
        const times = text.split(" to ").map((part) => Duration.decodeUnknown(part.trim()))
        const [min, max] = times.map((time) => (time._tag === "Some" ? Duration.toMillis(time.value) : Number.NaN))
        return times.length === 2 && min! >= 100 && min! <= max! && max! < 2 ** 30
          ? Either.right([min!, max!])
          : Either.left(
              ConfigError.InvalidData(
                ["SSE_SHUTDOWN_RETRY"],
                `"${text}" is neither "off" nor times such as "2 seconds to 4 seconds"`
              )
            )
      }),
      Config.withDescription("when clients that are ended at shutdown are told to come back, or off")
    )
  ),
  history: historyFromEnv,
  afterReset: optional(
    Config.literal(
      "now",
      "earliest"
    )("SSE_AFTER_RESET").pipe(Config.withDescription("how clients go on that cannot have all that they missed"))
  )
})

const servers = Config.string("SSE_REDIS_CLUSTER").pipe(
  Config.mapOrFail((text): Either.Either<RedisLogOptions["cluster"], ConfigError.ConfigError> => {
    const all = text.split(",").map((one) => /^\s*(?:\[([^\]]+)\]|([^\s:]+)):(\d{1,5})\s*$/.exec(one))
    return all.includes(null)
      ? Either.left(ConfigError.InvalidData(["SSE_REDIS_CLUSTER"], "takes servers such as 10.0.0.1:6379,10.0.0.2:6379"))
      : Either.right(all.map((match) => ({ host: match![1] ?? match![2]!, port: Number(match![3]) })))
  }),
  Config.withDescription("some servers of the Redis Cluster that all nodes share"),
  optional
)

/**
 * Reads `SSE_REDIS_URL` and `SSE_REDIS_CLUSTER` and, if one of them is set, `SSE_REDIS_PREFIX`, `SSE_REDIS_SHARDS`,
 * `SSE_REDIS_SHARD_DEPTH`, `SSE_PUBLISH_TIMEOUT`, `SSE_HISTORY_EVENTS` (0 or not set: what is the default on Redis),
 * `SSE_HISTORY_AGE` and `SSE_LATEST`, for `layer` of `effect-sse/EventLog/Redis`. `SSE_HISTORY_BYTES` is refused: Redis does not
 * bound a stream in bytes.
 *
 * @since 0.1.0
 * @category config
 */
export const redisFromEnv: Config.Config<Option.Option<RedisLogOptions>> = Config.all({
  url: Config.option(
    Config.redacted("SSE_REDIS_URL").pipe(
      Config.validate({
        message: "SSE_REDIS_URL must begin with redis:// or rediss://",
        validation: (url) => /^rediss?:\/\/./.test(Redacted.value(url))
      }),
      Config.withDescription("the Redis that all nodes share")
    )
  ),
  cluster: servers,
  shards: whole("SSE_REDIS_SHARDS", 64, "streams over which namespaces are spread"),
  shardDepth: whole("SSE_REDIS_SHARD_DEPTH", 8, "segments of a namespace that tell its shard"),
  prefix: optional(Config.nonEmptyString("SSE_REDIS_PREFIX").pipe(Config.withDescription("what its keys begin with"))),
  publishTimeout: time("SSE_PUBLISH_TIMEOUT", 0, "how long a publish may wait for Redis"),
  history: historyBounds
}).pipe(
  Config.mapOrFail(({ history, url, ...options }) => {
    if (Option.isNone(url) && options.cluster === undefined) return Either.right(Option.none())
    const { latest, maxAge, maxBytes, maxEvents } = history
    if (maxBytes !== undefined) {
      return Either.left(
        ConfigError.InvalidData(["SSE_HISTORY_BYTES"], "cannot be had on Redis: use SSE_HISTORY_EVENTS")
      )
    }
    const rules = latest.map((namespace) => ({ namespace, keep: "latest" as const }))
    const kept = { maxAge, maxEvents: maxEvents === 0 ? undefined : maxEvents, rules }
    return Either.right(Option.some({ ...options, url: Option.getOrUndefined(url), history: kept }))
  })
)
