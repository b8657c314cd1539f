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
