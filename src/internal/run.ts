/**
 * Entries of one namespace that follow one another, on their way to the clients.
 *
 * Their texts are joined when they come, so that one string waits instead of several objects for each event: what waits
 * through a long round is copied by the garbage collector, and at 50,000 events a second that was an eighth of a core.
 *
 * @internal
 */
import type { LogEntry } from "../EventLog.js"
import { joinText } from "./frame.js"

export class Run {
  constructor(
    readonly last: LogEntry,
    /** How many they are. */
    readonly count: number,
    /** Of all of them. */
    readonly text: string,
    /** Each of them; none if nobody wants them one by one. */
    readonly entries: ReadonlyArray<LogEntry>
  ) {}

  /** For those who listen to several shards. */
  get wide(): string {
    return this.entries.map(({ text, wide = text }) => wide).join("")
  }
}

/**
 * @internal
 * @param keep whether the entries are wanted one by one; those of a log in shards always are
 * @param maxLength characters after which a run ends
 */
export const split = (entries: ReadonlyArray<LogEntry>, keep: boolean, maxLength = Infinity): ReadonlyArray<Run> => {
  const runs: Array<Run> = []
  for (let start = 0, end = 0; start < entries.length; start = end) {
    const { namespace } = entries[start]!
    const texts: Array<string> = []
    let length = 0
    for (; end < entries.length && entries[end]!.namespace === namespace; end++) {
      const { text } = entries[end]!
      if (length > 0 && length + text.length > maxLength) break
      length += text.length
      texts.push(text)
    }
    runs.push(new Run(entries[end - 1]!, texts.length, joinText(texts), keep ? entries.slice(start, end) : none))
  }
  return runs
}

const none: ReadonlyArray<LogEntry> = []
