/**
 * How clients that were away get what they missed: page by page from the log's history, beside the live fan-out, and then
 * live without a gap.
 *
 * A client is registered at once. What is live is held for it while it is given what lies between its own position and the
 * one at which the dispatcher was when it came; then it gets what was held. If more is live than may be held, the held is
 * let go, and the same is done again from there.
 *
 * @internal
 */
import * as Effect from "effect/Effect"
import * as Queue from "effect/Queue"
import type * as Scope from "effect/Scope"
import type { Gap, History, Start } from "../EventLog.js"
import type { HubSettings } from "../SseConfig.js"
import type { EventLogError } from "../SseError.js"
import * as SseEvent from "../SseEvent.js"
import * as SseMetrics from "../SseMetrics.js"
import type { Client } from "./client.js"
import { pause, turn } from "./eventLoop.js"
import { join } from "./frame.js"
import * as Pages from "./pages.js"
import type { NamespacePattern } from "../NamespacePattern.js"

/** What a client that connects is to get before it is live. */
export interface Plan {
  /** The position to go on from; `undefined`: from now. */
  readonly after: string | undefined
  /** What it asked for cannot be had. */
  readonly reset: SseEvent.Reset | undefined
  /** Whether it gets the values of namespaces that keep their latest. */
  readonly withLatest: boolean
}

export interface Replay {
  readonly plan: (
    start: Start | undefined,
    namespaces: ReadonlyArray<NamespacePattern>
  ) => Effect.Effect<Plan, EventLogError>
  /**
   * Begins, in the step that registers the client: what is live is held from here on if need be. Gives the text that the
   * client gets first.
   */
  readonly begin: (client: Client, plan: Plan) => string
  /** Waits until those who resume are live, or do not read. */
  readonly idle: Effect.Effect<void>
  readonly isIdle: () => boolean
}

/** Real time in ms for which replays hold the event loop before they give it back. */
const holdMillis = 4

/** Replays that read the log at the same time. */
const readers = 8

/** Real time in ms between two looks at clients that have to read first. */
const parkMillis = 20

/** A client that is given what it missed. */
interface Resuming {
  readonly client: Client
  /** It has everything up to here. */
  after: string
  /** What it gets live, or is held, comes behind this. */
  upTo: string
  /** What it was told last of where it is. */
  told: string | undefined
  values: "wanted" | ReadonlyArray<Pages.Values> | undefined
}

/**
 * @param position where the dispatcher is, for those who listen to these namespaces: everything behind it is handed to those of
 *   them who are registered now
 * @param round the number of the round that ends there, and may be under way
 */
