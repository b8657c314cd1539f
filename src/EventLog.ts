/**
 * The order of all events. Every event gets its place here, and the hub delivers in this order, so that all clients see
 * the same one. In memory by default; another engine is another layer.
 *
 * @since 0.1.0
 */
import * as Context from "effect/Context"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Random from "effect/Random"
import type * as Scope from "effect/Scope"
import { History as Kept } from "./internal/memory/history.js"
import { MemoryEntry, positionOf } from "./internal/memory/shelf.js"
import type { Namespace } from "./Namespace.js"
import type { NamespacePattern } from "./NamespacePattern.js"
import { type SseEvent, withoutId } from "./SseEvent.js"
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
 * An event with its place in the order. Its text begins with an `id` line if it is kept.
 *
 * @since 0.1.0
 * @category models
 */
export interface LogEntry extends NewEntry {
  /**
   * The place: whoever got this entry and all before it in the order has seen everything up to here. In memory `epoch-seq`: four
   * letters and digits for the life of the log, and the number in it from 1 on, in base 36.
   */
  readonly position: string
  /** The text for those for whom `shards.isWide`: its id tells of all shards. Left out: as `text`. */
  readonly wide?: string | undefined
  /** When it was appended, in ms since 1970. Needed only of a log that is a shard of another one. */
  readonly at?: number | undefined
}

/**
 * Where a client that connects wants to begin.
 *
 * @since 0.1.0
 * @category models
 */
export type Start =
  /** Behind the event with this id, which the client got last. */
  | { readonly _tag: "After"; readonly id: string }
  /** The oldest place from which on nothing is missing. */
  | { readonly _tag: "Earliest" }
  /** So many matching events back, or as many as are kept. */
  | { readonly _tag: "Last"; readonly events: number }
  /** So long back, in ms, or as long as is kept. */
  | { readonly _tag: "Within"; readonly millis: number }

/**
 * A position that cannot be continued:
 *
 * - `expired`: something behind it that the client would have got is kept no more
 * - `unknown`: it was never given out
 * - `restarted`: it is from another life of the log
 *
 * @since 0.1.0
 * @category models
 */
export interface Gap {
  readonly _tag: "Gap"
  readonly reason: "expired" | "unknown" | "restarted"
  /** The position of the oldest matching entry that is kept, or of one before it. */
  readonly oldest: string | undefined
}

/**
 * A part of what lies between two positions.
 *
 * @since 0.1.0
 * @category models
 */
export interface Page {
  readonly _tag: "Page"
  /** The entries that match, oldest first. */
  readonly entries: ReadonlyArray<LogEntry>
  /** The position up to which this page goes: the next one is read behind it. */
  readonly cursor: string
  /** Whether it goes up to where it was to go; its cursor is then that position. */
  readonly done: boolean
}

/**
 * What a log keeps, and gives back to clients that were away. Every event that is kept carries an id on the wire: its
 * position, or the one its publisher gave. What a client listens to are patterns; `NamespacePattern.matchesAny` tells whether it
 * gets what is published to a namespace.
 *
 * @since 0.1.0
 * @category models
 */
export interface History {
  /**
   * The position behind which to begin for these namespaces. Only what is missing up to `upTo` makes a {@link Gap}: what comes
   * behind it is still to be handed to the tail.
   */
  readonly locate: (
    start: Start,
    upTo: string,
    namespaces: ReadonlyArray<NamespacePattern>
  ) => Effect.Effect<string | Gap, EventLogError>
  /**
   * Reads on behind `after`, up to and with `upTo`, as much as makes a page: up to `maxBytes` of texts, and at least one entry.
   * A {@link Gap} if a matching entry between them is kept no more. If `after` lies beyond `upTo`, which is where the hub is, an
   * empty page that is `done`, with `after` as its cursor. It answers or fails in bounded time, as {@link History.latest} and
   * {@link History.locate} do: a client waits for it.
   */
  readonly read: (range: {
    readonly after: string
    readonly upTo: string
    readonly maxBytes: number
    readonly namespaces: ReadonlyArray<NamespacePattern>
  }) => Effect.Effect<Page | Gap, EventLogError>
  /** The values that hold at a position, of the namespaces that keep their latest one; oldest first. */
  readonly latest: (
    upTo: string,
    namespaces: ReadonlyArray<NamespacePattern>
  ) => Effect.Effect<ReadonlyArray<LogEntry>, EventLogError>
  /** Whether any namespace keeps its latest value; if not, {@link History.latest} is not asked. */
  readonly hasLatest: boolean
}

