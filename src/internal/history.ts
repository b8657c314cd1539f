/**
 * What the memory log keeps: events by rule, each rule within its own bounds, and what it had to drop.
 *
 * @internal
 */
import * as Duration from "effect/Duration"
import type { Gap, HistoryBounds, HistoryOptions, LogEntry, Page, Start } from "../EventLog.js"
import type { Namespace } from "../Namespace.js"
import * as Pattern from "../NamespacePattern.js"
import type { SseEvent } from "../SseEvent.js"
import { byteLength } from "./frame.js"

/** An entry with its place as a number. */
export class MemoryEntry implements LogEntry {
  constructor(
    readonly namespace: Namespace,
    readonly event: SseEvent,
    readonly text: string,
    private readonly epoch: string,
    readonly seq: number,
    /** When it was appended, in ms. */
    readonly at: number
  ) {}

  get position(): string {
    return positionOf(this.epoch, this.seq)
  }
}

export const positionOf = (epoch: string, seq: number): string => epoch + "-" + seq.toString(36)

/** Places of one page: pages end at multiples of it, so that clients that resume together share theirs. */
const pageSpan = 4096

/** Characters of events with which a page ends, if it is longer. */
const pageLength = 256 * 1024

/** Namespaces for which it is remembered what was dropped last. */
const maxDropped = 4096

/** Namespaces for which the rule is remembered. */
const maxRuled = 4096

interface Bounds {
  readonly maxEvents: number
  readonly maxBytes: number
  readonly maxAge: number
}

const boundsOf = (own: HistoryBounds, all: HistoryBounds): Bounds => ({
  maxEvents: atLeastOne("maxEvents", own.maxEvents ?? all.maxEvents ?? 10_000),
  maxBytes: atLeastOne("maxBytes", own.maxBytes ?? all.maxBytes ?? 16 * 1024 * 1024),
  maxAge: Duration.toMillis(own.maxAge ?? all.maxAge ?? Duration.infinity)
})

const atLeastOne = (name: string, value: number): number => {
  if (!(value >= 1)) throw new Error(`history: ${name} is ${value}; it must be at least 1`)
  return value
}

/** The entries of one rule, in the log's order. */
class Shelf {
  private ring: Array<MemoryEntry | undefined> = Array.from({ length: 64 })
  private head = 0
  private length = 0
  private bytes = 0
  /** With `latest`: the entry of each namespace that is not replaced. */
  private readonly values: Map<Namespace, MemoryEntry> | undefined
  // The last place dropped, of each namespace; and of those that are not remembered one by one.
  private readonly dropped = new Map<Namespace, number>()
  private floor = 0
  private last = 0

  constructor(
    readonly pattern: Pattern.NamespacePattern | undefined,
    latest: boolean,
    private readonly bounds: Bounds
  ) {
    this.values = latest ? new Map() : undefined
  }

  get isLatest(): boolean {
    return this.values !== undefined
  }

  get size(): number {
    return this.values?.size ?? this.length
  }

  add(entry: MemoryEntry, onDrop: (entry: MemoryEntry) => void): void {
    const { maxBytes, maxEvents } = this.bounds
    if (this.length === this.ring.length) this.resize()
    this.ring[(this.head + this.length++) & (this.ring.length - 1)] = entry
    this.bytes += weigh(entry)
    if (this.values !== undefined) {
      const replaced = this.values.get(entry.namespace)
      if (replaced !== undefined) {
        this.bytes -= weigh(replaced)
        onDrop(replaced)
      }
      this.values.set(entry.namespace, entry)
    }
    while (this.size > maxEvents || this.bytes > maxBytes) this.dropOldest(onDrop)
  }

  expire(now: number, onDrop: (entry: MemoryEntry) => void): void {
    if (this.bounds.maxAge === Infinity) return
    while (this.length > 0 && now - this.at(0).at > this.bounds.maxAge) this.dropOldest(onDrop)
  }

  /** The entries behind `after`, up to `upTo`, oldest first. */
  *between(after: number, upTo: number): Generator<MemoryEntry> {
    for (let i = this.indexBehind(after); i < this.length; i++) {
      const entry = this.at(i)
      if (entry.seq > upTo) return
      if (!this.isReplaced(entry)) yield entry
    }
  }

