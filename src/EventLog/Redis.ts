/**
 * The log on Redis 7 or later, or Valkey: one stream that all nodes append to and read, so that every client of every node
 * sees one order, and can resume on any of them; or several, in shards. Needs the package `ioredis`.
 *
 * @since 0.1.0
 */
import * as Config from "effect/Config"
import type { ConfigError } from "effect/ConfigError"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Random from "effect/Random"
import * as Redacted from "effect/Redacted"
import type * as Scope from "effect/Scope"
import { Redis, type RedisOptions } from "ioredis"
import { EventLog, type NewEntry } from "../EventLog.js"
import { pause } from "../internal/eventLoop.js"
import * as RedisHistory from "../internal/redis/history.js"
import * as Life from "../internal/redis/life.js"
import * as Link from "../internal/redis/link.js"
import type { Kind } from "../internal/redis/position.js"
import * as Reader from "../internal/redis/reader.js"
import { Recent } from "../internal/redis/recent.js"
import * as Scripts from "../internal/redis/scripts.js"
import * as Writer from "../internal/redis/writer.js"
import * as Shards from "../internal/shards.js"
import * as Pattern from "../NamespacePattern.js"
import { EventLogError } from "../SseError.js"

/**
 * What is kept of the namespaces that a pattern covers. Unlike in memory, a rule has no bounds of its own: all events share
 * one stream.
 *
 * @since 0.1.0
 * @category models
 */
export interface HistoryRule {
  /** A namespace or a pattern such as `/rooms/*`; see `NamespacePattern`. It covers all below. */
  readonly namespace: string
  /**
   * - `events`: the events, so that clients can resume
   * - `latest`: the events, and the last one of each namespace as its value: whoever subscribes anew gets it at once
   * - `nothing`: such events carry no id, and are missed by those who are away. They pass through the stream, and count there
   */
  readonly keep: "events" | "latest" | "nothing"
}

/**
 * How much is kept. A stream cannot be bounded in bytes.
 *
 * @since 0.1.0
 * @category models
 */
export interface HistoryOptions {
  /** Events; Redis keeps up to some hundred more. Default: 100,000. */
  readonly maxEvents?: number | undefined
  /** How long an event is kept. Default: as long as `maxEvents` allows. */
  readonly maxAge?: Duration.DurationInput | undefined
  /** Namespaces whose latest value is kept; the one that has not changed for longest goes first. Default: 10,000. */
  readonly maxValues?: number | undefined
  /** Exceptions: the first rule that covers a namespace holds. All nodes must have the same. */
  readonly rules?: ReadonlyArray<HistoryRule> | undefined
}

/**
 * Options of the log on Redis.
 *
 * @since 0.1.0
 * @category models
 */
export interface RedisLogOptions {
  /** `redis://user:password@host:6379/0`, or `rediss://` for TLS. Default: `redis://127.0.0.1:6379`. */
  readonly url?: string | Redacted.Redacted<string> | undefined
  /**
   * More options of `ioredis`, such as `sentinels`, `tls` or `username`. How connections are retried, and what is queued, is
   * this log's to decide.
   */
  readonly redis?: RedisOptions | undefined
  /** What the names of all keys begin with, in braces. Logs that share a Redis need one each. Default: `effect-sse`. */
  readonly prefix?: string | undefined
  /** How much is kept. All nodes should have the same. With several shards: in each of them. */
  readonly history?: HistoryOptions | undefined
  /**
   * How long a publish may wait for Redis; then it fails with `EventLogError`. 0: it fails at once when there is no connection.
   * Default: 5 seconds.
   */
  readonly publishTimeout?: Duration.DurationInput | undefined
  /** How long an answer of Redis may take; then the connection is given up, and another one made. Default: 3 seconds. */
  readonly answerTimeout?: Duration.DurationInput | undefined
  /** How long the first connection may take until the log is made, or fails. Default: 10 seconds. */
  readonly startTimeout?: Duration.DurationInput | undefined
  /**
   * Streams over which namespaces are spread, 1 to 64, by their first segments. A node reads those to whose namespaces somebody
   * listens there. All nodes must have the same number, which is kept in Redis; to change it, take another `prefix`. Default: 1.
   */
  readonly shards?: number | undefined
  /** Segments of a namespace that tell its shard, 1 to 8. Default: 1, so that `/rooms/7` and all of `/rooms` are in one shard. */
  readonly shardDepth?: number | undefined
  /** How long a shard is still read when nobody listens to it any more. Default: 30 seconds. */
  readonly shardLinger?: Duration.DurationInput | undefined
  /**
   * Some servers of a Redis Cluster, of which one must be there; the others are found. Of `url`, only user, password and
   * `rediss:` count then. Default: none, it is no cluster.
   */
  readonly cluster?: ReadonlyArray<{ readonly host: string; readonly port: number }> | undefined
}

