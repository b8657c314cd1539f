/**
 * The clients for which something waits: none waits too long, and all together not for too much.
 *
 * @internal
 */
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import type { HubSettings } from "../SseConfig.js"
import { overflowing } from "./budget.js"
import type { Client } from "./client.js"
import { forEach } from "./eventLoop.js"

export interface Waiting {
  readonly add: (client: Client) => void
  readonly remove: (client: Client) => void
  /** Sees to it that clients are ended if more waits than the hub may hold. For the dispatcher, when it gives the loop back. */
  readonly relieve: () => void
  /** What waits, over all. */
  readonly pressure: () => { readonly pendingBytes: number; readonly slowClients: number }
}

export const make = (settings: HubSettings): Effect.Effect<Waiting, never, Scope.Scope> =>
  Effect.gen(function* () {
    const clock = yield* Effect.clock
    // Looks only while something waits for somebody: an idle hub does nothing.
    const waiting = new Set<Client>()
    const someWait = yield* Effect.makeLatch(false)
    const add = (client: Client) => {
      waiting.add(client)
      someWait.unsafeOpen()
    }
    yield* someWait.await.pipe(
      Effect.zipRight(Effect.sleep(settings.stallMillis / 10)),
      // A network that fails stalls many at once.
      Effect.zipRight(
        Effect.suspend(() => {
          const now = clock.unsafeCurrentTimeMillis()
          return forEach(Array.from(waiting), (client) => {
            if (!client.checkStall(now)) waiting.delete(client)
          })
        })
      ),
      Effect.map(() => {
        if (waiting.size === 0) someWait.unsafeClose()
      }),
      Effect.forever,
      Effect.forkScoped
    )
    // Ended by a fiber of their own: it can give the event loop back.
    let over: ReadonlyArray<Client> = []
    const someOver = yield* Effect.makeLatch(false)
    yield* someOver.await.pipe(
      Effect.zipRight(
        Effect.suspend(() => {
          someOver.unsafeClose()
          return forEach(over, (client) => client.end("hub-overflow"))
        })
      ),
      Effect.forever,
      Effect.forkScoped
    )
    let relievedAt = 0
    const relieve = () => {
      if (waiting.size * settings.maxPendingBytes <= settings.maxTotalPendingBytes) return
      // Real time on purpose: this bounds how often the clients that wait are walked through.
      const now = performance.now()
      if (now - relievedAt < 100) return
      relievedAt = now
      over = overflowing(waiting, settings.maxTotalPendingBytes)
      if (over.length > 0) someOver.unsafeOpen()
    }

    return {
      add,
      remove: (client) => void waiting.delete(client),
      relieve,
      pressure: () => {
        let pendingBytes = 0
        let slowClients = 0
        for (const client of waiting) {
          const pending = client.pendingBytes
          pendingBytes += pending
          if (pending > 0) slowClients++
        }
        return { pendingBytes, slowClients }
      }
    }
  })
