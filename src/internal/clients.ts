/**
 * The connected clients: how they come, what ends them, and who is told.
 *
 * @internal
 */
import * as Effect from "effect/Effect"
import * as Queue from "effect/Queue"
import * as Exit from "effect/Exit"
import * as Ref from "effect/Ref"
import * as Scope from "effect/Scope"
import { type EndReason, endReasons } from "../Connection.js"
import type { History, Shards } from "../EventLog.js"
import type { ClientChange, Connected, ConnectRequest, Principal } from "../HubClient.js"
import type { Revocation } from "../NodeBus.js"
import { type NamespacePattern, reduce } from "../NamespacePattern.js"
import type { HubSettings } from "../SseConfig.js"
import { type EventLogError, HubClosed, type LimitReached, type Refused } from "../SseError.js"
import * as SseEvent from "../SseEvent.js"
import * as SseMetrics from "../SseMetrics.js"
import * as Admission from "./admission.js"
import { Client, clientStatus, type Totals } from "./client.js"
import { turn } from "./eventLoop.js"
import * as Farewell from "./farewell.js"
import { of as frameOf } from "./frame.js"
import { Immediate, type ImmediateRef } from "./immediate.js"
import * as Keepalives from "./keepalives.js"
import * as Principals from "./principals.js"
import * as Registry from "./registry.js"
import * as Replay from "./replay.js"
import * as Waiting from "./waiting.js"
import * as Watchers from "./watchers.js"

const greeting = SseEvent.comment("ok")
const greetingFrame = frameOf(greeting)

export interface Clients {
  readonly connect: (
    request: ConnectRequest
  ) => Effect.Effect<Connected, HubClosed | LimitReached | EventLogError | Refused>
  /** How many there are. */
  readonly count: () => number
  /** Oldest first. */
  readonly list: Effect.Effect<ReadonlyArray<Client>>
  readonly disconnect: (id: number) => Effect.Effect<boolean>
  readonly checkPrincipal: (principal: Principal) => Effect.Effect<void, Refused>
  readonly revoke: (revocation: Revocation) => Effect.Effect<number>
  readonly changes: Watchers.Watchers["changes"]
  readonly presence: Watchers.Watchers["presence"]
  readonly follow: Watchers.Watchers["follow"]
  /** The last ones that ended, oldest first. */
  readonly recentEnds: () => ReadonlyArray<Disconnected>
  /** In ms. */
  readonly comeBackIn: Effect.Effect<number | undefined>
  /** Waits until those that have ended are forgotten. */
  readonly forgotten: Effect.Effect<void>
  /** Ends all, and waits until they are forgotten. None may come any more. */
  readonly endAll: Effect.Effect<void>
  /** Waits until those who resume are live, or do not read. */
  readonly replayed: Effect.Effect<void>
  /** Whether they are. */
  readonly isReplayed: () => boolean
  readonly totals: Totals
  readonly ended: Record<EndReason, number>
  /** How many clients named each namespace. */
  readonly byNamespace: () => ReadonlyMap<NamespacePattern, number>
  readonly relieve: Waiting.Waiting["relieve"]
  readonly pressure: Waiting.Waiting["pressure"]
}

type Disconnected = Extract<ClientChange, { readonly _tag: "Disconnected" }>

/** Ended clients that are remembered: at least this many. */
const keptEnds = 50

/** Characters of what a client says of itself that are kept. */
const shownLength = 512

/** Whether the hub takes clients. Read in the same step that registers one, so that none slips in behind a shutdown. */
export type IsOpen = () => boolean

