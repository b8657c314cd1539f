/**
 * The server of the soak: it publishes 500 events a second to namespaces that change, and answers its parent's questions.
 * Each event's data is `<epoch * 100 + k>:<number>:` and padding, where the numbers of one namespace follow one another.
 */
import * as SseServer from "effect-sse/node/SseServer"
import { SseHub } from "effect-sse"
import { HttpServer } from "@effect/platform"
import { Effect, Layer, Logger, LogLevel, ManagedRuntime, Stream } from "effect"
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
  /** What was published, as who published it counted. */
  readonly sent: number
  /** Clients that ended since the last answer: the name that each gave itself, the events it was given, and why it ended. */
  readonly gone: ReadonlyArray<readonly [name: string, events: number, reason: string]>
}

/** The answer to the last question. */
export interface Final extends Stats {
  readonly connected: ReadonlyArray<readonly [name: string, events: number]>
  /** Of each namespace the last number. */
  readonly last: Record<number, number>
}

const runtime = ManagedRuntime.make(
  SseServer.layer({ port: 0, publishToken: "soak" }).pipe(
    Layer.provideMerge(SseHub.layer({ stallTimeout: "10 seconds", keepalive: "5 seconds" })),
    Layer.provide(Logger.minimumLogLevel(LogLevel.Warning))
  )
)

let epoch = 0
const last: Record<number, number> = {}
let sent = 0
let going = true
let gone: Array<Stats["gone"][number]> = []
/** Events a second. */
const rate = 500
const begun = performance.now()
const padding = "x".repeat(200)

const publish = Effect.gen(function* () {
  const hub = yield* SseHub.SseHub
  epoch = Math.floor(performance.now() / epochMillis)
  const due = Math.floor(((performance.now() - begun) / 1000) * rate) - sent
  const events = Array.from({ length: due }, () => {
    const k = Math.floor(Math.random() * width)
    const key = epoch * 100 + k
    last[key] = (last[key] ?? 0) + 1
    return { namespace: `/soak/${epoch}/${k}`, data: `${key}:${last[key]}:${padding}` }
  })
  sent += due
  yield* hub.publishAll(events)
})

const follow = Effect.gen(function* () {
  const hub = yield* SseHub.SseHub
  yield* Stream.runForEach(yield* hub.changes, (change) =>
    Effect.sync(() => {
      if (change._tag === "Disconnected") gone.push([change.client.userAgent, change.client.events, change.reason])
    })
  )
}).pipe(Effect.scoped)

const stats = Effect.gen(function* () {
  const hub = yield* SseHub.SseHub
  const { clients, deliveries, ended, published } = yield* hub.status
  for (let i = 0; i < 3; i++) collect()
  const resources = process.getActiveResourcesInfo()
  const count = (name: string) => resources.filter((resource) => resource === name).length
  const all = Object.values(ended).reduce((sum, n) => sum + n, 0)
  const left = gone
  gone = []
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
    sent,
    gone: left
  } satisfies Stats
})

const final = Effect.gen(function* () {
  const hub = yield* SseHub.SseHub
  const connected = (yield* hub.clients).map(({ events, userAgent }) => [userAgent, events] as const)
  const { deliveries } = yield* hub.status
  // Who ended just before is told of in a moment.
  yield* Effect.sleep("200 millis")
  return { ...(yield* stats), deliveries, connected, last } satisfies Final
})

process.on("message", (message) => {
  if (message === "stop") going = false
  else
    void runtime.runPromise<Stats, never>(message === "final" ? final : stats).then((answer) => process.send!(answer))
})
process.on("disconnect", () => void runtime.dispose().then(() => process.exit(0)))

const { address } = await runtime.runPromise(HttpServer.HttpServer)
void runtime.runPromise(follow)
process.send!({ port: address._tag === "TcpAddress" ? address.port : 0 })
setInterval(() => {
  if (going) void runtime.runPromise(publish)
}, 10)
