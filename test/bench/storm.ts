/**
 * `npm run storm`: 5,000 clients that reconnect as an EventSource does, and a server that is restarted under them; once as it
 * comes, and once told to let all come back at the same time. Prints how they came back, where the window is the time from
 * the first that is back to the last, and the peak the most in any 250 ms of it. Exits 1 if, as it comes, the peak is more than
 * 1.5 times the average or anyone waits longer than is promised: the drain, `shutdownRetry`'s shorter time, and a second for
 * each 1,000 clients. A busy machine does not accept them as they come; measure on one that is calm.
 */
import { type ChildProcess, spawn } from "node:child_process"
import { once } from "node:events"
import { readFileSync } from "node:fs"
import * as Net from "node:net"
import { createInterface } from "node:readline"
import { fileURLToPath } from "node:url"

const count = 5000
const promisedMillis = 1000 + 2000 + count
const root = fileURLToPath(new URL("../..", import.meta.url))
const say = (text: string) => process.stdout.write(text + "\n")
const sleep = (ms: number) => new Promise<void>((resolve) => setTimeout(resolve, ms))

const start = async (
  port: number,
  jitter: boolean
): Promise<{ readonly server: ChildProcess; readonly port: number }> => {
  const server = spawn(
    process.execPath,
    [`${root}dist/bench/servers/storm.js`, String(port), jitter ? "jitter" : "none"],
    {
      stdio: ["ignore", "pipe", "inherit"]
    }
  )
  const [line] = (await once(createInterface({ input: server.stdout }), "line")) as [string]
  return { server, port: Number(line) }
}

class Client {
  private retry = 3000
  lostAt = 0
  backAt = 0
  refused = 0
  constructor(private readonly port: number) {
    this.connect()
  }
  connect(): void {
    let text = ""
    let answered = false
    const socket = Net.connect(this.port, "127.0.0.1", () =>
      socket.write("GET /subscribe/storm HTTP/1.1\r\nHost: localhost\r\n\r\n")
    )
    socket.setEncoding("latin1")
    socket.on("data", (data: string) => {
      text += data
      if (!answered && text.includes(":ok\n\n")) {
        answered = true
        if (this.lostAt > 0 && this.backAt === 0) this.backAt = performance.now()
        up++
      }
      const retry = /retry:(\d+)\n/.exec(text)
      if (retry !== null) this.retry = Number(retry[1])
    })
    socket.on("error", () => this.refused++)
    socket.on("close", () => {
      if (answered) up--
      if (done) return
      if (this.lostAt === 0) this.lostAt = performance.now()
      setTimeout(() => !done && this.connect(), this.retry)
    })
  }
}
let up = 0
let done = false

const quarters = (times: ReadonlyArray<number>): string => {
  const counts: Array<number> = []
  for (const time of times) counts[Math.floor(time / 250)] = (counts[Math.floor(time / 250)] ?? 0) + 1
  return Array.from(counts, (count) => count ?? 0).join(" ")
}

/** Linux only. */
const listenOverflows = (): number => {
  const [names = "", values = ""] = readFileSync("/proc/self/net/netstat", "utf8").split("\n")
  return Number(values.split(" ")[names.split(" ").indexOf("ListenOverflows")])
}

const storm = async (jitter: boolean) => {
  up = 0
  done = false
  const first = await start(0, jitter)
  const clients: Array<Client> = []
  for (let i = 0; i < count; i++) {
    clients.push(new Client(first.port))
    if (i % 100 === 0) await sleep(10)
  }
  while (up < count) await sleep(50)
  const overflowed = listenOverflows()
  const killedAt = performance.now()
  first.server.kill("SIGTERM")
  await once(first.server, "exit")
  const goneAfter = performance.now() - killedAt
  const second = await start(first.port, jitter)
  const backAfter = performance.now() - killedAt
  while (up < count) await sleep(50)
  const overflows = listenOverflows() - overflowed
  const back = clients.map(({ backAt }) => backAt).sort((a, b) => a - b)
  const window = (back.at(-1)! - back[0]!) / 1000
  const longest = Math.max(...clients.map(({ backAt, lostAt }) => backAt - lostAt))
  let peak = 0
  for (let i = 0, j = 0; i < back.length; i++) {
    while (back[i]! - back[j]! > 250) j++
    peak = Math.max(peak, (i - j + 1) * 4)
  }
  say(
    JSON.stringify({
      jitter,
      serverGoneAfterMs: Math.round(goneAfter),
      serverBackAfterMs: Math.round(backAfter),
      allBackAfterMs: Math.round(back.at(-1)! - killedAt),
      windowSeconds: Math.round(window * 100) / 100,
      averagePerSecond: Math.round(count / window),
      peakPerSecond: peak,
      peakToAverage: Math.round((peak * window * 100) / count) / 100,
      longestAwayMs: Math.round(longest),
      refusedConnections: clients.reduce((sum, { refused }) => sum + refused, 0),
      // Connections that the system dropped because none were accepted fast enough; their clients try again after a second.
      listenOverflows: overflows,
      // How many came back in each quarter of a second since the server was told to end.
      quarters: quarters(back.map((at) => at - killedAt))
    })
  )
  const isGood = (peak * window) / count <= 1.5 && longest <= promisedMillis + 250
  done = true
  second.server.kill("SIGKILL")
  await once(second.server, "exit")
  await sleep(1000)
  return isGood
}

const isGood = await storm(true)
await storm(false)
process.exit(isGood ? 0 : 1)
