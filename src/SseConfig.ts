/**
 * Options of the hub: documented fields, their defaults, and how they are read from the environment.
 *
 * @since 0.1.0
 */
import * as Config from "effect/Config"
import * as ConfigError from "effect/ConfigError"
import * as Duration from "effect/Duration"
import * as Either from "effect/Either"
import * as Schedule from "effect/Schedule"
import type { Keepalive } from "./Keepalive.js"
import { defaultMaxBytes } from "./Namespace.js"

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
  /** How long anything may wait for one client before its connection is ended. Default: 30 seconds. */
  readonly stallTimeout?: Duration.DurationInput | undefined
  /** Events that may wait for one in-process subscriber; with more its stream fails. Default: 16,384. */
  readonly maxPendingEvents?: number | undefined
  /**
   * On shutdown each client is told, in a last `retry:`, to come back after a time drawn from this range, so that not all
   * come back at once. Default: 1 to 5 seconds. `false`: clients are told nothing.
   */
  readonly shutdownRetry?: readonly [min: Duration.DurationInput, max: Duration.DurationInput] | false | undefined
  /** Longest namespace in bytes. Default: 2,048. */
  readonly maxNamespaceBytes?: number | undefined
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
}

/**
 * Fills in the defaults.
 *
 * @throws Error if an option is out of its range
 * @since 0.1.0
 * @category conversions
 */
export const hubSettings = (options: HubOptions = {}): HubSettings => {
  const retry = options.shutdownRetry ?? (["1 second", "5 seconds"] as const)
  const maxPendingBytes = atLeast("maxPendingBytes", 1, options.maxPendingBytes ?? 1024 * 1024)
  const settings: HubSettings = {
    keepalive: options.keepalive ?? "15 seconds",
    maxPendingBytes,
    maxEventBytes: maxPendingBytes + 1024,
    stallMillis: atLeast("stallTimeout", 10, Duration.toMillis(options.stallTimeout ?? "30 seconds")),
    maxPendingEvents: atLeast("maxPendingEvents", 1, options.maxPendingEvents ?? 16_384),
    shutdownRetryMillis: retry === false ? undefined : [Duration.toMillis(retry[0]), Duration.toMillis(retry[1])],
    maxNamespaceBytes: atLeast("maxNamespaceBytes", 1, options.maxNamespaceBytes ?? defaultMaxBytes)
  }
  if (settings.keepalive !== false && !Schedule.isSchedule(settings.keepalive)) {
    atLeast("keepalive", 100, Duration.toMillis(settings.keepalive))
  }
  const range = settings.shutdownRetryMillis
  if (range !== undefined && !(range[0] >= 0 && range[0] <= range[1] && range[1] < 2 ** 31)) {
    throw new Error("shutdownRetry must be a range of times, the shorter one first")
  }
  return settings
}

const atLeast = (name: string, min: number, value: number): number => {
  if (!(value >= min && Number.isFinite(value))) throw new Error(`${name} is ${value}; it must be at least ${min}`)
  return value
}

const positive = (name: string, what: string): Config.Config<number> =>
  Config.integer(name).pipe(
    Config.validate({ message: "must be at least 1", validation: (value) => value >= 1 }),
    Config.withDescription(what)
  )

/**
 * Reads `SSE_KEEPALIVE`, `SSE_MAX_PENDING_BYTES` and `SSE_STALL_TIMEOUT`. What is not set keeps its default.
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
  maxPendingBytes: positive("SSE_MAX_PENDING_BYTES", "bytes that may wait for one client").pipe(
    Config.withDefault(undefined)
  ),
  stallTimeout: Config.duration("SSE_STALL_TIMEOUT").pipe(
    Config.validate({
      message: "must be a time of at least 100 ms",
      validation: (timeout) => Duration.isFinite(timeout) && Duration.toMillis(timeout) >= 100
    }),
    Config.withDefault(undefined),
    Config.withDescription("how long anything may wait for one client")
  )
})