/**
 * A log on Redis. It holds two connections: one that waits for entries, and one for all else. With several shards, one waits in
 * each of those that are read; in a cluster, each shard has one for all else as well.
 *
 * - An append of several events is one step of Redis, whole or not at all. Sent again after a lost connection, it is still
 *   done once.
 * - While Redis is away, publishes wait up to `publishTimeout`; reading goes on where it was when it is back.
 * - When it comes back without what it had (emptied, or a replica that lacked the end), a new life of the log begins: clients
 *   are told by an `sse-reset`, and positions from before are `restarted`.
 * - A client that is behind the oldest event that is kept is told `expired`, whatever it listens to: what was dropped is not
 *   known here.
 *
 * With several `shards`:
 *
 * - Order is that of a shard: of what is published to namespaces that begin alike, all clients see one order. Those who listen to
 *   several shards get each of them in its order, mixed as it comes. They are: `/`, and patterns with a wildcard in front.
 * - A publish of several events is whole, or not at all, in each shard. If it fails in some, its `outcome` is `partial`.
 * - The id that a client of one shard gets is about as long as that of one stream (25 characters); that of a client of
 *   several has as much for each shard that the node reads. Neither can be continued with namespaces of other shards: that is
 *   `unknown`. So is a publisher's own id, for who listens to several.
 * - The newest events (`since=10`) of several shards are the newest by the clock of Redis.
 *
 * @throws Error as a defect, if a bound makes no sense; `InvalidNamespace` for a rule's pattern
 * @since 0.1.0
 * @category constructors
 */
export const make = (options: RedisLogOptions = {}): Effect.Effect<EventLog["Type"], EventLogError, Scope.Scope> =>
  Effect.gen(function* () {
    const { history = {}, prefix = "effect-sse" } = options
    const maxAge = atLeast("history.maxAge", 1, Duration.toMillis(history.maxAge ?? Duration.infinity))
    const rules = (history.rules ?? []).map(({ keep, namespace }) => ({ keep, pattern: Pattern.make(namespace) }))
    const shards = whole("shards", maxShards, options.shards ?? 1)
    const depth = whole("shardDepth", maxDepth, options.shardDepth ?? 1)
    const settings: Settings = {
      maxEvents: atLeast("history.maxEvents", 1, history.maxEvents ?? 100_000),
      maxValues: atLeast("history.maxValues", 1, history.maxValues ?? 10_000),
      maxAge,
      age: maxAge === Infinity ? 0 : Math.ceil(maxAge),
      answerMillis: atLeast("answerTimeout", 1, Duration.toMillis(options.answerTimeout ?? "3 seconds")),
      waitMillis: atLeast("publishTimeout", 0, Duration.toMillis(options.publishTimeout ?? "5 seconds")),
      hasLatest: rules.some(({ keep }) => keep === "latest"),
      kindOf: kindsOf(rules),
      backlog: { events: 0, length: 0 },
      recentLength: Math.max(maxRecentLength / shards, maxRecentLength / 16),
      connect: connections(options)
    }
    const startMillis = Duration.toMillis(options.startTimeout ?? "10 seconds")
    const lingerMillis = atLeast("shardLinger", 0, Duration.toMillis(options.shardLinger ?? "30 seconds"))

    const started = (link: Link.Link) =>
      Effect.zipRight(
        Effect.raceFirst(link.up, pause(startMillis)),
        Effect.suspend(() => {
          const now = link.problem()
          return now === undefined ? Effect.void : Effect.fail(failed("tail")(now))
        })
      )
    yield* agree(
      prefix,
      depth === 1 || shards === 1 ? `${shards}` : `${shards} by ${depth} segments`,
      settings,
      started
    )

    const writer = (yield* Random.nextIntBetween(0, 36 ** 6)).toString(36) + (yield* unique)
    const made = Array.from({ length: shards }, (_, shard) => {
      const keys = Scripts.keysOf(shards === 1 ? prefix : `${prefix}:${shard}`, writer)
      return { keys, life: Life.make(keys) }
    })
    const commandsOf = (shards: typeof made) =>
      Link.make(settings.connect("commands"), settings.answerMillis, (run) =>
        Effect.forEach(shards, ({ life }) => life.reopen(run), { concurrency: "unbounded", discard: true })
      )
    // In a cluster each shard may be on another server.
    const shared = options.cluster === undefined ? yield* commandsOf(made) : undefined
    const [first, ...rest] = yield* Effect.forEach(
      made,
      (one) =>
        Effect.gen(function* () {
          const commands = shared ?? (yield* commandsOf([one]))
          yield* started(commands)
          return yield* shardOf(one, commands, settings, shards === 1 ? startMillis : settings.answerMillis)
        }),
      { concurrency: "unbounded" }
    )
    if (shards === 1) return yield* Effect.as(first!.read, first!.log)
    return yield* Shards.make([first!.log, ...rest.map(({ log }) => log)], { depth, lingerMillis })
  })

