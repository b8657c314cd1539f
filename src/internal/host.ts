/**
 * What the process under the hub can tell about itself, where it can; without importing anything of Node.
 *
 * @internal
 */
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"

export interface HostStatus {
  /** Resident memory in bytes. */
  readonly memoryBytes: number | undefined
  /** How late the event loop ran since the last look, in ms. */
  readonly eventLoopDelay: { readonly p50: number; readonly p99: number; readonly max: number } | undefined
}

/** Resolution of the delay in ms: the measuring timer's own distance, which is part of what it measures. */
const resolution = 10

const node = (): NodeJS.Process | undefined =>
  typeof process !== "undefined" && typeof process.memoryUsage === "function" ? process : undefined

/** Each run looks at the time since the one before. */
export const probe: Effect.Effect<Effect.Effect<HostStatus>, never, Scope.Scope> = Effect.gen(function* () {
  const host = node()
  // Node 20.16, 22.3 and newer.
  const hooks = host?.getBuiltinModule?.("node:perf_hooks")
  const delay = hooks?.monitorEventLoopDelay?.({ resolution })
  if (delay !== undefined) {
    delay.enable()
    yield* Effect.addFinalizer(() => Effect.sync(() => delay.disable()))
  }
  const millis = (nanos: number) => Math.max(0, nanos / 1e6 - resolution)
  return Effect.sync(() => {
    const status: HostStatus = {
      memoryBytes: host?.memoryUsage.rss(),
      eventLoopDelay:
        delay === undefined || delay.count === 0
          ? undefined
          : { p50: millis(delay.percentile(50)), p99: millis(delay.percentile(99)), max: millis(delay.max) }
    }
    delay?.reset()
    return status
  })
})
