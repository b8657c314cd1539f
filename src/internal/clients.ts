/**
 * The connected clients: how they come, what ends them, and who is told.
 *
 * @internal
 */
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Mailbox from "effect/Mailbox"
import * as Queue from "effect/Queue"
import * as Random from "effect/Random"
import * as Ref from "effect/Ref"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import type { EndReason } from "../Connection.js"
import type { ClientChange, ClientStatus, ConnectRequest, Presence } from "../HubClient.js"
import type { Namespace } from "../Namespace.js"
import * as Ns from "../Namespace.js"
import type { HubSettings } from "../SseConfig.js"
import { HubClosed, SubscriberTooSlow } from "../SseError.js"
import * as SseEvent from "../SseEvent.js"
import * as SseMetrics from "../SseMetrics.js"
import { Client, type Totals } from "./client.js"
import { of as frameOf } from "./frame.js"
import * as Keepalives from "./keepalives.js"
import * as Registry from "./registry.js"

const greeting = frameOf(SseEvent.comment("ok"))

export interface Clients {
  readonly connect: (request: ConnectRequest) => Effect.Effect<number, HubClosed>
  /** How many there are. */
  readonly count: () => number
  /** Oldest first. */
  readonly list: Effect.Effect<ReadonlyArray<Client>>
  readonly disconnect: (id: number) => Effect.Effect<boolean>
  readonly changes: Effect.Effect<Stream.Stream<ClientChange>, never, Scope.Scope>
  readonly presence: (namespace: Namespace) => Stream.Stream<Presence, SubscriberTooSlow>
  /** The last ones that ended, oldest first. */
  readonly recentEnds: () => ReadonlyArray<Disconnected>
  readonly farewell: Effect.Effect<string>
  /** Ends all, and waits until they are forgotten. None may come any more. */
  readonly endAll: Effect.Effect<void>
  readonly totals: Totals
  readonly ended: Record<EndReason, number>
  /** How many clients named each namespace. */
  readonly byNamespace: () => ReadonlyMap<Namespace, number>
  /** What waits, over all. */
  readonly pressure: () => { readonly pendingBytes: number; readonly slowClients: number }
}

type Disconnected = Extract<ClientChange, { readonly _tag: "Disconnected" }>

/** One who is told, synchronously, of clients that come and go, and of the end. */
interface Watcher {
  readonly onChange: (change: ClientChange) => void
  readonly onClose: () => void
}

/** Ended clients that are remembered: at least this many. */
const keptEnds = 50

/** Whether the hub takes clients. Read in the same step that registers one, so that none slips in behind a shutdown. */
export type IsOpen = () => boolean

