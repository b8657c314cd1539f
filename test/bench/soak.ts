/**
 * `npm run soak [-- --minutes N]`: 2,000 clients that come, go, stall and vanish at random, while 500 events a second flow to
 * namespaces that change. Every event is accounted for: what the hub handed to a client is what that client read, or its
 * connection ended for a reason that is counted; and each client reads its namespaces' numbers one behind the other, up to the
 * last. Exits 1 if anything is wrong.
 */
import { fork } from "node:child_process"
import { once } from "node:events"
import * as Net from "node:net"
import { fileURLToPath } from "node:url"
import { parseArgs } from "node:util"
import type { Final, Stats } from "./servers/soak.js"

const { values } = parseArgs({ options: { minutes: { type: "string", default: "5" } } })
const minutes = Number(values.minutes)
const target = 2000

const server = fork(fileURLToPath(new URL("servers/soak.js", import.meta.url)), { execArgv: ["--expose-gc"] })
const [{ port }] = (await once(server, "message")) as [{ readonly port: number }]

const ask = async <A = Stats>(question = "stats"): Promise<A> => {
  server.send(question)
  const [answer] = (await once(server, "message")) as [A]
  return answer
}

const sleep = (ms: number) => new Promise<void>((resolve) => setTimeout(resolve, ms))
const say = (text: string) => process.stdout.write(text + "\n")

/**
 * - leaf, parent: read until they leave, one namespace or all of the moment.
 * - stalled: listens to everything and never reads.
 * - vanishing: a leaf that from some moment on does nothing any more. Its system still acknowledges what it has room for, as
 *   no program can make it stop; what is behind is not acknowledged, as of one whose cable was pulled.
 * - hasty: gone before its request is whole.
 */
type Kind = "leaf" | "parent" | "stalled" | "vanishing" | "hasty"

let epoch = 0
let opened = 0
// Left before they saw the head; the server may have counted them.
let unanswered = 0
let leaving = true
let names = 0
const problems: Array<string> = []
const problem = (text: string) => {
  if (problems.push(text) <= 10) say(`problem: ${text}`)
}
const clients = new Set<Client>()
/** Events read, by the client's name, of all that there ever were. */
const read = new Map<string, number>()

class Client {
  readonly name = `soak ${names++}`
  readonly socket: Net.Socket
  readonly numbers = new Map<number, number>()
  answered = false
  /** Whether it reads no more. */
  deaf = false
  private rest = ""

  constructor(
    readonly kind: Kind,
    readonly k: number
  ) {
    // One that does not read listens to all, so that more waits for it than the system takes.
    const path = kind === "stalled" ? "/soak" : kind === "parent" ? `/soak/${epoch}` : `/soak/${epoch}/${k}`
    this.socket = Net.connect(port, "127.0.0.1", () => {
      if (kind === "hasty") {
        this.socket.write("GET /subscribe/soak HTTP/1.1\r\nHo")
        this.socket.destroy()
        return
      }
      read.set(this.name, 0)
      this.socket.write(`GET /subscribe${path} HTTP/1.1\r\nHost: localhost\r\nUser-Agent: ${this.name}\r\n\r\n`)
      if (kind === "vanishing") setTimeout(() => this.stop(), Math.random() * 20_000).unref()
      if (kind === "leaf" || kind === "parent") {
        setTimeout(() => this.leave(), -Math.log(Math.random()) * 60_000).unref()
      }
    })
    this.socket.on("error", () => {})
    this.socket.on("close", () => {
      clients.delete(this)
      if (!this.answered && kind !== "hasty") unanswered++
    })
    this.socket.setEncoding("latin1")
    this.socket.on("data", (data: string) => this.take(data))
  }

  private leave(): void {
    if (!leaving) return
    const how = Math.random()
    if (how < 0.4) this.socket.end()
    else if (how < 0.8) this.socket.destroy()
    else this.socket.resetAndDestroy()
  }

  private stop(): void {
    this.deaf = true
    this.socket.pause()
    // A socket that is not read does not see its end either.
    setTimeout(() => this.socket.resume(), 120_000).unref()
  }

  private take(data: string): void {
    const text = this.rest + data
    if (!this.answered && text.includes("\r\n\r\n")) {
      this.answered = true
      opened++
      if (!text.startsWith("HTTP/1.1 200 ")) problem(text.slice(0, 200))
      if (this.kind === "stalled") this.stop()
    }
    const event = /data:(\d+):(\d+):x+\n\n/g
    let end = 0
    let events = 0
    for (let match = event.exec(text); match !== null; match = event.exec(text)) {
      end = event.lastIndex
      events++
      const key = Number(match[1])
      const number = Number(match[2])
      const before = this.numbers.get(key)
      if (before !== undefined && number !== before + 1) problem(`${this.kind} ${key}: ${number} after ${before}`)
      this.numbers.set(key, number)
    }
    read.set(this.name, (read.get(this.name) ?? 0) + events)
    this.rest = text.slice(Math.max(end, text.length - 1000))
  }
}

