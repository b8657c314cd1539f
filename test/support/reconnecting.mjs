/**
 * Clients that are cut off a second after each connect, wherever they are, and come back at once with their last id; in a
 * process of their own, so that the server they load does not wait for them. Of `/load/<n>`, for n from 0 to 3, each event's
 * number is its data, and is its n modulo 4.
 *
 *     node reconnecting.mjs PORT CLIENTS SECONDS
 *
 * After so many seconds they stay, and "staying" is written; when a line comes, its number being the last that was published,
 * they wait for it and write what became of them.
 */
import { connect } from "node:net"
import { createInterface } from "node:readline"

const [port, count, seconds] = process.argv.slice(2).map(Number)

class Client {
  connects = 0
  resets = 0
  last
  problem
  id
  stays = false
  constructor(namespace, step) {
    this.namespace = namespace
    this.step = step
  }
  connect() {
    this.connects++
    const headers = this.id === undefined ? "" : `Last-Event-ID: ${this.id}\r\n`
    const socket = connect(port, "127.0.0.1", () =>
      socket.write(`GET /subscribe${this.namespace} HTTP/1.1\r\nHost: localhost\r\n${headers}\r\n`)
    )
    socket.setEncoding("latin1")
    let rest = ""
    socket.on("data", (text) => {
      // The head and the sizes of chunks stand between blocks, and have neither of the lines that are looked for.
      rest += text
      const end = rest.lastIndexOf("\n\n")
      if (end === -1) return
      this.read(rest.slice(0, end + 2))
      rest = rest.slice(end + 2)
    })
    socket.on("error", (error) => (this.problem ??= error.message))
    const cut = setTimeout(() => this.stays || socket.destroy(), 1000)
    socket.on("close", () => {
      clearTimeout(cut)
      this.connect()
    })
  }
  read(blocks) {
    for (const [, id, data] of blocks.matchAll(/^id:(\S+)\n(?:data:(\d+)\n)?\n/gm)) {
      this.id = id
      if (data === undefined) continue
      const number = Number(data)
      if (this.last !== undefined && number !== this.last + this.step) {
        this.problem ??= `${number} came behind ${this.last}`
      }
      this.last = number
    }
    this.resets += blocks.split("\nevent:sse-reset\n").length - 1
  }
}

// Some get all, most get every fourth.
const clients = Array.from({ length: count }, (_, i) =>
  i % 20 === 0 ? new Client("/load", 1) : new Client(`/load/${i % 4}`, 4)
)
clients.forEach((client, i) => setTimeout(() => client.connect(), (i * 1000) / count))

setTimeout(() => {
  for (const client of clients) client.stays = true
  process.stdout.write("staying\n")
}, seconds * 1000)

createInterface({ input: process.stdin }).on("line", (line) => {
  const last = Number(line)
  const behind = () => clients.filter((client) => client.last === undefined || client.last + client.step <= last).length
  const deadline = performance.now() + 20_000
  const check = () => {
    if (behind() > 0 && performance.now() < deadline) return setTimeout(check, 50)
    const result = {
      behind: behind(),
      resets: clients.reduce((sum, { resets }) => sum + resets, 0),
      problems: clients.flatMap(({ problem }) => problem ?? []).slice(0, 5),
      fewestConnects: Math.min(...clients.map(({ connects }) => connects))
    }
    process.stdout.write(`${JSON.stringify(result)}\n`, () => process.exit(0))
  }
  check()
})
