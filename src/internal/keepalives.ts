/**
 * The keepalives of all connections that do not keep themselves alive.
 *
 * A fiber with a schedule for each connection costs about 27 KB of heap. For keepalives at a fixed distance one Stream
 * serves all: those who came at about the same time make up a group, and as all wait equally long the groups stand in a
 * queue, each for the time its first member is due. The Stream sleeps only while somebody waits, so an idle hub does
 * nothing, on a `TestClock` as well. Any other schedule counts from each client's own connect and gets a Stream for each.
 *
 * @internal
 */
import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as FiberMap from "effect/FiberMap"
import * as Schedule from "effect/Schedule"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import * as Keepalive from "../Keepalive.js"
import type { Client } from "./client.js"
import { forEach } from "./eventLoop.js"
import { of } from "./frame.js"

const frame = of(Keepalive.block)

/** Groups that one distance is cut into: with 15 seconds, one each half a second. A keepalive comes early by that at most. */
const groups = 30

export interface Keepalives {
  readonly add: (client: Client, now: number) => void
  readonly remove: (client: Client) => Effect.Effect<void>
}

export const make = (keepalive: Keepalive.Keepalive): Effect.Effect<Keepalives, never, Scope.Scope> => {
  if (keepalive === false) return Effect.succeed({ add: () => {}, remove: () => Effect.void })
  return Schedule.isSchedule(keepalive) ? makeEach(keepalive) : makeGroups(Duration.toMillis(keepalive))
}

/** Clients whose keepalive is due at the same time, in ms. */
export interface Group {
  readonly at: number
  readonly clients: Set<Client>
}

const makeGroups = (distance: number): Effect.Effect<Keepalives, never, Scope.Scope> =>
  Effect.gen(function* () {
    const queue: Array<Group> = []
    const some = yield* Effect.makeLatch(false)

    const enqueue = (client: Client, at: number) => {
      let last = queue.at(-1)
      if (last === undefined || last.at < at) queue.push((last = { at, clients: new Set() }))
      last.clients.add(client)
      client.group = last
      some.unsafeOpen()
    }

    const next = Effect.gen(function* () {
      yield* some.await
      const group = queue[0]!
      const wait = group.at - (yield* Clock.currentTimeMillis)
      // None is further away than that, unless the clock was set back.
      if (wait > 0 && wait <= distance) yield* Effect.sleep(wait)
      queue.shift()
      if (queue.length === 0) some.unsafeClose()
      return group
    })

    yield* Stream.repeatEffect(next).pipe(
      Stream.runForEach((group) =>
        Effect.gen(function* () {
          const now = yield* Clock.currentTimeMillis
          // From its own time on, so that the distance is kept; from now on if the process slept over several.
          const next = (now - group.at < distance && now >= group.at ? group.at : now) + distance
          yield* forEach(Array.from(group.clients), (client) => {
            if (client.ended !== undefined) return
            client.write(frame, now)
            enqueue(client, next)
          })
        })
      ),
      Effect.forkScoped
    )
    const length = Math.max(1, Math.floor(distance / groups))
    return {
      add: (client, now) => enqueue(client, Math.floor((now + distance) / length) * length),
      remove: (client) => Effect.sync(() => void client.group?.clients.delete(client))
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
          ).pipe(
            // A schedule of the app that throws.
            Effect.catchAllDefect((defect) => {
              client.end("failed")
              return Effect.logError("effect-sse: a keepalive failed", Cause.die(defect))
            })
          )
        )
      },
      remove: (client) => FiberMap.remove(fibers, client.id)
    }
  })
