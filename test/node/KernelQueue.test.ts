import { HttpServer } from "@effect/platform"
import { NodeHttpServer } from "@effect/platform-node"
import { assert, describe, it } from "@effect/vitest"
import { SseHub, SseRoutes } from "effect-sse"
import * as KernelQueue from "effect-sse/node/KernelQueue"
import { Effect, Layer } from "effect"
import { readFileSync } from "node:fs"
import { createServer } from "node:http"
import type * as Net from "node:net"
import { endianness } from "node:os"
import * as ProcNetTcp from "../../src/internal/procNetTcp.js"
import { connect } from "../support/rawClient.js"
import { eventually, port, serverLayer } from "../support/server.js"

const count = (n: number) =>
  Effect.flatMap(SseHub.SseHub, (hub) => eventually(Effect.map(hub.status, ({ clients }) => clients === n)))

/** More than a client's system takes for it without being asked, and less than this one's takes for a client. */
const fits = { namespace: "/n", data: "x".repeat(400_000) }

const stallTimeout = 600
const options = { stallTimeout, maxPendingBytes: 64 * 1024 * 1024 }

const own = () => {
  const server = createServer()
  return Layer.merge(
    Layer.scopedDiscard(HttpServer.serveEffect(Effect.orDie(SseRoutes.router()))),
    KernelQueue.layer(server)
  ).pipe(
    Layer.provideMerge(SseHub.layer(options)),
    Layer.provideMerge(NodeHttpServer.layer(() => server, { port: 0 })),
    Layer.orDie
  )
}

/** Bytes that the system still keeps for a client. */
const kept = (listening: number, client: Net.Socket) => {
  let bytes = 0
  const table = readFileSync("/proc/self/net/tcp")
  ProcNetTcp.parse(table, 8, endianness() === "LE", (socket) => {
    if (socket.localPort === listening && socket.remotePort === client.localPort) bytes += socket.bytes
  })
  return bytes
}

// Only there is the table that it reads.
describe.runIf(process.platform === "linux")("KernelQueue", () => {
  for (const [name, layer] of [
    ["on IPv4", () => serverLayer({}, options)],
    ["on IPv6", () => serverLayer({ host: "::1" }, options)],
    ["on both", () => serverLayer({ host: "::" }, options)],
    ["with the portable connection", () => serverLayer({ connection: "portable" }, options)],
    ["on an HTTP server of one's own", own]
  ] as const) {
    it.scopedLive(`ends who does not read, though the system has taken all, and nobody else: ${name}`, () =>
      Effect.gen(function* () {
        const hub = yield* SseHub.SseHub
        const listening = yield* port
        const host = name === "on IPv6" ? "::1" : "127.0.0.1"
        const stuck = yield* connect(listening, "/subscribe/", { paused: true, host })
        const healthy = yield* connect(listening, "/subscribe/", { keep: (piece) => piece.replace(/x+/g, ""), host })
        const idle = yield* connect(listening, "/subscribe/idle", { paused: true, host })
        yield* count(3)
        for (let i = 0; i < 3; i++) yield* hub.publish(fits)
        yield* healthy.until((body) => body.split("data:").length === 4)
        const start = performance.now()
        assert.isTrue(
          (yield* hub.clients).every(({ pendingBytes }) => pendingBytes === 0),
          "nothing waits in Node"
        )
        yield* count(2)
        const taken = performance.now() - start
        assert.isAtLeast(taken, stallTimeout)
        assert.isBelow(taken, stallTimeout * 1.34 + 400)
        assert.strictEqual((yield* hub.status).ended.stalled, 1)
        stuck.socket.resume()
        assert.isFalse((yield* stuck.ended).clean)
        // Who has nothing to acknowledge stays, and so does who has acknowledged.
        yield* Effect.sleep(stallTimeout)
        yield* hub.publish({ namespace: "/idle", data: "end" })
        yield* healthy.until((body) => body.endsWith("data:end\n\n"))
        idle.socket.resume()
        yield* idle.until((body) => body.endsWith("data:end\n\n"))
      }).pipe(Effect.provide(layer()))
    )
  }

  it.scopedLive("the system keeps nothing for who is ended", () =>
    Effect.gen(function* () {
      const hub = yield* SseHub.SseHub
      const listening = yield* port
      const hidden = yield* connect(listening, "/subscribe/hidden", { paused: true })
      const seen = yield* connect(listening, "/subscribe/seen", { paused: true })
      yield* count(2)
      for (let i = 0; i < 3; i++) yield* hub.publish({ ...fits, namespace: "/hidden" })
      yield* hub.publish({ namespace: "/seen", data: "x".repeat(32 * 1024 * 1024) })
      yield* eventually(
        Effect.sync(() => kept(listening, hidden.socket) > 100_000 && kept(listening, seen.socket) > 100_000)
      )
      yield* count(0)
      assert.strictEqual((yield* hub.status).ended.stalled, 2)
      assert.deepStrictEqual([kept(listening, hidden.socket), kept(listening, seen.socket)], [0, 0])
    }).pipe(Effect.provide(serverLayer({}, options)))
  )

  it.scopedLive("leaves who takes a little now and then, though it never has all", () =>
    Effect.gen(function* () {
      const hub = yield* SseHub.SseHub
      const slow = yield* connect(yield* port, "/subscribe/", {
        paused: true,
        keep: (piece) => piece.replace(/x+/g, "")
      })
      yield* count(1)
      for (let i = 0; i < 6; i++) yield* hub.publish(fits)
      // What its socket holds at a time: all of it would take much longer than the timeout.
      const timer = setInterval(() => slow.socket.read(), 100)
      yield* Effect.sleep(stallTimeout * 3)
      assert.isAbove(slow.socket.bytesRead, 500_000)
      assert.strictEqual((yield* hub.status).clients, 1)
      clearInterval(timer)
      yield* count(0)
      assert.strictEqual((yield* hub.status).ended.stalled, 1)
    }).pipe(Effect.provide(serverLayer({}, options)))
  )
})
