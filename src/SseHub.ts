/**
 * The hub: takes events, and gives each to every client that listens to its namespace or to one above it.
 *
 * @since 0.1.0
 */
import * as Chunk from "effect/Chunk"
import * as Clock from "effect/Clock"
import * as Config from "effect/Config"
import type { ConfigError } from "effect/ConfigError"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Exit from "effect/Exit"
import * as HashMap from "effect/HashMap"
import * as Layer from "effect/Layer"
import * as Mailbox from "effect/Mailbox"
import * as Ref from "effect/Ref"
import type * as Scope from "effect/Scope"
import * as Sink from "effect/Sink"
import * as Stream from "effect/Stream"
import * as EventLog from "./EventLog.js"
import type { ClientChange, ClientStatus, Connected, ConnectRequest, Presence, Principal } from "./HubClient.js"
import type { Activity, HubStatus, NamespaceStatus } from "./HubStatus.js"
import * as Activities from "./internal/activity.js"
import { clientStatus } from "./internal/client.js"
import * as Clients from "./internal/clients.js"
import * as Dispatcher from "./internal/dispatcher.js"
import { pause, turn } from "./internal/eventLoop.js"
import { byteLength } from "./internal/frame.js"
import { ImmediateRef } from "./internal/immediate.js"
import { NamespaceUse } from "./internal/namespaces.js"
import * as HubNodes from "./internal/nodes/nodes.js"
import * as Registry from "./internal/registry.js"
import * as Keepalive from "./Keepalive.js"
import * as Namespace from "./Namespace.js"
import * as NamespacePattern from "./NamespacePattern.js"
import type { Nodes } from "./Nodes.js"
import { type HubOptions, type HubSettings, hubSettings } from "./SseConfig.js"
import {
  type EventLogError,
  HubClosed,
  InvalidEvent,
  type InvalidNamespace,
  type LimitReached,
  type PublishError,
  type Refused,
  SubscriberTooSlow
} from "./SseError.js"
import * as SseEvent from "./SseEvent.js"
import * as SseMetrics from "./SseMetrics.js"

/**
 * The hub as a service.
 *
 * @since 0.1.0
 * @category services
 */
