/** The client over real sockets, with each `HttpClient`: whatever the network does, every event comes once and in order. */
import { FetchHttpClient, type HttpClient } from "@effect/platform"
import { NodeHttpClient } from "@effect/platform-node"
import { assert, describe, it } from "@effect/vitest"
import { SseClient, SseHub } from "effect-sse"
import { Effect, Fiber, type Layer, Queue, Schedule, type Scope, Stream } from "effect"
import * as Net from "node:net"
import { eventually, port, serverLayer } from "./support/server.js"

const clients: ReadonlyArray<readonly [string, Layer.Layer<HttpClient.HttpClient>]> = [
  ["fetch", FetchHttpClient.layer],
  ["node:http", NodeHttpClient.layer],
  ["undici", NodeHttpClient.layerUndici]
]

const head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
const chunk = (data: string | Uint8Array) =>
  Buffer.concat([Buffer.from(`${Buffer.byteLength(data).toString(16)}\r\n`), Buffer.from(data), Buffer.from("\r\n")])

interface Asked {
  readonly socket: Net.Socket
  /** The request's head. */
  readonly head: string
  readonly lastEventId: string | undefined
}

interface Server {
  readonly port: number
  /** Refuses connections, and ends those there are, until it is called again. */
  readonly down: Effect.Effect<void>
  readonly up: Effect.Effect<void>
}

/** A server of bare sockets, each request of which is answered by the function. */
const listen = (answer: (asked: Asked) => void): Effect.Effect<Server, never, Scope.Scope> =>
  Effect.gen(function* () {
    const sockets = new Set<Net.Socket>()
    const server = Net.createServer((socket) => {
      sockets.add(socket)
      let received = ""
      socket.on("error", () => {})
      socket.on("close", () => sockets.delete(socket))
      socket.on("data", (data) => {
        received += data.toString("latin1")
        const end = received.indexOf("\r\n\r\n")
        if (end === -1) return
        const head = received.slice(0, end)
        received = received.slice(end + 4)
        answer({ socket, head, lastEventId: /^last-event-id: (.*)$/im.exec(head)?.[1] })
      })
    })
    const start = (port: number) =>
      Effect.async<number>((resume) => {
        server.listen(port, "127.0.0.1", () => resume(Effect.succeed((server.address() as Net.AddressInfo).port)))
      })
    const down = Effect.async<void>((resume) => {
      server.close(() => resume(Effect.void))
      for (const socket of sockets) socket.resetAndDestroy()
    })
    const port = yield* start(0)
    yield* Effect.addFinalizer(() => down)
    return { port, down, up: Effect.asVoid(Effect.suspend(() => start(port))) }
  })

const url = ({ port }: { readonly port: number }) => `http://127.0.0.1:${port}/events`

const hurried: SseClient.ClientOptions = { schedule: Schedule.spaced("2 millis"), idleTimeout: "500 millis" }

/** Event n, with characters of one to four bytes. */
const dataOf = (n: number) => `${n} é€😀 ${"x".repeat(n % 50)}`
const blockOf = (n: number) => `id:e-${n}\nevent:n\ndata:${dataOf(n)}\n\n`
const seen = (asked: Asked) => Number(asked.lastEventId?.slice(2) ?? 0)

/** What happens to a connection, told the number of the last event that the client has. */
type Fault = (asked: Asked, after: number) => void

/** Writes the next events, and then what comes of the one behind them. */
const some = (count: number, then: (socket: Net.Socket, next: Buffer) => void): Fault => {
  return ({ socket }, after) => {
    socket.write(head + chunk(":ok\n\n").toString())
    for (let n = after + 1; n <= after + count; n++) socket.write(chunk(blockOf(n)))
    then(socket, Buffer.from(blockOf(after + count + 1)))
  }
}

/** Within its first character of several bytes. */
const inCharacter = (block: Buffer) => block.subarray(0, block.indexOf(0xc3) + 1)

