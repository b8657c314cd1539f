/**
 * The one fiber that takes published events from the hub's `PubSub` and hands them to those who listen.
 *
 * It works in rounds. What arrives while one round is written makes up the next one, so batches form by themselves and
 * no timer delays an event. After each round, and within a long one, the event loop gets its turn.
 *
 * @internal
 */
import * as Cause from "effect/Cause"
import * as Chunk from "effect/Chunk"
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as HashMap from "effect/HashMap"
import * as PubSub from "effect/PubSub"
import * as Queue from "effect/Queue"
import * as Ref from "effect/Ref"
import type * as Scope from "effect/Scope"
import type { Tail, TailGap } from "../EventLog.js"
import type { Namespace } from "../Namespace.js"
import * as SseEvent from "../SseEvent.js"
import * as SseMetrics from "../SseMetrics.js"
import { Batch } from "./batch.js"
import { forEach, turn } from "./eventLoop.js"
import { of as frameOf } from "./frame.js"
import type { NamespaceUse, Use } from "./namespaces.js"
import * as Registry from "./registry.js"
import * as Run from "./run.js"

/** Appends that are taken from the `PubSub` in one go. */
const maxRoundAppends = 4096

/**
 * Characters of events after which a round is closed, unless half of `maxPendingBytes` is less: a burst must be able to
 * drain between rounds. Larger writes cost less for each byte, up to here.
 */
const maxRoundLength = 512 * 1024

/** Characters after which a run is closed: rounds are made of whole runs. */
const maxRunLength = 64 * 1024

/**
 * Real time, in ms, for which a round holds the event loop before it gives it back. When it does, Node runs what each write
 * left to be done, and who is served later waits for that too: a round of few writes is better not cut. In one of many the
 * leftovers grow cold, and to run them in pieces is quicker.
 */
const holdMillis = (writes: number): number => (writes <= 1024 ? 16 : 8)

/** Events that may wait for the dispatcher before publishers wait for it. */
const maxWaiting = 16_384

export interface Dispatcher extends Required<Tail> {
  /** Whether so much waits that publishers have to; {@link Tail.ready} then waits until it does not. */
  readonly isFull: () => boolean
  /** The position behind which those who are registered now get everything; `undefined` before the first round. */
  readonly position: () => string | undefined
  /** The number of the round that ends at that position; it may still be under way. */
  readonly round: () => number
  /** Waits until the position tells of every shard that had begun to be read before. */
  readonly arrived: Effect.Effect<void>
  /** Waits until everything offered before has been handed out. */
  readonly flush: Effect.Effect<void>
}

