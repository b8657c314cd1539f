/**
 * Several logs as one: each keeps the order of a part of the namespaces, and is read only while someone listens there.
 *
 * A position tells where one is in each of some shards; see `sharding.ts`. Nodes interleave shards differently, which does no
 * harm: whoever comes with such a position has got exactly what it tells. Clients that touch one shard are told of that one
 * only, so their ids are as short as those of one log.
 *
 * @internal
 */
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import type * as Scope from "effect/Scope"
import { EventLog, type Tail, type TailGap } from "../../EventLog.js"
import type { NamespacePattern } from "../../NamespacePattern.js"
import { EventLogError } from "../../SseError.js"
import * as Lingering from "./lingering.js"
import { Others, ShardEntry } from "./entry.js"
import * as ShardHistory from "./history.js"
import * as Sharding from "./sharding.js"

type Log = EventLog["Type"]

export interface ShardsOptions {
  /** Segments of a namespace that tell its shard. */
  readonly depth: number
  /** How long a shard is still read when nobody listens to it any more, in ms. */
  readonly lingerMillis: number
}

/** One log of several, whose positions contain no `.` or `~`. All have a history, or none. */
export const make = (
  logs: readonly [Log, ...ReadonlyArray<Log>],
  { depth, lingerMillis }: ShardsOptions
): Effect.Effect<Log, never, Scope.Scope> =>
  Effect.gen(function* () {
    const sharding = { count: logs.length, depth }
    const touched = (patterns: ReadonlyArray<NamespacePattern>) => Sharding.touched(sharding, patterns)
    const histories = logs.flatMap(({ history }) => history ?? [])
    const tails = new Set<Tail>()
    // Where this node is in those it reads.
    const here: Array<string | undefined> = logs.map(() => undefined)
    const places = () => here.flatMap((position, shard) => (position === undefined ? [] : [[shard, position] as const]))
    const move = (shard: number, position: string | undefined) => {
      here[shard] = position
      const text = Sharding.toText(places())
      for (const tail of tails) tail.moved?.(text)
    }

    const readingTail = (shard: number): Tail => ({
      offer: (entries) => {
        if (entries.length === 0) return
        const others = new Others(places(), shard)
        here[shard] = entries[entries.length - 1]!.position
        const placed = entries.map((entry) => new ShardEntry(entry, others, false))
        for (const tail of tails) tail.offer(placed)
      },
      gap: ({ position, reason }) => {
        here[shard] = position
        const gap: TailGap = {
          reason,
          position: Sharding.toText(places()),
          concerns: (patterns) => touched(patterns).includes(shard)
        }
        for (const tail of tails) tail.gap(gap)
      },
      ready: Effect.suspend(() => Effect.forEach(Array.from(tails), ({ ready }) => ready, { discard: true }))
    })

    const read = (shard: number): Effect.Effect<void, EventLogError, Scope.Scope> =>
      Effect.gen(function* () {
        const tail = readingTail(shard)
        // What comes before it is known where it begins.
        let early: Array<() => void> | undefined = []
        const inOrder = (f: () => void) => (early === undefined ? f() : void early.push(f))
        // Behind the tail's end, as finalizers run.
        yield* Effect.addFinalizer(() => Effect.sync(() => here[shard] !== undefined && move(shard, undefined)))
        const begin = yield* logs[shard]!.tail({
          offer: (entries) => inOrder(() => tail.offer(entries)),
          gap: (gap) => inOrder(() => tail.gap(gap)),
          ready: tail.ready
        })
        yield* Effect.sync(() => {
          move(shard, begin)
          const waiting = early!
          early = undefined
          for (const f of waiting) f()
        })
      })

    const use = yield* Lingering.make(read, lingerMillis)

    return EventLog.of({
      append: (entries) => {
        const groups = new Map<number, Array<number>>()
        for (const [index, { namespace }] of entries.entries()) {
          const shard = Sharding.shardOf(sharding, namespace)
          const group = groups.get(shard)
          if (group === undefined) groups.set(shard, [index])
          else group.push(index)
        }
        const appendTo = (shard: number, indices: ReadonlyArray<number>) =>
          Effect.map(
            logs[shard]!.append(indices.length === entries.length ? entries : indices.map((index) => entries[index]!)),
            (positions) => positions.map((position, i) => [indices[i]!, `${shard}~${position}`] as const)
          )
        return Effect.map(allOrError(Array.from(groups, ([shard, indices]) => appendTo(shard, indices))), (placed) => {
          const positions: Array<string> = []
          for (const [index, position] of placed.flat()) positions[index] = position
          return positions
        })
      },
      tail: (tail) =>
        Effect.acquireRelease(
          Effect.sync(() => {
            tails.add(tail)
            return Sharding.toText(places())
          }),
          () => Effect.sync(() => void tails.delete(tail))
        ),
      shards: {
        follow: (patterns) => Effect.forEach(touched(patterns), use, { discard: true, concurrency: "unbounded" }),
        part: (position, patterns) => {
          const shards = touched(patterns)
          return shards.length === logs.length
            ? position
            : Sharding.toText(Array.from(Sharding.parse(position)!).filter(([shard]) => shards.includes(shard)))
        },
        isWide: (patterns) => touched(patterns).length > 1
      },
      size: Effect.map(
        Effect.forEach(logs, ({ size }) => size, { concurrency: "unbounded" }),
        (sizes) => sizes.reduce((sum, size) => sum + size, 0)
      ),
      health: Effect.map(
        Effect.forEach(logs, ({ health }) => health),
        (all) => all.find(({ status }) => status === "degraded") ?? { status: "ok" }
      ),
      settled: Effect.forEach(logs, ({ settled }) => settled, { discard: true, concurrency: "unbounded" }),
      history: histories.length === 0 ? undefined : ShardHistory.make(histories, touched)
    })
  })

/** Shards do not know of each other: if one fails, the others may have done it. */
const allOrError = <A>(
  appends: ReadonlyArray<Effect.Effect<A, EventLogError>>
): Effect.Effect<ReadonlyArray<A>, EventLogError> =>
  appends.length === 1
    ? Effect.map(appends[0]!, (one) => [one])
    : Effect.flatMap(Effect.forEach(appends, Effect.either, { concurrency: "unbounded" }), (results) => {
        const failures = results.filter(Either.isLeft).map(({ left }) => left)
        if (failures.length === 0) return Effect.succeed(results.filter(Either.isRight).map(({ right }) => right))
        const outcome =
          failures.length < results.length
            ? ("partial" as const)
            : failures.find(({ outcome }) => outcome !== undefined)?.outcome
        return Effect.fail(
          new EventLogError({
            operation: "append",
            reason: failures[0]!.reason,
            ...(outcome === undefined ? {} : { outcome })
          })
        )
      })
