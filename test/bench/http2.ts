/**
 * The least of an HTTP/2 client over TLS, so that it costs less than the server that is measured: it opens streams, and hands
 * out what comes on them. Its windows are so large that it never has to open them again (RFC 9113 section 6.9.2).
 */
import * as Tls from "node:tls"

const type = { data: 0, headers: 1, reset: 3, settings: 4, goaway: 7, windowUpdate: 8 } as const

const frame = (kind: number, flags: number, stream: number, payload: Uint8Array = new Uint8Array()): Buffer => {
  const bytes = Buffer.alloc(9 + payload.length)
  bytes.writeUIntBE(payload.length, 0, 3)
  bytes[3] = kind
  bytes[4] = flags
  bytes.writeUInt32BE(stream, 5)
  bytes.set(payload, 9)
  return bytes
}

const uint32 = (value: number) => Buffer.from([value >>> 24, (value >>> 16) & 255, (value >>> 8) & 255, value & 255])

const maxWindow = 0x7fffffff

export interface StreamReader {
  readonly onHead: () => void
  readonly onData: (bytes: Buffer, start: number, end: number) => void
}

export class Http2Connection {
  private readonly readers = new Map<number, StreamReader>()
  private nextStream = 1
  // What is under way: a frame's head, and then its payload; that of DATA is not kept.
  private head = Buffer.alloc(9)
  private headLength = 0
  private left = 0
  private reader: StreamReader | undefined

  private constructor(private readonly socket: Tls.TLSSocket) {
    const initialWindow = Buffer.concat([Buffer.from([0, 4]), uint32(maxWindow)])
    socket.write("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
    socket.write(frame(type.settings, 0, 0, initialWindow))
    socket.write(frame(type.windowUpdate, 0, 0, uint32(maxWindow - 65_535)))
    socket.on("data", (bytes) => this.read(bytes))
  }

  static readonly open = (port: number, onClose: (error: Error) => void): Promise<Http2Connection> =>
    new Promise((resolve, reject) => {
      const socket = Tls.connect({ port, host: "127.0.0.1", rejectUnauthorized: false, ALPNProtocols: ["h2"] }, () =>
        resolve(new Http2Connection(socket))
      )
      socket.on("error", reject)
      socket.on("close", () => onClose(new Error("closed")))
    })

  get(path: string, reader: StreamReader): void {
    const id = this.nextStream
    this.nextStream += 2
    this.readers.set(id, reader)
    // RFC 7541: GET and https from the static table, path and authority as they are.
    const block = Buffer.concat([
      Buffer.from([0x82, 0x87, 0x04, path.length]),
      Buffer.from(path),
      Buffer.from([0x01, 9])
    ])
    this.socket.write(frame(type.headers, 0x5, id, Buffer.concat([block, Buffer.from("localhost")])))
  }

  private read(bytes: Buffer): void {
    let at = 0
    while (at < bytes.length) {
      if (this.left === 0 && this.headLength < 9) {
        const count = Math.min(9 - this.headLength, bytes.length - at)
        bytes.copy(this.head, this.headLength, at, at + count)
        this.headLength += count
        at += count
        if (this.headLength < 9) return
        this.begin(bytes[at])
      }
      const count = Math.min(this.left, bytes.length - at)
      if (count > 0) this.reader?.onData(bytes, at, at + count)
      this.left -= count
      at += count
      if (this.left === 0) this.headLength = 0
    }
  }

  /** @param first the payload's first byte; a response's head is not cut there, as servers write it in one piece */
  private begin(first: number | undefined): void {
    const id = this.head.readUInt32BE(5)
    const kind = this.head[3]
    this.left = this.head.readUIntBE(0, 3)
    this.reader = kind === type.data ? this.readers.get(id) : undefined
    if (kind === type.settings && (this.head[4]! & 1) === 0) this.socket.write(frame(type.settings, 1, 0))
    else if (kind === type.headers) {
      if (first !== 0x88) throw new Error("the answer is not 200")
      this.readers.get(id)?.onHead()
    } else if (kind === type.reset || kind === type.goaway) throw new Error("the server ended it")
  }
}