const faults: Record<string, Fault> = {
  "reset within a character": some(5, (socket, next) => {
    socket.write(chunk(inCharacter(next)), () => socket.resetAndDestroy())
  }),
  "closed within a character": some(5, (socket, next) => socket.end(chunk(inCharacter(next)))),
  "ended cleanly within an event": some(5, (socket, next) => {
    socket.end(Buffer.concat([chunk(next.subarray(0, -1)), Buffer.from("0\r\n\r\n")]))
  }),
  "closed within the id": some(5, (socket, next) => socket.end(chunk(next.subarray(0, 4)))),
  "closed within HTTP's framing": some(5, (socket, next) => socket.end(chunk(next).subarray(0, 12))),
  "stalled within an event": some(5, (socket, next) => socket.write(chunk(next.subarray(0, 20)))),
  "stalled before the head": () => {},
  "byte by byte, and then reset": some(0, (socket, next) => {
    socket.setNoDelay(true)
    const bytes = chunk(next)
    let at = 0
    const step = () => {
      if (at === bytes.length) return void socket.resetAndDestroy()
      socket.write(bytes.subarray(at, ++at), () => setImmediate(step))
    }
    step()
  }),
  "closed at once": ({ socket }) => void socket.destroy(),
  "no status line": ({ socket }) => void socket.end("NONSENSE\r\n\r\n"),
  "half a head": ({ socket }) => void socket.end("HTTP/1.1 200 OK\r\nContent-Ty"),
  "a bad chunk": ({ socket }) => void socket.end(head + "zz\r\nhello\r\n"),
  "503 with Retry-After": ({ socket }) => {
    socket.end("HTTP/1.1 503 Service Unavailable\r\nRetry-After: 0\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno")
  },
  "429 without a body's end": ({ socket }) => {
    socket.write("HTTP/1.1 429 Too Many Requests\r\nContent-Type: text/plain\r\nContent-Length: 100\r\n\r\nno")
  },
  "200 and nothing": ({ socket }) => void socket.end(head + "0\r\n\r\n")
}