export class SseHub extends Context.Tag("effect-sse/SseHub")<
  SseHub,
  {
    /**
     * Publishes an event and gives its position in the log. It waits only while very much is still to be delivered,
     * never for a client. After it succeeded, the event reaches every client connected now that stays connected.
     */
    readonly publish: (event: SseEvent.SseEvent) => Effect.Effect<string, PublishError>
    /** Publishes events one behind the other, all or, if one is invalid, none; gives their positions. */
    readonly publishAll: (events: Iterable<SseEvent.SseEvent>) => Effect.Effect<ReadonlyArray<string>, PublishError>
    /** Publishes every event of a `Stream`, chunk by chunk; gives their number. */
    readonly sink: Sink.Sink<number, SseEvent.SseEvent, never, PublishError>
    /**
     * The events published to a namespace or below it from the moment the stream starts, for use in this process. A segment
     * that is `*` stands for any one (see `NamespacePattern`); of several namespaces an event that matches more than one comes
     * once. A consumer that lets more than `maxPendingEvents` wait gets what waits and then {@link SubscriberTooSlow}. The
     * stream ends when the hub is closed. On a log in shards it starts when they are read, and waits while they cannot be.
     */
    readonly subscribe: (
      namespaces: string | readonly [string, ...ReadonlyArray<string>]
    ) => Stream.Stream<SseEvent.SseEvent, InvalidNamespace | SubscriberTooSlow | HubClosed>
    /**
     * Registers an open response and writes the first comment; with a history, also the position from which the client goes
     * on, and behind it what it missed. Fails with `EventLogError` if the log cannot tell what that is, and with {@link Refused} if its principal has expired or was revoked.
     */
    readonly connect: (
      request: ConnectRequest
    ) => Effect.Effect<Connected, HubClosed | LimitReached | EventLogError | Refused>
    /** Whether clients can begin elsewhere than now: whether the log keeps events. */
    readonly canResume: boolean
    /** The connected clients, oldest first. */
    readonly clients: Effect.Effect<ReadonlyArray<ClientStatus>>
    /** Counts over the life of the hub. */
    readonly status: Effect.Effect<HubStatus>
    /** The last ten minutes, and the last clients that ended. */
    readonly activity: Effect.Effect<Activity>
    /**
     * The namespaces and patterns that clients listen to, and the namespaces that were published to lately: of these at
     * least the last 4,096 are remembered.
     */
    readonly namespaces: Effect.Effect<ReadonlyArray<NamespaceStatus>>
    /** Ends a client's connection; `false` if there is no such client. */
    readonly disconnect: (id: number) => Effect.Effect<boolean>
    /**
     * Ends all streams of the principal with this id, and gives their number. What was proved by then (see `issuedAt` of
     * `Principal`) is refused from now on, for as long as it is remembered: 24 hours, or the `remember` that is given, which
     * should be as long as your tokens live. The last 100,000 revocations are remembered at most.
     *
     * With other nodes (see `NodeBus`) on all of them, and on those that start later; it waits for their answers, for a bounded
     * time. One that cannot be told now is told when it is in reach again, and its streams are not in the number.
     */
    readonly revoke: (
      principalId: string,
      options?: { readonly remember?: Duration.DurationInput | undefined }
    ) => Effect.Effect<number>
    /** Fails if the principal has expired or was revoked. `connect` looks by itself. */
    readonly checkPrincipal: (principal: Principal) => Effect.Effect<void, Refused>
    /** Clients that come and go, from the moment the effect succeeds. The stream ends when the hub is closed. */
    readonly changes: Effect.Effect<Stream.Stream<ClientChange>, never, Scope.Scope>
    /**
     * Who is there: clients that listen to `namespace` or below it. Those of `/` are everywhere and count for `/` only, as
     * those of `/rooms/*` do for that pattern and what is above it.
     * First comes a `Joined` for each that is there, then those who come and go, with nobody missed or told twice. A stream
     * that lets more than `maxPendingEvents` wait fails with {@link SubscriberTooSlow}; it ends when the hub is closed.
     */
    readonly presence: (namespace: string) => Stream.Stream<Presence, InvalidNamespace | SubscriberTooSlow>
    /** This hub and those it shares a log with: how they are, their clients, and who is there. */
    readonly nodes: Nodes
    /** When one client that cannot stay should come back, in ms; `undefined` if `shutdownRetry` is `false`. */
    readonly comeBackIn: Effect.Effect<number | undefined>
    /** What a client gets that is one too many. */
    readonly whenFull: "retry" | "refuse" | "evict-oldest"
    /** Keepalives for one response, for connections that merge them. */
    readonly keepalive: Stream.Stream<string>
    /** Time between two keepalives in ms; `undefined` if there are none, or a schedule decides. */
    readonly keepaliveMillis: number | undefined
    /** How long anything may wait for one client, in ms. */
    readonly stallMillis: number
    /**
     * Waits until all that reached this hub before is handed out: written to the clients' connections, and put before the
     * streams of {@link subscribe}; until clients that resume have what they missed, unless they do not read; and until clients that have ended are gone from {@link clients}. It waits for no network. For
     * tests, and before the process does something that holds it up.
     */
    readonly flush: Effect.Effect<void>
    /** The longest namespace it takes, in bytes. */
    readonly maxNamespaceBytes: number
    /** Namespaces that one client may name. */
    readonly maxNamespacesPerClient: number
    /**
     * Closes the hub: takes nothing more, delivers what was taken, tells every client when to come back, and ends all
     * connections and streams. Runs by itself when the layer is released; a further call waits for the first.
     */
    readonly shutdown: Effect.Effect<void>
    /** Waits until the hub is closed, without closing it. */
    readonly awaitShutdown: Effect.Effect<void>
  }
>() {}

/** Events encoded before the clock is looked at. */
const slice = 16

