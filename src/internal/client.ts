/**
 * A connected client as the hub keeps it: its connection, what it was sent, and the rules that end it.
 *
 * @internal
 */
import type { Connection, EndReason, Frame } from "../Connection.js"
import type { LogEntry } from "../EventLog.js"
import type { ClientStatus } from "../HubClient.js"
import type { NamespacePattern } from "../NamespacePattern.js"
import { retry as retryBlock } from "../SseEvent.js"
import { Batch } from "./batch.js"
import { of as frameOf } from "./frame.js"
import type { Group } from "./keepalives.js"
import type { Subscriber } from "./registry.js"
import * as Run from "./run.js"

/** What does not change while it is connected. */
export interface ClientInfo extends Omit<ClientStatus, "events" | "bytes" | "pendingBytes"> {
  /** When its principal's proof was made, in ms since 1970. */
  readonly issuedAt: number | undefined
}

export interface ClientLimits {
  readonly maxPendingBytes: number
  readonly stallMillis: number
}

/** What the hub counts over all clients. */
export interface Totals {
  deliveries: number
  bytes: number
}

export class Client implements Subscriber {
  events = 0
  bytes = 0
  ended: EndReason | undefined
  /** With whom it gets its next keepalive. */
  group: Group | undefined
  // Bytes given to the connection, as it counts them.
  private accepted = 0
  // While something waits: how much had been given when it was first seen to wait, and when that was.
  private mark = 0
  private markedAt: number | undefined
  // While it is given what it missed: what is live, for then.
  private held: Array<LogEntry> | undefined
  private heldLength = 0
  private heldFrom = 0
  /** Whether more was live than is held. */
  missed = false

  constructor(
    readonly info: ClientInfo,
    readonly connection: Connection,
    private readonly limits: ClientLimits,
    private readonly totals: Totals,
    private readonly onEnd: (client: Client) => void,
    private readonly onWait: (client: Client) => void,
    /** Whether it listens to several shards of the log. */
    private readonly isWide: boolean
  ) {}

  get id(): number {
    return this.info.id
  }

  get namespaces(): ReadonlyArray<NamespacePattern> {
    return this.info.namespaces
  }

  deliver(batch: Batch, now: number): void {
    if (this.ended !== undefined) return
    if (this.held !== undefined) return this.keep(batch)
    this.events += batch.count
    this.totals.deliveries += batch.count
    this.write(this.isWide ? batch.wide : batch.frame, now)
  }

  /**
   * From now on what is live is held; see `replay.ts`. What was held is let go, but for events that no log gives again.
   *
   * @param round the number of the round under way, whose events the client is given otherwise
   */
  hold(round: number): void {
    this.letGo()
    this.heldFrom = round
    this.missed = false
  }

  /** Gives what was held, and is live. */
  release(now: number): void {
    const entries = this.held ?? []
    this.held = undefined
    if (entries.length === 0) return
    const batch = new Batch(this.heldFrom)
    for (const run of Run.split(entries, true)) batch.add(run)
    this.deliver(batch, now)
  }

  /** Gives what is not live, while that is held. */
  replay(frame: Frame, events: number, now: number): void {
    if (this.ended !== undefined) return
    this.events += events
    this.totals.deliveries += events
    this.write(frame, now)
  }

  /** Tells it that the log has lost events. One that is given what it missed meets the gap where it looks for that. */
  reset(frame: Frame, now: number): void {
    if (this.held === undefined) return this.replay(frame, 0, now)
    this.missed = true
    this.letGo()
  }

  /** Of what is held, only events stay that no log gives again. */
  private letGo(): void {
    this.held = (this.held ?? []).filter(isFleeting)
    this.heldLength = this.held.reduce((sum, entry) => sum + entry.text.length, 0)
  }

  private keep({ entries, round }: Batch): void {
    for (const entry of entries) {
      if (isFleeting(entry) || (round > this.heldFrom && !this.missed)) {
        this.held!.push(entry)
        this.heldLength += entry.text.length
      }
    }
    const limit = this.limits.maxPendingBytes / 4
    if (this.heldLength <= limit) return
    this.missed = true
    this.letGo()
    if (this.heldLength > limit) this.end("pending-overflow")
  }

  /** Bytes that wait. A connection that throws is at its end, and must not take others with it. */
  get pendingBytes(): number {
    if (this.ended !== undefined) return 0
    try {
      return this.connection.pendingBytes()
    } catch {
      this.end("failed")
      return 0
    }
  }

  write(frame: Frame, now: number): void {
    if (this.ended !== undefined) return
    // What waits is looked at before the write: one large event does not end a client that had nothing waiting. Without a
    // mark nothing waited behind the last write.
    if (this.markedAt !== undefined && this.pendingBytes > this.limits.maxPendingBytes) {
      return this.end("pending-overflow")
    }
    this.bytes += frame.size
    this.totals.bytes += frame.size
    try {
      this.accepted += this.connection.write(frame)
    } catch {
      return this.end("failed")
    }
    if (this.markedAt === undefined && this.pendingBytes > 0) {
      this.setMark(now)
      this.onWait(this)
    }
  }

  /** Ends the connection if what waited at the last mark still waits `stallMillis` later. Whether anything waits. */
  checkStall(now: number): boolean {
    if (this.markedAt === undefined) return false
    const pending = this.pendingBytes
    if (pending === 0) this.markedAt = undefined
    else if (this.accepted - pending >= this.mark) this.setMark(now)
    else if (now - this.markedAt >= this.limits.stallMillis) this.end("stalled")
    return this.markedAt !== undefined && this.ended === undefined
  }

  end(reason: EndReason): void {
    if (this.ended !== undefined) return
    this.ended = reason
    this.held = undefined
    this.onEnd(this)
    try {
      this.connection.end(reason)
    } catch {
      // It has ended as far as the hub is concerned.
    }
  }

  /** Tells the client when to come back, and ends. */
  sayGoodbye(retryMillis: number | undefined, reason: "shutdown" | "evicted" | "failed", now: number): void {
    if (retryMillis !== undefined) this.write(frameOf(retryBlock(retryMillis)), now)
    this.end(reason)
  }

  private setMark(now: number): void {
    this.mark = this.accepted
    this.markedAt = now
  }
}

// Field by field: made ten thousand at a time, and a spread takes ten times as long.
export const clientStatus = ({ bytes, events, info, pendingBytes }: Client): ClientStatus => ({
  id: info.id,
  namespaces: info.namespaces,
  requestPath: info.requestPath,
  address: info.address,
  userAgent: info.userAgent,
  principal: info.principal,
  expiresAt: info.expiresAt,
  metadata: info.metadata,
  connectedAt: info.connectedAt,
  events,
  bytes,
  pendingBytes
})

/** Whether no log gives it again: only what is kept carries an id. */
const isFleeting = (entry: LogEntry): boolean => !entry.text.startsWith("id:")