interface Settings {
  readonly maxEvents: number
  readonly maxValues: number
  readonly maxAge: number
  /** The same as Redis takes it: whole ms, or 0. */
  readonly age: number
  readonly answerMillis: number
  readonly waitMillis: number
  readonly hasLatest: boolean
  readonly kindOf: (entry: NewEntry) => Kind
  readonly backlog: Writer.Backlog
  readonly recentLength: number
  readonly connect: ReturnType<typeof connections>
}

const failed =
  (operation: "append" | "tail" | "since") =>
  ({ reason }: { readonly reason: string }) =>
    new EventLogError({ operation, reason })

/** Refuses to go on with other shards than the other nodes have: it would publish where they do not read. */
const agree = (
  prefix: string,
  wanted: string,
  { answerMillis, connect }: Settings,
  started: (link: Link.Link) => Effect.Effect<void, EventLogError>
): Effect.Effect<void, EventLogError> =>
  Effect.gen(function* () {
    let found = wanted
    const link = yield* Link.make(connect("start"), answerMillis, (run) =>
      Effect.map(
        run((redis) => redis.call("set", [Scripts.shardsKey(prefix), wanted, "NX", "GET"])),
        (answer) => void (found = (answer as string | null) ?? wanted)
      )
    )
    yield* started(link)
    if (found === wanted) return
    const reason = `the number of shards is ${wanted} here, and ${found} in the log "${prefix}": all nodes must have the same`
    return yield* new EventLogError({ operation: "tail", reason })
  }).pipe(Effect.scoped)

/** One stream, with all that belongs to it; and what makes it read though nobody listens. */
const shardOf = (
  { keys, life }: { readonly keys: Scripts.Keys; readonly life: Life.Life },
  commands: Link.Link,
  settings: Settings,
  readMillis: number
) =>
  Effect.gen(function* () {
    const { age, answerMillis, backlog, hasLatest, kindOf, maxAge, maxEvents, maxValues, waitMillis } = settings
    const recent = new Recent(Math.min(maxEvents, 8192), settings.recentLength, maxAge, yield* Effect.clock)
    const reader = yield* Reader.make(
      Link.make(settings.connect("reader"), answerMillis, (run) => Effect.asVoid(life.reopen(run))),
      readMillis,
      life,
      keys,
      recent,
      hasLatest ? maxValues : 0
    )
    const writer = yield* Writer.make(commands, life, {
      keys,
      kindOf,
      maxEvents,
      maxAge: age,
      maxValues,
      waitMillis,
      backlog,
      room: Effect.suspend(() => reader.caughtUp(life.known().n - Math.min(maxUnread, maxEvents / 4)))
    })
    const log = EventLog.of({
      append: writer.append,
      tail: (tail) => Effect.mapError(reader.tail(tail), failed("tail")),
      history: RedisHistory.make(commands, life, keys, recent, reader, hasLatest, failed("since")),
      size: commands
        .run((redis) => Scripts.size(redis, [keys.meta, keys.stream], [age]))
        .pipe(Effect.map(Number), Effect.mapError(failed("since"))),
      health: Effect.sync(() => {
        const now = reader.problem() ?? commands.problem()
        return now === undefined
          ? { status: "ok" }
          : { status: "degraded", reason: `Redis: ${now.reason}`, since: now.since }
      }),
      settled: Effect.suspend(() => reader.caughtUp(life.known().n))
    })
    return { log, read: Effect.mapError(reader.read, failed("tail")) }
  })

