/**
 * The load: opens connections on bare sockets, asks the server to broadcast, and measures what arrives. Prints one line
 * of JSON.
 *
 *     node load.js '{"port":8001,"clients":1000,"broadcast":{"rate":100,"seconds":5,"size":64}}'
 *
 * All events of a run have one length, so an event is counted by its bytes, and only the first and last of each read are
 * looked at: the number of the k-th event must be k more than that of the first, or something was lost, doubled or out of
 * order.
 */
import * as Net from "node:net"
import { Http2Connection } from "./http2.js"
import { monotonicMicros, payload } from "./support/broadcast.js"
import { namespaceOf } from "./support/namespaces.js"

export interface LoadOptions {
  readonly port: number
  readonly clients: number
  /** So many clients share a connection, over HTTP/2 and TLS, to the next port. */
  readonly streams?: number
  /** Further clients that subscribe and never read. */
  readonly stalled?: number
  readonly path?: string
  /** When set, client k subscribes to the k-th of many namespaces, and numbers are not checked. */
  readonly namespaces?: number
  /** It asks for them with a wildcard in front. */
  readonly wildcards?: boolean
  /** What to ask for; without it, only connect and stay for `idleSeconds`. */
  readonly broadcast?: {
    readonly rate: number
    readonly seconds: number
    readonly size: number
    readonly namespaces?: number
  }
  /** Broadcast before, at this rate, and not counted. */
  readonly warmup?: { readonly rate: number; readonly seconds: number }
  readonly idleSeconds?: number
  /** Do what the admin page does, and scrape the metrics every second. */
  readonly operator?: boolean
  /**
   * So many further clients that come at once when the broadcast begins, each with the position that is so many events back:
   * these are published before, to a namespace below, of which alone such a client gets events; they are not counted.
   */
  readonly resume?: { readonly clients: number; readonly events: number }
  /** When set, wait for a line on standard input between connecting and broadcasting, and tell when it is warm. */
  readonly handshake?: boolean
}

export interface LoadResult {
  readonly connected: number
  readonly connectSeconds: number
  readonly events: number
  readonly expected: number
  /** Connections that lost, doubled or mixed up events. */
  readonly broken: number
  readonly closed: number
  /** From the first event to the last. */
  readonly spanSeconds: number
  readonly eventsPerSecond: number
  readonly p50: number
  readonly p99: number
  readonly max: number
  /** From the first connect of those who resume until all have what they missed; -1 if some have not. */
  readonly resumeSeconds: number
  /** This process's share of a core while events came. */
  readonly clientCpu: number
}

/** Counts by value with an error of 1 %. */
class Histogram {
  private counts = new Float64Array(4096)
  private total = 0
  max = 0
  add(value: number, weight: number): void {
    const bucket = value < 1 ? 0 : Math.min(4095, 1 + Math.floor(Math.log(value) * 100))
    this.counts[bucket]! += weight
    this.total += weight
    if (value > this.max) this.max = value
  }
  clear(): void {
    this.counts = new Float64Array(4096)
    this.total = 0
    this.max = 0
  }
  quantile(q: number): number {
    let left = q * this.total
    for (let i = 0; i < this.counts.length; i++) {
      left -= this.counts[i]!
      if (left <= 0) return i === 0 ? 0 : Math.min(this.max, Math.exp((i - 0.5) / 100))
    }
    return this.max
  }
}

const options = JSON.parse(process.argv[2]!) as LoadOptions
const path = options.path ?? "/subscribe/bench"
const size = options.broadcast?.size ?? 64
const latencies = new Histogram()
let connected = 0
let closed = 0
let events = 0
let firstAt = 0
let lastAt = 0

/** Where the number and the monotonic time stand in `data:n=.......... t=................ m=................`. */
const sample = payload(0, size, 0)
const numberAt = 5 + sample.indexOf("n=") + 2
const timeAt = 5 + sample.indexOf("m=") + 2
const headLength = timeAt + 16

const digits = (bytes: Buffer, at: number, count: number): number => {
  let value = 0
  for (let i = at; i < at + count; i++) value = value * 10 + bytes[i]! - 48
  return value
}

class Client {
  private head = ""
  private inBody = false
  private chunked = true
  // Of the current chunk: bytes still to come, or 0 while its size line is read, of which so much is known.
  private left = 0
  private chunkSize = 0
  private sizeRead = false
  // The event-stream: what is left of the block under way, and its first bytes.
  private block = Buffer.allocUnsafe(headLength + 64)
  private blockLength = 0
  private eventLength = 0
  /** Bytes of an event in front of its data: an id, if there are any. */
  private lead = 0
  /** The first id that it was told. */
  id: string | undefined
  private base: number | undefined
  private count = 0
  private ok = true