const choose = (): Kind => {
  const kind = Math.random()
  return kind < 0.85 ? "leaf" : kind < 0.9 ? "parent" : kind < 0.93 ? "stalled" : kind < 0.97 ? "vanishing" : "hasty"
}

const gone: Array<Stats["gone"][number]> = []
const begun = performance.now()
const running = () => performance.now() - begun < minutes * 60_000
let early: Stats | undefined
let said = 0
let apart = 0
while (running()) {
  for (let i = clients.size; i < target; i++) clients.add(new Client(choose(), Math.floor(Math.random() * 50)))
  await sleep(50)
  const elapsed = performance.now() - begun
  if (elapsed > (said + 1) * 10_000) {
    said++
    const stats = await ask()
    epoch = stats.epoch
    gone.push(...stats.gone)
    // Connections without a stream: those that are just being made or let go of.
    apart = Math.max(apart, Math.abs(stats.sockets - stats.clients))
    if (early === undefined && elapsed > 60_000) early = stats
    if (said % 6 === 0) {
      say(
        `${Math.round(elapsed / 60_000)} min: heap ${(stats.heap / 1e6).toFixed(1)} MB, ${stats.clients} clients, ${stats.sockets} sockets, ` +
          `${stats.connects} clients so far, ${stats.deliveries} deliveries, ended ${JSON.stringify(stats.ended)}`
      )
    }
  }
}

// Nobody comes or goes any more, and what was published arrives.
leaving = false
server.send("stop")
await sleep(5000)
const final = await ask<Final>("final")
gone.push(...final.gone)
for (const client of clients) {
  if (client.deaf) continue
  for (const [key, number] of client.numbers) {
    if (number !== final.last[key]) problem(`${client.kind} ${key}: the last is ${final.last[key]}, got ${number}`)
  }
}
const deaf = new Set(Array.from(clients).flatMap((client) => (client.deaf ? [client.name] : [])))
let underway = 0
for (const [name, events] of final.connected) {
  const missing = events - (read.get(name) ?? 0)
  if (deaf.has(name)) underway += missing
  else if (missing !== 0) problem(`${name} is connected, was handed ${events} events and did not read ${missing}`)
}
for (const client of clients) client.socket.destroy()
await sleep(3000)
const idle = await ask()

/** What was handed to connections that ended, and was not read, by the reason. */
const unread: Record<string, number> = {}
let handed = final.connected.reduce((sum, [, events]) => sum + events, 0)
const connected = new Set(final.connected.map(([name]) => name))
for (const [name, events, reason] of gone) {
  if (connected.has(name)) continue
  const missing = events - (read.get(name) ?? 0)
  if (missing < 0) problem(`${name} read ${-missing} more than it was handed`)
  handed += events
  unread[reason] = (unread[reason] ?? 0) + missing
}
const totalRead = Array.from(read.values()).reduce((sum, events) => sum + events, 0)
const lost = Object.values(unread).reduce((sum, events) => sum + events, 0)

const check = (holds: boolean, what: string) => {
  if (!holds) problem(what)
}
const base = early ?? final
check(final.published === final.sent, `${final.sent} events were sent, ${final.published} published`)
check(final.deliveries === handed, `${final.deliveries} deliveries, ${handed} events handed to clients`)
check(handed === totalRead + lost + underway, `${handed} handed, ${totalRead} read, ${lost} lost, ${underway} underway`)
check(
  Object.keys(unread).every((reason) => ["client-closed", "stalled", "pending-overflow"].includes(reason)),
  `ended for ${Object.keys(unread).join(", ")}`
)
check(final.clients === final.sockets, `${final.clients} clients, ${final.sockets} sockets`)
check(idle.clients === 0 && idle.sockets === 0, `${idle.clients} clients and ${idle.sockets} sockets are left`)
check(
  opened <= idle.connects && idle.connects <= opened + unanswered,
  `${opened} heads were seen, ${unanswered} clients left before, ${idle.connects} were counted`
)
check(final.heap < base.heap * 1.1, "the heap has grown by more than a tenth")
check(final.listeners <= base.listeners, "process listeners have grown")
check(idle.timers <= base.timers, "timers have grown")

const megabytes = (bytes: number) => Math.round(bytes / 1e5) / 10
say(
  JSON.stringify(
    {
      minutes,
      published: final.published,
      clients: idle.connects,
      ended: idle.ended,
      events: { handed, read: totalRead, unreadInEndedConnections: unread, underwayToClientsThatDoNotRead: underway },
      heapMb: {
        afterAMinute: megabytes(base.heap),
        atTheEnd: megabytes(final.heap),
        withoutClients: megabytes(idle.heap)
      },
      clientsAtTheEnd: final.clients,
      socketsAtTheEnd: final.sockets,
      mostSocketsWithoutStream: apart,
      timers: [base.timers, final.timers, idle.timers],
      listeners: [base.listeners, final.listeners, idle.listeners],
      problems: problems.length,
      first: problems.slice(0, 10)
    },
    undefined,
    2
  )
)
server.disconnect()
await once(server, "exit")
process.exit(problems.length === 0 ? 0 : 1)