export const make = (
  registry: Ref.Ref<Registry.Registry>,
  use: NamespaceUse,
  maxPendingBytes: number,
  relieve: () => void,
  /** Whether anybody may want events one by one. */
  keepsEntries: () => boolean
): Effect.Effect<Dispatcher, never, Scope.Scope> =>
  Effect.gen(function* () {
    // What is appended together travels together: a place in the PubSub for each event would be most of a publish's garbage.
    const pubsub = yield* Effect.acquireRelease(PubSub.unbounded<Appended>(), PubSub.shutdown)
    const clock = yield* Effect.clock
    const waiting = yield* PubSub.subscribe(pubsub)
    const room = yield* Effect.makeLatch(true)
    const roundLength = Math.min(maxRoundLength, maxPendingBytes / 2)
    const runLength = Math.min(maxRunLength, roundLength)
    let reached: { readonly position: string } | undefined
    let rounds = 0
    let offered = 0
    let dispatched = 0
    // Moves that were offered and are not reached yet.
    let moving = 0
    let flushes: Array<{ readonly at: number; readonly resume: () => void }> = []

    const round = (runs: ReadonlyArray<Run.Run>): Effect.Effect<void> =>
      Effect.gen(function* () {
        const now = yield* Clock.currentTimeMillis
        const current = yield* Ref.get(registry)
        // From here to the reading of the members in one step: whoever is registered behind it gets what comes behind.
        reached = runs[runs.length - 1]!.last
        const number = ++rounds
        const batches = new Map<Registry.Subscription, Batch>()
        // Runs of one namespace often come in a row: for those the tree is walked once.
        let namespace: Namespace | undefined
        let matching: Array<Batch> = []
        let used: Use | undefined
        for (const run of runs) {
          if (used === undefined || run.last.namespace !== namespace) {
            namespace = run.last.namespace
            used = use.of(namespace, now)
            matching = []
            Registry.forEachMatch(current, namespace, (subscription) => {
              let batch = batches.get(subscription)
              if (batch === undefined) batches.set(subscription, (batch = new Batch(number)))
              matching.push(batch)
            })
          }
          used.events += run.count
          for (const batch of matching) batch.add(run)
        }
        let total = 0
        const writing = Array.from(batches, ([{ list }, batch]) => {
          total += list.length
          return { list, batch }
        })
        // Real time on purpose: this bounds how long the event loop is held.
        const hold = holdMillis(total)
        let since = performance.now()
        let writes = 0
        for (const { batch, list } of writing) {
          for (const subscriber of list) {
            subscriber.deliver(batch, now)
            if (++writes % 32 === 0 && performance.now() - since > hold) {
              relieve()
              yield* turn
              since = performance.now()
            }
          }
        }
      })

    /** Tells all that it concerns. */
    const tellGap = (gap: TailGap): Effect.Effect<void> =>
      Effect.gen(function* () {
        yield* Effect.logWarning(`effect-sse: events are missing (${gap.reason}); clients are told`)
        const current = yield* Ref.get(registry)
        const concerned = Array.from(HashMap.values(current.subscriptions)).flatMap(({ list }) =>
          gap.concerns?.(list[0]!.namespaces) === false ? [] : list
        )
        const requested = reached?.position ?? ""
        reached = gap
        const now = yield* Clock.currentTimeMillis
        const reset = SseEvent.reset({ reason: gap.reason, requested, oldest: null })
        const frame = frameOf(reset + SseEvent.cursor(gap.position))
        yield* forEach(concerned, (subscriber) => subscriber.reset?.(frame, now))
      })

    /** Whoever is registered from here on listens to these shards. */
    const move = (to: Moved): Effect.Effect<void> =>
      Effect.sync(() => {
        reached = to
        moving--
      })

    const isFull = () => offered - dispatched >= maxWaiting

    const settle = (count: number) => {
      dispatched += count
      if (!isFull()) room.unsafeOpen()
      if (flushes.length > 0) {
        const reached = flushes.filter((flush) => flush.at <= dispatched)
        flushes = flushes.filter((flush) => flush.at > dispatched)
        reached.forEach((flush) => flush.resume())
      }
    }

    yield* Queue.takeBetween(waiting, 1, maxRoundAppends).pipe(
      Effect.flatMap((taken) =>
        Effect.forEach(
          split(Chunk.toReadonlyArray(taken), roundLength),
          ({ events, mark, offeredAt, runs }) =>
            (mark === undefined ? round(runs) : "reason" in mark ? tellGap(mark) : move(mark)).pipe(
              // Only a defect can get here. The round is lost to some, which is said; the next ones must go on.
              Effect.catchAllCause((cause) => Effect.logError("effect-sse: a fan-out round failed", cause)),
              Effect.zipRight(
                Effect.sync(() => {
                  settle(mark === undefined ? events : 1)
                  relieve()
                  if (mark !== undefined) return
                  SseMetrics.roundEvents.unsafeUpdate(events, [])
                  const now = clock.unsafeCurrentTimeNanos()
                  for (const at of offeredAt) SseMetrics.publishToWrite.unsafeUpdate(Number(now - at) / 1e9, [])
                })
              ),
              Effect.zipRight(turn)
            ),
          { discard: true }
        )
      ),
      Effect.catchAllDefect((defect) =>
        Effect.logError("effect-sse: the dispatcher failed, and goes on", Cause.die(defect))
      ),
      Effect.forever,
      Effect.forkScoped
    )

    const flush = Effect.async<void>((resume) => {
      if (offered === dispatched) return resume(Effect.void)
      flushes.push({ at: offered, resume: () => resume(Effect.void) })
    })

    return {
      isFull,
      position: () => reached?.position,
      round: () => rounds,
      offer: (entries) => {
        offered += entries.length
        if (isFull()) room.unsafeClose()
        pubsub.unsafeOffer({ runs: Run.split(entries, keepsEntries(), runLength), at: clock.unsafeCurrentTimeNanos() })
      },
      gap: (gap) => {
        offered++
        pubsub.unsafeOffer(gap)
      },
      moved: (position) => {
        offered++
        moving++
        pubsub.unsafeOffer({ position })
      },
      arrived: Effect.suspend(() => (moving === 0 ? Effect.void : flush)),
      ready: room.await,
      flush
    }
  })

/** From here on the position tells of other shards. */
interface Moved {
  readonly position: string
}

/** What was appended together, and when it came, in ns; or what tells that some is missing, or that shards are others. */
type Appended = { readonly runs: ReadonlyArray<Run.Run>; readonly at: bigint } | TailGap | Moved

interface Round {
  readonly runs: Array<Run.Run>
  events: number
  /** Instead of events. */
  readonly mark?: TailGap | Moved
  /** When the appends that end in this round came. */
  readonly offeredAt: Array<bigint>
}

/** Joins what was appended and cuts it into rounds. */
const split = (appended: ReadonlyArray<Appended>, roundLength: number): ReadonlyArray<Round> => {
  const rounds: Array<Round> = []
  const empty = (): Round => ({ runs: [], events: 0, offeredAt: [] })
  let round = empty()
  let length = 0
  const close = () => {
    if (round.events > 0) rounds.push(round)
    round = empty()
    length = 0
  }
  for (const one of appended) {
    if ("position" in one) {
      close()
      rounds.push({ ...empty(), mark: one })
      continue
    }
    for (const run of one.runs) {
      if (length + run.text.length > roundLength) close()
      round.runs.push(run)
      round.events += run.count
      length += run.text.length
    }
    round.offeredAt.push(one.at)
  }
  close()
  return rounds
}
