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
import {
  EventLog,
  type Gap,
  type History,
  type LogEntry,
  type Page,
  type Start,
  type Tail,
  type TailGap
} from "../EventLog.js"
import type { NamespacePattern } from "../NamespacePattern.js"
import { EventLogError } from "../SseError.js"
import * as Lingering from "./lingering.js"
import * as Sharding from "./sharding.js"

type Log = EventLog["Type"]

/** What stands before and behind the position of one shard in a position of several. */
class Others {
  private texts: readonly [string, string] | undefined
  constructor(
    private readonly places: ReadonlyArray<readonly [number, string]>,
    readonly shard: number
  ) {}

  around(position: string): string {
    this.texts ??= [
      Sharding.toText(this.places.filter(([shard]) => shard < this.shard)),
      Sharding.toText(this.places.filter(([shard]) => shard > this.shard))
    ]
    const [before, behind] = this.texts
    return `${before}${before && "."}${this.shard}~${position}${behind && "."}${behind}`
  }
}

/** An entry of one shard as others see it. */
class ShardEntry implements LogEntry {
  private asText: string | undefined
  private asWide: string | undefined

  constructor(
    private readonly entry: LogEntry,
    private readonly others: Others,
    /** Whether it is only for those who touch all these shards. */
    private readonly isRead: boolean
  ) {}

  get namespace() {
    return this.entry.namespace
  }
  get event() {
    return this.entry.event
  }
  get at() {
    return this.entry.at
  }
  get position() {
    return this.others.around(this.entry.position)
  }
  get text() {
    return this.isRead ? this.wide : (this.asText ??= this.withId(`${this.others.shard}~${this.entry.position}`))
  }
  get wide() {
    return (this.asWide ??= this.withId(this.position))
  }

  /** Its publisher's own id stays. */
  private withId(position: string): string {
    const { text } = this.entry
    const line = `id:${this.entry.position}\n`
    return text.startsWith(line) ? `id:${position}\n${text.slice(line.length)}` : text
  }
}

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
      history: logs[0].history === undefined ? undefined : historyOf(logs, touched)
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

