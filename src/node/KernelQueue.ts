/**
 * Peers that are gone, or do not read, while all that was written to them still fits the system's send buffer.
 *
 * Node does not see them: as soon as the system has taken the bytes nothing waits any more, and Node cannot set
 * `TCP_USER_TIMEOUT`. The system gives a peer up that acknowledges nothing after about 15 minutes (`tcp_retries2`, RFC
 * 9293 section 3.8.3), and one that acknowledges but takes nothing never (RFC 9293 section 3.8.6.1). Here the system's own
 * table of sockets is read, `/proc/self/net/tcp` and `tcp6`, which tells how many bytes of each are not acknowledged. A
 * connection of which bytes are not acknowledged, and none more are for the hub's `stallTimeout`, is reset; its client
 * counts as `stalled`, those of an HTTP/2 connection as `client-closed`. A client that takes anything at all in that time
 * stays.
 *
 * Only Linux has that table. Elsewhere nothing is done, and the system's own time holds.
 *
 * @since 0.1.0
 */
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Fs from "node:fs"
import type * as Net from "node:net"
import { endianness } from "node:os"
import * as Tls from "node:tls"
import { pause } from "../internal/eventLoop.js"
import { normalize } from "../http/ClientAddress.js"
import * as ProcNetTcp from "../internal/procNetTcp.js"
import { SseHub } from "../SseHub.js"
import { resetStalled } from "./NodeConnection.js"

/**
 * Watches the connections of a Node server; `SseServer` has it on. All connections count that the server accepts after this
 * call, those without a stream too.
 *
 * The table is looked at three times in the hub's `stallTimeout`, while there are connections. So a peer that vanishes is
 * ended at the latest one keepalive (nothing can be noticed before something is sent), `stallTimeout` and a third of it
 * later: 55 seconds with the defaults. A look at 10,000 connections, with their clients on the same machine, costs the main
 * thread 25 ms in many small pieces, and other threads 35 ms: with the defaults 0.6 % of a core.
 *
 * @param server the server, before it listens
 * @since 0.1.0
 * @category layers
 * @example
 * ```ts
 * import { HttpServer } from "@effect/platform"
 * import { NodeHttpServer } from "@effect/platform-node"
 * import { SseLayer, SseRoutes } from "effect-sse"
 * import * as KernelQueue from "effect-sse/node/KernelQueue"
 * import { Layer } from "effect"
 * import { createServer } from "node:http"
 *
 * const server = createServer()
 *
 * const App = Layer.merge(HttpServer.serve(SseRoutes.router()), KernelQueue.layer(server)).pipe(
 *   Layer.provide(SseLayer),
 *   Layer.provide(NodeHttpServer.layer(() => server, { port: 8001 }))
 * )
 * ```
 */
export const layer = (server: Net.Server): Layer.Layer<never, never, SseHub> => {
  if (process.platform !== "linux") return Layer.empty
  // From now on, not from when the layer is built: the server may accept before.
  const connections = new Connections(server)
  return Layer.scopedDiscard(
    Effect.flatMap(SseHub, ({ stallMillis }) => Effect.forkScoped(watch(connections, stallMillis)))
  )
}

/** The sockets of a server that are open. */
class Connections {
  readonly all = new Set<Net.Socket>()
  readonly some = Effect.unsafeMakeLatch(false)

  constructor(server: Net.Server) {
    const { all, some } = this
    // One function for all: ten thousand of these stay.
    function forget(this: Net.Socket) {
      all.delete(this)
      if (all.size === 0) some.unsafeClose()
    }
    server.on(server instanceof Tls.Server ? "secureConnection" : "connection", (socket: Net.Socket) => {
      all.add(socket)
      socket.on("close", forget)
      some.unsafeOpen()
    })
  }

  /** A listener's connections are all of its own family, IPv4 in IPv6 if it takes both. */
  family(): string | undefined {
    for (const { localFamily } of this.all) if (localFamily !== undefined) return localFamily
    return undefined
  }

  /** Finds them by address and port; made when it is needed, and for one look. */
  index(): (found: ProcNetTcp.Unacknowledged) => Net.Socket | undefined {
    const byPort = new Map<number, Net.Socket | Array<Net.Socket>>()
    for (const socket of this.all) {
      const port = socket.remotePort
      if (port === undefined) continue
      const there = byPort.get(port)
      if (there === undefined) byPort.set(port, socket)
      else if (Array.isArray(there)) there.push(socket)
      else byPort.set(port, [there, socket])
    }
    return ({ localPort, remoteAddress, remotePort }) => {
      const isIt = (socket: Net.Socket) =>
        socket.localPort === localPort && normalize(socket.remoteAddress ?? "") === remoteAddress
      const there = byPort.get(remotePort)
      if (Array.isArray(there)) return there.find(isIt)
      return there !== undefined && isIt(there) ? there : undefined
    }
  }
}

