/**
 * How clients that did nothing wrong are sent away, told when to come back: at shutdown, to make room, and at the end of
 * their time. So that they do not come back as one, each has its own time.
 *
 * @internal
 */
import * as Effect from "effect/Effect"
import * as Random from "effect/Random"
import type * as Scope from "effect/Scope"
import type { HubSettings } from "../SseConfig.js"
import type { Client } from "./client.js"
import { forEach, pause } from "./eventLoop.js"

/** Why a client is told to come back. */
export type Goodbye = "shutdown" | "evicted" | "failed"

export interface Farewell {
  /** When the client with this number should come back, in ms. */
  readonly retryMillis: (turn: number) => number | undefined
  readonly sayGoodbye: (client: Client, reason: Goodbye, now: number) => void
  /** Sends all away that are there. They have ended then, and may not be forgotten yet. */
  readonly endAll: Effect.Effect<void>
}

/** Clients that end at shutdown without spreading them, and the least time in ms between two such steps. */
const atOnce = 50
const stepMillis = 20

/** @param connected the clients by age; read, never changed */
export const make = (
  connected: ReadonlyMap<number, Client>,
  settings: HubSettings
): Effect.Effect<Farewell, never, Scope.Scope> =>
  Effect.gen(function* () {
    const clock = yield* Effect.clock
    // Multiples of the golden ratio spread evenly over a range, however many there are, and need no generator where no
    // effect can run.
    const seed = yield* Random.next
    const spread = (turn: number): number => (seed + turn * 0.6180339887498949) % 1
    // Those who were there when the shutdown began.
    let crowd = 0
    const retryMillis = (turn: number): number | undefined => {
      const range = settings.shutdownRetryMillis
      if (range === undefined) return undefined
      const width = Math.max(range[1] - range[0], (crowd / settings.maxReturnsPerSecond) * 1000)
      return Math.floor(range[0] + spread(turn) * (width + 1))
    }
    /** @param more time in ms that is not yet to count for when it comes back */
    const sayGoodbye = (client: Client, reason: Goodbye, now: number, more = 0) => {
      if (reason === "shutdown") crowd = Math.max(crowd, connected.size)
      const millis = retryMillis(client.id)
      client.sayGoodbye(millis === undefined ? undefined : Math.round(millis + more), reason, now)
    }

    // Each has its own time to go, between 80 % and 100 % of the longest.
    const { maxLifetimeMillis } = settings
    if (maxLifetimeMillis !== Infinity) {
      const isOver = (client: Client, now: number) =>
        now - client.info.connectedAt >= maxLifetimeMillis * (0.8 + 0.2 * spread(client.id))
      yield* Effect.sleep(maxLifetimeMillis / 100).pipe(
        Effect.flatMap(() => {
          const now = clock.unsafeCurrentTimeMillis()
          const over: Array<Client> = []
          for (const client of connected.values()) {
            // They are in the order in which they came: behind the first that is too young for any, all are.
            if (now - client.info.connectedAt < maxLifetimeMillis * 0.8) break
            if (isOver(client, now)) over.push(client)
          }
          return forEach(over, (client) => client.end("lifetime"))
        }),
        Effect.forever,
        Effect.forkScoped
      )
    }

    return {
      retryMillis,
      sayGoodbye,
      endAll: Effect.gen(function* () {
        const clients = Array.from(connected.values())
        // Few go at once, many in steps.
        const steps = Math.min(
          Math.ceil(clients.length / atOnce),
          Math.max(1, Math.floor(settings.drainMillis / stepMillis))
        )
        const size = Math.ceil(clients.length / steps)
        const distance = settings.drainMillis / steps
        // Real time: whoever closes a hub on a TestClock would wait for ever.
        const begun = performance.now()
        const elapsed = () => performance.now() - begun
        const lastAt = distance * (Math.ceil(clients.length / size) - 1)
        for (let i = 0; i < clients.length; i += size) {
          const early = distance * (i / size) - elapsed()
          if (early > 0) yield* pause(early)
          const now = clock.unsafeCurrentTimeMillis()
          // When they come back counts from the end of the last, whenever their own is: else those who come at the edges of
          // the range would be fewer, and those between more. The server cannot be back before that, either.
          const more = Math.max(0, lastAt - elapsed())
          for (const client of clients.slice(i, i + size)) sayGoodbye(client, "shutdown", now, more)
        }
      })
    }
  })
