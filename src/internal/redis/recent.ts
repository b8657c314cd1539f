/**
 * The last entries of the log, as this node got them: what most clients missed that come back, without asking Redis.
 *
 * @internal
 */
import type * as Clock from "effect/Clock"
import type { RedisEntry } from "./position.js"

/** A run of entries without holes, in one life of the log. */
export class Recent {
  private entries: Array<RedisEntry> = []
  private head = 0
  private length = 0

  constructor(
    private readonly maxEntries: number,
    /** In characters. */
    private readonly maxLength: number,
    private readonly maxAge: number,
    private readonly clock: Clock.Clock
  ) {}

  clear(): void {
    this.entries = []
    this.head = 0
    this.length = 0
  }

  add(entries: ReadonlyArray<RedisEntry>): void {
    for (const entry of entries) {
      this.entries.push(entry)
      this.length += entry.text.length
    }
    this.drop()
    // Cut in one go now and then.
    if (this.head > 1024 && this.head * 2 > this.entries.length) {
      this.entries = this.entries.slice(this.head)
      this.head = 0
    }
  }

  private drop(): void {
    const now = this.clock.unsafeCurrentTimeMillis()
    const isOver = () => this.length > this.maxLength || this.entries.length - this.head > this.maxEntries
    while (this.head < this.entries.length && (isOver() || now - this.entries[this.head]!.ms > this.maxAge)) {
      this.length -= this.entries[this.head++]!.text.length
    }
  }

  at(n: number): RedisEntry | undefined {
    this.drop()
    const first = this.entries[this.head]
    return first === undefined || n < first.n ? undefined : this.entries[this.head + n - first.n]
  }

  /** From one number to another; `undefined` if they are not all here. */
  slice(from: number, to: number): ReadonlyArray<RedisEntry> | undefined {
    if (this.at(from) === undefined || this.at(to) === undefined) return undefined
    const start = this.head + from - this.entries[this.head]!.n
    return this.entries.slice(start, start + to - from + 1)
  }
}
