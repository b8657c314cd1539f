/** A connection in memory, and what a client makes of its bytes. */
import type { Connection } from "effect-sse"

export class RecordedConnection implements Connection.Connection {
  text = ""
  endedBy: Connection.EndReason | undefined
  pending = 0
  readonly keepsItselfAlive = false
  private listener: ((reason: "client-closed" | "shutdown") => void) | undefined
  private readonly decoder = new TextDecoder()

  readonly write = (frame: Connection.Frame): number => {
    if (this.endedBy !== undefined) return 0
    this.text += this.decoder.decode(frame.bytes, { stream: true })
    return frame.size
  }
  readonly pendingBytes = (): number => this.pending
  readonly end = (reason: Connection.EndReason): void => void (this.endedBy = reason)
  readonly onClose = (listener: (reason: "client-closed" | "shutdown") => void): void => void (this.listener = listener)
  /** The client goes away. */
  close(): void {
    this.listener?.("client-closed")
  }
}

/** One block of a stream, as it stands: comments and `retry` are left out. */
export interface Block {
  readonly id: string | undefined
  readonly event: string
  /** `undefined`: it dispatches nothing. */
  readonly data: string | undefined
}

/** The whole blocks of a text. What is behind the last blank line is none. */
export const blocksOf = (text: string): ReadonlyArray<Block> =>
  text
    .split("\n\n")
    .slice(0, -1)
    .map((block) => {
      const values = (name: string) =>
        block
          .split("\n")
          .filter((line) => line.startsWith(`${name}:`))
          .map((line) => line.slice(name.length + 1))
      const data = values("data")
      return {
        id: values("id").at(-1),
        event: values("event").at(-1) ?? "message",
        data: data.length === 0 ? undefined : data.join("\n")
      }
    })