/**
 * A place where a tail could not go on.
 *
 * @since 0.1.0
 * @category models
 */
export interface TailGap {
  /** See {@link Gap}. */
  readonly reason: "expired" | "restarted"
  /** The position behind which it goes on. */
  readonly position: string
  /** Whether anything is missing for those who listen to these. Left out: for all. */
  readonly concerns?: ((namespaces: ReadonlyArray<NamespacePattern>) => boolean) | undefined
}

/**
 * Whether a log can do its work. While it is degraded, publishes may fail or wait, clients stay, and what was published
 * meanwhile comes when it is well again.
 *
 * @since 0.1.0
 * @category models
 */
export type Health =
  | { readonly status: "ok" }
  | {
      readonly status: "degraded"
      readonly reason: string
      /** Since when, in ms since 1970. */
      readonly since: number
    }

/**
 * Where a log hands its entries to a hub.
 *
 * @since 0.1.0
 * @category models
 */
export interface Tail {
  /** Takes entries, synchronously and in order. */
  readonly offer: (entries: ReadonlyArray<LogEntry>) => void
  /** Takes note, in order with the entries, that some cannot be had: the clients it concerns are told, by an `sse-reset` event. */
  readonly gap: (gap: TailGap) => void
  /** Takes note, in order with the entries, that from here on the log reads other shards: this position tells of them. */
  readonly moved?: ((position: string) => void) | undefined
  /** Waits while the hub has too much to deliver. A log that reads from elsewhere waits for it before each read. */
  readonly ready: Effect.Effect<void>
}

/**
 * A log that is read in part: each shard has an order of its own, and is handed to the tails while someone follows it.
 *
 * @since 0.1.0
 * @category models
 */
export interface Shards {
  /**
   * Reads the shards of these namespaces until the scope closes; the hub holds one for each client. When it succeeds, the tails
   * have been told, by `moved`, a position that tells of them.
   */
  readonly follow: (namespaces: ReadonlyArray<NamespacePattern>) => Effect.Effect<void, EventLogError, Scope.Scope>
  /** What a position of a tail, which follows these namespaces, tells of their shards. Others need not know more. */
  readonly part: (position: string, namespaces: ReadonlyArray<NamespacePattern>) => string
  /** Whether they are of several shards. */
  readonly isWide: (namespaces: ReadonlyArray<NamespacePattern>) => boolean
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
    /**
     * Hands everything appended from now on to `tail`, in the log's order, until the scope closes. Gives the position behind
     * which it begins.
     */
    readonly tail: (tail: Tail) => Effect.Effect<string, EventLogError, Scope.Scope>
    /** What is kept; `undefined` if nothing is, and events carry no ids of the log's. */
    readonly history: History | undefined
    /**
     * Of a log in shards, which is read only where someone listens. An `append` of several shards is then whole, or not at
     * all, in each of them; and a position that it gives is one for those who touch only the shard of the event.
     */
    readonly shards?: Shards | undefined
    /** How many entries are kept. Asked once a second. */
    readonly size: Effect.Effect<number, EventLogError>
    /** Whether it can do its work. */
    readonly health: Effect.Effect<Health>
    /** Waits, for a bounded time, until every entry whose `append` succeeded was handed to the tails. */
    readonly settled: Effect.Effect<void>
  }
>() {}

/**
 * How much is kept. The oldest goes first.
 *
 * @since 0.1.0
 * @category models
 */
export interface HistoryBounds {
  /** Events. Default: 10,000. Of namespaces that keep their latest value: such namespaces. */
  readonly maxEvents?: number | undefined
  /**
   * Bytes on the wire of all that is kept. In memory an event takes about twice as much, and 300 bytes; of namespaces that keep
   * their latest value, up to twice that. Default: 16 MiB.
   */
  readonly maxBytes?: number | undefined
  /** How long an event is kept. Default: as long as the other bounds allow. */
  readonly maxAge?: Duration.DurationInput | undefined
}

/**
 * What is kept of the namespaces that a pattern covers, within bounds of their own.
 *
 * @since 0.1.0
 * @category models
 */
export interface HistoryRule extends HistoryBounds {
  /** A namespace or a pattern such as `/rooms/*`; see `NamespacePattern`. It covers all below. */
  readonly namespace: string
  /**
   * - `events`: the events, so that clients can resume
   * - `latest`: the last event of each namespace, which is its value: whoever subscribes gets it at once, and whoever resumes
   *   gets it if it is new. It does not expire with `maxAge` of the whole.
   * - `nothing`: such events carry no id, and are missed by those who are away
   */
  readonly keep: "events" | "latest" | "nothing"
}

