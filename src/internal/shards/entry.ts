/**
 * Entries of one shard of a log, with positions that tell of other shards as well.
 *
 * @internal
 */
import type { LogEntry } from "../../EventLog.js"
import * as Sharding from "./sharding.js"

/** What stands before and behind the position of one shard in a position of several. */
export class Others {
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
export class ShardEntry implements LogEntry {
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
