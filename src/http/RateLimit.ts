/**
 * A token bucket: so many events a second, and what was not used in the last second on top.
 *
 * @internal
 */
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"

/** Takes `events`, or gives how long to wait until there is room, in ms. A batch larger than a second's share needs a full one. */
export type RateLimit = (events: number) => Effect.Effect<number>

export const make = (perSecond: number): RateLimit => {
  if (!(perSecond > 0)) throw new Error(`maxPublishesPerSecond is ${perSecond}; it must be more than 0`)
  if (perSecond === Infinity) return () => Effect.succeed(0)
  let left = perSecond
  let at: number | undefined
  return (events) =>
    Effect.map(Clock.currentTimeMillis, (now) => {
      if (at !== undefined) left = Math.min(perSecond, left + (Math.max(0, now - at) / 1000) * perSecond)
      at = now
      const needed = Math.min(events, perSecond)
      if (left < needed) return Math.ceil(((needed - left) / perSecond) * 1000)
      // A large batch is taken whole, and those behind it wait the longer.
      left -= events
      return 0
    })
}