/**
 * What is kept.
 *
 * @since 0.1.0
 * @category models
 */
export interface HistoryOptions extends HistoryBounds {
  /** Exceptions: the first rule that covers a namespace holds. The bounds that a rule does not set are those of the whole. */
  readonly rules?: ReadonlyArray<HistoryRule> | undefined
}

/**
 * A log in this process's memory. Its epoch is new each time it is made, so that a position from an earlier life is
 * recognised.
 *
 * @param history what is kept; `true` for the defaults. Default: `false`, nothing
 * @throws Error as a defect, if a bound is below 1; `InvalidNamespace` for a rule's pattern
 * @since 0.1.0
 * @category constructors
 */
export const makeMemory = (history?: HistoryOptions | boolean): Effect.Effect<EventLog["Type"]> =>
  Effect.gen(function* () {
    const clock = yield* Effect.clock
    // Random, so that servers that start together differ; and of the time, so that lives with one seed do.
    const salt = (yield* Random.nextIntBetween(0, 62 ** 4)) + clock.unsafeCurrentTimeMillis()
    const epoch = toEpoch(salt)
    const kept =
      history === undefined || history === false ? undefined : new Kept(epoch, history === true ? {} : history)
    const tails = new Set<Tail>()
    let last = 0
    const here = () => positionOf(epoch, last)
    const place = (position: string): number => {
      const seq = kept!.parse(position, Infinity)
      if (typeof seq === "string") throw new Error(`not a position of this log: ${position}`)
      return seq
    }
    const look = <A>(look: (kept: Kept, now: number) => A): Effect.Effect<A> =>
      Effect.sync(() => {
        const now = clock.unsafeCurrentTimeMillis()
        kept!.expire(now)
        return look(kept!, now)
      })

    return EventLog.of({
      append: (entries) =>
        // One synchronous step, so that places, history and every tail agree on the order.
        Effect.sync(() => {
          const now = clock.unsafeCurrentTimeMillis()
          kept?.expire(now)
          const placed: Array<LogEntry> = []
          const positions: Array<string> = []
          for (const { event, namespace, text } of entries) {
            last++
            const position = here()
            const isKept = kept?.keeps(namespace) === true
            // What is not kept cannot be resumed from: it carries no id, not even its publisher's.
            const block =
              kept === undefined || (isKept && event.id !== undefined)
                ? text
                : isKept
                  ? "id:" + position + "\n" + text
                  : withoutId(text)
            const entry = new MemoryEntry(namespace, event, block, epoch, last, now)
            if (isKept) kept.add(entry)
            placed.push(entry)
            positions.push(position)
          }
          for (const tail of tails) tail.offer(placed)
          return positions
        }),
      tail: (tail) =>
        Effect.acquireRelease(
          Effect.sync(() => {
            tails.add(tail)
            return here()
          }),
          () => Effect.sync(() => void tails.delete(tail))
        ),
      size: Effect.suspend(() => (kept === undefined ? Effect.succeed(0) : look((kept) => kept.size))),
      health: Effect.succeed({ status: "ok" }),
      settled: Effect.void,
      history:
        kept === undefined
          ? undefined
          : {
              locate: (start, upTo, namespaces) =>
                look((kept, now) => {
                  const found = kept.locate(start, namespaces, place(upTo), last, now)
                  return typeof found === "number" ? positionOf(epoch, found) : found
                }),
              read: ({ after, maxBytes, namespaces, upTo }) =>
                look((kept) => kept.read(place(after), place(upTo), namespaces, maxBytes)),
              latest: (upTo, namespaces) => look((kept) => kept.latest(place(upTo), namespaces)),
              hasLatest: kept.hasLatest
            }
    })
  })

const digits = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

/** Four digits in base 62: every event carries them, and 15 million are enough to tell lives apart. */
const toEpoch = (salt: number): string =>
  [1, 62, 62 ** 2, 62 ** 3].map((unit) => digits[Math.floor(salt / unit) % 62]).join("")

/**
 * The memory log as a layer. See {@link makeMemory}.
 *
 * @since 0.1.0
 * @category layers
 */
export const layerMemory = (history?: HistoryOptions | boolean): Layer.Layer<EventLog> =>
  Layer.effect(EventLog, makeMemory(history))
