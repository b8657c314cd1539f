/**
 * A log in another process of this machine, by messages: {@link serve} where it is, {@link connect} where it is used.
 *
 * Messages must arrive, whole and in order. Those who use the log tell how much they have taken, so that nobody who is slow
 * makes messages pile up without a bound: while one has too much before it, all appends wait.
 *
 * @internal
 */
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Queue from "effect/Queue"
import * as Scope from "effect/Scope"
import { EventLog, type History, type LogEntry, type NewEntry, type Tail, type TailGap } from "../../EventLog.js"
import { EventLogError } from "../../SseError.js"

/** A way for messages that can be cloned. Who listens leaves alone what is not for it. */
export interface Channel<M = Message> {
  readonly send: (message: M) => void
  /** Gives what ends it. */
  readonly listen: (listener: (message: M) => void) => () => void
}

type Operation = "append" | "tail" | "about" | "size" | "health" | "locate" | "read" | "latest"

export type Message =
  | { readonly ask: Operation; readonly id: number; readonly args: ReadonlyArray<unknown> }
  | { readonly answer: number; readonly value: unknown }
  | {
      readonly failed: number
      readonly error: {
        readonly operation: EventLogError["operation"]
        readonly reason: string
        readonly unknown: boolean
      }
    }
  | { readonly entries: ReadonlyArray<LogEntry> }
  | { readonly gap: TailGap }
  | { readonly taken: number }

/** Entries that one may have before it until appends wait. */
const maxBefore = 16_384

/** What those who use one log have before them. */
export interface Load {
  readonly add: (count: number, whose: object) => void
  readonly remove: (whose: object) => void
  /** Waits while anyone has too much. */
  readonly ready: Effect.Effect<void>
}

export const makeLoad: Effect.Effect<Load> = Effect.map(Effect.makeLatch(true), (room) => {
  const before = new Map<object, number>()
  const look = () => {
    if (Array.from(before.values()).some((count) => count >= maxBefore)) room.unsafeClose()
    else room.unsafeOpen()
  }
  return {
    add: (count, whose) => {
      before.set(whose, (before.get(whose) ?? 0) + count)
      look()
    },
    remove: (whose) => {
      before.delete(whose)
      look()
    },
    ready: room.await
  }
})

// An entry may be an object with a prototype, which a clone has not.
const plain = ({ event, namespace, position, text }: LogEntry): LogEntry => ({ namespace, event, text, position })

/** Lets the other side of a channel use a log, until the scope closes. */
export const serve = (log: EventLog["Type"], channel: Channel, load: Load): Effect.Effect<void, never, Scope.Scope> =>
  Effect.gen(function* () {
    const asked = yield* Queue.unbounded<Extract<Message, { readonly ask: Operation }>>()
    const scope = yield* Effect.scope
    yield* Effect.acquireRelease(
      Effect.sync(() =>
        channel.listen((message) => {
          if ("ask" in message) asked.unsafeOffer(message)
          else if ("taken" in message) load.add(-message.taken, channel)
        })
      ),
      (stop) =>
        Effect.sync(() => {
          stop()
          load.remove(channel)
        })
    )
    const tail: Tail = {
      offer: (entries) => {
        load.add(entries.length, channel)
        channel.send({ entries: entries.map(plain) })
      },
      gap: ({ position, reason }) => channel.send({ gap: { position, reason } }),
      ready: load.ready
    }
    const run = (
      operation: Operation,
      args: ReadonlyArray<unknown>
    ): Effect.Effect<unknown, EventLogError, Scope.Scope> => {
      const history = log.history!
      const pages = (entries: ReadonlyArray<LogEntry>) => entries.map(plain)
      switch (operation) {
        case "append":
          return Effect.zipRight(load.ready, log.append(args[0] as ReadonlyArray<NewEntry>))
        case "tail":
          return log.tail(tail)
        case "about":
          return Effect.succeed({ history: log.history !== undefined, hasLatest: log.history?.hasLatest === true })
        case "size":
          return log.size
        case "health":
          return log.health
        case "locate":
          return history.locate(...(args as Parameters<History["locate"]>))
        case "read":
          return Effect.map(history.read(...(args as Parameters<History["read"]>)), (page) =>
            page._tag === "Gap" ? page : { ...page, entries: pages(page.entries) }
          )
        case "latest":
          return Effect.map(history.latest(...(args as Parameters<History["latest"]>)), pages)
      }
    }
    // One after the other: who asks gets answers, and entries, in the order of the log.
    yield* Queue.take(asked).pipe(
      Effect.flatMap(({ args, ask, id }) =>
        Effect.map(Effect.either(Scope.extend(run(ask, args), scope)), (result) =>
          channel.send(
            Either.isRight(result)
              ? { answer: id, value: result.right }
              : {
                  failed: id,
                  error: {
                    operation: result.left.operation,
                    reason: result.left.reason,
                    unknown: result.left.outcome === "unknown"
                  }
                }
          )
        )
      ),
      Effect.catchAllCause((cause) => Effect.logError("effect-sse: a request of a worker failed", cause)),
      Effect.forever,
      Effect.forkScoped
    )
  })