  /** @param missed how many events it is to get that are not counted */
  constructor(
    private readonly onHead: () => void,
    private readonly missed = 0
  ) {}

  /** @param length how many of the bytes are to be read */
  read(bytes: Buffer, length: number): void {
    let at = 0
    if (!this.inBody) {
      this.head += bytes.toString("latin1", 0, length)
      const end = this.head.indexOf("\r\n\r\n")
      if (end === -1) return
      at = length - (this.head.length - end - 4)
      this.inBody = true
      this.chunked = /transfer-encoding: *chunked/i.test(this.head)
      if (!this.head.startsWith("HTTP/1.1 200")) throw new Error(this.head)
      this.head = ""
      this.onHead()
    }
    if (!this.chunked) return this.body(bytes, at, length)
    while (at < length) {
      if (this.left > 0) {
        const take = Math.min(this.left, length - at)
        this.body(bytes, at, at + take)
        this.left -= take
        at += take
      } else {
        this.sizeByte(bytes[at++]!)
      }
    }
  }

  /** Each line but the empty one behind a chunk is a size in hexadecimal, and maybe more from a semicolon on. */
  private sizeByte(byte: number): void {
    if (byte === 10) {
      this.left = this.chunkSize
      this.chunkSize = 0
      this.sizeRead = false
    } else if (byte === 59) {
      this.sizeRead = true
    } else if (byte > 32 && !this.sizeRead) {
      this.chunkSize = this.chunkSize * 16 + (byte <= 57 ? byte - 48 : (byte | 32) - 87)
    }
  }

  /** A stream of HTTP/2 has neither head nor chunks. */
  readStream(bytes: Buffer, start: number, end: number): void {
    this.body(bytes, start, end)
  }

  /** Whole events are skipped by their length; the numbers of the first and last that begin here are looked at. */
  private body(bytes: Buffer, start: number, end: number): void {
    let at = start
    let whole = 0
    let first = -1
    let last = -1
    while (at < end) {
      const begin = this.lead === 0 ? 100 : 105
      if (this.blockLength === 0 && this.eventLength > 0 && bytes[at] === begin) {
        const count = Math.floor((end - at) / this.eventLength)
        const lastOne = at + (count - 1) * this.eventLength
        // An id that has grown by a digit moves all that is behind it, sometimes by whole events.
        if (count > 0 && this.isEvent(bytes, lastOne) && this.isRun(bytes, at, lastOne, count)) {
          if (first === -1) first = at
          last = lastOne
          at += count * this.eventLength
          whole += count
          continue
        }
      }
      at = this.slow(bytes, at, end)
    }
    if (whole > 0) this.take(whole, bytes, first, last)
  }

  private isEvent(bytes: Buffer, at: number): boolean {
    const data = at + this.lead
    return bytes[data] === 100 && bytes[data + 4] === 58 && bytes[at + this.eventLength - 2] === 10
  }

  /** Whether the numbers at both ends fit, where they follow one another. If not, each is looked at. */
  private isRun(bytes: Buffer, first: number, last: number, count: number): boolean {
    const numberOf = (at: number) => digits(bytes, at + this.lead + numberAt, 10)
    return count === 1 || options.namespaces !== undefined || numberOf(last) - numberOf(first) === count - 1
  }

  /** Byte by byte: comments, other fields, and events cut by the end of a read. */
  private slow(bytes: Buffer, from: number, end: number): number {
    let at = from
    for (; at < end; at++) {
      const byte = bytes[at]!
      if (this.blockLength < this.block.length) this.block[this.blockLength] = byte
      this.blockLength++
      if (byte === 10 && (this.previous === 10 || this.blockLength === 1)) {
        const length = this.blockLength
        this.blockLength = 0
        this.previous = 0
        const data = this.block.subarray(0, Math.min(length, headLength)).indexOf("data:")
        const hasId = length > 3 && this.block[0] === 105
        if (hasId) this.id ??= this.block.toString("latin1", 3, this.block.indexOf(10))
        if (length >= headLength && (data === 0 || (hasId && data === this.block.indexOf(10) + 1))) {
          this.eventLength = length
          this.lead = data
          this.take(1, this.block, 0, 0)
        } else if (data > 0 && data < 40) {
          this.odd(length)
        }
        return at + 1
      }
      this.previous = byte
    }
    return at
  }
  private previous = 0

