/**
 * Reads the log as it grows, on a connection of its own, and hands it to the hubs of this process. Nothing is read while there
 * is no tail.
 *
 * @internal
 */
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import * as RcRef from "effect/RcRef"
import type { Tail } from "../../EventLog.js"
import type { Namespace } from "../../Namespace.js"
import * as SseEvent from "../../SseEvent.js"
import { pause } from "../eventLoop.js"
import type { Life } from "./life.js"
import { Down, type Failure, type Link, type Problem, Refused } from "./link.js"
import * as Position from "./position.js"
import type { Place, Raw, RedisEntry } from "./position.js"
import type { Recent } from "./recent.js"
import type { Keys } from "./scripts.js"

/** How long Redis holds a read for something to come, in ms. */
const blockMillis = 1000

/** Entries in one read: more as long as they are small. */
const fewest = 16
const most = 1024
const aimedLength = 512 * 1024

export interface Reader {
  readonly tail: (tail: Tail) => Effect.Effect<string, Failure, Scope.Scope>
  /** Reads until the scope closes, whether there is a tail or not. */
  readonly read: Effect.Effect<void, Failure, Scope.Scope>
  /** Why it does not read, if it should. */
  readonly problem: () => Problem | undefined
  /** Up to where it has read. */
  readonly here: () => Place
  /** Waits, at most a second, until it has read up to there. */
  readonly caughtUp: (n: number) => Effect.Effect<void>
  /** How many entries fit in a page, as large as they are now. */
  readonly pageCount: () => number
  /** The latest value of each namespace that keeps it. */
  readonly values: ReadonlyMap<Namespace, RedisEntry>
}

/**
 * @param open makes the connection
 * @param millis how long that may take, when reading begins
 * @param maxValues 0: no values are kept
 */
