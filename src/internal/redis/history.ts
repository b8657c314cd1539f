/**
 * What a log on Redis gives back: from this node's memory where it is recent, else from the stream.
 *
 * @internal
 */
import * as Effect from "effect/Effect"
import type { Gap, History, LogEntry, Page, Start } from "../../EventLog.js"
import { matchesAny, type NamespacePattern } from "../../NamespacePattern.js"
import type { EventLogError } from "../../SseError.js"
import { byteLength } from "../frame.js"
import type { Life } from "./life.js"
import type { Failure, Link } from "./link.js"
import * as Position from "./position.js"
import type { Place, Raw, RedisEntry } from "./position.js"
import type { Reader } from "./reader.js"
import type { Recent } from "./recent.js"
import * as Scripts from "./scripts.js"

/** Numbers of one page: pages end at multiples of it, so that clients that resume together share theirs. */
const pageSpan = 512

/** Entries that are looked at, from the last one back, for the last few of some namespaces. */
const maxScanned = 16 * pageSpan

interface Found {
  readonly base: Place
  readonly last: Place
  readonly first: Place
  /** The time of the entry that was asked for; 0 if it is not there. */
  readonly ms: number
  readonly own: number
  readonly since: number
}

export const make = (
  link: Link,
  life: Life,
  keys: Scripts.Keys,
  recent: Recent,
  reader: Reader,
  hasLatest: boolean,
  failed: (failure: Failure) => EventLogError
): History => {
  const look = (n: number | "", own: string, millis: number | ""): Effect.Effect<Found, Failure> =>
    Effect.flatMap(
      link.run((redis) => Scripts.locate(redis, [keys.meta, keys.stream, keys.ids], [n, own, millis])),
      (reply) => {
        const [epoch, ...rest] = reply as ReadonlyArray<string>
        // It has been emptied, and nobody has begun anew.
        if (epoch === undefined) return Effect.zipRight(life.reopen(link.run), look(n, own, millis))
        const [base, baseMs, last, lastMs, first, firstMs, ms, ownN, since] = rest.map(Number) as Array<number>
        return Effect.succeed({
          base: { epoch, n: base!, ms: baseMs! },
          last: { epoch, n: last!, ms: lastMs! },
          first: { epoch, n: first!, ms: firstMs! },
          ms: ms!,
          own: ownN!,
          since: since!
        })
      }
    )

  const gap = (reason: Gap["reason"], found: Found): Gap => ({
    _tag: "Gap",
    reason,
    oldest: found.first.n > found.last.n ? undefined : Position.toText(found.first)
  })

  const behind = (n: number, { base, last }: Found): string =>
    Position.toText(n <= base.n ? base : n >= last.n ? last : { ...base, n, ms: 0 })

  const resume = (id: string, upTo: string): Effect.Effect<string | Gap, Failure> => {
    const place = Position.parse(id)
    const here = reader.here()
    if (place !== undefined && place.epoch === here.epoch) {
      const known = place.n === here.n ? here : recent.at(place.n)
      if (known !== undefined && Position.isSame(known.ms, place.ms)) return Effect.succeed(id)
    }
    return Effect.map(look(place?.n ?? "", place === undefined ? id : "", ""), (found) => {
      const { base, first, last, ms, own } = found
      if (place === undefined) {
        return own === 0 ? gap("unknown", found) : Position.toText({ epoch: base.epoch, n: own, ms })
      }
      if (place.epoch !== base.epoch) return gap("restarted", found)
      if (place.n > last.n || place.n < base.n) return gap("unknown", found)
      const there = place.n === last.n ? last.ms : place.n === base.n ? base.ms : ms
      if (!Position.isSame(there, place.ms)) return gap("restarted", found)
      if (there !== 0 || place.n >= first.n - 1 || place.n === last.n) return id
      // One that is ahead of this node is told when this node finds that it cannot read on.
      const reached = Position.parse(upTo)
      return reached?.epoch === base.epoch && place.n >= reached.n ? id : gap("expired", found)
    })
  }

  const lastEvents = (events: number, namespaces: ReadonlyArray<NamespacePattern>): Effect.Effect<string, Failure> =>
    Effect.gen(function* () {
      const isWanted = matchesAny(namespaces)
      const found = yield* look("", "", "")
      const first = found.first.n
      let n = found.last.n
      let left = events
      while (left > 0 && n >= first && found.last.n - n < maxScanned) {
        const raws = yield* link.run((redis) =>
          redis.xrevrange(keys.stream, String(n), String(Math.max(first, n - pageSpan + 1)), "COUNT", pageSpan)
        )
        for (const raw of raws as ReadonlyArray<Raw>) {
          n = Position.idOf(raw).n - 1
          if (Position.isMark(raw)) continue
          const entry = Position.decode(raw, found.base.epoch)
          if (entry.isKept && isWanted(entry.namespace) && --left === 0) break
        }
        if (raws.length === 0) break
      }
      return behind(n, found)
    })

  const locate = (
    start: Start,
    upTo: string,
    namespaces: ReadonlyArray<NamespacePattern>
  ): Effect.Effect<string | Gap, Failure> => {
    switch (start._tag) {
      case "After":
        return resume(start.id, upTo)
      case "Last":
        return lastEvents(start.events, namespaces)
      case "Earliest":
        return Effect.map(look("", "", ""), (found) => behind(found.first.n - 1, found))
      case "Within":
        return Effect.map(look("", "", Math.ceil(start.millis)), (found) => behind(found.since - 1, found))
    }
  }

  /** Entries from one number on, up to another. */
  const range = (epoch: string, from: number, to: number): Effect.Effect<ReadonlyArray<RedisEntry> | Gap, Failure> => {
    const known = life.epoch() === epoch ? recent.slice(from, to) : undefined
    if (known !== undefined) return Effect.succeed(known)
    return Effect.flatMap(
      // In one step, so that the entries are of this life.
      link.run((redis) =>
        redis
          .multi()
          .hget(keys.meta, "epoch")
          .xrange(keys.stream, from, to, "COUNT", reader.pageCount())
          .exec()
          .then((results) =>
            results!.map(([error, result]) => {
              if (error !== null) throw error
              return result
            })
          )
      ),
      ([current, found]): Effect.Effect<ReadonlyArray<RedisEntry> | Gap, Failure> => {
        const entries = (found as ReadonlyArray<Raw>).map((raw) => Position.decode(raw, epoch))
        if (current === epoch && entries[0]?.n === from) return Effect.succeed(entries)
        return Effect.map(look("", "", ""), (found) => gap(current === epoch ? "expired" : "restarted", found))
      }
    )
  }

  const read: History["read"] = ({ after, maxBytes, namespaces, upTo }) =>
    Effect.suspend((): Effect.Effect<Page | Gap, Failure> => {
      const [a, b] = [Position.parse(after), Position.parse(upTo)]
      if (a === undefined || b === undefined) return Effect.dieMessage(`not a position of this log: ${after}, ${upTo}`)
      const nothing = (cursor: string) => Effect.succeed({ _tag: "Page", entries: [], cursor, done: true } as const)
      if (a.epoch !== b.epoch) {
        // It is from the life that has begun since, which this node has yet to reach; or from one before.
        if (a.epoch === life.epoch()) return nothing(after)
        return Effect.map(look("", "", ""), (found) => gap("restarted", found))
      }
      if (a.n > b.n) return nothing(after)
      if (a.n === b.n) return nothing(upTo)
      const end = Math.min(b.n, (Math.floor(a.n / pageSpan) + 1) * pageSpan)
      return Effect.map(range(a.epoch, a.n + 1, end), (all) => {
        if ("_tag" in all) return all
        const isWanted = matchesAny(namespaces)
        const entries: Array<LogEntry> = []
        let bytes = 0
        let last = all[0]!
        for (const entry of all) {
          if (entry.isKept && isWanted(entry.namespace)) {
            bytes += byteLength(entry.text)
            if (bytes > maxBytes && entries.length > 0) break
            entries.push(entry)
          }
          last = entry
        }
        const done = last.n === b.n
        return { _tag: "Page" as const, entries, cursor: done ? upTo : last.position, done }
      })
    }).pipe(Effect.mapError(failed))

  return {
    locate: (start, upTo, namespaces) => Effect.mapError(locate(start, upTo, namespaces), failed),
    read,
    latest: (upTo, namespaces) =>
      Effect.sync(() => {
        const place = Position.parse(upTo)
        const isWanted = matchesAny(namespaces)
        return Array.from(reader.values.values())
          .filter(({ n, namespace }) => n <= (place?.n ?? 0) && isWanted(namespace))
          .sort((a, b) => a.n - b.n)
      }),
    hasLatest
  }
}
