/** Runs one server and one load, each in a process pinned to a core of its own where there is one. */
import { type ChildProcess, execFileSync, spawn } from "node:child_process"
import { readdirSync, readFileSync } from "node:fs"
import { connect } from "node:net"
import { availableParallelism } from "node:os"
import { createInterface } from "node:readline"
import { fileURLToPath } from "node:url"
import type { LoadOptions, LoadResult } from "./load.js"

export interface Server {
  readonly name: string
  /** Program and arguments; `PORT` is replaced. */
  readonly command: ReadonlyArray<string>
}

export interface Measured extends LoadResult {
  /** Of the server and its children, while events came: seconds of one core. */
  readonly cpuSeconds: number
  /** Resident memory in bytes: before the clients, with them, and with them after a collection. */
  readonly rssBefore: number
  readonly rssConnected: number
  readonly rssCollected: number
  readonly rssAfter: number
}

const here = fileURLToPath(new URL(".", import.meta.url))

export const nodeServer = (name: string, file: string, ...args: ReadonlyArray<string>): Server => ({
  name,
  command: [process.execPath, "--expose-gc", `${here}servers/${file}.js`, "PORT", ...args]
})

const canPin = (() => {
  try {
    execFileSync("taskset", ["-c", "0,1", "true"], { stdio: "ignore" })
    return availableParallelism() > 1
  } catch {
    return false
  }
})()

export const pinned = canPin ? "server and load pinned to a core each" : "not pinned: no taskset, or one core only"

const start = (core: number, command: ReadonlyArray<string>): ChildProcess => {
  const whole = canPin ? ["taskset", "-c", String(core), ...command] : command
  // Ten thousand connections need more files than a shell usually allows.
  return spawn("sh", ["-c", 'ulimit -n "$(ulimit -Hn)"; exec "$@"', "sh", ...whole], {
    stdio: ["pipe", "pipe", "inherit"]
  })
}

/** The fields of a process's /proc/PID/stat behind its name. */
const statOf = (pid: number | string): ReadonlyArray<string> => {
  const stat = readFileSync(`/proc/${pid}/stat`, "utf8")
  return stat.slice(stat.lastIndexOf(")") + 2).split(" ")
}

/** A process and those it started, from /proc. */
const family = (pid: number): ReadonlyArray<number> => {
  const parents = new Map<number, number>()
  for (const entry of readdirSync("/proc")) {
    if (!/^\d+$/.test(entry)) continue
    try {
      parents.set(Number(entry), Number(statOf(entry)[1]))
    } catch {
      // Gone in the meantime.
    }
  }
  const found = [pid]
  for (const member of found) for (const [child, parent] of parents) if (parent === member) found.push(child)
  return found
}

const usage = (pid: number): { readonly cpu: number; readonly rss: number } => {
  let cpu = 0
  let rss = 0
  for (const member of family(pid)) {
    try {
      const fields = statOf(member)
      cpu += (Number(fields[11]) + Number(fields[12])) / 100
      rss += Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${member}/status`, "utf8"))?.[1] ?? 0) * 1024
    } catch {
      // Gone in the meantime.
    }
  }
  return { cpu, rss }
}

const lines = (child: ChildProcess) => createInterface({ input: child.stdout! })[Symbol.asyncIterator]()

const sleep = (ms: number) => new Promise<void>((resolve) => setTimeout(resolve, ms))

const reachable = async (port: number): Promise<void> => {
  for (let attempt = 0; attempt < 100; attempt++) {
    const connected = await new Promise<boolean>((resolve) => {
      const socket = connect(port, "127.0.0.1", () => resolve(true))
      socket.on("error", () => resolve(false))
      socket.once("connect", () => socket.destroy())
    })
    if (connected) return
    await sleep(100)
  }
  throw new Error("the server does not listen")
}

const collect = async (port: number): Promise<void> => {
  for (let i = 0; i < 3; i++) {
    await fetch(`http://127.0.0.1:${port}/bench/gc`, { headers: { connection: "close" } })
      .then((response) => response.text())
      .catch(() => "")
  }
  await sleep(200)
}

let nextPort = 20_000 + (process.pid % 10_000)

export const measure = async (
  server: Server,
  load: Omit<LoadOptions, "port" | "handshake">,
  options: { readonly settleMs?: number; readonly collect?: boolean } = {}
): Promise<Measured> => {
  const port = (nextPort += 2)
  const process_ = start(
    0,
    server.command.map((word) => word.replace("PORT", String(port)))
  )
  const ended = new Promise<void>((resolve) => process_.once("close", () => resolve()))
  try {
    await reachable(port)
    await sleep(500)
    const before = usage(process_.pid!)
    const client = start(1, [process.execPath, `${here}load.js`, JSON.stringify({ ...load, port, handshake: true })])
    const output = lines(client)
    const said = await output.next()
    if (said.value !== "connected") throw new Error(`${server.name}: the load failed`)
    await sleep(options.settleMs ?? 300)
    const connected = usage(process_.pid!)
    if (options.collect === true) await collect(port)
    const collected = usage(process_.pid!)
    client.stdin!.write("go\n")
    if (load.warmup !== undefined) await output.next()
    const begun = usage(process_.pid!)
    const result = JSON.parse(String((await output.next()).value)) as LoadResult
    const after = usage(process_.pid!)
    return {
      ...result,
      cpuSeconds: after.cpu - begun.cpu,
      rssBefore: before.rss,
      rssConnected: connected.rss,
      rssCollected: collected.rss,
      rssAfter: after.rss
    }
  } finally {
    process_.kill("SIGTERM")
    const timer = setTimeout(() => process_.kill("SIGKILL"), 8000)
    await ended
    clearTimeout(timer)
  }
}
