/**
 * What the memory log keeps: events by rule, each rule within its own bounds, and how clients find what they missed.
 *
 * @internal
 */
import * as Duration from "effect/Duration"
import type { Gap, HistoryBounds, HistoryOptions, Page, Start } from "../../EventLog.js"
import type { Namespace } from "../../Namespace.js"
import * as Pattern from "../../NamespacePattern.js"
import { atLeast } from "../atLeast.js"
import { OwnIds } from "./ownIds.js"
import { type Bounds, type MemoryEntry, positionOf, Shelf } from "./shelf.js"

/** Pages end at places that are multiples of it, so that clients that resume together share theirs. */
const pageSpan = 4096

/** Namespaces for which the rule is remembered. */
const maxRuled = 4096

const boundsOf = (own: HistoryBounds, all: HistoryBounds): Bounds => ({
  maxEvents: atLeast("history: maxEvents", 1, own.maxEvents ?? all.maxEvents ?? 10_000),
  maxBytes: atLeast("history: maxBytes", 1, own.maxBytes ?? all.maxBytes ?? 16 * 1024 * 1024),
  maxAge: Duration.toMillis(own.maxAge ?? all.maxAge ?? Duration.infinity)
})

/** What a client listens to. */
type Wanted = ReadonlyArray<Pattern.NamespacePattern>

export class History {
  private readonly shelves: ReadonlyArray<Shelf>
  private readonly rules: ReadonlyArray<{
    readonly pattern: Pattern.NamespacePattern
    readonly shelf: Shelf | undefined
  }>
  private readonly others: Shelf
  private readonly ruled = new Map<Namespace, Shelf | undefined>()
  private readonly ownIds = new OwnIds()
  readonly hasLatest: boolean

  constructor(
    private readonly epoch: string,
    options: HistoryOptions
  ) {
    this.others = new Shelf(undefined, false, boundsOf(options, {}))
    this.rules = (options.rules ?? []).map((rule) => {
      const pattern = Pattern.make(rule.namespace)
      return {
        pattern,
        shelf:
          rule.keep === "nothing"
            ? undefined
            : rule.keep === "latest"
              ? // A value holds until the next one, however old the events are that are kept.
                new Shelf(pattern, true, boundsOf(rule, { ...options, maxAge: undefined }))
              : new Shelf(pattern, false, boundsOf(rule, options))
      }
    })
    this.shelves = [...this.rules.flatMap(({ shelf }) => shelf ?? []), this.others]
    this.hasLatest = this.shelves.some(({ isLatest }) => isLatest)
  }

  /** Whether events of a namespace are kept, and so carry an id. */
  keeps(namespace: Namespace): boolean {
    return this.shelfOf(namespace) !== undefined
  }

  add(entry: MemoryEntry): void {
    this.ownIds.add(entry)
    this.shelfOf(entry.namespace)!.add(entry, this.onGone)
  }

  expire(now: number): void {
    for (const shelf of this.shelves) shelf.expire(now, this.onGone)
  }

  get size(): number {
    return this.shelves.reduce((sum, { size }) => sum + size, 0)
  }

  /** The place behind which to begin, or why there is none. */
  locate(start: Start, wanted: Wanted, upTo: number, last: number, now: number): number | Gap {
    if (start._tag === "After") {
      const seq = this.ownIds.placeOf(start.id, Pattern.matchesAny(wanted)) ?? this.parse(start.id, last)
      if (typeof seq !== "number") return this.gap(seq, wanted)
      return seq < upTo && this.firstWhole(wanted, seq) > seq ? this.gap("expired", wanted) : seq
    }
    const whole = this.firstWhole(wanted, 0)
    if (start._tag === "Earliest") return whole
    const places = new Set<number>()
    for (const { isWanted, list } of this.lists(wanted)) {
      let count = 0
      for (const entry of list.backwards()) {
        if (start._tag === "Last" ? count === start.events : now - entry.at > start.millis) break
        if (!isWanted(entry.namespace)) continue
        places.add(entry.seq)
        count++
      }
    }
    const newest = Array.from(places).sort((a, b) => b - a)
    const first = (start._tag === "Last" ? newest[start.events - 1] : undefined) ?? newest.at(-1)
    return Math.max(whole, first === undefined ? last : first - 1)
  }

