/**
 * What is kept up as long as anyone uses it, and a while longer.
 *
 * `RcMap` is not enough here: it gives those who come while nobody uses it a failure again and again, and makes one anew
 * while the old one is still being released.
 *
 * @internal
 */
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as FiberId from "effect/FiberId"
import type * as Scope from "effect/Scope"

/** Uses what has this number, until the scope closes. Fails, and is tried again by the next one, if it cannot be had. */
export type Lingering<E> = (key: number) => Effect.Effect<void, E, Scope.Scope>

interface Held<E> {
  users: number
  /** When the last one left, in ms. */
  leftAt: number
  isOver: boolean
  readonly ready: Deferred.Deferred<void, E>
  readonly unused: Effect.Latch
  /** Opened when it is released. */
  readonly gone: Effect.Latch
}

/** @param hold has it until its scope closes; run once at a time for each key */
export const make = <E>(
  hold: (key: number) => Effect.Effect<void, E, Scope.Scope>,
  lingerMillis: number
): Effect.Effect<Lingering<E>, never, Scope.Scope> =>
  Effect.gen(function* () {
    const clock = yield* Effect.clock
    const scope = yield* Effect.scope
    const all = new Map<number, Held<E>>()

    /** Waits until nobody has used it for that long. Who comes after that waits, and makes another one. */
    const untilUnused = (held: Held<E>): Effect.Effect<void> =>
      Effect.flatMap(held.unused.await, () => {
        const left = held.leftAt + lingerMillis - clock.unsafeCurrentTimeMillis()
        if (held.users === 0 && left <= 0) {
          held.isOver = true
          return Effect.void
        }
        return Effect.zipRight(clock.sleep(Duration.millis(Math.max(left, 0))), untilUnused(held))
      })

    // Forked where nothing interrupts, so that who waits is told in any case.
    const run = (key: number, held: Held<E>): Effect.Effect<void> =>
      Effect.scoped(
        Effect.zipRight(
          hold(key),
          Effect.suspend(() => {
            Deferred.unsafeDone(held.ready, Effect.void)
            return untilUnused(held)
          })
        )
      ).pipe(
        Effect.interruptible,
        Effect.onExit((exit) =>
          Effect.sync(() => {
            all.delete(key)
            Deferred.unsafeDone(held.ready, exit)
            held.gone.unsafeOpen()
          })
        ),
        Effect.exit,
        Effect.asVoid
      )

    const enter = (key: number): Effect.Effect<Held<E>> =>
      Effect.suspend(() => {
        const known = all.get(key)
        if (known?.isOver === true) return Effect.zipRight(known.gone.await, enter(key))
        if (known !== undefined) {
          known.users++
          known.unused.unsafeClose()
          return Effect.succeed(known)
        }
        const held: Held<E> = {
          users: 1,
          leftAt: 0,
          isOver: false,
          ready: Deferred.unsafeMake(FiberId.none),
          unused: Effect.unsafeMakeLatch(false),
          gone: Effect.unsafeMakeLatch(false)
        }
        all.set(key, held)
        return Effect.as(Effect.forkIn(run(key, held), scope), held)
      })

    const leave = (held: Held<E>) =>
      Effect.sync(() => {
        if (--held.users > 0) return
        held.leftAt = clock.unsafeCurrentTimeMillis()
        held.unused.unsafeOpen()
      })

    return (key) => Effect.flatMap(Effect.acquireRelease(enter(key), leave), ({ ready }) => Deferred.await(ready))
  })
