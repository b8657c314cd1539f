/**
 * One node for scenario (i), driven by lines on its standard input, without HTTP: `flood SECONDS SIZE BATCH` publishes as fast as
 * it is taken, `pace SECONDS RATE` so many events a second one by one; each answers with a line of JSON. A client in the
 * process takes the time of each event that carries one, published on any node.
 */
import { type Connection, EventLog, Namespace, type SseError, SseHub } from "effect-sse"
import * as RedisLog from "effect-sse/EventLog/Redis"
import { Effect, Layer } from "effect"
import { createInterface } from "node:readline"

const url = process.argv[2]!
const now = () => performance.timeOrigin + performance.now()

const program = Effect.gen(function* () {
  const hub = yield* SseHub.SseHub
  let events = 0
  let latencies: Array<number> = []
  const connection: Connection.Connection = {
    keepsItselfAlive: true,
    write: (frame) => {
      const text = Buffer.from(frame.bytes).toString("latin1")
      const at = now()
      for (const [, sent] of text.matchAll(/^data:([\d.]+)/gm)) latencies.push(at - Number(sent))
      for (let i = text.indexOf("data:"); i !== -1; i = text.indexOf("data:", i + 5)) events++
      return 0
    },
    pendingBytes: () => 0,
    end: () => {},
    onClose: () => {}
  }
  yield* hub.connect({ namespaces: [Namespace.root], connection })
  const flood = (seconds: number, size: number, batch: number) =>
    Effect.gen(function* () {
      const data = "x".repeat(size)
      const some = Array.from({ length: batch }, () => ({ namespace: "/bench", data }))
      const end = now() + seconds * 1000
      let published = 0
      const before = events
      while (now() < end) published += (yield* hub.publishAll(some)).length
      return { published, received: events - before }
    })
  const pace = (seconds: number, rate: number) =>
    Effect.gen(function* () {
      latencies = []
      const end = now() + seconds * 1000
      while (now() < end) {
        yield* Effect.fork(hub.publish({ namespace: "/bench", data: now().toFixed(3) }))
        yield* Effect.sleep(1000 / rate)
      }
      yield* Effect.sleep("300 millis")
      const sorted = latencies.toSorted((a, b) => a - b)
      const at = (part: number) => sorted[Math.floor((sorted.length - 1) * part)] ?? 0
      return { p50: at(0.5), p99: at(0.99), count: sorted.length }
    })
  const runtime = yield* Effect.runtime()
  const { runPromise } = yield* Effect.promise(() => import("effect/Runtime"))
  createInterface({ input: process.stdin }).on("line", (line) => {
    const [what, ...rest] = line.split(" ")
    const [a, b, c] = rest.map(Number)
    const run: Effect.Effect<object, SseError.PublishError> = what === "flood" ? flood(a!, b!, c!) : pace(a!, b!)
    void runPromise(runtime)(run).then((result) => process.stdout.write(JSON.stringify(result) + "\n"))
  })
  process.stdout.write("{}\n")
  return yield* Effect.never
})

const log = url === "memory" ? EventLog.layerMemory(true) : RedisLog.layer({ url })

void Effect.runPromise(Effect.provide(program, Layer.provide(SseHub.layerWithLog(), log)))