const kindsOf = (
  rules: ReadonlyArray<{ readonly keep: HistoryRule["keep"]; readonly pattern: Pattern.NamespacePattern }>
): ((entry: NewEntry) => Kind) => {
  const ruled = new Map<string, Kind>()
  const kinds = { events: "t", latest: "v", nothing: "x" } as const
  return ({ namespace }) => {
    if (rules.length === 0) return "t"
    let kind = ruled.get(namespace)
    if (kind === undefined) {
      const rule = rules.find(({ pattern }) => Pattern.matches(pattern, namespace))
      kind = kinds[rule?.keep ?? "events"]
      if (ruled.size >= 4096) ruled.clear()
      ruled.set(namespace, kind)
    }
    return kind
  }
}

/** A position of all of them must still be an id that a browser sends. */
const maxShards = 64
const maxDepth = 8

/** Characters of entries that are kept in this process, in all shards. */
const maxRecentLength = 8 * 1024 * 1024

/** Entries that a node may have to read before it appends more. */
const maxUnread = 16_384

const unique = Effect.map(Effect.clock, (clock) => clock.unsafeCurrentTimeMillis().toString(36))

const atLeast = (name: string, min: number, value: number): number => {
  if (!(value >= min)) throw new Error(`${name} is ${value}; it must be at least ${min}`)
  return value
}

const whole = (name: string, max: number, value: number): number => {
  if (!(Number.isInteger(value) && value >= 1 && value <= max)) {
    throw new Error(`${name} is ${value}; it must be a whole number from 1 to ${max}`)
  }
  return value
}

/** Connections for one purpose: to one server, or to where a cluster says, first to one of those that are known. */
const connections =
  ({ cluster, redis, url = "redis://127.0.0.1:6379" }: RedisLogOptions) =>
  (what: string) => {
    const settings: RedisOptions = {
      connectionName: `effect-sse-${what}`,
      keepAlive: 10_000,
      disconnectTimeout: 500,
      ...redis,
      lazyConnect: true,
      // A lost connection is seen, and another one made, by the one who uses it; nothing is queued or sent again unasked.
      retryStrategy: () => null,
      enableOfflineQueue: false,
      autoResendUnfulfilledCommands: false,
      maxRetriesPerRequest: 0,
      enableAutoPipelining: false
    }
    const text = Redacted.isRedacted(url) ? Redacted.value(url) : url
    let asked = 0
    return (at: Link.Address | undefined): Redis => {
      if (cluster !== undefined && cluster.length > 0) {
        const { host, port } = at ?? cluster[asked++ % cluster.length]!
        return new Redis({ ...credentials(text), ...settings, host, port })
      }
      return redis?.host !== undefined || redis?.path !== undefined || redis?.sentinels !== undefined
        ? new Redis(settings)
        : new Redis(text, settings)
    }
  }

/** What a URL says but for where. */
const credentials = (text: string): RedisOptions => {
  const { password, protocol, username } = new URL(text)
  return {
    ...(username === "" ? {} : { username: decodeURIComponent(username) }),
    ...(password === "" ? {} : { password: decodeURIComponent(password) }),
    ...(protocol === "rediss:" ? { tls: {} } : {})
  }
}

/**
 * The log as a layer. See {@link make}.
 *
 * @since 0.1.0
 * @category layers
 * @example
 * ```ts
 * import { SseHub } from "effect-sse"
 * import * as RedisLog from "effect-sse/EventLog/Redis"
 * import { Layer } from "effect"
 *
 * const HubLayer = SseHub.layerWithLog().pipe(
 *   Layer.provide(RedisLog.layer({ url: "redis://127.0.0.1:6379", prefix: "shop", history: { maxAge: "1 hour" } }))
 * )
 * ```
 */
export const layer = (options?: RedisLogOptions): Layer.Layer<EventLog, EventLogError> =>
  Layer.scoped(EventLog, make(options))

/**
 * As {@link layer}, with the options read by `Config`.
 *
 * @since 0.1.0
 * @category layers
 */
export const layerConfig = (
  options: Config.Config.Wrap<RedisLogOptions>
): Layer.Layer<EventLog, EventLogError | ConfigError> => Layer.unwrapEffect(Effect.map(Config.unwrap(options), layer))
