/**
 * Which life of the log this is. A new one begins when Redis comes back without something that was in it: emptied, another
 * log in its place, or a replica that had not got all.
 *
 * @internal
 */
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Random from "effect/Random"
import type { Failure, Link } from "./link.js"
import type { Place } from "./position.js"
import * as Scripts from "./scripts.js"

export interface Life {
  readonly epoch: () => string
  /** The mark it began with. */
  readonly base: () => Place
  /** The number of the first entry that was kept when it was looked at last. */
  readonly first: () => number
  /** The last entry that was known to be there, read or appended. */
  readonly known: () => Place
  readonly saw: (place: Place) => void
  /** Looks where the log is, and begins a new life if it has lost what was known to be there. Gives the end of the log. */
  readonly reopen: (run: Link["run"]) => Effect.Effect<Place, Failure>
}

const epochs = 36 ** 6

export const make = (keys: Scripts.Keys): Life => {
  let base: Place = { epoch: "", n: 0, ms: 0 }
  let known = base
  let first = 0
  return {
    epoch: () => base.epoch,
    base: () => base,
    first: () => first,
    known: () => known,
    saw: (place) => {
      if (place.epoch === base.epoch && place.n > known.n) known = place
    },
    reopen: (run) =>
      Effect.gen(function* () {
        // Random, so that nodes that start together differ; and of the time, so that those with one seed do.
        const salt = (yield* Random.nextIntBetween(0, epochs)) + (yield* Clock.currentTimeMillis)
        const fresh = (salt % epochs).toString(36).padStart(6, "0")
        const reply = yield* run((redis) =>
          Scripts.open(
            redis,
            [keys.meta, keys.stream, keys.ids, keys.values, keys.order],
            [fresh, known.epoch, known.n, known.ms]
          )
        )
        const [epoch, baseN, baseMs, lastN, lastMs, firstN] = reply as [string, string, string, string, string, string]
        first = Number(firstN)
        if (epoch !== base.epoch) {
          base = { epoch, n: Number(baseN), ms: Number(baseMs) }
          known = base
        }
        return { epoch, n: Number(lastN), ms: Number(lastMs) }
      })
  }
}