export const make = (
  history: History,
  settings: HubSettings,
  position: (namespaces: ReadonlyArray<NamespacePattern>) => string,
  round: () => number,
  sayGoodbye: (client: Client, now: number) => void
): Effect.Effect<Replay, never, Scope.Scope> =>
  Effect.gen(function* () {
    const clock = yield* Effect.clock
    const queue = yield* Queue.unbounded<Resuming>()
    const parked = new Set<Resuming>()
    const someParked = yield* Effect.makeLatch(false)
    const idle = yield* Effect.makeLatch(true)
    // With a page on top, and what is held, it stays below what may wait.
    const maxWaiting = Math.min(settings.maxPendingBytes / 4, 256 * 1024)
    const pages = yield* Pages.make(history, maxWaiting)
    // Those who resume and are not parked.
    let busy = 0

    const plan = (
      start: Start | undefined,
      namespaces: ReadonlyArray<NamespacePattern>
    ): Effect.Effect<Plan, EventLogError> => {
      const fresh = { after: undefined, reset: undefined, withLatest: history.hasLatest }
      if (start === undefined) return Effect.succeed(fresh)
      return Effect.flatMap(
        history.locate(start, position(namespaces), namespaces),
        (found): Effect.Effect<Plan, EventLogError> => {
          if (typeof found === "string") {
            if (start._tag !== "After") return Effect.succeed({ ...fresh, after: found })
            SseMetrics.resumes.unsafeUpdate(1, SseMetrics.resumeTags.resumed)
            return Effect.succeed({ after: found, reset: undefined, withLatest: false })
          }
          const reset = toldOf(found, start._tag === "After" ? start.id : "")
          return Effect.map(restart(namespaces), (after) => ({ ...fresh, after, reset }))
        }
      )
    }

    const toldOf = (gap: Gap, requested: string): SseEvent.Reset => {
      SseMetrics.resumes.unsafeUpdate(1, SseMetrics.resumeTags[gap.reason])
      return { reason: gap.reason, requested, oldest: gap.oldest ?? null }
    }

    /** Where a client goes on that cannot go on where it was. */
    const restart = (namespaces: ReadonlyArray<NamespacePattern>): Effect.Effect<string | undefined, EventLogError> =>
      settings.afterReset === "now"
        ? Effect.succeed(undefined)
        : Effect.map(history.locate({ _tag: "Earliest" }, position(namespaces), namespaces), (found) =>
            typeof found === "string" ? found : undefined
          )

    const begin = (client: Client, { after, reset, withLatest }: Plan): string => {
      const here = position(client.namespaces)
      const head = reset === undefined ? "" : SseEvent.reset(reset)
      const start = after ?? here
      if (start === here && !withLatest) return head + SseEvent.cursor(here)
      client.hold(round())
      enqueue({
        client,
        after: start,
        upTo: here,
        told: withLatest ? undefined : start,
        values: withLatest ? "wanted" : undefined
      })
      // With values to come first, to tell the position now would let a client that is cut off miss them.
      return withLatest ? head : head + SseEvent.cursor(start)
    }

    const enqueue = (one: Resuming) => {
      busy++
      idle.unsafeClose()
      queue.unsafeOffer(one)
    }

    const leave = () => {
      if (--busy === 0) idle.unsafeOpen()
    }

    const park = (one: Resuming) => {
      leave()
      parked.add(one)
      someParked.unsafeOpen()
    }

    /** One step of one client. Whether it is to take another one. */
    const step = (one: Resuming): Effect.Effect<boolean, EventLogError> =>
      Effect.onError(advance(one), () =>
        // The client comes back with the position it has. It must not go on without what it missed.
        Effect.sync(() => {
          sayGoodbye(one.client, clock.unsafeCurrentTimeMillis())
          leave()
        })
      )

    const advance = (one: Resuming): Effect.Effect<boolean, EventLogError> =>
      Effect.gen(function* () {
        const { client } = one
        if (client.ended !== undefined) {
          leave()
          return false
        }
        if (client.pendingBytes > maxWaiting) {
          park(one)
          return false
        }
        if (one.values !== undefined) {
          const values = one.values === "wanted" ? yield* pages.latest(one.after, client.namespaces) : one.values
          const [first, ...rest] = values
          client.replay(first!.frame, first!.events, clock.unsafeCurrentTimeMillis())
          one.values = rest.length > 0 ? rest : undefined
          if (rest.length === 0) one.told = one.after
          return true
        }
        const page = yield* pages.read(one.after, one.upTo, client.namespaces)
        const now = clock.unsafeCurrentTimeMillis()
        if ("_tag" in page) {
          // It read so slowly that what it was to get is kept no more.
          const after = yield* restart(client.namespaces)
          client.replay(join([SseEvent.reset(toldOf(page, one.after))]), 0, now)
          client.hold(round())
          one.upTo = position(client.namespaces)
          one.after = after ?? one.upTo
          if (history.hasLatest) one.values = "wanted"
          else one.told = undefined
          return true
        }
        if (page.frame !== undefined) {
          client.replay(page.frame, page.events, now)
          SseMetrics.replayedEvents.unsafeUpdate(page.events, [])
          one.told = page.last
        }
        one.after = page.cursor
        if (page.upTo === undefined) return true
        if (one.after !== one.upTo || client.missed) {
          // Ahead of the dispatcher, which has to catch up; or too much was live to be held.
          const isAhead = one.after !== one.upTo
          client.hold(round())
          one.upTo = position(client.namespaces)
          if (isAhead) park(one)
          return !isAhead
        }
        // What was held comes on top of that.
        if (client.pendingBytes > maxWaiting) {
          park(one)
          return false
        }
        if (one.told !== one.upTo) client.replay(join([SseEvent.cursor(one.upTo)]), 0, now)
        client.release(now)
        leave()
        return false
      })

    let since = performance.now()
    // Real time on purpose: this bounds how long the event loop is held.
    const breathe = Effect.suspend(() => {
      if (performance.now() - since < holdMillis) return Effect.void
      return Effect.map(turn, () => void (since = performance.now()))
    })
    // One client to its end, and then the next: were all given a page in turn, those who go away when they get nothing for long
    // would all do so.
    const work = Effect.gen(function* () {
      const one = yield* Queue.take(queue)
      while (yield* step(one)) yield* breathe
      yield* breathe
    }).pipe(
      Effect.catchAllCause((cause) => Effect.logError("effect-sse: the log could not give what a client missed", cause))
    )
    for (let i = 0; i < readers; i++) yield* Effect.forkScoped(Effect.forever(work))

    yield* someParked.await.pipe(
      Effect.zipRight(pause(parkMillis)),
      Effect.map(() => {
        for (const one of parked) {
          if (one.client.ended === undefined && one.client.pendingBytes > maxWaiting) continue
          parked.delete(one)
          enqueue(one)
        }
        if (parked.size === 0) someParked.unsafeClose()
      }),
      Effect.forever,
      Effect.forkScoped
    )

    return { plan, begin, idle: idle.await, isIdle: () => busy === 0 }
  })
