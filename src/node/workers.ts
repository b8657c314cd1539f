/**
 * `effect-sse serve --workers N`: several processes on one port, with one log. This process takes the connections and hands
 * them out in turn, and keeps tickets, idempotency keys and the way between workers; without Redis it holds the log as well.
 *
 * @internal
 */
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Queue from "effect/Queue"
import * as Scope from "effect/Scope"
import cluster, { type Worker } from "node:cluster"
import { pause } from "../internal/eventLoop.js"
import * as RemoteBus from "../internal/remote/bus.js"
import * as RemoteLog from "../internal/remote/log.js"
import * as RemoteStores from "../internal/remote/stores.js"
import type { EventLog } from "../EventLog.js"
import * as Idempotency from "../Idempotency.js"
import * as NodeBus from "../NodeBus.js"
import * as Tickets from "../Tickets.js"

/** Whether this process is a worker, and whether it is the first one. */
export const isWorker: boolean = cluster.isWorker
export const isFirst: boolean = process.env["EFFECT_SSE_WORKER"] === "0"

/** Time in ms until a worker that ended by itself is replaced. */
const replaceMillis = 1000

const stopMessage = "effect-sse-stop"

/** Tells a worker to do what it does at SIGHUP: the signal itself would end one that has just begun. */
const renewMessage = "effect-sse-renew"

/** Tells one worker that all listen. */
const begunMessage = "effect-sse-begun"

/** The way from a worker to the process that started it. */
const channel = <M>(): RemoteLog.Channel<M> => ({
  send: (message) => void process.send?.(message),
  listen: (listener) => {
    const onMessage = (message: unknown) => {
      if (typeof message === "object") listener(message as M)
    }
    process.on("message", onMessage)
    return () => void process.off("message", onMessage)
  }
})

/** The log of the process that started this one. */
export const log = RemoteLog.connect(channel())

/** Its tickets and idempotency keys. */
export const stores = RemoteStores.connect(channel())

/** The way to the other workers, by that process. */
export const bus = RemoteBus.connect(channel(), NodeBus.settings({}, `worker ${process.env["EFFECT_SSE_WORKER"]}`))

const told = (what: string): Promise<void> =>
  new Promise((resolve) => {
    if (isWorker) process.on("message", (message) => message === what && resolve())
  })

// Listened for from the beginning: a worker may be told before it has begun.
const stop = told(stopMessage)
const begun = told(begunMessage)
if (isWorker) process.on("message", (message) => message === renewMessage && process.emit("SIGHUP", "SIGHUP"))

/** Waits until this worker is told to end. */
export const stopped: Effect.Effect<void> = Effect.promise(() => stop)

/** Waits until all workers listen, if this is one; only one of them hears of it, and once. */
export const allListen: Effect.Effect<void> = isWorker ? Effect.promise(() => begun) : Effect.void

/** Lets this worker end, which the channel would keep alive. */
export const leave: Effect.Effect<void> = Effect.sync(() => {
  if (process.connected) process.disconnect()
})

const channelTo = <M extends object>(worker: Worker): RemoteLog.Channel<M> => ({
  // One that has gone takes nothing; its end is seen elsewhere.
  send: (message) => void (worker.isConnected() && worker.send(message, () => {})),
  listen: (listener) => {
    const onMessage = (message: unknown) => listener(message as M)
    worker.on("message", onMessage)
    return () => void worker.off("message", onMessage)
  }
})

/**
 * Runs workers until it is interrupted, then tells them to end, and waits until they have. One that ends by itself is
 * replaced, as often as it takes; one of the first that never came to listen ends all.
 *
 * @param log the log that the workers use; `undefined`: they have one of their own
 * @param env for the workers, beside this process's environment
 * @param renews whether the workers read files again at SIGHUP, which this process then hands on to them
 * @returns the exit code of a worker that could not begin
 */
export const run = (
  count: number,
  log: EventLog["Type"] | undefined,
  env: Record<string, string>,
  renews: boolean
): Effect.Effect<number> =>
  Effect.scoped(
    Effect.gen(function* () {
      const load = yield* RemoteLog.makeLoad
      const shared = { tickets: Tickets.unsafeMakeMemory(), idempotency: Idempotency.unsafeMakeMemory() }
      const bus = yield* NodeBus.makeMemory()
      const ended = yield* Queue.unbounded<{
        readonly index: number
        readonly code: number
        readonly needed: boolean
      }>()
      const workers = new Set<Worker>()
      let listening = 0
      // Of what each worker uses here: they need it until they have ended.
      const scopes = new Map<number, Scope.CloseableScope>()
      const close = (index: number) => Effect.suspend(() => Scope.close(scopes.get(index)!, Exit.void))
      let stopping = false
      // What the log gives back is cloned, bytes and all.
      cluster.setupPrimary({ serialization: "advanced" })

      yield* Effect.acquireRelease(Effect.void, () =>
        Effect.async<void>((resume) => {
          stopping = true
          if (workers.size === 0) return resume(Effect.void)
          for (const worker of workers) {
            worker.once("exit", () => {
              if (workers.size === 0) resume(Effect.void)
            })
            const tell = () => worker.isConnected() && worker.send(stopMessage, () => {})
            tell()
            // One that had not begun has not heard it.
            worker.once("listening", tell)
          }
        }).pipe(Effect.zipRight(Effect.forEach(scopes.keys(), close, { discard: true })))
      )
      if (renews) {
        const renew = () => {
          for (const worker of workers) if (worker.isConnected()) worker.send(renewMessage, () => {})
        }
        yield* Effect.acquireRelease(
          Effect.sync(() => process.on("SIGHUP", renew)),
          () => Effect.sync(() => process.off("SIGHUP", renew))
        )
      }
      const start = (index: number, replaces: boolean) =>
        Effect.gen(function* () {
          const own = yield* Scope.make()
          scopes.set(index, own)
          const worker = cluster.fork({ ...env, EFFECT_SSE_WORKER: String(index) })
          workers.add(worker)
          // Once they have begun the settings are right; what is wrong with a later one may pass, and the others go on.
          let needed = !replaces
          worker.once("listening", () => {
            needed = false
            // The last one to listen: it is there, which another one may no longer be.
            if (!replaces && ++listening === count) worker.send(begunMessage, () => {})
          })
          worker.on("error", () => {})
          worker.once("exit", (code: number | null) => {
            workers.delete(worker)
            if (!stopping) ended.unsafeOffer({ index, code: code ?? 1, needed })
          })
          yield* Scope.extend(RemoteStores.serve(shared, channelTo(worker)), own)
          if (log === undefined) return
          yield* Scope.extend(RemoteLog.serve(log, channelTo(worker), load), own)
          yield* Scope.extend(RemoteBus.serve(bus, channelTo(worker)), own)
        })
      for (let index = 0; index < count; index++) yield* start(index, false)
      for (;;) {
        const { code, index, needed } = yield* Queue.take(ended)
        yield* close(index)
        if (needed) return code === 0 ? 1 : code
        yield* Effect.logError(`effect-sse: worker ${index} ended with code ${code}, and is replaced`)
        yield* pause(replaceMillis)
        yield* start(index, true)
      }
    })
  )
