/**
 * Looks at the hub once a second of real time: remembers the last ten minutes, and keeps the gauges.
 *
 * @internal
 */
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import type * as Metric from "effect/Metric"
import type * as Scope from "effect/Scope"
import type { Rates, Sample } from "../HubStatus.js"
import * as SseMetrics from "../SseMetrics.js"
import { pause } from "./eventLoop.js"
import * as Host from "./host.js"

/** Samples that are kept, one a second. */
const kept = 600

type Counts = Omit<Sample, "at" | "memoryBytes" | "eventLoopDelay">

/** Gives the samples so far, oldest first. `look` must not fail. */
export const make = (
  look: Effect.Effect<Counts>
): Effect.Effect<Effect.Effect<ReadonlyArray<Sample>>, never, Scope.Scope> =>
  Effect.gen(function* () {
    const host = yield* Host.probe
    const clients = yield* share(SseMetrics.connections)
    const pending = yield* share(SseMetrics.pendingBytes)
    const slow = yield* share(SseMetrics.slowClients)
    const history = yield* share(SseMetrics.historyEvents)
    const deliveries = tally(SseMetrics.deliveries)
    const bytes = tally(SseMetrics.sentBytes)
    let samples: Array<Sample> = []

    const sample = Effect.gen(function* () {
      const current: Sample = { at: yield* Clock.currentTimeMillis, ...(yield* look), ...(yield* host) }
      samples.push(current)
      // Cut in one go now and then: to shift an array for each sample moves all of it.
      if (samples.length >= 2 * kept) samples = samples.slice(-kept)
      clients(current.clients)
      pending(current.pendingBytes)
      slow(current.slowClients)
      history(current.historyEvents)
      deliveries(current.deliveries)
      bytes(current.bytes)
      if (current.memoryBytes !== undefined) SseMetrics.memory.unsafeUpdate(current.memoryBytes, [])
      if (current.eventLoopDelay !== undefined) {
        const { max, p50, p99 } = current.eventLoopDelay
        SseMetrics.eventLoopDelay.unsafeUpdate(p50 / 1000, SseMetrics.quantileTags["0.5"])
        SseMetrics.eventLoopDelay.unsafeUpdate(p99 / 1000, SseMetrics.quantileTags["0.99"])
        SseMetrics.eventLoopDelay.unsafeUpdate(max / 1000, SseMetrics.quantileTags["1"])
      }
    })
    // The last one when all is over, so that the counters are whole.
    yield* Effect.addFinalizer(() => sample)
    yield* Effect.forkScoped(Effect.forever(Effect.zipRight(sample, pause(1000, true))))
    return Effect.sync(() => samples.slice(-kept))
  })

/** A second's share over the last ten seconds, or over as many as there were. */
export const rates = (samples: ReadonlyArray<Sample>): Rates => {
  const last = samples.at(-1)
  const first = samples.at(-11) ?? samples[0]
  const over = last === undefined || first === undefined ? 0 : (last.at - first.at) / 1000
  const rate = (of: "published" | "deliveries" | "bytes") =>
    over === 0 ? 0 : Math.round(((last![of] - first![of]) / over) * 10) / 10
  return { publishes: rate("published"), deliveries: rate("deliveries"), bytes: rate("bytes") }
}

/** Counts up to a total. */
const tally = (counter: Metric.Metric.Counter<number>) => {
  let last = 0
  return (total: number) => {
    counter.unsafeUpdate(total - last, [])
    last = total
  }
}

/** One hub's part of a gauge that all hubs of the process add to, taken back at the end. */
const share = (gauge: Metric.Metric.Gauge<number>): Effect.Effect<(value: number) => void, never, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.sync(() => {
      let last = 0
      return (value: number) => {
        gauge.unsafeModify(value - last, [])
        last = value
      }
    }),
    (set) => Effect.sync(() => set(0))
  )