  /** All entries, newest first. */
  *backwards(): Generator<MemoryEntry> {
    for (let i = this.length - 1; i >= 0; i--) {
      const entry = this.at(i)
      if (!this.isReplaced(entry)) yield entry
    }
  }

  /** The last place, of those that `isWanted`, whose entry is gone; 0 if none is. */
  lastDropped(isWanted: (namespace: Namespace) => boolean, behind: number): number {
    if (this.last <= behind) return behind
    let found = Math.max(behind, this.floor)
    for (const [namespace, seq] of this.dropped) if (seq > found && isWanted(namespace)) found = seq
    return found
  }

  overlaps(namespaces: Wanted): boolean {
    const { pattern } = this
    return pattern === undefined || namespaces.some((namespace) => Pattern.overlaps(pattern, namespace))
  }

  private at(index: number): MemoryEntry {
    return this.ring[(this.head + index) & (this.ring.length - 1)]!
  }

  private isReplaced(entry: MemoryEntry): boolean {
    return this.values !== undefined && this.values.get(entry.namespace) !== entry
  }

  private indexBehind(seq: number): number {
    let low = 0
    let high = this.length
    while (low < high) {
      const middle = (low + high) >>> 1
      if (this.at(middle).seq > seq) high = middle
      else low = middle + 1
    }
    return low
  }

  private dropOldest(onDrop: (entry: MemoryEntry) => void): void {
    const entry = this.at(0)
    this.ring[this.head] = undefined
    this.head = (this.head + 1) & (this.ring.length - 1)
    this.length--
    // A value that was replaced is no loss: whoever was away gets the newer one.
    if (this.isReplaced(entry)) return
    this.values?.delete(entry.namespace)
    this.bytes -= weigh(entry)
    this.last = entry.seq
    this.dropped.set(entry.namespace, entry.seq)
    if (this.dropped.size > maxDropped) this.forget()
    onDrop(entry)
  }

  /** Remembers the newer half one by one, and the rest together. */
  private forget(): void {
    const oldest = Array.from(this.dropped).sort(([, a], [, b]) => a - b)
    for (const [namespace, seq] of oldest.slice(0, maxDropped / 2)) {
      this.floor = seq
      this.dropped.delete(namespace)
    }
  }

  /** Makes room: without the values that were replaced, and with twice the places if that is not enough. */
  private resize(): void {
    const kept: Array<MemoryEntry> = []
    for (let i = 0; i < this.length; i++) if (!this.isReplaced(this.at(i))) kept.push(this.at(i))
    const places = kept.length > this.ring.length / 2 ? this.ring.length * 2 : this.ring.length
    this.ring = Array.from({ length: places }, (_, i) => kept[i])
    this.head = 0
    this.length = kept.length
  }
}

