/**
 * The entries that one rule keeps, in the log's order and within its bounds, and what had to be dropped.
 *
 * Every namespace has a list of what was published to it or below it, so that what a client missed is found without walking
 * through what others missed.
 *
 * @internal
 */
import type { LogEntry } from "../../EventLog.js"
import type { Namespace } from "../../Namespace.js"
import * as Ns from "../../Namespace.js"
import * as Pattern from "../../NamespacePattern.js"
import type { SseEvent } from "../../SseEvent.js"
import { byteLength } from "../frame.js"

export const positionOf = (epoch: string, seq: number): string => epoch + "-" + seq.toString(36)

/** An entry with its place as a number. */
export class MemoryEntry implements LogEntry {
  /** On the wire; known of those that are kept. */
  bytes = 0
  /** By a newer value. */
  isReplaced = false

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

export interface Bounds {
  readonly maxEvents: number
  readonly maxBytes: number
  readonly maxAge: number
}

/** Entries in their order. Those that were replaced are passed over, and taken out when they are the most. */
class List {
  private entries: Array<MemoryEntry | undefined> = []
  private head = 0
  private replaced = 0

  private get live(): number {
    return this.entries.length - this.head - this.replaced
  }

  get isEmpty(): boolean {
    return this.live === 0
  }

  push(entry: MemoryEntry): void {
    this.entries.push(entry)
  }

  /** One of them was replaced. */
  onReplaced(): void {
    if (++this.replaced <= this.live) return
    this.entries = this.entries.slice(this.head).filter((entry) => !entry!.isReplaced)
    this.head = this.replaced = 0
  }

  first(): MemoryEntry | undefined {
    for (; this.head < this.entries.length; this.step()) {
      const entry = this.entries[this.head]!
      if (!entry.isReplaced) return entry
      this.replaced--
    }
    return undefined
  }

  dropFirst(): void {
    if (this.first() !== undefined) this.step()
  }

  /** Those behind `after`, up to `upTo`, oldest first. */
  *between(after: number, upTo: number): Generator<MemoryEntry> {
    for (let i = this.indexBehind(after); i < this.entries.length; i++) {
      const entry = this.entries[i]!
      if (entry.seq > upTo) return
      if (!entry.isReplaced) yield entry
    }
  }

  /** All of them, newest first. */
  *backwards(): Generator<MemoryEntry> {
    for (let i = this.entries.length - 1; i >= this.head; i--) {
      const entry = this.entries[i]!
      if (!entry.isReplaced) yield entry
    }
  }

  private step(): void {
    this.entries[this.head++] = undefined
    if (this.head < 1024 || this.head * 2 < this.entries.length) return
    this.entries = this.entries.slice(this.head)
    this.head = 0
  }

  private indexBehind(seq: number): number {
    let low = this.head
    let high = this.entries.length
    while (low < high) {
      const middle = (low + high) >>> 1
      if (this.entries[middle]!.seq > seq) high = middle
      else low = middle + 1
    }
    return low
  }
}

/** Namespaces for which it is remembered what was dropped last. */
const maxDropped = 4096

export class Shelf {
  /** How many are kept. */
  size = 0
  private bytes = 0
  private readonly lists = new Map<string, List>()
  /** With `latest`: the entry of each namespace that is its value. */
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

  add(entry: MemoryEntry, onGone: (entry: MemoryEntry) => void): void {
    const { maxBytes, maxEvents } = this.bounds
    entry.bytes = byteLength(entry.text)
    for (const key of lineage(entry.namespace)) {
      let list = this.lists.get(key)
      if (list === undefined) this.lists.set(key, (list = new List()))
      list.push(entry)
    }
    this.size++
    this.bytes += entry.bytes
    const replaced = this.values?.get(entry.namespace)
    this.values?.set(entry.namespace, entry)
    if (replaced !== undefined) {
      // It is no loss: whoever was away gets the newer one.
      replaced.isReplaced = true
      for (const key of lineage(entry.namespace)) this.lists.get(key)!.onReplaced()
      this.leave(replaced, onGone)
    }
    while (this.size > maxEvents || this.bytes > maxBytes) this.dropOldest(onGone)
  }

  expire(now: number, onGone: (entry: MemoryEntry) => void): void {
    if (this.bounds.maxAge === Infinity) return
    for (;;) {
      const oldest = this.lists.get(Ns.root)?.first()
      if (oldest === undefined || now - oldest.at <= this.bounds.maxAge) return
      this.dropOldest(onGone)
    }
  }

  /** Whether it can hold anything for such a subscriber. */
  overlaps(patterns: ReadonlyArray<Pattern.NamespacePattern>): boolean {
    const { pattern } = this
    return pattern === undefined || patterns.some((one) => Pattern.overlaps(pattern, one))
  }

  /** What it holds that the pattern may cover: all of it, if the pattern is without wildcards. */
  under(pattern: Pattern.NamespacePattern): List | undefined {
    return this.lists.get(stem(pattern))
  }

  /** The last place behind `from`, of those that `isWanted`, whose entry was dropped; `from` if none was. */
  lastDropped(isWanted: (namespace: Namespace) => boolean, from: number): number {
    if (this.last <= from) return from
    let found = Math.max(from, this.floor)
    for (const [namespace, seq] of this.dropped) if (seq > found && isWanted(namespace)) found = seq
    return found
  }

  private dropOldest(onGone: (entry: MemoryEntry) => void): void {
    const entry = this.lists.get(Ns.root)!.first()!
    for (const key of lineage(entry.namespace)) {
      const list = this.lists.get(key)!
      list.dropFirst()
      if (list.isEmpty) this.lists.delete(key)
    }
    this.values?.delete(entry.namespace)
    this.last = entry.seq
    this.dropped.set(entry.namespace, entry.seq)
    if (this.dropped.size > maxDropped) this.forget()
    this.leave(entry, onGone)
  }

  private leave(entry: MemoryEntry, onGone: (entry: MemoryEntry) => void): void {
    this.size--
    this.bytes -= entry.bytes
    onGone(entry)
  }

  /** Remembers the newer half one by one, and the rest together. */
  private forget(): void {
    const oldest = Array.from(this.dropped).sort(([, a], [, b]) => a - b)
    for (const [namespace, seq] of oldest.slice(0, maxDropped / 2)) {
      this.floor = seq
      this.dropped.delete(namespace)
    }
  }
}

/** Namespaces of which the lineage is remembered. */
const maxLineages = 4096

const lineages = new Map<Namespace, ReadonlyArray<string>>()

/** A namespace and all above it. */
const lineage = (namespace: Namespace): ReadonlyArray<string> => {
  let found = lineages.get(namespace)
  if (found === undefined) {
    if (lineages.size >= maxLineages) lineages.clear()
    lineages.set(namespace, (found = [...Ns.ancestors(namespace), namespace]))
  }
  return found
}

/** What stands in front of the first wildcard. */
const stem = (pattern: Pattern.NamespacePattern): string => {
  const wildcard = /\/\*(?=\/|$)/.exec(pattern)
  return wildcard === null ? pattern : wildcard.index === 0 ? Ns.root : pattern.slice(0, wildcard.index)
}
