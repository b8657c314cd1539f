/**
 * Places in a log on Redis, and entries that know theirs.
 *
 * An entry's id in the stream is `n-ms`: its number, one more than that of the entry before, and when it was appended by the
 * clock of Redis. Numbers without holes tell whether anything is missing; the time tells two entries apart that got the same
 * number, as after a failover to a replica that had not got the first one. On the wire a position is `epoch-n-ms` in base 36.
 *
 * @internal
 */
import type { LogEntry } from "../../EventLog.js"
import type { Namespace } from "../../Namespace.js"
import type { SseEvent } from "../../SseEvent.js"

export interface Place {
  readonly epoch: string
  readonly n: number
  /** 0 if it is not known. */
  readonly ms: number
}

export const toText = ({ epoch, ms, n }: Place): string => `${epoch}-${n.toString(36)}-${ms.toString(36)}`

const number = "(0|[1-9a-z][0-9a-z]{0,9})"
const pattern = new RegExp(`^([0-9a-z]{6})-${number}-${number}$`)

export const parse = (text: string): Place | undefined => {
  const match = pattern.exec(text)
  if (match === null) return undefined
  const place = { epoch: match[1]!, n: Number.parseInt(match[2]!, 36), ms: Number.parseInt(match[3]!, 36) }
  return Number.isSafeInteger(place.n) && Number.isSafeInteger(place.ms) ? place : undefined
}

/** Whether two places with one number are the same, as far as is known. */
export const isSame = (a: number, b: number): boolean => a === b || a === 0 || b === 0

/**
 * What an entry is, and the name of the field of its text:
 *
 * - `t`: an event that is kept
 * - `v`: one that is kept as its namespace's value too
 * - `x`: one that is not kept
 * - `m`: the mark with which a life of the log begins
 */
export type Kind = "t" | "v" | "x" | "m"

/** As `XRANGE` and `XREAD` give it. */
export type Raw = readonly [id: string, fields: ReadonlyArray<string>]

export const idOf = (raw: Raw): { readonly n: number; readonly ms: number } => {
  const [n, ms] = raw[0].split("-")
  return { n: Number(n), ms: Number(ms) }
}

export const isMark = (raw: Raw): boolean => raw[1][0] === "m"

export class RedisEntry implements LogEntry {
  private parsed: SseEvent | undefined
  readonly text: string

  constructor(
    readonly namespace: Namespace,
    private readonly block: string,
    readonly kind: Kind,
    readonly epoch: string,
    readonly n: number,
    readonly ms: number
  ) {
    this.text = kind === "x" || block.startsWith("id:") ? block : `id:${this.position}\n${block}`
  }

  get isKept(): boolean {
    return this.kind !== "x"
  }

  get position(): string {
    return toText(this)
  }

  get at(): number {
    return this.ms
  }

  /** Read back from the text; few want it. */
  get event(): SseEvent {
    return (this.parsed ??= parseBlock(this.namespace, this.block))
  }
}

export const decode = (raw: Raw, epoch: string): RedisEntry => {
  const { ms, n } = idOf(raw)
  const [, namespace = "/", kind = "x", text = ""] = raw[1]
  return new RedisEntry(namespace as Namespace, text, kind as Kind, epoch, n, ms)
}

/** The event of a block as `SseEvent.toBlock` makes it. */
const parseBlock = (namespace: Namespace, block: string): SseEvent => {
  const fields: Record<string, string> = {}
  const data: Array<string> = []
  for (const line of block.split("\n")) {
    const colon = line.indexOf(":")
    if (colon === -1) continue
    const name = line.slice(0, colon)
    const value = line.slice(line[colon + 1] === " " ? colon + 2 : colon + 1)
    if (name === "data") data.push(value)
    else fields[name] = value
  }
  const { event, id, retry } = fields
  return {
    namespace,
    data: data.join("\n"),
    ...(event === undefined ? {} : { event }),
    ...(id === undefined ? {} : { id }),
    ...(retry === undefined ? {} : { retry: Number(retry) })
  }
}
