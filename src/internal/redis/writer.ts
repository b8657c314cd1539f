/**
 * Appends what is published here. What comes while one append is under way makes up the next one, so there is one at a time,
 * and Redis needs to remember only the last one of each node to do none twice.
 *
 * @internal
 */
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import type { NewEntry } from "../../EventLog.js"
import { EventLogError } from "../../SseError.js"
import { pause } from "../eventLoop.js"
import type { Life } from "./life.js"
import { isElsewhere, type Link } from "./link.js"
import type { Kind } from "./position.js"
import * as Position from "./position.js"
import * as Scripts from "./scripts.js"

/** Events, and characters, that travel in one go, if one publish alone is not more. */
const maxEvents = 4096
const maxLength = 2 * 1024 * 1024

/** Events, and characters, that may wait in all. */
const maxWaitingEvents = 100_000
const maxWaitingLength = 64 * 1024 * 1024

/** What waits, in all writers of a log. */
export interface Backlog {
  events: number
  length: number
}

export interface Settings {
  readonly keys: Scripts.Keys
  readonly kindOf: (entry: NewEntry) => Kind
  readonly maxEvents: number
  /** In ms; 0: no bound. */
  readonly maxAge: number
  readonly maxValues: number
  readonly backlog: Backlog
  /** How long a publish may wait for Redis, in ms. */
  readonly waitMillis: number
  /** Waits, for a bounded time, while this node has yet to read much: else it could fall behind what is kept. */
  readonly room: Effect.Effect<void>
}

interface Waiting {
  readonly entries: ReadonlyArray<NewEntry>
  readonly length: number
  readonly deadline: number
  /** Whether it was sent, so that Redis may have it. */
  sent: boolean
  /** Whether its publisher has an answer. */
  settled: boolean
  readonly resume: (result: Effect.Effect<ReadonlyArray<string>, EventLogError>) => void
}

export interface Writer {
  readonly append: (entries: ReadonlyArray<NewEntry>) => Effect.Effect<ReadonlyArray<string>, EventLogError>
}

