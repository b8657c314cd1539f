/**
 * `npm run soak [-- --minutes N]`: 2,000 clients that come, go, stall and vanish at random, while 500 events a second flow to
 * namespaces that change. Every event is accounted for: a client gets each of its namespaces' numbers one behind the
 * other, up to the last, or its connection has ended. Exits 1 if anything is wrong.
 */
import { fork } from "node:child_process"
import { once } from "node:events"
import * as Net from "node:net"
import { fileURLToPath } from "node:url"
import { parseArgs } from "node:util"
import type { Stats } from "./servers/soak.js"

const { values } = parseArgs({ options: { minutes: { type: "string", default: "5" } } })
const minutes = Number(values.minutes)
const target = 2000

const server = fork(fileURLToPath(new URL("servers/soak.js", import.meta.url)), { execArgv: ["--expose-gc"] })
const [{ port }] = (await once(server, "message")) as [{ readonly port: number }]

const ask = async (): Promise<Stats> => {
  server.send("stats")
  const [stats] = (await once(server, "message")) as [Stats]
  return stats
}

const sleep = (ms: number) => new Promise<void>((resolve) => setTimeout(resolve, ms))
const say = (text: string) => process.stdout.write(text + "\n")

type Kind = "leaf" | "parent" | "stalled" | "vanishing"

let epoch = 0
let opened = 0
// Left before they saw the head; the server may have counted them.
let unanswered = 0
let leaving = true
let read = 0
const problems: Array<string> = []
const clients = new Set<Client>()

class Client {
  readonly socket: Net.Socket
  readonly numbers = new Map<number, number>()
  answered = false
  private rest = ""

  constructor(
    readonly kind: Kind,
    readonly k: number
  ) {
    // One that does not read listens to all, so that in the end more waits for it than the system takes.
    const path = kind === "leaf" ? `/soak/${epoch}/${k}` : kind === "stalled" ? "/soak" : `/soak/${epoch}`
    this.socket = Net.connect(port, "127.0.0.1", () => {
      if (kind === "vanishing") {
        this.socket.write("GET /subscribe/soak HTTP/1.1\r\nHo")
        this.socket.destroy()
        return
      }
      this.socket.write(`GET /subscribe${path} HTTP/1.1\r\nHost: localhost\r\n\r\n`)
      // A socket that is not read does not see its end either.
      if (kind === "stalled") setTimeout(() => this.socket.resume(), 120_000).unref()
      else setTimeout(() => this.leave(), -Math.log(Math.random()) * 60_000).unref()
    })
    this.socket.on("error", () => {})
    this.socket.on("close", () => {
      clients.delete(this)
      if (!this.answered && kind !== "vanishing") unanswered++
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

  private take(data: string): void {
    const text = this.rest + data
    if (!this.answered && text.includes("\r\n\r\n")) {
      this.answered = true
      opened++
      if (!text.startsWith("HTTP/1.1 200 ")) problems.push(text.slice(0, 200))
      if (this.kind === "stalled") this.socket.pause()
    }
    const event = /data:(\d+):(\d+):x+\n\n/g
    let end = 0
    for (let match = event.exec(text); match !== null; match = event.exec(text)) {
      end = event.lastIndex
      read++
      const k = Number(match[1])
      const number = Number(match[2])
      const before = this.numbers.get(k)
      if (before !== undefined && number !== before + 1) problems.push(`${this.kind} ${k}: ${number} after ${before}`)
      this.numbers.set(k, number)
    }
    this.rest = text.slice(Math.max(end, text.length - 1000))
  }
}

const choose = (): Kind => {
  const kind = Math.random()
  return kind < 0.85 ? "leaf" : kind < 0.9 ? "parent" : kind < 0.95 ? "stalled" : "vanishing"
}

const begun = performance.now()
const running = () => performance.now() - begun < minutes * 60_000
let early: Stats | undefined
let said = 0
while (running()) {
  for (let i = clients.size; i < target; i++) clients.add(new Client(choose(), Math.floor(Math.random() * 50)))
  await sleep(50)
  const elapsed = performance.now() - begun
  if (elapsed > (said + 1) * 10_000) {
    said++
    const stats = await ask()
    epoch = stats.epoch
    if (early === undefined && elapsed > 60_000) early = stats
    if (said % 6 === 0) {
      say(
        `${Math.round(elapsed / 60_000)} min: heap ${(stats.heap / 1e6).toFixed(1)} MB, ${stats.clients} clients, ${stats.connects} so far, ` +
          `${read} events read, ended ${JSON.stringify(stats.ended)}`
      )
    }
  }
}

// Nobody comes or goes any more, and what was published arrives.
leaving = false
server.send("stop")
await sleep(5000)
const final = await ask()
for (const client of clients) {
  if (client.kind === "stalled") continue
  for (const [key, number] of client.numbers) {
    const last = Math.floor(key / 100) === final.epoch ? final.last[key % 100] : number
    if (number !== last) problems.push(`${client.kind} ${key}: the last is ${last}, got ${number}`)
  }
}
const withClients = final
for (const client of clients) client.socket.destroy()
await sleep(3000)
const idle = await ask()

const check = (holds: boolean, what: string) => {
  if (!holds) problems.push(what)
}
const base = early ?? final
check(withClients.clients === withClients.sockets, `${withClients.clients} clients, ${withClients.sockets} sockets`)
check(idle.clients === 0 && idle.sockets === 0, `${idle.clients} clients and ${idle.sockets} sockets are left`)
check(
  opened <= idle.connects && idle.connects <= opened + unanswered,
  `${opened} heads were seen, ${unanswered} clients left before, ${idle.connects} were counted`
)
check(withClients.heap < base.heap * 1.1, "the heap has grown by more than a tenth")
check(withClients.listeners <= base.listeners, "process listeners have grown")
check(idle.timers <= base.timers, "timers have grown")

say(
  JSON.stringify(
    {
      minutes,
      published: idle.published,
      deliveries: idle.deliveries,
      eventsRead: read,
      clients: idle.connects,
      ended: idle.ended,
      heapAfterAMinuteMb: Math.round(base.heap / 1e5) / 10,
      heapAtTheEndMb: Math.round(withClients.heap / 1e5) / 10,
      heapWithoutClientsMb: Math.round(idle.heap / 1e5) / 10,
      timers: [base.timers, withClients.timers, idle.timers],
      listeners: [base.listeners, withClients.listeners, idle.listeners],
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