  /** A peer that sends other fields before the data. */
  private odd(length: number): void {
    const text = this.block.toString("latin1", 0, Math.min(length, this.block.length))
    const number = /n=(\d{10})/.exec(text)
    const time = /m=(\d{16})/.exec(text)
    if (number === null || time === null) return
    const now = monotonicMicros()
    this.note(1, Number(number[1]), now)
    latencies.add(now - Number(time[1]), 1)
  }

  private take(count: number, bytes: Buffer, first: number, last: number): void {
    const now = monotonicMicros()
    const { lead } = this
    const firstNumber = digits(bytes, first + lead + numberAt, 10)
    this.note(count, firstNumber, now)
    if (this.missed > 0) return
    const waited = now - digits(bytes, first + lead + timeAt, 16)
    if (last === first) return latencies.add(waited, count)
    if (options.namespaces === undefined && digits(bytes, last + lead + numberAt, 10) !== firstNumber + count - 1) {
      this.ok = false
    }
    latencies.add(waited, count / 2)
    latencies.add(now - digits(bytes, last + lead + timeAt, 16), count / 2)
  }

  private note(count: number, firstNumber: number, now: number): void {
    if (this.missed > 0) {
      // Behind what it missed the numbers begin anew, with those of the broadcast.
      if (this.count < this.missed && firstNumber !== this.count) this.ok = false
      const before = this.count
      this.count += count
      if (before < this.missed && this.count >= this.missed && ++resumed === options.resume?.clients) {
        resumedAt = performance.now()
      }
      return
    }
    if (this.base === undefined) this.base = firstNumber
    if (options.namespaces === undefined && firstNumber - this.base !== this.count) {
      this.ok = false
      this.base = firstNumber - this.count
    }
    this.count += count
    events += count
    lastAt = now
    if (firstAt === 0) firstAt = now
  }

  /** Forgets what was counted, before another broadcast. */
  restart(): void {
    this.base = undefined
    this.count = 0
  }

  get isBroken(): boolean {
    return !this.ok
  }
}

const request = (path: string, extra = "") =>
  `GET ${path} HTTP/1.1\r\nHost: 127.0.0.1:${options.port}\r\nAccept: text/event-stream\r\n${extra}\r\n`

const clients: Array<Client> = []
const resuming: Array<Client> = []
let resumed = 0
let resumeBegan = 0
let resumedAt = 0

/** @param missed how many events it is to get that are not counted; with the id that it comes with, if it has one */
const open = (target: string, missed = 0, lastId?: string): Promise<Client> =>
  new Promise((resolve, reject) => {
    const client = new Client(() => {
      connected++
      resolve(client)
    }, missed)
    const socket = Net.connect({
      port: options.port,
      host: "127.0.0.1",
      noDelay: true,
      onread: {
        // One buffer for all: what is read is looked at before the next read.
        buffer: shared,
        callback: (length, buffer) => {
          client.read(buffer as Buffer, length)
          return true
        }
      }
    })
    socket.once("connect", () =>
      socket.write(request(target, lastId === undefined ? "" : `Last-Event-ID: ${lastId}\r\n`))
    )
    socket.on("error", reject)
    socket.on("close", () => {
      closed++
      reject(new Error("closed"))
    })
  })
// Small enough to stay in the core's cache, or reading takes twice as long when much waits.
const shared = Buffer.allocUnsafe(128 * 1024)

const openStreams = async (): Promise<void> => {
  const { clients: count, streams = 1 } = options
  for (let first = 0; first < count; first += streams) {
    const connection = await Http2Connection.open(options.port + 1, () => closed++)
    const opened = Array.from(
      { length: Math.min(streams, count - first) },
      (_, i) =>
        new Promise<void>((resolve) => {
          const onHead = () => {
            connected++
            resolve()
          }
          const client = new Client(onHead)
          clients.push(client)
          connection.get(pathOf(first + i), {
            onHead,
            onData: (bytes, start, end) => client.readStream(bytes, start, end)
          })
        })
    )
    await Promise.all(opened)
  }
}

const openStalled = (): Promise<void> =>
  new Promise((resolve, reject) => {
    const socket = Net.connect({ port: options.port, host: "127.0.0.1" }, () => {
      socket.pause()
      socket.write(request(path))
      resolve()
    })
    socket.on("error", reject)
  })

const pathOf = (k: number): string =>
  options.namespaces === undefined
    ? path
    : `/subscribe${namespaceOf(k % options.namespaces).replace(/^\/bench/, options.wildcards === true ? "/*" : "/bench")}`

