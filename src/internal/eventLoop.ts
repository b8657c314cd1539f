/**
 * Gives the event loop back once, so that sockets are read, written and accepted.
 *
 * `Effect.yieldNow` does not: it yields to other fibers in a microtask. `Effect.sleep(0)` waits for the `Clock`, which a
 * `TestClock` never moves by itself.
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

export const turn: Effect.Effect<void> = Effect.async((resume) => later(() => resume(Effect.void)))