/**
 * Real time, in ms, for which encoding holds the event loop. While a round is under way each turn of the loop takes as long
 * as the round holds it, so a batch that is cut into many pieces comes late.
 */
const holdMillis = 4

/**
 * Makes a hub on the given log, and on the `NodeBus` if there is one.
 *
 * @throws Error as a defect, if the options make no sense
 * @since 0.1.0
 * @category constructors
 */
export const make = (options?: HubOptions): Effect.Effect<SseHub["Type"], never, EventLog.EventLog | Scope.Scope> =>
  Effect.gen(function* () {
    const settings = hubSettings(options)
    const log = yield* EventLog.EventLog
    const startedAt = yield* Clock.currentTimeMillis
    const registry = new ImmediateRef(Registry.empty)
    const use = new NamespaceUse()
    const closed = yield* Effect.makeLatch(false)
    const streams = new Set<Mailbox.Mailbox<SseEvent.SseEvent, SubscriberTooSlow>>()
    let open = true
    let published = 0
    let lastId = 0
    const isOpen = () => open
    const encode = makeEncoder(settings)
    const nextId = () => ++lastId
    // Followed when the dispatcher is there.
    const shards = log.shards && {
      ...log.shards,
      follow: (namespaces: ReadonlyArray<NamespacePattern.NamespacePattern>) =>
        Effect.zipRight(log.shards!.follow(namespaces), dispatcher.arrived)
    }
    // The clients need to know where the dispatcher is, which needs to relieve the hub of some of them.
    const clients: Clients.Clients = yield* Clients.make(
      registry,
      settings,
      isOpen,
      nextId,
      log.history,
      shards,
      (namespaces) => {
        const position = dispatcher.position() ?? beginning
        return shards === undefined ? position : shards.part(position, namespaces)
      },
      () => dispatcher.round()
    )
    const dispatcher = yield* Dispatcher.make(
      registry,
      use,
      settings.maxPendingBytes,
      clients.relieve,
      // Who resumes is given what was held for it event by event, and a log in shards has two texts of each.
      () => streams.size > 0 || log.history !== undefined || shards !== undefined
    )
    const beginning = yield* log.tail(dispatcher).pipe(Effect.orDie)

    const append = (entries: ReadonlyArray<EventLog.NewEntry>): Effect.Effect<ReadonlyArray<string>, PublishError> => {
      const appended = Effect.suspend((): Effect.Effect<ReadonlyArray<string>, PublishError> => {
        // Looked at last: a hub that closed while this waited must not take the events.
        if (!open) return Effect.fail(new HubClosed())
        return Effect.map(log.append(entries), (positions) => {
          published += positions.length
          SseMetrics.publishes.unsafeUpdate(positions.length, [])
          return positions
        })
      })
      return dispatcher.isFull() ? Effect.zipRight(dispatcher.ready, appended) : appended
    }

    const publishAll = (events: Iterable<SseEvent.SseEvent>): Effect.Effect<ReadonlyArray<string>, PublishError> =>
      Effect.suspend(() => {
        const iterator = events[Symbol.iterator]()
        const entries: Array<EventLog.NewEntry> = []
        // A plain loop: as steps of a fiber it would cost as much as the encoding.
        const encodeSlice = (): Effect.Effect<ReadonlyArray<string>, PublishError> => {
          const since = performance.now()
          for (let i = 1; i % slice !== 0 || performance.now() - since < holdMillis; i++) {
            const next = iterator.next()
            if (next.done === true) return entries.length === 0 ? Effect.succeed([]) : append(entries)
            const entry = encode(next.value, entries.length)
            if (entry instanceof InvalidEvent) return Effect.fail(entry)
            entries.push(entry)
          }
          return Effect.flatMap(turn, encodeSlice)
        }
        return encodeSlice()
      })

    const parse = (path: string) => NamespacePattern.parse(path, { maxBytes: settings.maxNamespaceBytes })
    const subscribe = (paths: ReadonlyArray<string>) =>
      Effect.gen(function* () {
        const namespaces = NamespacePattern.reduce(yield* Effect.forEach(paths, parse))
        // While the log is away there is nothing to get.
        if (shards !== undefined) {
          yield* Effect.retry(shards.follow(namespaces), { while: () => Effect.map(pause(100), isOpen) }).pipe(
            Effect.mapError(() => new HubClosed())
          )
        }
        const mailbox = yield* Mailbox.make<SseEvent.SseEvent, SubscriberTooSlow>({
          capacity: settings.maxPendingEvents,
          strategy: "dropping"
        })
        const subscriber: Registry.Subscriber = {
          id: nextId(),
          namespaces,
          deliver: (batch) => {
            const rest = mailbox.unsafeOfferAll(batch.entries.map((entry) => entry.event))
            if (Chunk.isNonEmpty(rest)) {
              const namespace = namespaces.join(" ")
              mailbox.unsafeDone(Exit.fail(new SubscriberTooSlow({ namespace, limit: settings.maxPendingEvents })))
            }
          }
        }
        const added = yield* Effect.acquireRelease(
          Ref.modify(registry, (current) => {
            if (!open) return [false, current]
            streams.add(mailbox)
            return [true, Registry.add(current, subscriber)]
          }),
          () =>
            Ref.update(registry, (current) => {
              streams.delete(mailbox)
              return Registry.remove(current, subscriber)
            })
        )
        if (!added) return yield* new HubClosed()
        return Mailbox.toStream(mailbox)
      })

    const shutdown = Effect.suspend(() => {
      if (!open) return closed.await
      open = false
      return Effect.gen(function* () {
        yield* log.settled
        yield* dispatcher.flush
        // Also to those who resume, if they read: they cannot have it later. Real time, as for the rest of a shutdown.
        const deadline = performance.now() + Math.max(settings.drainMillis, 1000)
        while (!clients.isReplayed() && performance.now() < deadline) yield* pause(5)
        yield* clients.endAll
        for (const stream of streams) stream.unsafeDone(Exit.void)
        yield* closed.open
      })
    }).pipe(Effect.uninterruptible)
    const look = Effect.map(
      // What is not known is shown as none.
      Effect.catchAllCause(log.size, () => Effect.succeed(0)),
      (historyEvents) => ({
        clients: clients.count(),
        published,
        historyEvents,
        ...clients.totals,
        ...clients.pressure()
      })
    )
    const samples = yield* Activities.make(look)
    const status = Effect.zipWith(Ref.get(registry), log.health, (current, health) => ({
      log: health,
      startedAt,
      open,
      clients: clients.count(),
      subscriptions: HashMap.size(current.subscriptions),
      published,
      ...clients.totals,
      ended: { ...clients.ended }
    }))
    const { nodes, revoke } = yield* HubNodes.make({
      clients,
      status,
      samples,
      parse,
      maxPendingEvents: settings.maxPendingEvents
    })
    // Behind the samples: the last one is taken when all is over.
    yield* Effect.addFinalizer(() => shutdown)

    return SseHub.of({
      publish: (event) => Effect.map(publishAll([event]), (positions) => positions[0]!),
      publishAll,
      sink: Sink.foldLeftChunksEffect(0, (count, chunk: Chunk.Chunk<SseEvent.SseEvent>) =>
        Effect.map(publishAll(chunk), (positions) => count + positions.length)
      ),
      subscribe: (paths) => Stream.unwrapScoped(subscribe(typeof paths === "string" ? [paths] : paths)),
      connect: clients.connect,
      canResume: log.history !== undefined,
      clients: Effect.map(clients.list, (all) => all.map(clientStatus)),
      status,
      activity: Effect.map(samples, (samples) => ({ samples, recentEnds: clients.recentEnds() })),
      namespaces: Effect.sync(() => namespaceStatus(clients.byNamespace(), use)),
      disconnect: clients.disconnect,
      revoke: (principalId, options) => revoke(principalId, Duration.toMillis(options?.remember ?? "24 hours")),
      checkPrincipal: clients.checkPrincipal,
      changes: clients.changes,
      nodes,
      presence: (path) => Stream.unwrap(Effect.map(parse(path), clients.presence)),
      keepalive: Keepalive.stream(settings.keepalive),
      keepaliveMillis: Keepalive.millis(settings.keepalive),
      comeBackIn: clients.comeBackIn,
      whenFull: settings.whenFull,
      stallMillis: settings.stallMillis,
      flush: dispatcher.flush.pipe(Effect.zipRight(clients.replayed), Effect.zipRight(clients.forgotten)),
      maxNamespaceBytes: settings.maxNamespaceBytes,
      maxNamespacesPerClient: settings.maxNamespacesPerClient,
      shutdown,
      awaitShutdown: closed.await
    })
  })

