/** Scenario (i): 1, 2 and 3 nodes on one Redis, against one node on its memory; and `--workers`. */
import { type ChildProcess, spawn } from "node:child_process"
import * as Http from "node:http"
import { mkdtempSync, rmSync } from "node:fs"
import { connect, createServer, type AddressInfo } from "node:net"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { createInterface } from "node:readline"
import { setTimeout as sleep } from "node:timers/promises"
import { fileURLToPath } from "node:url"

type Row = Record<string, number>

const freePort = () =>
  new Promise<number>((resolve) => {
    const server = createServer().listen(0, "127.0.0.1", () => {
      const { port } = server.address() as AddressInfo
      server.close(() => resolve(port))
    })
  })

/** Runs with a Redis that keeps nothing on disk. */
export const withRedis = async <A>(run: (url: string) => Promise<A>): Promise<A> => {
  const port = await freePort()
  const folder = mkdtempSync(join(tmpdir(), "effect-sse-bench-"))
  const redis = spawn("redis-server", ["--port", String(port), "--save", "", "--dir", folder], { stdio: "ignore" })
  try {
    await sleep(500)
    return await run(`redis://127.0.0.1:${port}`)
  } finally {
    redis.kill("SIGKILL")
    rmSync(folder, { recursive: true, force: true })
  }
}

class Node {
  private readonly lines: AsyncIterableIterator<string>
  readonly process: ChildProcess
  constructor(url: string) {
    const file = fileURLToPath(new URL("servers/redis-node.js", import.meta.url))
    this.process = spawn(process.execPath, [file, url], { stdio: ["pipe", "pipe", "inherit"] })
    this.lines = createInterface({ input: this.process.stdout! })[Symbol.asyncIterator]()
  }
  async answer(): Promise<Row> {
    for (;;) {
      const line = (await this.lines.next()).value as string
      if (line.startsWith("{")) return JSON.parse(line) as Row
      // What the hub logs: a node that could not keep up.
      process.stderr.write(line + "\n")
    }
  }
  ask(line: string): Promise<Row> {
    this.process.stdin!.write(line + "\n")
    return this.answer()
  }
}

const round = (value: number) => Number(value.toFixed(2))

export const nodes = async (count: number, url: string): Promise<Row> => {
  const all = Array.from({ length: count }, () => new Node(url))
  try {
    for (const node of all) await node.answer()
    const ask = (line: string) => Promise.all(all.map((node) => node.ask(line)))
    const sum = (rows: ReadonlyArray<Row>, key: string) => rows.reduce((sum, row) => sum + row[key]!, 0)
    const most = (rows: ReadonlyArray<Row>, key: string) => Math.max(...rows.map((row) => row[key]!))
    await ask("flood 1 64 1000")
    const seconds = 4
    const flood = await ask(`flood ${seconds} 64 1000`)
    await sleep(1000)
    const pace = await ask(`pace ${seconds} ${Math.round(100 / count)}`)
    return {
      "publishes/s": Math.round(sum(flood, "published") / seconds),
      "received/s on all nodes": Math.round(sum(flood, "received") / seconds),
      "p50 ms at 100/s": round(most(pace, "p50")),
      "p99 ms at 100/s": round(most(pace, "p99"))
    }
  } finally {
    for (const { process } of all) process.kill("SIGKILL")
  }
}

/** So many clients of `effect-sse serve --workers N`, and batches published over HTTP one after the other. */
export const workers = async (count: number, clients = 1000, size = 50): Promise<Row> => {
  const port = await freePort()
  const server = spawn(
    process.execPath,
    [fileURLToPath(new URL("../bin.js", import.meta.url)), "serve", "--port", String(port), "--workers", String(count)],
    { stdio: ["ignore", "pipe", "inherit"], env: { ...process.env, SSE_PUBLISH_TOKEN: "x", SSE_LOG: "none" } }
  )
  try {
    await new Promise<void>((resolve) =>
      server.stdout.on("data", (text) => String(text).includes("listens") && resolve())
    )
    await sleep(1000)
    let bytes = 0
    const started = performance.now()
    const sockets = await Promise.all(
      Array.from(
        { length: clients },
        () =>
          new Promise<ReturnType<typeof connect>>((resolve) => {
            const socket = connect(port, "127.0.0.1", () =>
              socket.write("GET /subscribe/n HTTP/1.1\r\nHost: localhost\r\n\r\n")
            )
            socket.once("data", () => {
              socket.on("data", (data) => (bytes += data.length))
              resolve(socket)
            })
          })
      )
    )
    const connected = performance.now() - started
    const agent = new Http.Agent({ keepAlive: true })
    const body = Array.from({ length: size }, () => JSON.stringify({ data: "x".repeat(64) })).join("\n")
    const headers = { authorization: "Bearer x", "content-type": "application/x-ndjson" }
    const publish = () =>
      new Promise<void>((resolve) => {
        const request = Http.request({ port, method: "POST", path: "/publish/n", headers, agent }, (response) =>
          response.resume().on("end", resolve)
        )
        request.end(body)
      })
    const begin = performance.now()
    let published = 0
    while (performance.now() - begin < 4000) {
      await publish()
      published += size
      // No more than a few rounds under way.
      while (bytes < (published - 20 * size) * clients * 70) await sleep(1)
    }
    while (bytes < published * clients * 70) await sleep(1)
    const seconds = (performance.now() - begin) / 1000
    for (const socket of sockets) socket.destroy()
    return {
      "deliveries/s": Math.round((published * clients) / seconds),
      "connects/s": Math.round((clients / connected) * 1000)
    }
  } finally {
    server.kill("SIGTERM")
  }
}
