/**
 * What several logs keep, as one: of the shards that a client touches.
 *
 * @internal
 */
import * as Effect from "effect/Effect"
import type { Gap, History, Page, Start } from "../../EventLog.js"
import type { NamespacePattern } from "../../NamespacePattern.js"
import type { EventLogError } from "../../SseError.js"
import { Others, ShardEntry } from "./entry.js"
import * as Sharding from "./sharding.js"

/** Events, from the last one back, that are looked for in each of several shards. */
const maxLast = 1000

/** @param touchedBy the shards of some patterns, ascending */
export const make = (
  histories: ReadonlyArray<History>,
  touchedBy: (patterns: ReadonlyArray<NamespacePattern>) => ReadonlyArray<number>
): History => {
  type Patterns = ReadonlyArray<NamespacePattern>
  const of = (shard: number) => histories[shard]!

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

  const resume = (
    id: string,
    shards: ReadonlyArray<number>,
    upTo: Sharding.Places,
    patterns: Patterns
  ): Effect.Effect<string | Gap, EventLogError> => {
    const told = Sharding.parse(id)
    const places = told === undefined ? undefined : Sharding.pick(told, shards)
    // A publisher's own id tells of one shard only.
    if (places === undefined && shards.length > 1) {
      return gapOf(shards[0]!, { _tag: "Gap", reason: "unknown", oldest: undefined }, shards, upTo, patterns)
    }
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
      if (start._tag === "Last" && shards.length > 1)
        return lastEvents(Math.min(start.events, maxLast), shards, reached, patterns)
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
    hasLatest: histories.some(({ hasLatest }) => hasLatest)
  }
}