const namespaceStatus = (
  subscribers: ReadonlyMap<NamespacePattern.NamespacePattern, number>,
  use: NamespaceUse
): ReadonlyArray<NamespaceStatus> => {
  const status = (namespace: NamespacePattern.NamespacePattern): NamespaceStatus => {
    const { events = 0, lastEventAt } = use.all.get(namespace as Namespace.Namespace) ?? {}
    return { namespace, subscribers: subscribers.get(namespace) ?? 0, events, lastEventAt }
  }
  return Array.from(new Set([...subscribers.keys(), ...use.all.keys()]), status)
}

/** Validates and encodes what is published. No `Either`s: this runs for every event. */
const makeEncoder = ({ maxEventBytes, maxNamespaceBytes }: HubSettings) => {
  // Events of one namespace often come in a row.
  let lastPath = "/"
  let lastNamespace = Namespace.root
  return (event: SseEvent.SseEvent, index: number): EventLog.NewEntry | InvalidEvent => {
    const refuse = (field: InvalidEvent["field"], reason: string) => new InvalidEvent({ field, reason, index })
    if (event.namespace !== lastPath) {
      const namespace = Namespace.parse(event.namespace, { maxBytes: maxNamespaceBytes })
      if (Either.isLeft(namespace)) return refuse("namespace", namespace.left.message)
      lastPath = event.namespace
      lastNamespace = namespace.right
    }
    const namespace = lastNamespace
    const text = SseEvent.toBlock(event)
    if (typeof text !== "string") return refuse(text.field, text.reason)
    // A character makes three bytes at most, so few texts need to be measured.
    if (text.length * 3 > maxEventBytes && byteLength(text) > maxEventBytes) {
      return refuse("data", `makes ${byteLength(text)} bytes on the wire; ${maxEventBytes} are allowed`)
    }
    return { namespace, event: event.namespace === namespace ? event : { ...event, namespace }, text }
  }
}