export const make = (
  open: Effect.Effect<Link, never, Scope.Scope>,
  millis: number,
  life: Life,
  keys: Keys,
  recent: Recent,
  maxValues: number
): Effect.Effect<Reader, never, Scope.Scope> =>
  Effect.gen(function* () {
    const tails = new Set<Tail>()
    const values = new Map<Namespace, RedisEntry>()
    const waiting = new Set<{ readonly n: number; readonly resume: () => void }>()
    let here = life.base()
    let count = fewest
    // While it reads.
    let reading: Link | undefined

    const loadValues = (link: Link) =>
      Effect.gen(function* () {
        if (maxValues === 0) return
        const { epoch } = here
        const found = yield* link.run((redis) => redis.hgetall(keys.values))
        values.clear()
        for (const [namespace, value] of Object.entries(found)) {
          const space = value.indexOf(" ")
          const entry = Position.decode([value.slice(0, space), ["n", namespace, "v", value.slice(space + 1)]], epoch)
          values.set(entry.namespace, entry)
        }
      })

    const keepValue = (entry: RedisEntry) => {
      // Anew each time, so that the oldest is the first.
      values.delete(entry.namespace)
      values.set(entry.namespace, entry)
      if (values.size > maxValues) values.delete(values.keys().next().value!)
    }

    const offer = (entries: ReadonlyArray<RedisEntry>) => {
      if (entries.length === 0) return
      recent.add(entries)
      for (const entry of entries) if (entry.kind === "v") keepValue(entry)
      here = entries.at(-1)!
      life.saw(here)
      for (const tail of tails) tail.offer(entries)
      for (const one of waiting) {
        if (here.n < one.n) continue
        waiting.delete(one)
        one.resume()
      }
    }

    /** Goes on behind a place, and tells the hubs that it could not go on where it was. */
    const skipTo = (link: Link, place: Place, reason: "expired" | "restarted") =>
      Effect.gen(function* () {
        here = place
        recent.clear()
        const position = Position.toText(place)
        for (const tail of tails) tail.gap({ reason, position })
        yield* loadValues(link)
        // What holds now, for those who missed how it came to be. Without ids: it is no part of the order.
        const again = Array.from(values.values())
          .sort((a, b) => a.n - b.n)
          .map(({ event, namespace, text }) => ({ namespace, event, text: SseEvent.withoutId(text), position }))
        if (again.length > 0) for (const tail of tails) tail.offer(again)
      })

    const read = (link: Link) =>
      Effect.gen(function* () {
        for (const tail of tails) yield* tail.ready
        const { epoch } = here
        if (life.epoch() !== epoch) return yield* skipTo(link, life.base(), "restarted")
        const [found, current] = yield* link.run(
          (redis) =>
            redis
              .pipeline()
              .call("xread", [
                "COUNT",
                count,
                "BLOCK",
                blockMillis,
                "STREAMS",
                keys.stream,
                `${here.n}-18446744073709551615`
              ])
              .hget(keys.meta, "epoch")
              .exec()
              .then((results) =>
                results!.map(([error, result]) => {
                  if (error !== null) throw error
                  return result
                })
              ),
          blockMillis
        )
        const raws = ((found as ReadonlyArray<[string, ReadonlyArray<Raw>]> | null)?.[0]?.[1] ??
          []) as ReadonlyArray<Raw>
        const entries: Array<RedisEntry> = []
        let length = 0
        let next = here.n + 1
        let hole: number | undefined
        for (const raw of raws) {
          const { n } = Position.idOf(raw)
          if (Position.isMark(raw)) break
          if (n !== next) {
            hole = n
            break
          }
          const entry = Position.decode(raw, epoch)
          entries.push(entry)
          length += entry.text.length
          next++
        }
        offer(entries)
        if (length > aimedLength) count = Math.max(fewest, count >> 1)
        else if (raws.length === count && length < aimedLength / 2) count = Math.min(most, count * 2)
        if (current !== epoch || hole !== undefined || entries.length < raws.length) yield* life.reopen(link.run)
        if (hole !== undefined && life.epoch() === epoch) {
          const n = life.first() > next ? life.first() - 1 : hole - 1
          yield* skipTo(link, { epoch, n, ms: 0 }, "expired")
        }
      })

    const waitFor = (n: number): Effect.Effect<void> =>
      Effect.async<void>((resume) => {
        const one = { n, resume: () => resume(Effect.void) }
        waiting.add(one)
        return Effect.sync(() => void waiting.delete(one))
      }).pipe(Effect.raceFirst(pause(1000)))

    const begin = Effect.gen(function* () {
      const link = yield* open
      yield* Effect.raceFirst(
        link.up,
        Effect.flatMap(pause(millis), () => new Down({ reason: link.problem()?.reason ?? "there is no connection" }))
      )
      here = yield* life.reopen(link.run)
      yield* loadValues(link)
      yield* Effect.acquireRelease(
        Effect.sync(() => void (reading = link)),
        () =>
          Effect.sync(() => {
            reading = undefined
            recent.clear()
            values.clear()
          })
      )
      yield* read(link).pipe(
        Effect.catchAll((failure) =>
          // An answer that it cannot be read: whether it can be again is seen on a new connection.
          Effect.zipRight(failure instanceof Refused ? link.cut(failure.reason) : Effect.void, link.up)
        ),
        Effect.catchAllCause((cause) =>
          Effect.zipRight(Effect.logError("effect-sse: reading the log failed, and is tried again", cause), pause(1000))
        ),
        Effect.forever,
        Effect.forkScoped
      )
    })

    const user = yield* RcRef.make({ acquire: begin })

    return {
      tail: (tail) =>
        Effect.zipRight(
          RcRef.get(user),
          Effect.acquireRelease(
            Effect.sync(() => {
              tails.add(tail)
              return Position.toText(here)
            }),
            () => Effect.sync(() => void tails.delete(tail))
          )
        ),
      read: RcRef.get(user),
      problem: () => reading?.problem(),
      here: () => here,
      pageCount: () => Math.min(count, 512),
      caughtUp: (n) => Effect.suspend(() => (reading === undefined || here.n >= n ? Effect.void : waitFor(n))),
      values
    }
  })
