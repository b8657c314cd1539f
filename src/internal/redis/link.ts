/**
 * A connection to Redis that is made again whenever it is lost. Nothing is queued while there is none, and nothing is sent
 * twice: what to do about a command without an answer is for those who sent it.
 *
 * @internal
 */
import * as Clock from "effect/Clock"
import * as Data from "effect/Data"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import type { Redis } from "ioredis"
import { pause } from "../eventLoop.js"

/** There is no connection: nothing was sent. */
export class Down extends Data.TaggedError("Down")<{ readonly reason: string }> {}

/** The connection was lost, or given up, before the answer came: it may have been done, or may still be. */
export class Lost extends Data.TaggedError("Lost")<{ readonly reason: string }> {}

/** Redis answered with an error. */
export class Refused extends Data.TaggedError("Refused")<{ readonly reason: string }> {}

export type Failure = Down | Lost | Refused

export interface Problem {
  readonly reason: string
  /** In ms since 1970. */
  readonly since: number
}

export interface Link {
  /** Sends, and waits for the answer for as long as the link allows, and `extraMillis`. */
  readonly run: <A>(send: (redis: Redis) => Promise<A>, extraMillis?: number) => Effect.Effect<A, Failure>
  /** Waits for a connection. */
  readonly up: Effect.Effect<void>
  /** Why there is none. */
  readonly problem: () => Problem | undefined
  /** Gives the connection up; another one is made. */
  readonly cut: (reason: string) => Effect.Effect<void>
}

/** Time in ms between two attempts to connect: the first, and the longest. */
const firstRetry = 50
const lastRetry = 1000

/** Answers of a Redis that does not take commands now, where another connection may find one that does. */
export const isElsewhere = (reason: string): boolean =>
  /^(READONLY|LOADING|MASTERDOWN|MOVED|ASK|TRYAGAIN|CLUSTERDOWN|EXECABORT)\b/.test(reason)

/** A server of a cluster. */
export interface Address {
  readonly host: string
  readonly port: number
}

/** Where a cluster says that the keys are; without a host, on the one that says so. */
const movedTo = (reason: string, asked: string | undefined): Address | undefined => {
  const match = /^MOVED \d+ (.*):(\d+)$/.exec(reason)
  const host = match === null ? undefined : match[1]! || asked
  return host === undefined ? undefined : { host, port: Number(match![2]) }
}

interface Open {
  readonly redis: Redis
  /** Ends what waits for an answer. */
  readonly waiting: Set<(reason: string) => void>
  /**
   * Gives it up. In this step nobody can use it any more: one that tries again at once would meet the same connection, and
   * never give the event loop back.
   */
  readonly drop: (reason: string) => void
}

/** Sends, and gives the answer in real time: a server that hangs does so whatever the `Clock` says. */
const ask = <A>(open: Open, send: (redis: Redis) => Promise<A>, millis: number): Effect.Effect<A, Failure> =>
  Effect.async((resume) => {
    const settle = (result: Effect.Effect<A, Failure>) => {
      clearTimeout(timer)
      open.waiting.delete(lose)
      resume(result)
    }
    const lose = (reason: string) => settle(Effect.fail(new Lost({ reason })))
    const timer = setTimeout(() => open.drop(`no answer for ${millis} ms`), millis)
    open.waiting.add(lose)
    send(open.redis).then(
      (answer) => settle(Effect.succeed(answer)),
      (error: unknown) => {
        const reason = messageOf(error)
        if (!(error instanceof Error && error.name === "ReplyError")) return open.drop(reason)
        settle(Effect.fail(new Refused({ reason })))
        if (isElsewhere(reason) || reason.startsWith("NOAUTH")) open.drop(reason)
      }
    )
  })

// Only the text: the error of ioredis holds the command, with what was published, or with a password.
const messageOf = (error: unknown): string => (error instanceof Error ? error.message : String(error))

/**
 * @param make a connection that is not open yet, and never connects again by itself; to where a cluster said that the keys are
 * @param millis how long an answer may take
 * @param onOpen what is done first on each connection
 */
export const make = (
  make: (at: Address | undefined) => Redis,
  millis: number,
  onOpen: (run: Link["run"]) => Effect.Effect<void, Failure>
): Effect.Effect<Link, never, Scope.Scope> =>
  Effect.gen(function* () {
    const up = yield* Effect.makeLatch(false)
    let current: Open | undefined
    let problem: Problem | undefined = { reason: "not connected yet", since: yield* Clock.currentTimeMillis }
    let retry = firstRetry
    let target: Address | undefined
    let isLed = false

    const failed = (reason: string) =>
      Effect.gen(function* () {
        if (problem === undefined) {
          yield* Effect.logWarning(`effect-sse: the connection to Redis is lost: ${reason}`)
        }
        problem = { reason, since: problem?.since ?? (yield* Clock.currentTimeMillis) }
      })

    const once = Effect.suspend(() => {
      const redis = make(target)
      let reason: string | undefined
      const waiting = new Set<(reason: string) => void>()
      let onDrop: (() => void) | undefined
      const open: Open = {
        redis,
        waiting,
        drop: (why) => {
          reason ??= why
          if (current === open) {
            current = undefined
            up.unsafeClose()
          }
          redis.disconnect()
          for (const lose of waiting) lose(reason)
          onDrop?.()
        }
      }
      // The first error is what tells why it ended.
      redis.on("error", (error) => (reason ??= messageOf(error)))
      redis.once("end", () => open.drop("it was closed"))
      return ask(open, (redis) => redis.connect(), millis).pipe(
        Effect.zipRight(onOpen((send, extra = 0) => ask(open, send, millis + extra))),
        Effect.zipRight(
          Effect.suspend(() => {
            const wasDown = problem?.reason !== "not connected yet"
            if (reason !== undefined) return Effect.void
            current = open
            problem = undefined
            retry = firstRetry
            up.unsafeOpen()
            return Effect.zipRight(
              wasDown ? Effect.logInfo("effect-sse: Redis is back") : Effect.void,
              Effect.async<void>((resume) => {
                onDrop = () => resume(Effect.void)
                if (current !== open) onDrop()
              })
            )
          })
        ),
        Effect.catchAll((failure) => Effect.sync(() => (reason ??= failure.reason))),
        Effect.zipRight(
          Effect.suspend(() => {
            const moved = reason === undefined ? undefined : movedTo(reason, redis.options.host)
            // The one that is asked first may lead on; who is led on and on finds no way.
            isLed = target === undefined && moved !== undefined
            target = moved
            return isLed && problem !== undefined ? Effect.void : failed(reason ?? "it was closed")
          })
        ),
        Effect.ensuring(Effect.sync(() => open.drop("closed")))
      )
    })

    yield* once.pipe(
      Effect.zipRight(
        Effect.suspend(() => {
          const wait = isLed ? 0 : retry
          retry = Math.min(retry * 2, lastRetry)
          return pause(wait)
        })
      ),
      Effect.forever,
      Effect.forkScoped
    )

    return {
      run: (send, extraMillis = 0) =>
        Effect.suspend(() =>
          current === undefined
            ? Effect.fail(new Down({ reason: problem?.reason ?? "there is no connection" }))
            : ask(current, send, millis + extraMillis)
        ),
      up: up.await,
      problem: () => problem,
      cut: (reason) => Effect.sync(() => current?.drop(reason))
    }
  })
