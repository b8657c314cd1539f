/**
 * Keepalives: comments sent at times of a `Schedule`, so that proxies keep an idle stream open and a dead peer is noticed.
 *
 * @since 0.1.0
 */
import * as Duration from "effect/Duration"
import * as Schedule from "effect/Schedule"
import * as Stream from "effect/Stream"
import { comment } from "./SseEvent.js"

/**
 * When keepalives are sent: a distance in time, any `Schedule` (counted from each client's connect), or `false` for never.
 *
 * @since 0.1.0
 * @category models
 */
export type Keepalive = Duration.DurationInput | Schedule.Schedule<unknown> | false

/**
 * The bytes of a keepalive: `:keepalive` and a blank line.
 *
 * @since 0.1.0
 * @category constants
 */
export const block: string = comment("keepalive")

/**
 * The `Schedule` of a distance: the first keepalive comes that long after the connect.
 *
 * @since 0.1.0
 * @category conversions
 */
export const toSchedule = (keepalive: Exclude<Keepalive, false>): Schedule.Schedule<unknown> =>
  Schedule.isSchedule(keepalive) ? keepalive : Schedule.fixed(Duration.decode(keepalive))

/**
 * The keepalives of one response. It ends when its schedule does, and is empty for `false`.
 *
 * @since 0.1.0
 * @category conversions
 * @example
 * ```ts
 * import { Keepalive } from "effect-sse"
 * import { Schedule } from "effect"
 *
 * const calm = Keepalive.stream("15 seconds")
 * const eagerAtFirst = Keepalive.stream(
 *   Schedule.exponential("1 second").pipe(Schedule.union(Schedule.spaced("15 seconds")))
 * )
 * ```
 */
export const stream = (keepalive: Keepalive): Stream.Stream<string> =>
  keepalive === false ? Stream.empty : Stream.fromSchedule(toSchedule(keepalive)).pipe(Stream.as(block))

/**
 * The time between two keepalives in ms; `undefined` where there is none, or a schedule decides.
 *
 * @since 0.1.0
 * @category getters
 */
export const millis = (keepalive: Keepalive): number | undefined =>
  keepalive === false || Schedule.isSchedule(keepalive) ? undefined : Duration.toMillis(keepalive)