/**
 * A hub with the given options on a log in memory.
 *
 * @since 0.1.0
 * @category layers
 * @example
 * ```ts
 * import { SseHub } from "effect-sse"
 *
 * const HubLayer = SseHub.layer({ keepalive: "20 seconds", maxPendingBytes: 256 * 1024 })
 * ```
 */
export const layer = (options?: HubOptions): Layer.Layer<SseHub> =>
  Layer.provide(layerWithLog(options), EventLog.layerMemory(options?.history))

/**
 * A hub with the given options on a log of your choice; with a `NodeBus` provided as well, one that knows the others on it.
 *
 * @since 0.1.0
 * @category layers
 */
export const layerWithLog = (options?: HubOptions): Layer.Layer<SseHub, never, EventLog.EventLog> =>
  Layer.scoped(SseHub, make(options))

/**
 * As {@link layer}, with the options read by `Config`, for instance `SseConfig.hubFromEnv`.
 *
 * @since 0.1.0
 * @category layers
 */
export const layerConfig = (options: Config.Config.Wrap<HubOptions>): Layer.Layer<SseHub, ConfigError> =>
  Layer.unwrapEffect(Effect.map(Config.unwrap(options), layer))

/**
 * A hub with default options on a log in memory: what most programs provide.
 *
 * @since 0.1.0
 * @category layers
 */
export const SseLayer: Layer.Layer<SseHub> = layer()