const historyOf = (
  logs: ReadonlyArray<Log>,
  touchedBy: (patterns: ReadonlyArray<NamespacePattern>) => ReadonlyArray<number>
): History => {
  type Patterns = ReadonlyArray<NamespacePattern>
  const of = (shard: number) => logs[shard]!.history!

  const placesOf = (position: string, shards: ReadonlyArray<number>): Map<number, string> => {
    const places = Sharding.pick(Sharding.parse(position) ?? new Map(), shards)
    if (places === undefined) throw new Error(`not a position of these shards: ${position}`)
    return places
  }

  const earliest: Start = { _tag: "Earliest" }

  /** The same in each shard; a gap in one is one of all. */
  const each = (
    shards: ReadonlyArray<number>,
    upTo: Sharding.Places,
    patterns: Patterns,
    locate: (shard: number) => Effect.Effect<string | Gap, EventLogError>
  ): Effect.Effect<string | Gap, EventLogError> =>
    Effect.flatMap(
      Effect.forEach(shards, (shard) => Effect.map(locate(shard), (found) => [shard, found] as const), {
        concurrency: "unbounded"
      }),
      (found): Effect.Effect<string | Gap, EventLogError> => {
        const gap = found.find(([, one]) => typeof one !== "string")
        return gap === undefined
          ? Effect.succeed(Sharding.toText(found as ReadonlyArray<readonly [number, string]>))
          : gapOf(gap[0], gap[1] as Gap, shards, upTo, patterns)
      }
    )

  /** A gap of one shard as those see it who touch several: the oldest is then that of all. */
  const gapOf = (
    shard: number,
    { oldest, reason }: Gap,
    shards: ReadonlyArray<number>,
    upTo: Sharding.Places,
    patterns: Patterns
  ): Effect.Effect<Gap, EventLogError> =>
    shards.length === 1
      ? Effect.succeed({ _tag: "Gap", reason, oldest: oldest === undefined ? undefined : `${shard}~${oldest}` })
      : Effect.map(
          Effect.forEach(shards, (shard) => of(shard).locate(earliest, upTo.get(shard)!, patterns), {
            concurrency: "unbounded"
          }),
          (found) => {
            const places = found.flatMap((one, i) => (typeof one === "string" ? [[shards[i]!, one] as const] : []))
            return { _tag: "Gap", reason, oldest: places.length < shards.length ? undefined : Sharding.toText(places) }
          }
        )

  const unknown = (
    shards: ReadonlyArray<number>,
    upTo: Sharding.Places,
    patterns: Patterns
  ): Effect.Effect<Gap, EventLogError> =>
    Effect.flatMap(of(shards[0]!).locate(earliest, upTo.get(shards[0]!)!, patterns), (oldest) =>
      gapOf(
        shards[0]!,
        { _tag: "Gap", reason: "unknown", oldest: typeof oldest === "string" ? oldest : undefined },
        shards,
        upTo,
        patterns
      )
    )

  const resume = (id: string, shards: ReadonlyArray<number>, upTo: Sharding.Places, patterns: Patterns) => {
    const told = Sharding.parse(id)
    const places = told === undefined ? undefined : Sharding.pick(told, shards)
    // A publisher's own id tells of one shard only.
    if (places === undefined && shards.length > 1) return unknown(shards, upTo, patterns)
    return each(shards, upTo, patterns, (shard) =>
      of(shard).locate({ _tag: "After", id: places?.get(shard) ?? id }, upTo.get(shard)!, patterns)
    )
  }

  /** When each of the last matching entries was appended, and the place before it. */
  const lastOf = (shard: number, events: number, upTo: string, patterns: Patterns) =>
    Effect.gen(function* () {
      const entries: Array<{ readonly at: number; readonly before: string }> = []
      let cursor = yield* of(shard).locate({ _tag: "Last", events }, upTo, patterns)
      if (typeof cursor !== "string") return cursor
      let before = cursor
      for (;;) {
        const page: Page | Gap = yield* of(shard).read({ after: cursor, upTo, maxBytes: 65_536, namespaces: patterns })
        if (page._tag === "Gap") return page
        for (const { at = 0, position } of page.entries) {
          entries.push({ at, before })
          before = position
        }
        cursor = page.cursor
        if (page.done) return { shard, entries, place: cursor }
      }
    })

  const lastAt = (one: { readonly entries: ReadonlyArray<{ readonly at: number }> } | undefined): number =>
    one?.entries.at(-1)?.at ?? -1

  /** The newest of all shards, by the time they were appended. */
  const lastEvents = (events: number, shards: ReadonlyArray<number>, upTo: Sharding.Places, patterns: Patterns) =>
    Effect.gen(function* () {
      const found = yield* Effect.forEach(shards, (shard) => lastOf(shard, events, upTo.get(shard)!, patterns), {
        concurrency: 4
      })
      const ends = []
      for (const [i, one] of found.entries()) {
        if ("_tag" in one) return yield* gapOf(shards[i]!, one, shards, upTo, patterns)
        ends.push(one)
      }
      for (let left = events; left > 0; left--) {
        let newest: (typeof ends)[number] | undefined
        for (const one of ends) if (lastAt(one) >= 0 && !(lastAt(one) < lastAt(newest))) newest = one
        if (newest === undefined) break
        newest.place = newest.entries.pop()!.before
      }
      return Sharding.toText(ends.map(({ place, shard }) => [shard, place] as const))
    })

  return {
    locate: (start, upTo, patterns) => {
      const shards = touchedBy(patterns)
      const reached = placesOf(upTo, shards)
      if (start._tag === "After") return resume(start.id, shards, reached, patterns)
      if (start._tag === "Last" && shards.length > 1) return lastEvents(start.events, shards, reached, patterns)
      return each(shards, reached, patterns, (shard) => of(shard).locate(start, reached.get(shard)!, patterns))
    },
    read: ({ after, maxBytes, namespaces, upTo }) =>
      Effect.gen(function* () {
        const shards = touchedBy(namespaces)
        const places = placesOf(after, shards)
        const ends = placesOf(upTo, shards)
        // One shard after the other. A page is of one of them.
        for (const [i, shard] of shards.entries()) {
          if (places.get(shard) === ends.get(shard)) continue
          const page = yield* of(shard).read({
            after: places.get(shard)!,
            upTo: ends.get(shard)!,
            maxBytes,
            namespaces
          })
          if (page._tag === "Gap") return yield* gapOf(shard, page, shards, ends, namespaces)
          const others = new Others(Array.from(places), shard)
          places.set(shard, page.cursor)
          if (page.done && page.entries.length === 0) continue
          const entries = page.entries.map((entry) => new ShardEntry(entry, others, true))
          const isLast = shards.slice(i + 1).every((other) => places.get(other) === ends.get(other))
          return { _tag: "Page", entries, cursor: Sharding.toText(places), done: page.done && isLast }
        }
        return { _tag: "Page", entries: [], cursor: Sharding.toText(places), done: true }
      }),
    latest: (upTo, patterns) =>
      Effect.gen(function* () {
        const shards = touchedBy(patterns)
        const places = placesOf(upTo, shards)
        const found = yield* Effect.forEach(shards, (shard) => of(shard).latest(places.get(shard)!, patterns))
        const values = found.flatMap((entries, i) => {
          const others = new Others(Array.from(places), shards[i]!)
          return entries.map((entry) => new ShardEntry(entry, others, true))
        })
        return shards.length === 1 ? values : values.sort((a, b) => (a.at ?? 0) - (b.at ?? 0))
      }),
    hasLatest: logs.some(({ history }) => history?.hasLatest === true)
  }
}