  /** A page of what comes behind `after`, oldest first: at least one entry, or all there is. */
  read(after: number, upTo: number, wanted: Wanted, maxBytes: number): Page | Gap {
    const upToEnd = (end: number, entries: ReadonlyArray<MemoryEntry>): Page => ({
      _tag: "Page",
      entries,
      cursor: positionOf(this.epoch, end),
      done: end >= upTo
    })
    if (after >= upTo) return upToEnd(after, [])
    if (this.firstWhole(wanted, after) > after) return this.gap("expired", wanted)
    const lists = this.lists(wanted)
    let first = Infinity
    for (const { list } of lists) for (const { seq } of take(1, list.between(after, upTo))) first = Math.min(first, seq)
    if (first === Infinity) return upToEnd(upTo, [])
    const end = Math.min(upTo, Math.ceil(first / pageSpan) * pageSpan)
    const found: Array<MemoryEntry> = []
    for (const { isWanted, list } of lists) {
      for (const entry of list.between(after, end)) if (isWanted(entry.namespace)) found.push(entry)
    }
    const entries = lists.length > 1 ? inOrder(found) : found
    let bytes = 0
    const cut = entries.findIndex((entry, i) => (bytes += entry.bytes) > maxBytes && i > 0)
    return cut === -1 ? upToEnd(end, entries) : upToEnd(entries[cut - 1]!.seq, entries.slice(0, cut))
  }

  /** The values that hold at `upTo`. One that is newer is not among them: it comes by itself. */
  latest(upTo: number, wanted: Wanted): ReadonlyArray<MemoryEntry> {
    const values: Array<MemoryEntry> = []
    for (const { isWanted, list, shelf } of this.lists(wanted)) {
      if (!shelf.isLatest) continue
      for (const entry of list.between(0, upTo)) if (isWanted(entry.namespace)) values.push(entry)
    }
    return inOrder(values)
  }

  /** The place of a position of this life, if it is not behind `last`. */
  parse(position: string, last: number): number | "unknown" | "restarted" {
    const match = /^([0-9A-Za-z]{4})-(0|[1-9a-z][0-9a-z]{0,9})$/.exec(position)
    if (match === null) return "unknown"
    if (match[1] !== this.epoch) return "restarted"
    const seq = Number.parseInt(match[2]!, 36)
    return seq > last ? "unknown" : seq
  }

  private gap(reason: Gap["reason"], wanted: Wanted): Gap {
    let oldest: MemoryEntry | undefined
    for (const { isWanted, list } of this.lists(wanted)) {
      for (const entry of list.between(0, (oldest?.seq ?? Infinity) - 1)) {
        if (!isWanted(entry.namespace)) continue
        oldest = entry
        break
      }
    }
    return { _tag: "Gap", reason, oldest: oldest?.position }
  }

  /** The first place, not before `from`, behind which nothing is missing. */
  private firstWhole(wanted: Wanted, from: number): number {
    const isWanted = Pattern.matchesAny(wanted)
    return this.shelves.reduce(
      (place, shelf) => (shelf.overlaps(wanted) ? shelf.lastDropped(isWanted, place) : place),
      from
    )
  }

  /** Where to look for what is wanted. */
  private lists(wanted: Wanted) {
    return this.shelves
      .filter((shelf) => shelf.overlaps(wanted))
      .flatMap((shelf) =>
        wanted.flatMap((pattern) => {
          const list = shelf.under(pattern)
          return list === undefined ? [] : [{ shelf, list, isWanted: Pattern.matchesAny([pattern]) }]
        })
      )
  }

  private shelfOf(namespace: Namespace): Shelf | undefined {
    if (this.rules.length === 0) return this.others
    if (this.ruled.has(namespace)) return this.ruled.get(namespace)
    const rule = this.rules.find(({ pattern }) => Pattern.matches(pattern, namespace))
    const shelf = rule === undefined ? this.others : rule.shelf
    if (this.ruled.size >= maxRuled) this.ruled.clear()
    this.ruled.set(namespace, shelf)
    return shelf
  }

  private readonly onGone = (entry: MemoryEntry): void => this.ownIds.onGone(entry)
}

/** Sorted, and each once: several patterns can cover one namespace. */
const inOrder = (entries: Array<MemoryEntry>): ReadonlyArray<MemoryEntry> =>
  entries.sort((a, b) => a.seq - b.seq).filter((entry, i) => entry !== entries[i - 1])

function* take<A>(count: number, all: Iterable<A>): Generator<A> {
  let left = count
  for (const one of all) {
    if (left-- === 0) return
    yield one
  }
}
