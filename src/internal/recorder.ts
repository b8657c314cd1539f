/**
 * A connection without a network, that keeps what its client reads.
 *
 * @internal
 */
import { createParser } from "eventsource-parser"
import { type Connection, type EndReason, type Frame, isAbrupt } from "../Connection.js"
import type { ReceivedEvent } from "../SseTest.js"

export interface Listener {
  readonly onEvent: (event: ReceivedEvent) => void
  /** The connection ended. */
  readonly onEnd: (reason: EndReason) => void
  /** It ended, and all that came through was read. */
  readonly onLast: () => void
}

export class Recorder implements Connection {
  readonly keepsItselfAlive = false
  readonly events: Array<ReceivedEvent> = []
  text = ""
  lastEventId = ""
  retry: number | undefined
  ended: EndReason | undefined
  private waiting: Array<Uint8Array> = []
  private pending = 0
  private rest = ""
  private hub: ((reason: "client-closed") => void) | undefined
  private readonly decoder = new TextDecoder()
  private readonly parser = createParser({
    onEvent: ({ data, event = "message" }) => {
      const received = { event, data, ...(this.lastEventId === "" ? {} : { id: this.lastEventId }) }
      this.events.push(received)
      this.listener.onEvent(received)
    },
    onRetry: (millis) => (this.retry = millis)
  })

  constructor(
    private reading: boolean,
    private readonly listener: Listener
  ) {}

  write({ bytes }: Frame): number {
    if (this.ended !== undefined) return 0
    this.waiting.push(bytes)
    this.pending += bytes.length
    if (this.reading) this.read(Infinity)
    return bytes.length
  }

  pendingBytes(): number {
    return this.pending
  }

  end(reason: EndReason): void {
    if (this.ended !== undefined) return
    this.ended = reason
    // What waits for a client that is gone, or was cut off, reaches nobody.
    if (isAbrupt(reason) || reason === "client-closed") {
      this.waiting = []
      this.pending = 0
    }
    this.listener.onEnd(reason)
    this.read(0)
  }

  onClose(listener: (reason: "client-closed" | "shutdown") => void): void {
    this.hub = listener
  }

  /** The client goes away. */
  close(): void {
    this.hub?.("client-closed")
  }

  setReading(reading: boolean): void {
    this.reading = reading
    if (reading) this.read(Infinity)
  }

  /** Takes so many bytes of what waits. */
  read(max: number): number {
    let left = Math.max(0, Math.min(max, this.pending))
    const taken = left
    this.pending -= taken
    while (left > 0) {
      const chunk = this.waiting.shift()!
      if (chunk.length > left) this.waiting.unshift(chunk.subarray(left))
      this.receive(this.decoder.decode(chunk.subarray(0, left), { stream: true }))
      left -= Math.min(left, chunk.length)
    }
    if (this.ended !== undefined && this.pending === 0) this.listener.onLast()
    return taken
  }

  private receive(text: string): void {
    this.text += text
    // Whole blocks, as the parser does not tell of an id in a block without data, which counts as well.
    const blocks = (this.rest + text).split("\n\n")
    this.rest = blocks.pop()!
    for (const block of blocks) {
      this.lastEventId = /(?:^|\n)id: ?([^\n]*)/.exec(block)?.[1] ?? this.lastEventId
      this.parser.feed(block + "\n\n")
    }
  }
}
