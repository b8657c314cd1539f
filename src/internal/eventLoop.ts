/**
 * Waiting for the event loop itself, in real time.
 *
 * @internal
 */
import * as Effect from "effect/Effect"

const later: (f: () => void) => void =
  typeof setImmediate === "function"
    ? (f) => void setImmediate(f)
    : (f) => {
        const { port1, port2 } = new MessageChannel()
        port1.addEventListener("message", () => {
          port1.close()
          f()
        })
        port1.start()
        port2.postMessage(undefined)
      }

/**
 * Gives the event loop back once, so that sockets are read, written and accepted.
 *
 * `Effect.yieldNow` does not: it yields to other fibers in a microtask. `Effect.sleep(0)` waits for the `Clock`, which a
 * `TestClock` never moves by itself.
 *
 * @internal
 */
export const turn: Effect.Effect<void> = Effect.async((resume) => later(() => resume(Effect.void)))

/** Real time, in ms, for which work on many clients holds the event loop. */
const holdMillis = 8

/** What is done between two looks at the time. */
const step = 32

/**
 * Calls `f` with each, and gives the event loop back when it was held for 8 ms.
 *
 * @internal
 */
export const forEach = <A>(all: Iterable<A>, f: (a: A) => void): Effect.Effect<void> =>
  Effect.suspend(() => {
    const iterator = all[Symbol.iterator]()
    const work = (): Effect.Effect<void> => {
      const since = performance.now()
      for (let i = 1; i % step !== 0 || performance.now() - since < holdMillis; i++) {
        const next = iterator.next()
        if (next.done === true) return Effect.void
        f(next.value)
      }
      return Effect.flatMap(turn, work)
    }
    return work()
  })

/**
 * Waits in real time, whatever the `Clock` says: for looks at the process itself. A `TestClock` that is moved by an hour
 * would wake a fiber that sleeps a second 3,600 times.
 *
 * @param background whether the process may end meanwhile
 * @internal
 */
export const pause = (millis: number, background = false): Effect.Effect<void> =>
  Effect.async((resume) => {
    const timer = setTimeout(() => resume(Effect.void), millis)
    // In browsers and workers it is a number.
    if (background && typeof timer === "object") timer.unref()
    return Effect.sync(() => clearTimeout(timer))
  })
