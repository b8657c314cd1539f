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
import type * as Redacted from "effect/Redacted"
import type * as Scope from "effect/Scope"
import type { RedisOptions } from "ioredis"
import { EventLog } from "../EventLog.js"
import { atLeast } from "../internal/atLeast.js"
import { pause } from "../internal/eventLoop.js"
import * as Connections from "../internal/redis/connections.js"
import * as Life from "../internal/redis/life.js"
import * as Link from "../internal/redis/link.js"
import * as Scripts from "../internal/redis/scripts.js"
import * as Shard from "../internal/redis/shard.js"
import * as Shards from "../internal/shards/shards.js"
import * as Pattern from "../NamespacePattern.js"
import type { EventLogError } from "../SseError.js"

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
 * - The last events (`since=10`) of several shards are the newest by the clock of Redis, 1,000 at most.
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
    const settings: Shard.Settings = {
      maxEvents: atLeast("history.maxEvents", 1, history.maxEvents ?? 100_000),
      maxValues: atLeast("history.maxValues", 1, history.maxValues ?? 10_000),
      maxAge,
      age: maxAge === Infinity ? 0 : Math.ceil(maxAge),
      answerMillis: atLeast("answerTimeout", 1, Duration.toMillis(options.answerTimeout ?? "3 seconds")),
      waitMillis: atLeast("publishTimeout", 0, Duration.toMillis(options.publishTimeout ?? "5 seconds")),
      hasLatest: rules.some(({ keep }) => keep === "latest"),
      kindOf: Shard.kindsOf(rules),
      backlog: { events: 0, length: 0 },
      recentLength: Math.max(maxRecentLength / shards, maxRecentLength / 16),
      connect: Connections.make(options)
    }
    const startMillis = Duration.toMillis(options.startTimeout ?? "10 seconds")
    const lingerMillis = atLeast("shardLinger", 0, Duration.toMillis(options.shardLinger ?? "30 seconds"))

    const started = (link: Link.Link) =>
      Effect.zipRight(
        Effect.raceFirst(link.up, pause(startMillis)),
        Effect.suspend(() => {
          const now = link.problem()
          return now === undefined ? Effect.void : Effect.fail(Shard.failed("tail")(now))
        })
      )
    yield* Shard.agree(
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
          return yield* Shard.make(one, commands, settings, shards === 1 ? startMillis : settings.answerMillis)
        }),
      { concurrency: "unbounded" }
    )
    if (shards === 1) return yield* Effect.as(first!.read, first!.log)
    return yield* Shards.make([first!.log, ...rest.map(({ log }) => log)], { depth, lingerMillis })
  })

/** A position of all of them must still be an id that a browser sends. */
const maxShards = 64
const maxDepth = 8

/** Characters of entries that are kept in this process, in all shards. */
const maxRecentLength = 8 * 1024 * 1024

const unique = Effect.map(Effect.clock, (clock) => clock.unsafeCurrentTimeMillis().toString(36))

const whole = (name: string, max: number, value: number): number => {
  if (!(Number.isInteger(value) && value >= 1 && value <= max)) {
    throw new Error(`${name} is ${value}; it must be a whole number from 1 to ${max}`)
  }
  return value
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
