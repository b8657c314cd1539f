/**
 * Ends clients at the time until which they may stay.
 *
 * One fiber serves all: it sleeps until the earliest time, and not at all while nobody's stay is limited. Tokens end on whole
 * seconds, so there are few distinct times, and most new ones are the latest.
 *
 * @internal
 */
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Queue from "effect/Queue"
import type * as Scope from "effect/Scope"
import type { Client } from "./client.js"
import { forEach } from "./eventLoop.js"

/** Longest sleep in ms: a timer cannot be set for more than 24 days, and the system's clock may be set meanwhile. */
const longest = 3_600_000

export interface Expiries {
  readonly add: (client: Client, at: number) => void
  readonly remove: (client: Client, at: number) => void
}

export const make: Effect.Effect<Expiries, never, Scope.Scope> = Effect.gen(function* () {
  // Ascending. Each has its clients, and goes with the last of them.
  const times: Array<number> = []
  const clients = new Map<number, Set<Client>>()
  const earlier = yield* Queue.sliding<void>(1)

  /** Where `at` stands, or would. */
  const indexOf = (at: number): number => {
    let low = 0
    let high = times.length
    while (low < high) {
      const middle = (low + high) >>> 1
      if (times[middle]! < at) low = middle + 1
      else high = middle
    }
    return low
  }

  const next = Effect.gen(function* () {
    const at = times[0]
    if (at === undefined) return yield* Queue.take(earlier)
    const wait = at - (yield* Clock.currentTimeMillis)
    if (wait > 0) {
      return yield* Effect.asVoid(Effect.timeoutOption(Queue.take(earlier), Math.min(wait, longest)))
    }
    times.shift()
    const due = Array.from(clients.get(at) ?? [])
    clients.delete(at)
    yield* forEach(due, (client) => client.end("expired"))
  })
  yield* Effect.forkScoped(Effect.forever(next))

  return {
    add: (client, at) => {
      const others = clients.get(at)
      if (others !== undefined) return void others.add(client)
      clients.set(at, new Set([client]))
      const index = indexOf(at)
      times.splice(index, 0, at)
      if (index === 0) Queue.unsafeOffer(earlier, undefined)
    },
    remove: (client, at) => {
      const others = clients.get(at)
      if (others?.delete(client) !== true || others.size > 0) return
      clients.delete(at)
      times.splice(indexOf(at), 1)
    }
  }
})
