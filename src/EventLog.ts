/**
 * The order of all events. Every event gets its place here, and the hub delivers in this order, so that all clients see
 * the same one. In memory by default; another engine is another layer.
 *
 * @since 0.1.0
 */
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Random from "effect/Random"
import type * as Scope from "effect/Scope"
import type { Namespace } from "./Namespace.js"
import * as Ns from "./Namespace.js"
import type { SseEvent } from "./SseEvent.js"
import type { EventLogError } from "./SseError.js"

/**
 * A validated, encoded event that waits for its place.
 *
 * @since 0.1.0
 * @category models
 */
export interface NewEntry {
  /** Where it was published. */
  readonly namespace: Namespace
  /** The event as published, with its namespace in canonical form. */
  readonly event: SseEvent
  /** Its block of the event stream, ended by a blank line. */
  readonly text: string
}

/**
 * An event with its place in the order.
 *
 * @since 0.1.0
 * @category models
 */
export interface LogEntry extends NewEntry {
  /** `epoch-seq`: the life of the log, and the place in it from 1 on. */
  readonly position: string
}

/**
 * What {@link EventLog.since} finds.
 *
 * @since 0.1.0
 * @category models
 */
export type Since =
  /** Everything after the position that matches, oldest first. */
  | { readonly _tag: "Entries"; readonly entries: ReadonlyArray<LogEntry> }
  /** The position cannot be continued: dropped by the bounds, never given out, or from another life of the log. */
  | { readonly _tag: "Gap"; readonly reason: "expired" | "unknown" | "restarted"; readonly oldest: string | undefined }

/**
 * Where a log hands its entries to a hub.
 *
 * @since 0.1.0
 * @category models
 */
export interface Tail {
  /** Takes entries, synchronously and in order. */
  readonly offer: (entries: ReadonlyArray<LogEntry>) => void
  /** Waits while the hub has too much to deliver. A log that reads from elsewhere waits for it before each read. */
  readonly ready: Effect.Effect<void>
}

/**
 * The store behind a hub.
 *
 * @since 0.1.0
 * @category services
 */
export class EventLog extends Context.Tag("effect-sse/EventLog")<
  EventLog,
  {
    /**
     * Gives the entries consecutive places, all or none, and returns their positions in the same order. Entries reach
     * every tail before, or soon after, this succeeds.
     */
    readonly append: (entries: ReadonlyArray<NewEntry>) => Effect.Effect<ReadonlyArray<string>, EventLogError>
    /** Hands everything appended from now on to `tail`, in the log's order, until the scope closes. */
    readonly tail: (tail: Tail) => Effect.Effect<void, EventLogError, Scope.Scope>
    /** What was appended behind `position` to any of `namespaces` or below. */
    readonly since: (position: string, namespaces: ReadonlyArray<Namespace>) => Effect.Effect<Since, EventLogError>
    /** How many entries are kept for {@link since}. Asked once a second. */
    readonly size: Effect.Effect<number, EventLogError>
  }
>() {}

/**
 * How much the memory log keeps.
 *
 * @since 0.1.0
 * @category models
 */
export interface MemoryOptions {
  /** Events kept for {@link EventLog.since}. Default 0: none. */
  readonly historyEvents?: number | undefined
}

/**
 * A log in this process's memory. Its epoch is new each time it is made, so that a position from an earlier life is
 * recognised.
 *
 * @since 0.1.0
 * @category constructors
 */
export const makeMemory = (options?: MemoryOptions): Effect.Effect<EventLog["Type"]> =>
  Effect.gen(function* () {
    const now = yield* Clock.currentTimeMillis
    const salt = yield* Random.nextIntBetween(0, 36 ** 4)
    const epoch = now.toString(36) + salt.toString(36).padStart(4, "0")
    const capacity = Math.max(0, options?.historyEvents ?? 0)
    const tails = new Set<Tail>()
    // Entry `seq` is at `seq % capacity`; the kept ones are `last - size + 1` to `last`.
    const ring: Array<LogEntry> = []
    let last = 0

    return EventLog.of({
      append: (entries) =>
        // One synchronous step, so that places, history and every tail agree on the order.
        Effect.sync(() => {
          const placed = entries.map(({ event, namespace, text }): LogEntry => ({
            namespace,
            event,
            text,
            position: `${epoch}-${++last}`
          }))
          if (capacity > 0) {
            placed.forEach((entry, i) => (ring[(last - placed.length + 1 + i) % capacity] = entry))
          }
          for (const tail of tails) tail.offer(placed)
          return placed.map((entry) => entry.position)
        }),
      tail: (tail) =>
        Effect.acquireRelease(
          Effect.sync(() => void tails.add(tail)),
          () => Effect.sync(() => void tails.delete(tail))
        ),
      size: Effect.sync(() => Math.min(last, capacity)),
      since: (position, namespaces) =>
        Effect.sync((): Since => {
          const oldest = last - Math.min(last, capacity) + 1
          const gap = (reason: "expired" | "unknown" | "restarted"): Since => ({
            _tag: "Gap",
            reason,
            oldest: oldest > last ? undefined : `${epoch}-${oldest}`
          })
          const match = /^([0-9a-z]+)-(0|[1-9]\d{0,15})$/.exec(position)
          if (match === null) return gap("unknown")
          if (match[1] !== epoch) return gap("restarted")
          const seq = Number(match[2])
          if (seq > last) return gap("unknown")
          if (seq + 1 < oldest) return gap("expired")
          const entries: Array<LogEntry> = []
          for (let next = seq + 1; next <= last; next++) {
            const entry = ring[next % capacity]!
            if (namespaces.some((namespace) => Ns.matches(namespace, entry.namespace))) entries.push(entry)
          }
          return { _tag: "Entries", entries }
        })
    })
  })

/**
 * The memory log as a layer. See {@link makeMemory}.
 *
 * @since 0.1.0
 * @category layers
 */
export const layerMemory = (options?: MemoryOptions): Layer.Layer<EventLog> =>
  Layer.effect(EventLog, makeMemory(options))
