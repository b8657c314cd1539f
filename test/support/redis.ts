/** A Redis of one's own, on a free port of loopback, in a folder that is gone afterwards. */
import { Effect, type Scope } from "effect"
import { Redis } from "ioredis"
import { type ChildProcess, execFileSync, spawn } from "node:child_process"
import { mkdtempSync, rmSync } from "node:fs"
import * as Net from "node:net"
import { tmpdir } from "node:os"
import { join } from "node:path"

export interface RedisServer {
  readonly port: number
  readonly url: string
  /** For the test itself: waits while the server is away. */
  readonly admin: Redis
  readonly signal: (signal: NodeJS.Signals) => void
  /** Kills it as a crash does, and waits until it is gone. */
  readonly kill: Effect.Effect<void>
  /** Starts it again on the same port with what is on its disk; waits until it answers. */
  readonly start: Effect.Effect<void>
}

const program = (): string | undefined =>
  ["redis-server", "valkey-server"].find((name) => {
    try {
      execFileSync("sh", ["-c", `command -v ${name}`], { stdio: "ignore" })
      return true
    } catch {
      return false
    }
  })

/** A port of loopback that nobody has. */
export const freePort = Effect.async<number>((resume) => {
  const server = Net.createServer().listen(0, "127.0.0.1", () => {
    const { port } = server.address() as Net.AddressInfo
    server.close(() => resume(Effect.succeed(port)))
  })
})

/** @param settings more arguments of the server, such as `--appendonly yes` */
export const redisServer = (...settings: ReadonlyArray<string>): Effect.Effect<RedisServer, never, Scope.Scope> =>
  Effect.gen(function* () {
    const found = program()
    if (found === undefined) throw new Error("redis-server is missing (on Debian: apt-get install redis-server)")
    const port = yield* freePort
    const folder = yield* Effect.acquireRelease(
      Effect.sync(() => mkdtempSync(join(tmpdir(), "effect-sse-redis-"))),
      (folder) => Effect.sync(() => rmSync(folder, { recursive: true, force: true }))
    )
    let child: ChildProcess | undefined
    let exited: Promise<void> = Promise.resolve()
    const kill = Effect.promise(() => {
      child?.kill("SIGCONT")
      child?.kill("SIGKILL")
      return exited
    })
    const launch = Effect.sync(() => {
      const args = ["--port", String(port), "--bind", "127.0.0.1", "--dir", folder, "--save", "", ...settings]
      const started = (child = spawn(found, args, { stdio: "ignore" }))
      exited = new Promise((resolve) => started.once("exit", () => resolve()))
    })
    yield* Effect.acquireRelease(launch, () => kill)
    const admin = yield* Effect.acquireRelease(
      Effect.sync(() => {
        const password = settings[settings.indexOf("--requirepass") + 1]
        const made = new Redis({
          port,
          host: "127.0.0.1",
          ...(settings.includes("--requirepass") ? { password: password! } : {}),
          retryStrategy: () => 20,
          maxRetriesPerRequest: null
        })
        made.on("error", () => {})
        return made
      }),
      (admin) => Effect.sync(() => admin.disconnect())
    )
    const answers = Effect.promise(() => admin.ping())
    yield* answers
    return {
      port,
      url: `redis://127.0.0.1:${port}`,
      admin,
      signal: (signal) => void child?.kill(signal),
      kill,
      start: Effect.zipRight(launch, Effect.asVoid(answers))
    }
  })

export interface ClusterServer extends RedisServer {
  /** Joins the cluster of another one. */
  readonly meet: (other: RedisServer) => Promise<void>
}

/** One server of a cluster, without slots. */
export const clusterServer = (...settings: ReadonlyArray<string>): Effect.Effect<ClusterServer, never, Scope.Scope> =>
  Effect.gen(function* () {
    const bus = yield* freePort
    const own = ["--cluster-enabled", "yes", "--cluster-port", String(bus), "--cluster-node-timeout", "1000"]
    const server = yield* redisServer(
      ...own,
      "--cluster-require-full-coverage",
      "no",
      "--repl-diskless-sync-delay",
      "0",
      ...settings
    )
    return {
      ...server,
      meet: async ({ admin }) => void (await admin.call("CLUSTER", "MEET", "127.0.0.1", server.port, bus))
    }
  })

/** A Redis Cluster of three, each with a third of the slots. */
export const redisCluster = (
  ...settings: ReadonlyArray<string>
): Effect.Effect<ReadonlyArray<RedisServer>, never, Scope.Scope> =>
  Effect.gen(function* () {
    const one = clusterServer(...settings)
    const servers = yield* Effect.all([one, one, one])
    const bounds = [0, 5461, 10_923, 16_384]
    const info = ({ admin }: RedisServer) => admin.call("CLUSTER", "INFO") as Promise<string>
    yield* Effect.promise(async () => {
      for (const [i, { admin, meet }] of servers.entries()) {
        await admin.call("CLUSTER", "SET-CONFIG-EPOCH", i + 1)
        await admin.call("CLUSTER", "ADDSLOTSRANGE", bounds[i]!, bounds[i + 1]! - 1)
        await meet(servers[0])
      }
      for (const server of servers) {
        while (!/cluster_state:ok[^]*cluster_slots_ok:16384[^]*cluster_known_nodes:3/.test(await info(server))) {
          await new Promise((resolve) => setTimeout(resolve, 20))
        }
      }
    })
    return servers
  })

/** A way to a server that can be held up, cut and led elsewhere. */
export interface Way {
  readonly url: string
  /** Where new connections go. */
  readonly lead: (port: number) => void
  /** Ends the connections there are. */
  readonly cut: () => void
  /** Holds up what comes, on connections there are and new ones; and lets it go on. */
  readonly hold: (held: boolean) => void
  /** Drops all answers from now on. */
  readonly dropAnswers: (dropped: boolean) => void
}

export const wayTo = (port: number): Effect.Effect<Way, never, Scope.Scope> =>
  Effect.gen(function* () {
    let target = port
    let held = false
    let dropped = false
    const sockets = new Set<Net.Socket>()
    const link = (from: Net.Socket, to: Net.Socket, isAnswer: boolean) => {
      sockets.add(from)
      if (held) from.pause()
      from.on("data", (data) => {
        if (!(isAnswer && dropped)) to.write(data)
      })
      from.on("error", () => {})
      from.on("close", () => {
        sockets.delete(from)
        to.destroy()
      })
    }
    const server = yield* Effect.acquireRelease(
      Effect.async<Net.Server>((resume) => {
        const made = Net.createServer((near) => {
          const far = Net.connect(target, "127.0.0.1")
          link(near, far, false)
          link(far, near, true)
        }).listen(0, "127.0.0.1", () => resume(Effect.succeed(made)))
      }),
      (server) =>
        Effect.sync(() => {
          server.close()
          for (const socket of sockets) socket.destroy()
        })
    )
    return {
      url: `redis://127.0.0.1:${(server.address() as Net.AddressInfo).port}`,
      lead: (port) => void (target = port),
      cut: () => sockets.forEach((socket) => socket.destroy()),
      hold: (hold) => {
        held = hold
        for (const socket of sockets) {
          if (hold) socket.pause()
          else socket.resume()
        }
      },
      dropAnswers: (drop) => void (dropped = drop)
    }
  })