export const make = (
  registry: ImmediateRef<Registry.Registry>,
  settings: HubSettings,
  isOpen: IsOpen,
  nextId: () => number,
  history: History | undefined,
  shards: Shards | undefined,
  position: (namespaces: ReadonlyArray<NamespacePattern>) => string,
  round: () => number
): Effect.Effect<Clients, never, Scope.Scope> =>
  Effect.gen(function* () {
    const clock = yield* Effect.clock
    const keepalives = yield* Keepalives.make(settings.keepalive)
    const principals = yield* Principals.make
    let recentEnds: Array<Disconnected> = []
    const left = yield* Queue.unbounded<Client>()
    const empty = yield* Effect.makeLatch(false)
    const totals: Totals = { deliveries: 0, bytes: 0 }
    const ended = Object.fromEntries(endReasons.map((reason) => [reason, 0])) as Record<EndReason, number>

    // By id, and so by age. Whoever is in the registry is here: both change in one step.
    const connected = new Map<number, Client>()
    // What holds the shards of the log that each listens to.
    const following = new Map<number, Scope.CloseableScope>()
    const list = Effect.sync(() => Array.from(connected.values()))
    const watchers = Watchers.make(connected, settings.maxPendingEvents, isOpen)
    const waiting = yield* Waiting.make(settings)
    const farewell = yield* Farewell.make(connected, settings)
    const admission = Admission.make(connected, settings, (client, now) => farewell.sayGoodbye(client, "evicted", now))
    const replay =
      history === undefined
        ? undefined
        : yield* Replay.make(history, settings, position, round, (client, now) =>
            farewell.sayGoodbye(client, "failed", now)
          )

    // Ends come from sockets and from within rounds, where no effect can run; one fiber takes them from a queue. A crowd
    // that leaves together costs one update of the registry.
    const forget = (gone: Iterable<Client>) =>
      Effect.gen(function* () {
        const now = clock.unsafeCurrentTimeMillis()
        const clients = Array.from(gone)
        yield* Ref.update(registry, (current) => {
          for (const client of clients) {
            connected.delete(client.id)
            waiting.remove(client)
            admission.count(client, -1)
            principals.remove(client)
            const reason = client.ended ?? "client-closed"
            ended[reason]++
            SseMetrics.disconnects.unsafeUpdate(1, SseMetrics.reasonTags[reason])
            const change: Disconnected = { _tag: "Disconnected", client: clientStatus(client), reason, endedAt: now }
            recentEnds.push(change)
            watchers.disconnected(change)
          }
          return clients.reduce(Registry.remove, current)
        })
        for (const client of clients) yield* keepalives.remove(client)
        if (following.size > 0) for (const { id } of clients) yield* unfollow(id)
        if (recentEnds.length > 2 * keptEnds) recentEnds = recentEnds.slice(-keptEnds)
        if (!isOpen() && connected.size === 0) yield* empty.open
      })
    yield* Queue.takeBetween(left, 1, 4096).pipe(Effect.flatMap(forget), Effect.forever, Effect.forkScoped)

    const offerLeft = (client: Client) => left.unsafeOffer(client)

    const register = (
      request: ConnectRequest,
      namespaces: ReadonlyArray<NamespacePattern>,
      plan: Replay.Plan | undefined,
      scope?: Scope.CloseableScope
    ): Effect.Effect<Connected, HubClosed | LimitReached | Refused> =>
      new Immediate(() =>
        registry.unsafeModify((current): [Exit.Exit<Connected, HubClosed | LimitReached | Refused>, typeof current] => {
          if (!isOpen()) return [Exit.fail(new HubClosed()), current]
          const now = clock.unsafeCurrentTimeMillis()
          const { principal } = request
          // Looked at in the step that registers it, so that none slips in behind a revocation.
          const denied = principal === undefined ? undefined : principals.refusal(principal, now)
          if (denied !== undefined) return [Exit.fail(denied), current]
          const refused = admission.admit(namespaces, request.address ?? "", now)
          if (refused !== undefined) {
            SseMetrics.refusals.unsafeUpdate(1, SseMetrics.limitTags[refused.limit])
            return [Exit.fail(refused), current]
          }
          const client = new Client(
            {
              id: nextId(),
              namespaces,
              requestPath: (request.requestPath ?? "").slice(0, shownLength),
              address: request.address ?? "",
              userAgent: (request.userAgent ?? "").slice(0, shownLength),
              principal: principal?.id,
              expiresAt: principal?.expiresAt,
              issuedAt: principal?.issuedAt,
              metadata: principal?.metadata,
              connectedAt: now
            },
            request.connection,
            settings,
            totals,
            offerLeft,
            waiting.add,
            shards?.isWide(namespaces) === true
          )
          SseMetrics.connects.unsafeUpdate(1, [])
          watchers.connected(client)
          if (!request.connection.keepsItselfAlive) keepalives.add(client, now)
          client.write(plan === undefined ? greetingFrame : frameOf(greeting + replay!.begin(client, plan)), now)
          request.connection.onClose((reason) => {
            if (reason === "shutdown") farewell.sayGoodbye(client, "shutdown", clock.unsafeCurrentTimeMillis())
            else client.end(reason)
          })
          connected.set(client.id, client)
          if (scope !== undefined) following.set(client.id, scope)
          admission.count(client, 1)
          principals.add(client)
          return [Exit.succeed({ id: client.id, reset: plan?.reset }), Registry.add(current, client)]
        })
      )

    const unfollow = (id: number) =>
      Effect.suspend(() => {
        const scope = following.get(id)
        following.delete(id)
        return scope === undefined ? Effect.void : Scope.close(scope, Exit.void)
      })

    /** What it listens to is read before anything is looked up for it, and until it is forgotten. */
    const connectTo = (
      { follow }: Shards,
      namespaces: ReadonlyArray<NamespacePattern>,
      request: ConnectRequest
    ): ReturnType<Clients["connect"]> =>
      Effect.uninterruptibleMask((restore) =>
        Effect.flatMap(Scope.make(), (scope) =>
          Scope.extend(follow(namespaces), scope).pipe(
            Effect.flatMap(() => replay?.plan(request.start, namespaces) ?? Effect.succeed(undefined)),
            restore,
            Effect.flatMap((plan) => register(request, namespaces, plan, scope)),
            Effect.onError(() => Scope.close(scope, Exit.void))
          )
        )
      )

    const connect: Clients["connect"] = (request) => {
      const namespaces = reduce(request.namespaces)
      if (shards !== undefined) return connectTo(shards, namespaces, request)
      return replay === undefined
        ? register(request, namespaces, undefined)
        : Effect.flatMap(replay.plan(request.start, namespaces), (plan) => register(request, namespaces, plan))
    }

    return {
      connect,
      count: () => connected.size,
      list,
      disconnect: (id) =>
        Effect.sync(() => {
          const client = connected.get(id)
          client?.end("disconnected")
          return client !== undefined
        }),
      checkPrincipal: (principal) =>
        Effect.suspend(
          () => principals.refusal(principal, clock.unsafeCurrentTimeMillis()) ?? (Effect.void as Effect.Effect<void>)
        ),
      revoke: (revocation) => Effect.suspend(() => principals.revoke(revocation, clock.unsafeCurrentTimeMillis())),
      changes: watchers.changes,
      presence: watchers.presence,
      follow: watchers.follow,
      recentEnds: () => recentEnds.slice(-keptEnds),
      comeBackIn: Effect.sync(() => farewell.retryMillis(nextId())),
      forgotten: Effect.suspend(() => {
        const gone = Array.from(connected.values()).filter(({ ended }) => ended !== undefined)
        return Effect.whileLoop({
          while: () => gone.some(({ id }) => connected.has(id)),
          body: () => turn,
          step: () => {}
        })
      }),
      endAll: Effect.gen(function* () {
        const some = connected.size > 0
        yield* farewell.endAll
        if (some) yield* empty.await
        watchers.close()
      }),
      replayed: replay?.idle ?? Effect.void,
      isReplayed: () => replay?.isIdle() ?? true,
      totals,
      ended,
      byNamespace: () => admission.byNamespace,
      relieve: waiting.relieve,
      pressure: waiting.pressure
    }
  })