for (const [name, layer] of clients) {
  describe(`SseClient over ${name}`, () => {
    it.scopedLive("every event comes once and in order, through all that goes wrong on the way", () =>
      Effect.gen(function* () {
        const script = Object.entries(faults)
        let connections = 0
        const server = yield* listen((asked) => {
          const fault = script[connections++]
          if (fault !== undefined) return fault[1](asked, seen(asked))
          if (connections === script.length + 1)
            return some(30, (socket) => void socket.end("0\r\n\r\n"))(asked, seen(asked))
          asked.socket.end("HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n")
        })
        const signals = yield* SseClient.streamAll(url(server), hurried).pipe(Stream.runCollect, Effect.provide(layer))
        const numbers = Array.from(signals).flatMap((signal) => (signal._tag === "Event" ? [signal] : []))
        assert.isAtLeast(numbers.length, 30 + 6)
        assert.deepStrictEqual(
          numbers,
          numbers.map((_, i) => ({ _tag: "Event", event: "n", data: dataOf(i + 1), id: `e-${i + 1}` }))
        )
        const lost = Array.from(signals).flatMap((signal) => (signal._tag === "Disconnected" ? [signal.reason] : []))
        assert.strictEqual(lost.length, script.length + 1)
        const reasons = Object.fromEntries(script.map(([fault], i) => [fault, lost[i]]))
        assert.deepInclude(reasons, {
          "ended cleanly within an event": "ended",
          "stalled within an event": "silent",
          "stalled before the head": "silent",
          "closed at once": "unreachable",
          "no status line": "unreachable",
          "503 with Retry-After": "refused",
          "429 without a body's end": "refused",
          "200 and nothing": "ended",
          "closed within HTTP's framing": "broken",
          "a bad chunk": "broken"
        })
      })
    )

    it.scopedLive("comes back to a server that was killed and started again", () =>
      Effect.gen(function* () {
        const server = yield* listen((asked) => some(10, () => {})(asked, seen(asked)))
        const signals = yield* Queue.unbounded<SseClient.Signal>()
        yield* SseClient.streamAll(url(server), { ...hurried, idleTimeout: false }).pipe(
          Stream.runForEach((signal) => Queue.offer(signals, signal)),
          Effect.provide(layer),
          Effect.forkScoped
        )
        const ids = Effect.map(Queue.takeAll(signals), (all) =>
          Array.from(all).flatMap((signal) => (signal._tag === "Event" ? [signal.id] : []))
        )
        const reasons = Queue.take(signals).pipe(
          Effect.map((signal) => (signal._tag === "Disconnected" ? signal.reason : "")),
          Effect.repeat({ until: (reason) => reason === "unreachable" })
        )
        const got: Array<string> = []
        for (let round = 1; round <= 3; round++) {
          yield* eventually(
            Effect.map(ids, (more) => {
              got.push(...more)
              return got.length >= 10 * round
            })
          )
          yield* server.down
          yield* reasons
          yield* server.up
        }
        assert.deepStrictEqual(
          got.slice(0, 30),
          Array.from({ length: 30 }, (_, i) => `e-${i + 1}`)
        )
      })
    )

    const failing = (answer: Fault, options: SseClient.ClientOptions = {}) =>
      Effect.gen(function* () {
        let closed = false
        const server = yield* listen((asked) => {
          asked.socket.on("close", () => (closed = true))
          answer(asked, 0)
        })
        const error = yield* SseClient.stream(url(server), { ...hurried, ...options }).pipe(
          Stream.runDrain,
          Effect.provide(layer),
          Effect.flip
        )
        yield* eventually(Effect.sync(() => closed))
        return error
      })

    it.scopedLive(
      "a page instead of a stream, a refusal, and a client error are errors, and the connection is closed",
      () =>
        Effect.gen(function* () {
          const html = "HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=utf-8\r\nTransfer-Encoding: chunked\r\n\r\n"
          assert.deepInclude(yield* failing(({ socket }) => void socket.write(html)), {
            _tag: "NotAnEventStream",
            contentType: "text/html; charset=utf-8"
          })
          const refusal =
            "HTTP/1.1 401 Unauthorized\r\nContent-Type: application/json\r\nConnection: close\r\nContent-Length: 22\r\n\r\n" +
            `{"error":"Token gone"}`
          assert.deepInclude(yield* failing(({ socket }) => void socket.end(refusal)), {
            _tag: "RequestRefused",
            status: 401,
            body: `{"error":"Token gone"}`
          })
        })
    )

    it.scopedLive("an endless event is an error at its bound, and the connection is closed", () =>
      Effect.gen(function* () {
        let written = 0
        const error = yield* failing(
          ({ socket }) => {
            socket.write(head + "5\r\ndata:\r\n")
            const piece = chunk("x".repeat(64 * 1024))
            const more = () => {
              while (!socket.destroyed) {
                written += piece.length
                if (!socket.write(piece)) return void socket.once("drain", more)
              }
            }
            more()
          },
          { maxEventBytes: 1024 * 1024 }
        )
        assert.deepInclude(error, { _tag: "EventTooLarge", limit: 1024 * 1024 })
        assert.isBelow(written, 32 * 1024 * 1024)
      })
    )

    it.scopedLive("interruption closes the socket at once: connecting, reading, and with a consumer that is busy", () =>
      Effect.gen(function* () {
        for (const [answer, busy] of [
          [() => {}, false],
          [some(3, () => {}), false],
          [some(3, () => {}), true]
        ] as const) {
          let asked = false
          let events = 0
          let closed = false
          const server = yield* listen((request) => {
            asked = true
            request.socket.on("close", () => (closed = true))
            answer(request, 0)
          })
          const fiber = yield* SseClient.stream(url(server)).pipe(
            Stream.runForEach(() =>
              Effect.zipRight(
                Effect.sync(() => events++),
                busy ? Effect.never : Effect.void
              )
            ),
            Effect.provide(layer),
            Effect.fork
          )
          yield* eventually(Effect.sync(() => asked && (answer.length === 0 || events === (busy ? 1 : 3))))
          yield* Fiber.interrupt(fiber)
          yield* eventually(Effect.sync(() => closed))
        }
      })
    )

    it.scopedLive("a consumer that does not pull stops the reading: the server's socket fills up", () =>
      Effect.gen(function* () {
        const data = "x".repeat(1000)
        const each = 64
        const total = 64 * 1024 * 1024
        let sent = 0
        let full = false
        let socket: Net.Socket | undefined
        const server = yield* listen((asked) => {
          socket = asked.socket
          socket.write(head)
          const more = () => {
            full = false
            while (!asked.socket.destroyed && sent * 1000 < total) {
              const blocks = Array.from({ length: each }, (_, i) => `id:${sent + i}\ndata:${data}\n\n`).join("")
              sent += each
              if (asked.socket.write(chunk(blocks))) continue
              full = true
              return void asked.socket.once("drain", more)
            }
            asked.socket.end("0\r\n\r\n")
          }
          more()
        })
        const gate = yield* Effect.makeLatch(false)
        let first = false
        let next = 0
        const fiber = yield* SseClient.streamAll(url(server)).pipe(
          Stream.takeUntil((signal) => signal._tag === "Disconnected"),
          Stream.runForEachChunk((signals) => {
            for (const signal of signals) {
              if (signal._tag !== "Event") continue
              first = true
              assert.strictEqual(signal.id, String(next++))
            }
            return first ? gate.await : Effect.void
          }),
          Effect.provide(layer),
          Effect.fork
        )
        yield* eventually(Effect.sync(() => first))
        // Full, and nothing moves for a while: on loopback anything that is read is refilled within microseconds.
        let last = -1
        yield* Effect.suspend(() => {
          const still = full && sent === last
          last = sent
          return Effect.as(Effect.sleep("200 millis"), still)
        }).pipe(Effect.repeat({ until: (still) => still }))
        assert.isTrue(socket!.writableNeedDrain)
        // All that is held anywhere, most of it in the buffers of the system.
        assert.isBelow(sent * 1000, total / 2)
        yield* gate.open
        yield* Fiber.join(fiber)
        assert.strictEqual(next, sent)
        assert.isAtLeast(sent * 1000, total)
      })
    )

    it.scopedLive("a hub: events, ends by the operator, refusals, and a shutdown", () =>
      Effect.gen(function* () {
        const hub = yield* SseHub.SseHub
        const at = `http://127.0.0.1:${yield* port}/subscribe`
        const signals = yield* Queue.unbounded<SseClient.Signal>()
        yield* SseClient.streamAll(`${at}/pets`, { schedule: Schedule.spaced("10 millis") }).pipe(
          Stream.runForEach((signal) => Queue.offer(signals, signal)),
          Effect.provide(layer),
          Effect.forkScoped
        )
        const next = Effect.map(Queue.take(signals), (signal) =>
          signal._tag === "Event" ? `${signal.event}:${signal.data}` : signal._tag
        )
        for (let round = 0; round < 3; round++) {
          assert.strictEqual(yield* next, "Connected")
          yield* hub.publish({ namespace: "/pets/dogs", event: "new-dog", data: "Corgi\né€😀" })
          yield* hub.publish({ namespace: "/petstore", data: "not for us" })
          yield* hub.publish({ namespace: "/pets", data: new Uint8Array(0) })
          assert.strictEqual(yield* next, "new-dog:Corgi\né€😀")
          assert.strictEqual(yield* next, "message:")
          for (const { id } of yield* hub.clients) yield* hub.disconnect(id)
          assert.strictEqual(yield* next, "Disconnected")
        }
        assert.strictEqual(yield* next, "Connected")
        const refused = yield* Effect.flip(Stream.runDrain(SseClient.stream(`${at}/a//b`))).pipe(Effect.provide(layer))
        assert.deepInclude(refused, { _tag: "RequestRefused", status: 400 })
        assert.include(refused.message, "InvalidNamespace")
        const large = yield* Effect.fork(
          Effect.provide(Effect.flip(Stream.runDrain(SseClient.stream(`${at}/large`, { maxEventBytes: 1000 }))), layer)
        )
        yield* eventually(Effect.map(hub.clients, (clients) => clients.length === 2))
        yield* hub.publish({ namespace: "/large", data: "x".repeat(1000) })
        assert.deepInclude(yield* Fiber.join(large), { _tag: "EventTooLarge", limit: 1000 })
        yield* hub.publish({ namespace: "/pets", data: "goodbye" })
        yield* hub.shutdown
        assert.strictEqual(yield* next, "message:goodbye")
        const ended = yield* Queue.take(signals)
        assert.deepInclude(ended, { _tag: "Disconnected", reason: "ended" })
        // As the hub told it: the more clients there are, the longer the range.
        if (ended._tag === "Disconnected") assert.approximately(ended.retryInMillis, 2050, 50)
      }).pipe(Effect.provide(serverLayer({}, { shutdownRetry: ["2 seconds", "2 seconds"] })))
    )
  })
}
