/**
 * The keepalives of all connections that do not keep themselves alive.
 *
 * A fiber with a schedule for each connection costs about 27 KB of heap. For keepalives at a fixed distance one scheduled
 * Stream serves all: it turns a wheel of slots, and a client is put into the slot that was served last, so that its first
 * keepalive comes after that distance, early by the length of a slot at most. Any other schedule counts from each
 * client's own connect and gets a Stream for each.
 *
 * @internal
 */
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as FiberMap from "effect/FiberMap"
import * as Schedule from "effect/Schedule"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import * as Keepalive from "../Keepalive.js"
import type { Client } from "./client.js"
import { turn } from "./eventLoop.js"
import { of } from "./frame.js"

const frame = of(Keepalive.block)

/** Slots of the wheel: with 15 seconds, one each half a second. */
const slots = 30

/** Keepalives written before the event loop gets its turn. */
const slice = 512

export interface Keepalives {
  readonly add: (client: Client) => void
  readonly remove: (client: Client) => Effect.Effect<void>
}

export const make = (keepalive: Keepalive.Keepalive): Effect.Effect<Keepalives, never, Scope.Scope> => {
  if (keepalive === false) return Effect.succeed({ add: () => {}, remove: () => Effect.void })
  return Schedule.isSchedule(keepalive) ? makeEach(keepalive) : makeWheel(Duration.decode(keepalive))
}

const makeWheel = (distance: Duration.Duration): Effect.Effect<Keepalives, never, Scope.Scope> =>
  Effect.gen(function* () {
    const wheel = Array.from({ length: slots }, () => new Set<Client>())
    let last = 0
    yield* Stream.fromSchedule(Schedule.fixed(Duration.times(distance, 1 / slots))).pipe(
      Stream.runForEach(() =>
        Effect.gen(function* () {
          last = (last + 1) % slots
          const now = yield* Clock.currentTimeMillis
          let written = 0
          for (const client of Array.from(wheel[last]!)) {
            client.write(frame, now)
            if (++written % slice === 0) yield* turn
          }
        })
      ),
      Effect.forkScoped
    )
    return {
      add: (client) => {
        client.slot = last
        wheel[last]!.add(client)
      },
      remove: (client) => Effect.sync(() => void wheel[client.slot]!.delete(client))
    }
  })

const makeEach = (schedule: Schedule.Schedule<unknown>): Effect.Effect<Keepalives, never, Scope.Scope> =>
  Effect.gen(function* () {
    const fibers = yield* FiberMap.make<number>()
    const run = yield* FiberMap.runtime(fibers)<never>()
    return {
      add: (client) => {
        run(
          client.id,
          Stream.runForEach(Keepalive.stream(schedule), () =>
            Effect.map(Clock.currentTimeMillis, (now) => client.write(frame, now))
          )
        )
      },
      remove: (client) => FiberMap.remove(fibers, client.id)
    }
  })
