import type { LogEntry } from "../EventLog.js"
import type { Frame } from "./frame.js"
import { join } from "./frame.js"

/**
 * What one subscription gets in one round: the entries in the log's order, and their bytes, joined once for all who
 * want bytes.
 *
 * @internal
 */
export class Batch {
  private joined: Frame | undefined
  private joinedWide: Frame | undefined
  constructor(
    /** The number of the round. */
    readonly round: number,
    readonly entries: Array<LogEntry> = []
  ) {}

  get frame(): Frame {
    return (this.joined ??= join(this.entries.map((entry) => entry.text)))
  }

  /** For those who listen to several shards. */
  get wide(): Frame {
    return (this.joinedWide ??= join(this.entries.map((entry) => entry.wide ?? entry.text)))
  }
}
