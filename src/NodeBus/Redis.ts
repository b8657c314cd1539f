/**
 * The way between nodes on Redis 7 or later, or Valkey: what nodes report and revoke is kept there, what they ask each other
 * goes by its Pub/Sub. Needs the package `ioredis`.
 *
 * @since 0.1.0
 */
import * as Config from "effect/Config"
import type { ConfigError } from "effect/ConfigError"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type * as Scope from "effect/Scope"
import { hostname } from "node:os"
import type { RedisLogOptions } from "../EventLog/Redis.js"
import { pause } from "../internal/eventLoop.js"
import * as Connections from "../internal/redis/connections.js"
import * as Link from "../internal/redis/link.js"
import * as Scripts from "../internal/redis/nodeScripts.js"
import { type Bus, type Member, NodeBus, type NodeOptions, settings } from "../NodeBus.js"
import { NodeBusError } from "../SseError.js"

/**
 * Options of the bus on Redis: where that is, as for the log, and how nodes report. `name` is the host's name by default. Nodes
 * with the same `prefix` know each other.
 *
 * @since 0.1.0
 * @category models
 */
export interface RedisBusOptions
  extends
    NodeOptions,
    Pick<RedisLogOptions, "url" | "redis" | "cluster" | "prefix" | "answerTimeout" | "startTimeout"> {}

/**
 * A bus on Redis. It holds one connection, and each hub that joins one of its own.
 *
 * While Redis is away, each hub goes on by itself and knows no others. What is revoked then is kept by the node, and told when
 * Redis is back. If Redis is emptied, nodes that start later do not know what was revoked before.
 *
 * It waits up to `startTimeout` for its first connection, and then goes on without one, and tries.
 *
 * @throws Error as a defect, if an option is out of its range
 * @since 0.1.0
 * @category constructors
 */
export const make = (options: RedisBusOptions = {}): Effect.Effect<Bus, never, Scope.Scope> =>
  Effect.gen(function* () {
    const chosen = settings(options, hostname())
    const answerMillis = Math.max(1, Duration.toMillis(options.answerTimeout ?? "3 seconds"))
    const keys = Scripts.keysOf(options.prefix ?? "effect-sse")
    const connect = Connections.make(options)
    const commands = yield* Link.make(connect("nodes"), answerMillis, () => Effect.void)
    const failed = Effect.mapError(({ reason }: Link.Failure) => new NodeBusError({ reason: `Redis: ${reason}` }))
    const firstMillis = Duration.toMillis(options.startTimeout ?? "10 seconds")
    yield* Effect.raceFirst(commands.up, pause(firstMillis))

    return {
      ...chosen,
      join: (id, onMessage) =>
        Effect.gen(function* () {
          const own = keys.channelOf(id)
          const subscriber = connect("node")
          const messages = yield* Link.make(
            (at) => {
              const redis = subscriber(at)
              redis.on("message", (_channel, message) => onMessage(message))
              return redis
            },
            answerMillis,
            (run) => Effect.asVoid(run((redis) => redis.subscribe(keys.channel, own)))
          )
          yield* Effect.raceFirst(messages.up, pause(commands.problem() === undefined ? firstMillis : 0))
          // A Redis that hangs must not hold up the end: the report is over by itself.
          yield* Effect.addFinalizer(() =>
            Effect.raceFirst(
              Effect.interruptible(Effect.ignore(commands.run((redis) => redis.hdel(keys.nodes, id)))),
              Effect.interruptible(pause(500))
            )
          )
          return {
            // A node that hears nothing is not one that others can ask: it does not report.
            report: (status, after) =>
              messages
                .run((redis) => redis.ping())
                .pipe(
                  Effect.zipRight(
                    commands.run((redis) =>
                      Scripts.report(redis, [keys.nodes, keys.revoked], [id, status, chosen.expireMillis, after])
                    )
                  ),
                  Effect.map(Scripts.readReport(after)),
                  failed
                ),
            reports: commands
              .run((redis) => Scripts.reports(redis, [keys.nodes], []))
              .pipe(
                Effect.map((reply) => reply as ReadonlyArray<string>),
                failed
              ),
            send: (to, message) =>
              commands
                .run((redis) => redis.publish(to === undefined ? keys.channel : keys.channelOf(to), message))
                .pipe(Effect.asVoid, failed),
            remember: ({ ageMillis, at, principal, rememberMillis }) =>
              commands
                .run((redis) =>
                  Scripts.remember(
                    redis,
                    [keys.revoked],
                    [principal, Math.round(at), Math.round(ageMillis), Math.round(rememberMillis)]
                  )
                )
                .pipe(Effect.asVoid, failed)
          } satisfies Member
        })
    }
  })

/**
 * The bus as a layer. See {@link make}.
 *
 * @since 0.1.0
 * @category layers
 * @example
 * ```ts
 * import { SseHub } from "effect-sse"
 * import * as RedisLog from "effect-sse/EventLog/Redis"
 * import * as RedisBus from "effect-sse/NodeBus/Redis"
 * import { Layer } from "effect"
 *
 * const redis = { url: "redis://127.0.0.1:6379", prefix: "shop" }
 *
 * const HubLayer = SseHub.layerWithLog().pipe(Layer.provide([RedisLog.layer(redis), RedisBus.layer(redis)]))
 * ```
 */
export const layer = (options?: RedisBusOptions): Layer.Layer<NodeBus> => Layer.scoped(NodeBus, make(options))

/**
 * As {@link layer}, with the options read by `Config`.
 *
 * @since 0.1.0
 * @category layers
 */
export const layerConfig = (options: Config.Config.Wrap<RedisBusOptions>): Layer.Layer<NodeBus, ConfigError> =>
  Layer.unwrapEffect(Effect.map(Config.unwrap(options), layer))
