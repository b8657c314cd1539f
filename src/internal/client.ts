/**
 * A connected client as the hub keeps it: its connection, what it was sent, and the rules that end it.
 *
 * @internal
 */
import type { Connection, EndReason, Frame } from "../Connection.js"
import type { Namespace } from "../Namespace.js"
import type { Batch } from "./batch.js"
import type { Subscriber } from "./registry.js"

export interface ClientInfo {
  readonly id: number
  readonly namespaces: ReadonlyArray<Namespace>
  readonly requestPath: string
  readonly address: string
  readonly userAgent: string
  readonly connectedAt: number
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
  // While something waits: how much had been written when it was first seen to wait, and when that was.
  private mark = 0
  private markedAt: number | undefined

  constructor(
    readonly info: ClientInfo,
    readonly connection: Connection,
    private readonly limits: ClientLimits,
    private readonly totals: Totals,
    private readonly onEnd: (client: Client) => void
  ) {}

  get id(): number {
    return this.info.id
  }

  get namespaces(): ReadonlyArray<Namespace> {
    return this.info.namespaces
  }

  deliver(batch: Batch, now: number): void {
    if (this.ended !== undefined) return
    this.events += batch.entries.length
    this.totals.deliveries += batch.entries.length
    this.write(batch.frame, now)
  }

  write(frame: Frame, now: number): void {
    if (this.ended !== undefined) return
    this.bytes += frame.bytes.length
    this.totals.bytes += frame.bytes.length
    const pending = this.attempt(() => {
      this.connection.write(frame)
      return this.connection.pendingBytes()
    })
    if (pending === 0) return
    if (pending > this.limits.maxPendingBytes) this.end("pending-overflow")
    else if (this.markedAt === undefined) this.setMark(now)
  }

  /** Ends the connection if what waited at the last mark still waits `stallMillis` later. */
  checkStall(now: number): void {
    if (this.markedAt === undefined || this.ended !== undefined) return
    const pending = this.attempt(this.connection.pendingBytes)
    if (pending === 0) this.markedAt = undefined
    else if (this.bytes - pending >= this.mark) this.setMark(now)
    else if (now - this.markedAt >= this.limits.stallMillis) this.end("stalled")
  }

  end(reason: EndReason): void {
    if (this.ended !== undefined) return
    this.ended = reason
    this.onEnd(this)
    try {
      this.connection.end(reason)
    } catch {
      // It has ended as far as the hub is concerned.
    }
  }

  /** A connection that throws is at its end, and must not take others with it. */
  private attempt(pendingBytes: () => number): number {
    try {
      return pendingBytes()
    } catch {
      this.end("failed")
      return 0
    }
  }

  private setMark(now: number): void {
    this.mark = this.bytes
    this.markedAt = now
  }
}
