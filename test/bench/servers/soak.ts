/**
 * The server of the soak: it publishes 500 events a second to namespaces that change, and answers its parent's questions.
 * Each event's data is `<epoch * 100 + k>:<number>:` and padding, where the numbers of one namespace follow one another.
 */
import * as SseServer from "effect-sse/node/SseServer"
import { SseHub } from "effect-sse"
import { HttpServer } from "@effect/platform"
import { Effect, Layer, Logger, LogLevel, ManagedRuntime } from "effect"
import { collect } from "../support/broadcast.js"

/** Namespaces at a time, and how long they are in use, in ms. */
export const width = 50
const epochMillis = 20_000

export interface Stats {
  readonly heap: number
  readonly clients: number
  readonly sockets: number
  readonly timers: number
  readonly listeners: number
  readonly published: number
  readonly deliveries: number
  readonly connects: number
  readonly ended: Record<string, number>
  readonly epoch: number
  /** Of the current epoch, the last number of each namespace. */
  readonly last: ReadonlyArray<number>
}

const runtime = ManagedRuntime.make(
  SseServer.layer({ port: 0, publishToken: "soak" }).pipe(
    Layer.provideMerge(SseHub.layer({ stallTimeout: "10 seconds", keepalive: "5 seconds" })),
    Layer.provide(Logger.minimumLogLevel(LogLevel.Warning))
  )
)

let epoch = 0
let numbers: Array<number> = []
let going = true
const padding = "x".repeat(200)

const publish = Effect.gen(function* () {
  const hub = yield* SseHub.SseHub
  const now = Math.floor(performance.now() / epochMillis)
  if (now !== epoch || numbers.length === 0) {
    epoch = now
    numbers = Array.from({ length: width }, () => 0)
  }
  yield* hub.publishAll(
    Array.from({ length: 5 }, () => {
      const k = Math.floor(Math.random() * width)
      return { namespace: `/soak/${epoch}/${k}`, data: `${epoch * 100 + k}:${++numbers[k]!}:${padding}` }
    })
  )
})

const stats = Effect.gen(function* () {
  const hub = yield* SseHub.SseHub
  const { clients, deliveries, ended, published } = yield* hub.status
  for (let i = 0; i < 3; i++) collect()
  const resources = process.getActiveResourcesInfo()
  const count = (name: string) => resources.filter((resource) => resource === name).length
  const all = Object.values(ended).reduce((sum, n) => sum + n, 0)
  return {
    heap: process.memoryUsage().heapUsed,
    clients,
    sockets: count("TCPSocketWrap"),
    timers: count("Timeout"),
    listeners: process.eventNames().reduce((sum, name) => sum + process.listenerCount(name), 0),
    published,
    deliveries,
    connects: clients + all,
    ended,
    epoch,
    last: numbers
  } satisfies Stats
})

process.on("message", (message) => {
  if (message === "stop") going = false
  else void runtime.runPromise(stats).then((answer) => process.send!(answer))
})
process.on("disconnect", () => void runtime.dispose().then(() => process.exit(0)))

const { address } = await runtime.runPromise(HttpServer.HttpServer)
process.send!({ port: address._tag === "TcpAddress" ? address.port : 0 })
setInterval(() => {
  if (going) void runtime.runPromise(publish)
}, 10)