/** A connection of which not all is acknowledged, from when on nothing more was. */
interface Mark {
  readonly since: number
  /** Bytes that were acknowledged then, at most. */
  readonly acknowledged: number
  /** Bytes that had been written when this look began. */
  written: number
}

/** The least time in ms between two looks. */
const leastMillis = 50

const watch = (connections: Connections, stallMillis: number): Effect.Effect<never> =>
  Effect.gen(function* () {
    const buffer = Buffer.allocUnsafeSlow(64 * 1024)
    let marks = new Map<Net.Socket, Mark>()
    let said = false
    const look = Effect.suspend(() => {
      // Real time: it is the system's clock that is looked at.
      const now = performance.now()
      const next = new Map<Net.Socket, Mark>()
      let find: ReturnType<Connections["index"]> | undefined
      for (const [socket, mark] of marks) mark.written = socket.bytesWritten
      const found = (entry: ProcNetTcp.Unacknowledged) => {
        find ??= connections.index()
        const socket = find(entry)
        if (socket === undefined || socket.destroyed) return
        const mark = marks.get(socket)
        if (socket.writableLength > 0) {
          // What the system has not even taken is in Node's sight, and for the hub to judge.
          if (mark !== undefined) next.set(socket, mark)
        } else if (mark === undefined || mark.written - entry.bytes > mark.acknowledged) {
          // More may have been written since the system was asked, so both are bounds: what certainly is acknowledged must
          // be more than what may have been.
          next.set(socket, { since: now, acknowledged: socket.bytesWritten - entry.bytes, written: 0 })
        } else if (now - mark.since >= stallMillis) {
          resetStalled(socket)
        } else {
          next.set(socket, mark)
        }
      }
      const family = connections.family()
      if (family === undefined) return Effect.void
      const isIPv4 = family === "IPv4"
      return Effect.map(
        read(`/proc/self/net/${isIPv4 ? "tcp" : "tcp6"}`, buffer, (table) =>
          ProcNetTcp.parse(table, isIPv4 ? 8 : 32, isLittleEndian, found)
        ),
        () => void (marks = next)
      )
    })
    return yield* connections.some.await.pipe(
      Effect.zipRight(pause(Math.max(leastMillis, stallMillis / 3), true)),
      Effect.zipRight(look),
      // Said once. It may pass, as when the process has no file left to open.
      Effect.catchAll((error) => {
        if (said) return Effect.void
        said = true
        return Effect.logWarning(`effect-sse: who vanished cannot be looked for: ${error.message}`)
      }),
      Effect.forever
    )
  })

const isLittleEndian = endianness() === "LE"

/**
 * Reads a file piece by piece in other threads, as what the kernel makes for each piece takes its time.
 *
 * @param take takes what it can of the bytes read so far, and gives how many those are; the rest comes again with more
 */
const read = (
  path: string,
  buffer: Buffer,
  take: (bytes: Buffer) => number
): Effect.Effect<void, NodeJS.ErrnoException> =>
  Effect.acquireUseRelease(
    call<number>((done) => Fs.open(path, done)),
    (file) => {
      let length = -1
      let rest = 0
      return Effect.whileLoop({
        while: () => length !== 0,
        body: () => call<number>((done) => Fs.read(file, buffer, rest, buffer.length - rest, null, done)),
        step: (read) => {
          length = read
          const bytes = buffer.subarray(0, rest + read)
          const taken = take(bytes)
          bytes.copyWithin(0, taken)
          rest = bytes.length - taken
        }
      })
    },
    (file) => Effect.ignore(call<void>((done) => Fs.close(file, done)))
  )

/** Not to be interrupted: a file must not be closed while it is read. */
const call = <A>(
  run: (done: (error: NodeJS.ErrnoException | null, value: A) => void) => void
): Effect.Effect<A, NodeJS.ErrnoException> =>
  Effect.uninterruptible(
    Effect.async((resume) => run((error, value) => resume(error === null ? Effect.succeed(value) : Effect.fail(error))))
  )