/** About what an entry takes. */
const weigh = (entry: MemoryEntry): number => byteLength(entry.text)

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
  /** Places by the ids that publishers gave. */
  private readonly ownIds = new Map<string, number>()
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
    if (entry.event.id !== undefined) this.ownIds.set(entry.event.id, entry.seq)
    this.shelfOf(entry.namespace)!.add(entry, this.onDrop)
  }

  expire(now: number): void {
    for (const shelf of this.shelves) shelf.expire(now, this.onDrop)
  }

  get size(): number {
    return this.shelves.reduce((sum, { size }) => sum + size, 0)
  }

  /** The place behind which to begin, or why there is none. */
  locate(start: Start, namespaces: Wanted, upTo: number, last: number, now: number): number | Gap {
    if (start._tag === "After") {
      const seq = this.ownIds.get(start.id) ?? this.parse(start.id, last)
      if (typeof seq !== "number") return this.gap(seq, namespaces)
      return seq < upTo && this.firstWhole(namespaces, seq) > seq ? this.gap("expired", namespaces) : seq
    }
    const whole = this.firstWhole(namespaces, 0)
    if (start._tag === "Earliest") return whole
    const places: Array<number> = []
    const isWanted = Pattern.matchesAny(namespaces)
    for (const shelf of this.relevant(namespaces)) {
      let count = 0
      for (const entry of shelf.backwards()) {
        if (start._tag === "Last" ? count === start.events : now - entry.at > start.millis) break
        if (!isWanted(entry.namespace)) continue
        places.push(entry.seq)
        count++
      }
    }
    places.sort((a, b) => b - a)
    const first = (start._tag === "Last" ? places[start.events - 1] : undefined) ?? places.at(-1)
    return Math.max(whole, first === undefined ? last : first - 1)
  }

  /** A page of what comes behind `after`, oldest first. */
  read(after: number, upTo: number, namespaces: Wanted): Page | Gap {
    if (after >= upTo) return { _tag: "Page", entries: [], cursor: positionOf(this.epoch, after), done: true }
    const shelves = this.relevant(namespaces)
    if (this.firstWhole(namespaces, after) > after) return this.gap("expired", namespaces)
    const end = Math.min(upTo, (Math.floor(after / pageSpan) + 1) * pageSpan)
    const entries: Array<MemoryEntry> = []
    const matches = Pattern.matchesAny(namespaces)
    // They come again and again.
    const wanted = new Map<Namespace, boolean>()
    for (const shelf of shelves) {
      for (const entry of shelf.between(after, end)) {
        let isWanted = wanted.get(entry.namespace)
        if (isWanted === undefined) wanted.set(entry.namespace, (isWanted = matches(entry.namespace)))
        if (isWanted) entries.push(entry)
      }
    }
    if (shelves.length > 1) entries.sort((a, b) => a.seq - b.seq)
    let length = 0
    const cut = entries.findIndex(({ text }) => (length += text.length) > pageLength)
    if (cut === -1 || cut === entries.length - 1) {
      return { _tag: "Page", entries, cursor: positionOf(this.epoch, end), done: end === upTo }
    }
    return { _tag: "Page", entries: entries.slice(0, cut + 1), cursor: entries[cut]!.position, done: false }
  }

  /** The values that hold at `upTo`. One that is newer is not among them: it comes by itself. */
  latest(upTo: number, namespaces: Wanted): ReadonlyArray<MemoryEntry> {
    const values: Array<MemoryEntry> = []
    const isWanted = Pattern.matchesAny(namespaces)
    for (const shelf of this.relevant(namespaces)) {
      if (!shelf.isLatest) continue
      for (const entry of shelf.between(0, upTo)) {
        if (isWanted(entry.namespace)) values.push(entry)
      }
    }
    return values.sort((a, b) => a.seq - b.seq)
  }

  /** The place of a position of this life, if it is not behind `last`. */
  parse(position: string, last: number): number | "unknown" | "restarted" {
    const match = /^([0-9a-z]{6})-(0|[1-9a-z][0-9a-z]{0,9})$/.exec(position)
    if (match === null) return "unknown"
    if (match[1] !== this.epoch) return "restarted"
    const seq = Number.parseInt(match[2]!, 36)
    return seq > last ? "unknown" : seq
  }

  private gap(reason: Gap["reason"], namespaces: Wanted): Gap {
    const isWanted = Pattern.matchesAny(namespaces)
    let oldest: MemoryEntry | undefined
    for (const shelf of this.relevant(namespaces)) {
      for (const entry of shelf.between(0, (oldest?.seq ?? Infinity) - 1)) {
        if (!isWanted(entry.namespace)) continue
        oldest = entry
        break
      }
    }
    return { _tag: "Gap", reason, oldest: oldest?.position }
  }

  /** The first place, not before `from`, behind which nothing is missing for these namespaces. */
  private firstWhole(namespaces: Wanted, from: number): number {
    const isWanted = Pattern.matchesAny(namespaces)
    return this.relevant(namespaces).reduce((place, shelf) => shelf.lastDropped(isWanted, place), from)
  }

  private relevant(namespaces: Wanted): ReadonlyArray<Shelf> {
    return this.shelves.filter((shelf) => shelf.overlaps(namespaces))
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

  private readonly onDrop = (entry: MemoryEntry): void => {
    const { id } = entry.event
    if (id !== undefined && this.ownIds.get(id) === entry.seq) this.ownIds.delete(id)
  }
}
