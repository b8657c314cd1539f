import type { LogEntry } from "../EventLog.js"
import type { Frame } from "./frame.js"
import { join } from "./frame.js"
import type { Run } from "./run.js"

/**
 * What one subscription gets in one round: the entries in the log's order, and their bytes, joined once for all who
 * want bytes.
 *
 * @internal
 */
export class Batch {
  /** How many entries. */
  count = 0
  private readonly runs: Array<Run> = []
  private all: ReadonlyArray<LogEntry> | undefined
  private joined: Frame | undefined
  private joinedWide: Frame | undefined
  constructor(
    /** The number of the round. */
    readonly round: number
  ) {}

  add(run: Run): void {
    this.runs.push(run)
    this.count += run.count
  }

  /** Those that were wanted one by one when they came. */
  get entries(): ReadonlyArray<LogEntry> {
    return (this.all ??= this.runs.flatMap(({ entries }) => entries))
  }

  get frame(): Frame {
    return (this.joined ??= join(this.runs.map(({ text }) => text)))
  }

  /** For those who listen to several shards. */
  get wide(): Frame {
    return (this.joinedWide ??= join(this.runs.map(({ wide }) => wide)))
  }
}