/** The log on the other side of a channel. Its life is that of the channel. */
export const connect = (channel: Channel): Effect.Effect<EventLog["Type"], EventLogError, Scope.Scope> =>
  Effect.gen(function* () {
    const tails = new Set<Tail>()
    const asked = new Map<number, (result: Effect.Effect<unknown, EventLogError>) => void>()
    const taken = yield* Queue.unbounded<number>()
    let last = 0
    let following = false
    yield* Effect.acquireRelease(
      Effect.sync(() =>
        channel.listen((message) => {
          if ("answer" in message) {
            asked.get(message.answer)?.(Effect.succeed(message.value))
            asked.delete(message.answer)
          } else if ("failed" in message) {
            const { operation, reason, unknown } = message.error
            const error = new EventLogError({ operation, reason, ...(unknown ? { outcome: "unknown" } : {}) })
            asked.get(message.failed)?.(Effect.fail(error))
            asked.delete(message.failed)
          } else if ("entries" in message) {
            for (const tail of tails) tail.offer(message.entries)
            taken.unsafeOffer(message.entries.length)
          } else if ("gap" in message) {
            for (const tail of tails) tail.gap(message.gap)
          }
        })
      ),
      (stop) => Effect.sync(stop)
    )
    const ask = <A>(operation: Operation, ...args: ReadonlyArray<unknown>): Effect.Effect<A, EventLogError> =>
      Effect.async((resume) => {
        const id = ++last
        asked.set(id, resume as (result: Effect.Effect<unknown, EventLogError>) => void)
        channel.send({ ask: operation, id, args })
        return Effect.sync(() => void asked.delete(id))
      })
    // What was handed out counts as before this process until its hubs have room again.
    yield* Queue.take(taken).pipe(
      Effect.flatMap((count) =>
        Effect.zipRight(
          Effect.forEach(tails, (tail) => tail.ready, { discard: true }),
          Effect.sync(() => channel.send({ taken: count }))
        )
      ),
      Effect.forever,
      Effect.forkScoped
    )
    const about = yield* ask<{ readonly history: boolean; readonly hasLatest: boolean }>("about")
    return EventLog.of({
      append: (entries) => ask("append", entries),
      tail: (tail) =>
        Effect.gen(function* () {
          if (following) return yield* Effect.dieMessage("a remote log has one tail")
          following = true
          yield* Effect.acquireRelease(
            Effect.sync(() => tails.add(tail)),
            () => Effect.sync(() => void tails.delete(tail))
          )
          return yield* ask<string>("tail")
        }),
      history: about.history
        ? {
            locate: (...args) => ask("locate", ...args),
            read: (range) => ask("read", range),
            latest: (...args) => ask("latest", ...args),
            hasLatest: about.hasLatest
          }
        : undefined,
      size: ask("size"),
      health: Effect.orDie(ask("health")),
      // What was appended came before the answer.
      settled: Effect.void
    })
  })