export const make = (
  registry: Ref.Ref<Registry.Registry>,
  settings: HubSettings,
  isOpen: IsOpen,
  nextId: () => number
): Effect.Effect<Clients, never, Scope.Scope> =>
  Effect.gen(function* () {
    const clock = yield* Effect.clock
    const keepalives = yield* Keepalives.make(settings.keepalive)
    const watchers = new Set<Watcher>()
    let recentEnds: Array<Disconnected> = []
    const left = yield* Queue.unbounded<Client>()
    const empty = yield* Effect.makeLatch(false)
    const totals: Totals = { deliveries: 0, bytes: 0 }
    const ended: Record<EndReason, number> = {
      "client-closed": 0,
      "pending-overflow": 0,
      stalled: 0,
      disconnected: 0,
      shutdown: 0,
      failed: 0
    }

    // By id, and so by age. Whoever is in the registry is here: both change in one step.
    const connected = new Map<number, Client>()
    const list = Effect.sync(() => Array.from(connected.values()))

    // Ends come from sockets and from within rounds, where no effect can run; one fiber takes them from a queue. A crowd
    // that leaves together costs one update of the registry.
    const forget = (gone: Iterable<Client>) =>
      Effect.gen(function* () {
        const now = clock.unsafeCurrentTimeMillis()
        const clients = Array.from(gone)
        yield* Ref.update(registry, (current) => {
          for (const client of clients) {
            connected.delete(client.id)
            const reason = client.ended ?? "client-closed"
            ended[reason]++
            SseMetrics.disconnects.unsafeUpdate(1, SseMetrics.reasonTags[reason])
            const change: Disconnected = { _tag: "Disconnected", client: clientStatus(client), reason, endedAt: now }
            recentEnds.push(change)
            for (const watcher of watchers) watcher.onChange(change)
          }
          return clients.reduce(Registry.remove, current)
        })
        for (const client of clients) yield* keepalives.remove(client)
        if (recentEnds.length > 2 * keptEnds) recentEnds = recentEnds.slice(-keptEnds)
        if (!isOpen() && connected.size === 0) yield* empty.open
      })
    yield* Queue.takeBetween(left, 1, 4096).pipe(Effect.flatMap(forget), Effect.forever, Effect.forkScoped)

    // Looks only while something waits for somebody: an idle hub does nothing.
    const waiting = yield* Effect.makeLatch(false)
    const onWait = () => void waiting.unsafeOpen()
    yield* waiting.await.pipe(
      Effect.zipRight(Effect.sleep(settings.stallMillis / 10)),
      Effect.map(() => {
        waiting.unsafeClose()
        const now = clock.unsafeCurrentTimeMillis()
        for (const client of connected.values()) if (client.checkStall(now)) waiting.unsafeOpen()
      }),
      Effect.forever,
      Effect.forkScoped
    )

    // Multiples of the golden ratio spread evenly over a range, however many there are, and need no generator where no
    // effect can run.
    const seed = yield* Random.next
    const retryMillis = (turn: number): number | undefined => {
      const range = settings.shutdownRetryMillis
      if (range === undefined) return undefined
      return Math.floor(range[0] + ((seed + turn * 0.6180339887498949) % 1) * (range[1] + 1 - range[0]))
    }
    const shutdownOne = (client: Client, now: number) => client.shutdown(retryMillis(client.id), now)

    // Gives those who are there in the step in which it begins, so that nobody is missed or told twice.
    const watch = (watcher: Watcher): Effect.Effect<ReadonlyArray<Client>, never, Scope.Scope> =>
      Effect.acquireRelease(
        Effect.sync(() => {
          if (isOpen()) watchers.add(watcher)
          else watcher.onClose()
          return Array.from(connected.values())
        }),
        () => Effect.sync(() => void watchers.delete(watcher))
      )

    const connect = (request: ConnectRequest): Effect.Effect<number, HubClosed> =>
      Effect.flatMap(
        Ref.modify(registry, (current) => {
          if (!isOpen()) return [undefined, current]
          const now = clock.unsafeCurrentTimeMillis()
          const client = new Client(
            {
              id: nextId(),
              namespaces: Registry.reduce(request.namespaces),
              requestPath: request.requestPath ?? "",
              address: request.address ?? "",
              userAgent: request.userAgent ?? "",
              metadata: request.metadata,
              connectedAt: now
            },
            request.connection,
            settings,
            totals,
            (client) => left.unsafeOffer(client),
            onWait
          )
          SseMetrics.connects.unsafeUpdate(1, [])
          for (const watcher of watchers) watcher.onChange({ _tag: "Connected", client: clientStatus(client) })
          if (!request.connection.keepsItselfAlive) keepalives.add(client, now)
          client.write(greeting, now)
          request.connection.onClose((reason) => {
            if (reason === "shutdown") shutdownOne(client, clock.unsafeCurrentTimeMillis())
            else client.end(reason)
          })
          connected.set(client.id, client)
          return [client.id, Registry.add(current, client)]
        }),
        (id) => (id === undefined ? Effect.fail(new HubClosed()) : Effect.succeed(id))
      )

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
      changes: Effect.gen(function* () {
        const mailbox = yield* Mailbox.make<ClientChange>()
        yield* watch({
          onChange: (change) => void mailbox.unsafeOffer(change),
          onClose: () => mailbox.unsafeDone(Exit.void)
        })
        return Mailbox.toStream(mailbox)
      }),
      presence: (namespace) =>
        Stream.unwrapScoped(
          Effect.gen(function* () {
            const limit = settings.maxPendingEvents
            const mailbox = yield* Mailbox.make<Presence, SubscriberTooSlow>({ capacity: limit, strategy: "dropping" })
            const isThere = ({ namespaces }: ClientStatus) => namespaces.some((one) => Ns.matches(namespace, one))
            const offer = (presence: Presence) => {
              if (!isThere(presence.client) || mailbox.unsafeOffer(presence)) return
              mailbox.unsafeDone(Exit.fail(new SubscriberTooSlow({ namespace, limit })))
            }
            const present = yield* watch({
              onChange: (change) =>
                offer(
                  change._tag === "Connected"
                    ? { _tag: "Joined", client: change.client, wasThere: false }
                    : { _tag: "Left", client: change.client, reason: change.reason }
                ),
              onClose: () => mailbox.unsafeDone(Exit.void)
            })
            // One that has ended and is not forgotten yet is among them: that it left follows.
            const joined = present.map(clientStatus).filter(isThere)
            return Stream.concat(
              Stream.fromIterable(joined.map((client): Presence => ({ _tag: "Joined", client, wasThere: true }))),
              Mailbox.toStream(mailbox)
            )
          })
        ),
      recentEnds: () => recentEnds.slice(-keptEnds),
      farewell: Effect.sync(() => {
        const millis = retryMillis(nextId())
        return millis === undefined ? "" : SseEvent.retry(millis)
      }),
      endAll: Effect.gen(function* () {
        const now = clock.unsafeCurrentTimeMillis()
        const clients = yield* list
        for (const client of clients) shutdownOne(client, now)
        if (clients.length > 0) yield* empty.await
        for (const watcher of watchers) watcher.onClose()
      }),
      totals,
      ended,
      byNamespace: () => {
        const counts = new Map<Namespace, number>()
        for (const client of connected.values()) {
          for (const namespace of client.namespaces) counts.set(namespace, (counts.get(namespace) ?? 0) + 1)
        }
        return counts
      },
      pressure: () => {
        let pendingBytes = 0
        let slowClients = 0
        for (const client of connected.values()) {
          const pending = client.pendingBytes
          pendingBytes += pending
          if (pending > 0) slowClients++
        }
        return { pendingBytes, slowClients }
      }
    }
  })

// Field by field: made ten thousand at a time, and a spread takes ten times as long.
export const clientStatus = ({ bytes, events, info, pendingBytes }: Client): ClientStatus => ({
  id: info.id,
  namespaces: info.namespaces,
  requestPath: info.requestPath,
  address: info.address,
  userAgent: info.userAgent,
  metadata: info.metadata,
  connectedAt: info.connectedAt,
  events,
  bytes,
  pendingBytes
})
