/**
 * For tests of programs that publish: a hub, and clients that record what they get. No sockets, no waiting in real time;
 * what depends on time follows the `Clock`, and so the `TestClock`.
 *
 * @since 0.1.0
 */
import * as Cause from "effect/Cause"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as Layer from "effect/Layer"
import * as Mailbox from "effect/Mailbox"
import type * as Scope from "effect/Scope"
import type { EndReason } from "./Connection.js"
import type { ConnectRequest } from "./HubClient.js"
import { turn } from "./internal/eventLoop.js"
import { Recorder } from "./internal/recorder.js"
import * as NamespacePattern from "./NamespacePattern.js"
import type { HubOptions } from "./SseConfig.js"
import type { InvalidNamespace } from "./SseError.js"
import type { Reset } from "./SseEvent.js"
import * as SseHub from "./SseHub.js"

/**
 * What {@link layer} gives a hub unless told otherwise: no keepalives, so that clients get only what is published; all of
 * them told at shutdown to come back after one second, and ended at once.
 *
 * @since 0.1.0
 * @category constants
 */
export const defaults: HubOptions = {
  keepalive: false,
  shutdownRetry: ["1 second", "1 second"],
  drainWindow: 0
}

/**
 * A hub for tests, on a log in memory. Provide it to each test, so that none sees another's clients.
 *
 * @param options those of the hub, put over the {@link defaults}
 * @since 0.1.0
 * @category layers
 */
export const layer = (options?: HubOptions): Layer.Layer<SseHub.SseHub> => SseHub.layer({ ...defaults, ...options })

/**
 * Waits until nothing is left to be done: until all that was published is handed out, what this made other fibers
 * publish as well, and clients that ended are gone from `hub.clients`. A fiber that sleeps is not waited for: move the
 * `TestClock` first.
 *
 * @since 0.1.0
 * @category testing
 */
export const settled: Effect.Effect<void, never, SseHub.SseHub> = Effect.flatMap(SseHub.SseHub, (hub) =>
  Effect.gen(function* () {
    for (let before = -1; ;) {
      // Fibers that can run do, and publish.
      yield* turn
      yield* hub.flush
      const { published } = yield* hub.status
      if (published === before) return
      before = published
    }
  })
)

/**
 * An event as a browser dispatches it.
 *
 * @since 0.1.0
 * @category models
 */
export interface ReceivedEvent {
  /** The name that listeners are called by: `message` if it was published without one. */
  readonly event: string
  readonly data: string
  /** The last event id at that time: its own, or that of one before; absent if there was none. */
  readonly id?: string
}

/**
 * A client that records what it gets. It tells and does what it is asked when all is {@link settled}.
 *
 * @since 0.1.0
 * @category models
 */
export interface RecordedClient {
  /** Its id in `hub.clients`. */
  readonly id: number
  /** What it was told if it could not be given all that it missed. */
  readonly reset: Reset | undefined
  /** All events so far: what a browser would have dispatched. */
  readonly events: Effect.Effect<ReadonlyArray<ReceivedEvent>>
  /**
   * The next `n` events, each given once, waiting for those that have not come. Fails if the client ends before.
   */
  readonly takeEvents: (n: number) => Effect.Effect<ReadonlyArray<ReceivedEvent>, Cause.NoSuchElementException>
  /** All that it read, as it is on the wire: comments and `retry` as well. */
  readonly text: Effect.Effect<string>
  /** What it would send as `Last-Event-ID`; empty if no event had an id. */
  readonly lastEventId: Effect.Effect<string>
  /** The last `retry` it was sent, in ms. */
  readonly retry: Effect.Effect<number | undefined>
  /** Why it ended; `undefined` while it is connected. */
  readonly ended: Effect.Effect<EndReason | undefined>
  /** Waits until it ends. */
  readonly awaitEnd: Effect.Effect<EndReason>
  /** Goes away, as a browser does whose tab is closed. */
  readonly disconnect: Effect.Effect<void>
  /** Takes nothing more from the network: what is published from now on waits, as for a slow client. */
  readonly stopReading: Effect.Effect<void>
  /** Takes all that waits, and what comes. */
  readonly startReading: Effect.Effect<void>
  /** Takes up to so many of the bytes that wait, and gives how many that were. */
  readonly read: (bytes: number) => Effect.Effect<number>
  /** Bytes that wait for it. */
  readonly pendingBytes: Effect.Effect<number>
}