const openSo = async (count: number, into: Array<Client>, open: (k: number) => Promise<Client>): Promise<void> => {
  let next = 0
  const worker = async () => {
    while (next < count) into.push(await open(next++))
  }
  await Promise.all(Array.from({ length: Math.min(2000, count) }, worker))
}

const openAll = async (): Promise<number> => {
  const start = performance.now()
  if (options.streams === undefined) await openSo(options.clients, clients, (k) => open(pathOf(k)))
  else await openStreams()
  const seconds = (performance.now() - start) / 1000
  await Promise.all(Array.from({ length: options.stalled ?? 0 }, openStalled))
  return seconds
}

const sleep = (ms: number) => new Promise<void>((resolve) => setTimeout(resolve, ms))

const trigger = (query: string): void => {
  const socket = Net.connect(options.port, "127.0.0.1", () =>
    socket.write(request(`/bench/start?${query}`, "Connection: close\r\n"))
  )
  socket.on("error", () => {})
  socket.resume()
}

/** An admin page that is open, and Prometheus. */
const operate = (): void => {
  const get = (path: string, close = true) => {
    const socket = Net.connect(options.port, "127.0.0.1", () =>
      socket.write(request(path, close ? "Connection: close\r\n" : ""))
    )
    socket.on("error", () => {})
    socket.resume()
  }
  get("/admin/events", false)
  get(`/admin/watch${path.slice("/subscribe".length)}`, false)
  setInterval(() => get("/admin/status.json?limit=100"), 2000)
  setInterval(() => get("/metrics"), 1000)
}

const say = (text: string) => process.stdout.write(text + "\n")

const main = async () => {
  const connectSeconds = await openAll()
  if (options.handshake === true) {
    say("connected")
    await new Promise((resolve) => process.stdin.once("data", resolve))
  }
  if (options.operator === true) operate()
  await sleep(300)
  const wanted = options.broadcast
  let expected = 0
  let cpu = process.cpuUsage()
  let begun = performance.now()
  if (wanted !== undefined) {
    const total = Math.round(wanted.rate * wanted.seconds)
    expected = options.namespaces === undefined ? total * options.clients : total
    const query = `rate=${wanted.rate}&secs=${wanted.seconds}&size=${wanted.size}${wanted.namespaces === undefined ? "" : `&namespaces=${wanted.namespaces}`}`
    const before = async (rate: number, seconds: number, to = "") => {
      trigger(`rate=${rate}&secs=${seconds}&size=${wanted.size}${to}`)
      const all = Math.round(rate * seconds) * options.clients
      for (let waited = 0; events < all && waited < 5000; waited += 20) await sleep(20)
      for (const client of clients) client.restart()
      latencies.clear()
      events = firstAt = 0
    }
    if (options.warmup !== undefined) {
      await before(options.warmup.rate, options.warmup.seconds)
    }
    let lastId: string | undefined
    if (options.resume !== undefined) {
      // Where the hub is now is where the next to connect is told to be.
      const last = await open(path, Infinity)
      while (last.id === undefined) await sleep(5)
      lastId = last.id
      await before(options.resume.events * 5, 0.2, "&to=/bench/past")
    }
    if (options.warmup !== undefined && options.handshake === true) say("warm")
    const { resume } = options
    if (resume !== undefined && resume.clients > 0) {
      resumeBegan = performance.now()
      void openSo(resume.clients, resuming, () => open(`${path}/past`, resume.events, lastId))
    }
    trigger(query)
    cpu = process.cpuUsage()
    begun = performance.now()
    // Until all has come, or it is clear that it will not.
    while (events < expected && performance.now() - begun < wanted.seconds * 1000 + 3000) await sleep(20)
  } else {
    await sleep((options.idleSeconds ?? 1) * 1000)
  }
  const used = process.cpuUsage(cpu)
  const span = firstAt === 0 ? 0 : (lastAt - firstAt) / 1e6
  const result: LoadResult = {
    connected,
    connectSeconds,
    events,
    expected,
    broken: [...clients, ...resuming].filter((client) => client.isBroken).length,
    closed,
    spanSeconds: span,
    resumeSeconds: resumedAt === 0 ? (resumeBegan === 0 ? 0 : -1) : (resumedAt - resumeBegan) / 1000,
    eventsPerSecond: span > 0 ? events / span : 0,
    p50: latencies.quantile(0.5) / 1000,
    p99: latencies.quantile(0.99) / 1000,
    max: latencies.max / 1000,
    clientCpu: (used.user + used.system) / 1000 / (performance.now() - begun)
  }
  say(JSON.stringify(result))
  process.exit(0)
}

void main()
