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
import { type EndReason, endReasons } from "../Connection.js"
import type { ClientChange, ClientStatus, ConnectRequest, Presence } from "../HubClient.js"
import type { Namespace } from "../Namespace.js"
import * as Ns from "../Namespace.js"
import type { HubSettings } from "../SseConfig.js"
import { HubClosed, LimitReached, SubscriberTooSlow } from "../SseError.js"
import * as SseEvent from "../SseEvent.js"
import * as SseMetrics from "../SseMetrics.js"
import { overflowing } from "./budget.js"
import { Client, type Totals } from "./client.js"
import { pause, turn } from "./eventLoop.js"
import { of as frameOf } from "./frame.js"
import * as Keepalives from "./keepalives.js"
import * as Registry from "./registry.js"

const greeting = frameOf(SseEvent.comment("ok"))

export interface Clients {
  readonly connect: (request: ConnectRequest) => Effect.Effect<number, HubClosed | LimitReached>
  /** How many there are. */
  readonly count: () => number
  /** Oldest first. */
  readonly list: Effect.Effect<ReadonlyArray<Client>>
  readonly disconnect: (id: number) => Effect.Effect<boolean>
  readonly changes: Effect.Effect<Stream.Stream<ClientChange>, never, Scope.Scope>
  readonly presence: (namespace: Namespace) => Stream.Stream<Presence, SubscriberTooSlow>
  /** The last ones that ended, oldest first. */
  readonly recentEnds: () => ReadonlyArray<Disconnected>
  /** In ms. */
  readonly comeBackIn: Effect.Effect<number | undefined>
  /** Waits until those that have ended are forgotten. */
  readonly forgotten: Effect.Effect<void>
  /** Ends all, and waits until they are forgotten. None may come any more. */
  readonly endAll: Effect.Effect<void>
  readonly totals: Totals
  readonly ended: Record<EndReason, number>
  /** How many clients named each namespace. */
  readonly byNamespace: () => ReadonlyMap<Namespace, number>
  /** Ends clients if more waits than the hub may hold. For the dispatcher, which gives the event loop back at that time. */
  readonly relieve: () => void
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

/** Characters of what a client says of itself that are kept. */
const shownLength = 512

/** Clients that end at shutdown without spreading them, and the least time in ms between two such steps. */
const atOnce = 50
const stepMillis = 20

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
    const ended = Object.fromEntries(endReasons.map((reason) => [reason, 0])) as Record<EndReason, number>
    const byNamespace = new Map<Namespace, number>()
    const byAddress = new Map<string, number>()
    const count = ({ info: { address, namespaces } }: Client, change: 1 | -1) => {
      for (const namespace of namespaces) add(byNamespace, namespace, change)
      if (address !== "") add(byAddress, address, change)
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
            waiting.delete(client)
            count(client, -1)
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
    const waiting = new Set<Client>()
    const someWait = yield* Effect.makeLatch(false)
    const onWait = (client: Client) => {
      waiting.add(client)
      someWait.unsafeOpen()
    }
    yield* someWait.await.pipe(
      Effect.zipRight(Effect.sleep(settings.stallMillis / 10)),
      Effect.map(() => {
        const now = clock.unsafeCurrentTimeMillis()
        for (const client of waiting) if (!client.checkStall(now)) waiting.delete(client)
        if (waiting.size === 0) someWait.unsafeClose()
      }),
      Effect.forever,
      Effect.forkScoped
    )
    let relievedAt = 0
    const relieve = () => {
      if (waiting.size * settings.maxPendingBytes <= settings.maxTotalPendingBytes) return
      // Real time on purpose: this bounds how often the clients that wait are walked through.
      const now = performance.now()
      if (now - relievedAt < 100) return
      relievedAt = now
      for (const client of overflowing(waiting, settings.maxTotalPendingBytes)) client.end("hub-overflow")
    }

    // Multiples of the golden ratio spread evenly over a range, however many there are, and need no generator where no
    // effect can run.
    const seed = yield* Random.next
    const spread = (turn: number): number => (seed + turn * 0.6180339887498949) % 1
    const retryMillis = (turn: number): number | undefined => {
      const range = settings.shutdownRetryMillis
      if (range === undefined) return undefined
      return Math.floor(range[0] + spread(turn) * (range[1] + 1 - range[0]))
    }
    const sayGoodbye = (client: Client, reason: "shutdown" | "evicted", now: number) =>
      client.sayGoodbye(retryMillis(client.id), reason, now)

    // Each has its own time to go, between 80 % and 100 % of the longest.
    const { maxLifetimeMillis } = settings
    if (maxLifetimeMillis !== Infinity) {
      const isOver = (client: Client, now: number) =>
        now - client.info.connectedAt >= maxLifetimeMillis * (0.8 + 0.2 * spread(client.id))
      yield* Effect.sleep(maxLifetimeMillis / 100).pipe(
        Effect.map(() => {
          const now = clock.unsafeCurrentTimeMillis()
          for (const client of connected.values()) {
            // They are in the order in which they came: behind the first that is too young for any, all are.
            if (now - client.info.connectedAt < maxLifetimeMillis * 0.8) break
            if (isOver(client, now)) client.end("lifetime")
          }
        }),
        Effect.forever,
        Effect.forkScoped
      )
    }

    /** The limit that one more would break, and those of whom the oldest would make room. */
    const full = (
      namespaces: ReadonlyArray<Namespace>,
      address: string
    ): { readonly error: LimitReached; readonly isOne: (client: Client) => boolean } | undefined => {
      const { maxClients, maxClientsPerAddress, maxClientsPerNamespace } = settings
      if (connected.size >= maxClients) {
        return { error: new LimitReached({ limit: "maxClients", max: maxClients }), isOne: () => true }
      }
      if (address !== "" && (byAddress.get(address) ?? 0) >= maxClientsPerAddress) {
        return {
          error: new LimitReached({ limit: "maxClientsPerAddress", max: maxClientsPerAddress }),
          isOne: ({ info }) => info.address === address
        }
      }
      const crowded = namespaces.find((namespace) => (byNamespace.get(namespace) ?? 0) >= maxClientsPerNamespace)
      return crowded === undefined
        ? undefined
        : {
            error: new LimitReached({ limit: "maxClientsPerNamespace", max: maxClientsPerNamespace }),
            isOne: ({ info }) => info.namespaces.includes(crowded)
          }
    }

    /** Why it may not come; makes room for it if the oldest has to go. */
    const admit = (namespaces: ReadonlyArray<Namespace>, address: string, now: number): LimitReached | undefined => {
      const { maxNamespacesPerClient: max } = settings
      if (namespaces.length > max) return new LimitReached({ limit: "maxNamespacesPerClient", max })
      const found = full(namespaces, address)
      if (found === undefined || settings.whenFull !== "evict-oldest") return found?.error
      for (const client of connected.values()) {
        if (client.ended !== undefined || !found.isOne(client)) continue
        sayGoodbye(client, "evicted", now)
        return undefined
      }
      // All of them have ended already, and are forgotten in a moment.
      return undefined
    }

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

    const connect = (request: ConnectRequest): Effect.Effect<number, HubClosed | LimitReached> =>
      Effect.flatMap(
        Ref.modify(registry, (current): [number | HubClosed | LimitReached, Registry.Registry] => {
          if (!isOpen()) return [new HubClosed(), current]
          const now = clock.unsafeCurrentTimeMillis()
          const namespaces = Registry.reduce(request.namespaces)
          const refused = admit(namespaces, request.address ?? "", now)
          if (refused !== undefined) {
            SseMetrics.refusals.unsafeUpdate(1, SseMetrics.limitTags[refused.limit])
            return [refused, current]
          }
          const client = new Client(
            {
              id: nextId(),
              namespaces,
              requestPath: (request.requestPath ?? "").slice(0, shownLength),
              address: request.address ?? "",
              userAgent: (request.userAgent ?? "").slice(0, shownLength),
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
            if (reason === "shutdown") sayGoodbye(client, "shutdown", clock.unsafeCurrentTimeMillis())
            else client.end(reason)
          })
          connected.set(client.id, client)
          count(client, 1)
          return [client.id, Registry.add(current, client)]
        }),
        (result) => (typeof result === "number" ? Effect.succeed(result) : Effect.fail(result))
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
      comeBackIn: Effect.sync(() => retryMillis(nextId())),
      forgotten: Effect.suspend(() => {
        const gone = Array.from(connected.values()).filter(({ ended }) => ended !== undefined)
        return Effect.whileLoop({
          while: () => gone.some(({ id }) => connected.has(id)),
          body: () => turn,
          step: () => {}
        })
      }),
      endAll: Effect.gen(function* () {
        const clients = yield* list
        // Few go at once. Many go in steps, so that they come back as they went.
        const steps = Math.min(
          Math.ceil(clients.length / atOnce),
          Math.max(1, Math.floor(settings.drainMillis / stepMillis))
        )
        const size = Math.ceil(clients.length / steps)
        for (let i = 0; i < clients.length; i += size) {
          // Real time: whoever closes a hub on a TestClock would wait for ever.
          if (i > 0) yield* pause(settings.drainMillis / steps)
          const now = clock.unsafeCurrentTimeMillis()
          for (const client of clients.slice(i, i + size)) sayGoodbye(client, "shutdown", now)
        }
        if (clients.length > 0) yield* empty.await
        for (const watcher of watchers) watcher.onClose()
      }),
      totals,
      ended,
      byNamespace: () => byNamespace,
      relieve,
      pressure: () => {
        let pendingBytes = 0
        let slowClients = 0
        for (const client of waiting) {
          const pending = client.pendingBytes
          pendingBytes += pending
          if (pending > 0) slowClients++
        }
        return { pendingBytes, slowClients }
      }
    }
  })

const add = <K>(counts: Map<K, number>, key: K, change: number): void => {
  const next = (counts.get(key) ?? 0) + change
  if (next === 0) counts.delete(key)
  else counts.set(key, next)
}

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