/**
 * What a client says when it connects, and whether it reads at first.
 *
 * @since 0.1.0
 * @category models
 */
export interface ConnectOptions extends Omit<ConnectRequest, "namespaces" | "connection"> {
  /** Default: `true`. See {@link RecordedClient.stopReading}. */
  readonly reading?: boolean | undefined
}

/**
 * Why a client cannot connect: its namespace is not valid, or the hub does not take it.
 *
 * @since 0.1.0
 * @category errors
 */
export type ConnectError = InvalidNamespace | Effect.Effect.Error<ReturnType<SseHub.SseHub["Type"]["connect"]>>

/**
 * Connects a client, which goes away with the scope. It gets every event published from now on.
 *
 * @param namespaces what it listens to: the path behind `/subscribe`, or several; `*` is any one segment
 * @since 0.1.0
 * @category testing
 * @example
 * ```ts
 * import { assert, it } from "@effect/vitest"
 * import { SseHub, SseTest } from "effect-sse"
 * import { Effect } from "effect"
 *
 * it.scoped("whoever listens to pets hears of dogs", () =>
 *   Effect.gen(function* () {
 *     const client = yield* SseTest.connect("/pets")
 *     const hub = yield* SseHub.SseHub
 *     yield* hub.publish({ namespace: "/pets/dogs", event: "new-dog", data: "Corgi" })
 *     assert.deepStrictEqual(yield* client.events, [{ event: "new-dog", data: "Corgi" }])
 *   }).pipe(Effect.provide(SseTest.layer()))
 * )
 * ```
 */
export const connect = (
  namespaces: string | readonly [string, ...ReadonlyArray<string>],
  { reading = true, ...request }: ConnectOptions = {}
): Effect.Effect<RecordedClient, ConnectError, SseHub.SseHub | Scope.Scope> =>
  Effect.gen(function* () {
    const hub = yield* SseHub.SseHub
    const parse = (path: string) => NamespacePattern.parse(path, { maxBytes: hub.maxNamespaceBytes })
    const [first, ...rest] = typeof namespaces === "string" ? ([namespaces] as const) : namespaces
    const parsed = [yield* parse(first), ...(yield* Effect.forEach(rest, parse))] as const
    const queue = yield* Mailbox.make<ReceivedEvent>()
    const end = yield* Deferred.make<EndReason>()
    const recorder = new Recorder(reading, {
      onEvent: (event) => void queue.unsafeOffer(event),
      onEnd: (reason) => Deferred.unsafeDone(end, Effect.succeed(reason)),
      onLast: () => void queue.unsafeDone(Exit.void)
    })
    const { id, reset } = yield* Effect.acquireRelease(
      hub.connect({ ...request, namespaces: parsed, connection: recorder }),
      () => Effect.sync(() => recorder.close())
    )
    const quiet = Effect.provideService(settled, SseHub.SseHub, hub)
    const look = <A>(get: () => A): Effect.Effect<A> => Effect.map(quiet, get)
    return {
      id,
      reset,
      events: look(() => recorder.events.slice()),
      takeEvents: (n) =>
        Effect.mapError(
          // One by one: Mailbox.takeN never ends for more than is left when no more will come.
          Effect.replicateEffect(queue.take, n),
          () => new Cause.NoSuchElementException(`the client ended (${recorder.ended}) before it got ${n} more events`)
        ),
      text: look(() => recorder.text),
      lastEventId: look(() => recorder.lastEventId),
      retry: look(() => recorder.retry),
      ended: look(() => recorder.ended),
      awaitEnd: Effect.zipLeft(Deferred.await(end), quiet),
      disconnect: Effect.zipRight(
        Effect.sync(() => recorder.close()),
        quiet
      ),
      stopReading: look(() => recorder.setReading(false)),
      startReading: look(() => recorder.setReading(true)),
      read: (bytes) => look(() => recorder.read(bytes)),
      pendingBytes: look(() => recorder.pendingBytes())
    }
  })
