/**
 * The log on Redis 7 or later, or Valkey: one stream that all nodes append to and read, so that every client of every node
 * sees one order, and can resume on any of them. Needs the package `ioredis`.
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
import { pause } from "../internal/eventLoop.js"
import { connection } from "../internal/redis/connection.js"
import * as RedisHistory from "../internal/redis/history.js"
import * as Life from "../internal/redis/life.js"
import * as Link from "../internal/redis/link.js"
import type { Kind } from "../internal/redis/position.js"
import * as Reader from "../internal/redis/reader.js"
import { Recent } from "../internal/redis/recent.js"
import * as Scripts from "../internal/redis/scripts.js"
import * as Writer from "../internal/redis/writer.js"
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
  /** How much is kept. All nodes should have the same. */
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
}

/**
 * A log on Redis. It holds two connections: one that waits for entries, and one for all else.
 *
 * - An append of several events is one step of Redis, whole or not at all. Sent again after a lost connection, it is still
 *   done once.
 * - While Redis is away, publishes wait up to `publishTimeout`; reading goes on where it was when it is back.
 * - When it comes back without what it had (emptied, or a replica that lacked the end), a new life of the log begins: clients
 *   are told by an `sse-reset`, and positions from before are `restarted`.
 * - A client that is behind the oldest event that is kept is told `expired`, whatever it listens to: what was dropped is not
 *   known here.
 *
 * @throws Error as a defect, if a bound makes no sense; `InvalidNamespace` for a rule's pattern
 * @since 0.1.0
 * @category constructors
 */
export const make = (options: RedisLogOptions = {}): Effect.Effect<EventLog["Type"], EventLogError, Scope.Scope> =>
  Effect.gen(function* () {
    const { history = {} } = options
    const maxEvents = atLeast("history.maxEvents", 1, history.maxEvents ?? 100_000)
    const maxValues = atLeast("history.maxValues", 1, history.maxValues ?? 10_000)
    const maxAge = atLeast("history.maxAge", 1, Duration.toMillis(history.maxAge ?? Duration.infinity))
    const age = maxAge === Infinity ? 0 : Math.ceil(maxAge)
    const answerMillis = atLeast("answerTimeout", 1, Duration.toMillis(options.answerTimeout ?? "3 seconds"))
    const waitMillis = atLeast("publishTimeout", 0, Duration.toMillis(options.publishTimeout ?? "5 seconds"))
    const rules = (history.rules ?? []).map(({ keep, namespace }) => ({ keep, pattern: Pattern.make(namespace) }))
    const hasLatest = rules.some(({ keep }) => keep === "latest")

    const name = (yield* Random.nextIntBetween(0, 36 ** 6)).toString(36) + (yield* unique)
    const keys = Scripts.keysOf(options.prefix ?? "effect-sse", name)
    const life = Life.make(keys)
    const onOpen = (run: Link.Link["run"]) => Effect.asVoid(life.reopen(run))
    const commands = yield* Link.make(() => connection(options, "commands"), answerMillis, onOpen)
    const reading = yield* Link.make(() => connection(options, "reader"), answerMillis, onOpen)

    const failed =
      (operation: "append" | "tail" | "since") =>
      ({ reason }: { readonly reason: string }) =>
        new EventLogError({ operation, reason })
    const problem = () => reading.problem() ?? commands.problem()

    yield* Effect.zipRight(commands.up, reading.up).pipe(
      Effect.raceFirst(pause(Duration.toMillis(options.startTimeout ?? "10 seconds"))),
      Effect.zipRight(
        Effect.suspend(() => {
          const now = problem()
          return now === undefined ? Effect.void : Effect.fail(failed("tail")(now))
        })
      )
    )

    const recent = new Recent(Math.min(maxEvents, 8192), maxAge, yield* Effect.clock)
    const end = yield* Effect.mapError(life.reopen(reading.run), failed("tail"))
    const reader = yield* Effect.mapError(
      Reader.make(reading, life, keys, recent, end, hasLatest ? maxValues : 0),
      failed("tail")
    )
    const ruled = new Map<string, Kind>()
    const kinds = { events: "t", latest: "v", nothing: "x" } as const
    const writer = yield* Writer.make(commands, life, {
      keys,
      kindOf: ({ namespace }) => {
        if (rules.length === 0) return "t"
        let kind = ruled.get(namespace)
        if (kind === undefined) {
          const rule = rules.find(({ pattern }) => Pattern.matches(pattern, namespace))
          kind = kinds[rule?.keep ?? "events"]
          if (ruled.size >= 4096) ruled.clear()
          ruled.set(namespace, kind)
        }
        return kind
      },
      maxEvents,
      maxAge: age,
      maxValues,
      waitMillis,
      room: Effect.suspend(() => reader.caughtUp(life.known().n - Math.min(maxUnread, maxEvents / 4)))
    })

    return EventLog.of({
      append: writer.append,
      tail: reader.tail,
      history: RedisHistory.make(commands, life, keys, recent, reader, hasLatest, failed("since")),
      size: commands
        .run((redis) => Scripts.size(redis, [keys.meta, keys.stream], [age]))
        .pipe(Effect.map(Number), Effect.mapError(failed("since"))),
      health: Effect.sync(() => {
        const now = problem()
        return now === undefined
          ? { status: "ok" }
          : { status: "degraded", reason: `Redis: ${now.reason}`, since: now.since }
      }),
      settled: Effect.suspend(() => reader.caughtUp(life.known().n))
    })
  })

/** Entries that a node may have to read before it appends more. */
const maxUnread = 16_384

const unique = Effect.map(Effect.clock, (clock) => clock.unsafeCurrentTimeMillis().toString(36))

const atLeast = (name: string, min: number, value: number): number => {
  if (!(value >= min)) throw new Error(`${name} is ${value}; it must be at least ${min}`)
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