export const make = (link: Link, life: Life, settings: Settings): Effect.Effect<Writer, never, Scope.Scope> =>
  Effect.gen(function* () {
    const { backlog, keys } = settings
    const clock = yield* Effect.clock
    const some = yield* Effect.makeLatch(false)
    let queue: Array<Waiting> = []
    // What is under way, so that it is given up in time too.
    let current: ReadonlyArray<Waiting> = []
    let number = 0

    const fail = (reason: string, outcome?: "unknown") =>
      Effect.fail(new EventLogError({ operation: "append", reason, ...(outcome === undefined ? {} : { outcome }) }))

    const settle = (one: Waiting, result: Effect.Effect<ReadonlyArray<string>, EventLogError>) => {
      if (one.settled) return
      one.settled = true
      backlog.events -= one.entries.length
      backlog.length -= one.length
      one.resume(result)
    }

    const giveUp = (one: Waiting, reason: string) => settle(one, fail(reason, one.sent ? "unknown" : undefined))

    const takeSome = (): ReadonlyArray<Waiting> => {
      queue = queue.filter(({ settled }) => !settled)
      let count = 0
      let size = 0
      const end = queue.findIndex((one, i) => {
        count += one.entries.length
        size += one.length
        return i > 0 && (count > maxEvents || size > maxLength)
      })
      return queue.splice(0, end === -1 ? queue.length : end)
    }

    const argumentsOf = (taken: ReadonlyArray<Waiting>): ReadonlyArray<string | number> => {
      const args: Array<string | number> = []
      for (const { entries } of taken) {
        for (const entry of entries) {
          const kind = settings.kindOf(entry)
          args.push(kind, entry.namespace, entry.text, (kind === "x" ? undefined : entry.event.id) ?? "")
        }
      }
      return args
    }

    const send = (taken: ReadonlyArray<Waiting>): Effect.Effect<void> => {
      const mine = ++number
      const args = argumentsOf(taken)
      const bounds = [settings.maxEvents, settings.maxAge, settings.maxValues]
      const script = [keys.meta, keys.stream, keys.writer, keys.ids, keys.values, keys.order]
      /** Whether it is over. */
      const attempt: Effect.Effect<boolean> = Effect.suspend(() => {
        if (taken.every(({ settled }) => settled)) return Effect.succeed(true)
        const epoch = life.epoch()
        return link
          .run((redis) => {
            for (const one of taken) one.sent = true
            return Scripts.append(redis, script, [epoch, mine, ...bounds, ...args])
          })
          .pipe(
            Effect.flatMap((reply) => {
              const [answer, first, ms] = reply as [string, string, string]
              if (answer === "epoch") {
                for (const one of taken) one.sent = false
                return Effect.as(life.reopen(link.run), false)
              }
              if (answer !== "ok") {
                for (const one of taken) giveUp(one, "a later append came before it")
                return Effect.succeed(true)
              }
              let n = Number(first)
              for (const one of taken) {
                const positions = one.entries.map(() => Position.toText({ epoch, n: n++, ms: Number(ms) }))
                settle(one, Effect.succeed(positions))
              }
              life.saw({ epoch, n: n - 1, ms: Number(ms) })
              return Effect.succeed(true)
            }),
            Effect.catchAll((failure) => {
              if (failure._tag === "Refused") {
                // Numbers that do not fit: somebody else wrote to the stream.
                if (failure.reason.includes("equal or smaller")) {
                  return Effect.as(Effect.ignore(life.reopen(link.run)), false)
                }
                if (!isElsewhere(failure.reason)) {
                  for (const one of taken) settle(one, fail(failure.reason))
                  return Effect.succeed(true)
                }
              }
              if (settings.waitMillis === 0) for (const one of taken) giveUp(one, failure.reason)
              // The connection is up again, or the publishers have been told that it is not.
              return Effect.as(Effect.raceFirst(link.up, pause(50)), false)
            })
          )
      })
      return Effect.repeat(attempt, { until: (over) => over }).pipe(Effect.asVoid)
    }

    yield* some.await.pipe(
      Effect.zipRight(
        Effect.suspend(() => {
          current = takeSome()
          if (current.length > 0) return Effect.zipRight(settings.room, send(current))
          some.unsafeClose()
          return Effect.void
        })
      ),
      Effect.forever,
      Effect.forkScoped
    )

    // Publishers are told in time, whatever their events wait for.
    yield* some.await.pipe(
      Effect.zipRight(pause(Math.min(Math.max(settings.waitMillis / 20, 10), 100))),
      Effect.map(() => {
        const now = clock.unsafeCurrentTimeMillis()
        for (const one of [...current, ...queue]) {
          if (!one.settled && now >= one.deadline) {
            giveUp(one, link.problem()?.reason ?? `Redis took longer than ${settings.waitMillis} ms`)
          }
        }
      }),
      Effect.forever,
      Effect.forkScoped
    )

    yield* Effect.addFinalizer(() =>
      Effect.sync(() => {
        for (const one of [...current, ...queue]) giveUp(one, "the log is closed")
      })
    )

    return {
      append: (entries) =>
        Effect.flatMap(Clock.currentTimeMillis, (now) =>
          Effect.async((resume) => {
            const problem = link.problem()
            if (problem !== undefined && settings.waitMillis === 0) return resume(fail(problem.reason))
            const one: Waiting = {
              entries,
              length: entries.reduce((sum, { text }) => sum + text.length, 0),
              deadline: settings.waitMillis === 0 ? Infinity : now + settings.waitMillis,
              sent: false,
              settled: false,
              resume
            }
            if (backlog.events + entries.length > maxWaitingEvents || backlog.length + one.length > maxWaitingLength) {
              return resume(fail("too much waits for Redis already"))
            }
            backlog.events += entries.length
            backlog.length += one.length
            queue.push(one)
            some.unsafeOpen()
            // Who does not wait any more is not published, if that can be helped.
            return Effect.sync(() => settle(one, Effect.succeed([])))
          })
        )
    }
  })
