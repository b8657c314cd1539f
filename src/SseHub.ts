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
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Exit from "effect/Exit"
import * as HashMap from "effect/HashMap"
import * as Layer from "effect/Layer"
import * as Mailbox from "effect/Mailbox"
import * as PubSub from "effect/PubSub"
import * as Queue from "effect/Queue"
import * as Random from "effect/Random"
import * as Ref from "effect/Ref"
import * as Schedule from "effect/Schedule"
import type * as Scope from "effect/Scope"
import * as Sink from "effect/Sink"
import * as Stream from "effect/Stream"
import type { Connection, EndReason } from "./Connection.js"
import * as EventLog from "./EventLog.js"
import { Client, type ClientInfo, type Totals } from "./internal/client.js"
import * as Dispatcher from "./internal/dispatcher.js"
import { of as frameOf } from "./internal/frame.js"
import * as Keepalives from "./internal/keepalives.js"
import * as Registry from "./internal/registry.js"
import * as Keepalive from "./Keepalive.js"
import * as Namespace from "./Namespace.js"
import { type HubOptions, hubSettings } from "./SseConfig.js"
import { HubClosed, InvalidEvent, type InvalidNamespace, type PublishError, SubscriberTooSlow } from "./SseError.js"
import * as SseEvent from "./SseEvent.js"

/**
 * Who asks to be connected.
 *
 * @since 0.1.0
 * @category models
 */
export interface ConnectRequest {
  /** What it listens to. One that another covers is dropped: `/pets` and `/pets/dogs` is the same as `/pets`. */
  readonly namespaces: readonly [Namespace.Namespace, ...ReadonlyArray<Namespace.Namespace>]
  /** The open response. The hub owns it from here on. */
  readonly connection: Connection
  /** The path that was asked for, without the query. */
  readonly requestPath?: string | undefined
  /** The client's address. */
  readonly address?: string | undefined
  /** The client's `User-Agent`. */
  readonly userAgent?: string | undefined
}

/**
 * A connected client, as seen at one moment.
 *
 * @since 0.1.0
 * @category models
 */
export interface ClientStatus {
  /** Unique in this hub. */
  readonly id: number
  readonly namespaces: ReadonlyArray<Namespace.Namespace>
  readonly requestPath: string
  readonly address: string
  readonly userAgent: string
  /** When it connected, in ms since 1970. */
  readonly connectedAt: number
  /** Events sent to it. */
  readonly events: number
  /** Bytes sent to it, keepalives included, HTTP framing not. */
  readonly bytes: number
  /** Bytes that wait for it. */
  readonly pendingBytes: number
}

/**
 * A client came or went.
 *
 * @since 0.1.0
 * @category models
 */
export type ClientChange =
  | { readonly _tag: "Connected"; readonly client: ClientStatus }
  | {
      readonly _tag: "Disconnected"
      readonly client: ClientStatus
      readonly reason: EndReason
      /** How long it was connected, in ms. */
      readonly durationMillis: number
    }

/**
 * The hub at one moment.
 *
 * @since 0.1.0
 * @category models
 */
export interface HubStatus {
  /** When the hub was made, in ms since 1970. */
  readonly startedAt: number
  /** Whether it still takes clients and events. */
  readonly open: boolean
  /** Connected clients. */
  readonly clients: number
  /** Distinct sets of namespaces that are listened to. */
  readonly subscriptions: number
  /** Events taken by this hub's `publish`. */
  readonly published: number
  /** Events handed to clients, counted once for each client. */
  readonly deliveries: number
  /** Bytes handed to clients. */
  readonly bytes: number
  /** Ended connections by reason. */
  readonly ended: Readonly<Record<EndReason, number>>
}

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
     * The events published to a namespace or below it from the moment the stream starts, for use in this process. A
     * consumer that lets more than `maxPendingEvents` wait gets what waits and then {@link SubscriberTooSlow}. The stream
     * ends when the hub is closed.
     */
    readonly subscribe: (
      namespace: string
    ) => Stream.Stream<SseEvent.SseEvent, InvalidNamespace | SubscriberTooSlow | HubClosed>
    /** Registers an open response, writes the first comment and gives the client's id. */
    readonly connect: (request: ConnectRequest) => Effect.Effect<number, HubClosed>
    /** The connected clients, oldest first. */
    readonly clients: Effect.Effect<ReadonlyArray<ClientStatus>>
    /** Counts over the life of the hub. */
    readonly status: Effect.Effect<HubStatus>
    /** Ends a client's connection; `false` if there is no such client. */
    readonly disconnect: (id: number) => Effect.Effect<boolean>
    /** Clients that come and go, from the moment the effect succeeds. The stream ends when the hub is closed. */
    readonly changes: Effect.Effect<Stream.Stream<ClientChange>, never, Scope.Scope>
    /** Keepalives for one response, for connections that merge them. */
    readonly keepalive: Stream.Stream<Uint8Array>
    /** The longest namespace it takes, in bytes. */
    readonly maxNamespaceBytes: number
    /**
     * Closes the hub: takes nothing more, delivers what was taken, tells every client when to come back, and ends all
     * connections and streams. Runs by itself when the layer is released; more than once does no harm.
     */
    readonly shutdown: Effect.Effect<void>
  }
>() {}

const greeting = frameOf(SseEvent.comment("ok"))

/**
 * Makes a hub on the given log.
 *
 * @since 0.1.0
 * @category constructors
 */
export const make = (options?: HubOptions): Effect.Effect<SseHub["Type"], never, EventLog.EventLog | Scope.Scope> =>
  Effect.gen(function* () {
    const settings = hubSettings(options)
    const log = yield* EventLog.EventLog
    const startedAt = yield* Clock.currentTimeMillis
    const registry = yield* Ref.make(Registry.empty)
    const dispatcher = yield* Dispatcher.make(registry)
    const keepalives = yield* Keepalives.make(settings.keepalive)
    const changes = yield* PubSub.unbounded<ClientChange | undefined>()
    const left = yield* Queue.unbounded<Client>()
    const empty = yield* Effect.makeLatch(false)
    const streams = new Set<Mailbox.Mailbox<SseEvent.SseEvent, SubscriberTooSlow>>()
    const limits = { maxPendingBytes: settings.maxPendingBytes, stallMillis: settings.stallMillis }
    const totals: Totals = { deliveries: 0, bytes: 0 }
    const ended: Record<EndReason, number> = {
      "client-closed": 0,
      "pending-overflow": 0,
      stalled: 0,
      disconnected: 0,
      shutdown: 0,
      failed: 0
    }
    let open = true
    let published = 0
    let nextId = 1

    yield* log.tail(dispatcher).pipe(Effect.orDie)

    const connected = Effect.map(Ref.get(registry), (current) => {
      const all: Array<Client> = []
      for (const subscriber of HashMap.values(current.subscribers)) {
        if (subscriber instanceof Client) all.push(subscriber)
      }
      return all.sort((a, b) => a.id - b.id)
    })

    // Ends come from sockets and from within rounds, where no effect can run; one fiber takes them from a queue. A crowd
    // that leaves together costs one update of the registry.
    const forget = (gone: Iterable<Client>) =>
      Effect.gen(function* () {
        const now = yield* Clock.currentTimeMillis
        const clients = Array.from(gone)
        yield* Ref.update(registry, (current) => clients.reduce(Registry.remove, current))
        for (const client of clients) {
          const reason = client.ended ?? "client-closed"
          ended[reason]++
          yield* keepalives.remove(client)
          yield* PubSub.publish(changes, {
            _tag: "Disconnected",
            client: clientStatus(client),
            reason,
            durationMillis: now - client.info.connectedAt
          })
        }
        if (!open && (yield* connected).length === 0) yield* empty.open
      })
    yield* Queue.takeBetween(left, 1, 4096).pipe(Effect.flatMap(forget), Effect.forever, Effect.forkScoped)

    yield* Effect.gen(function* () {
      const now = yield* Clock.currentTimeMillis
      for (const client of yield* connected) client.checkStall(now)
    }).pipe(Effect.schedule(Schedule.spaced(Math.max(1, settings.stallMillis / 10))), Effect.forkScoped)

    const encodeAll = (
      events: Iterable<SseEvent.SseEvent>
    ): Either.Either<ReadonlyArray<EventLog.NewEntry>, InvalidEvent> => {
      const entries: Array<EventLog.NewEntry> = []
      for (const event of events) {
        const entry = encodeEntry(event, settings.maxNamespaceBytes)
        if (Either.isLeft(entry)) {
          const { field, reason } = entry.left
          return Either.left(new InvalidEvent({ field, reason, index: entries.length }))
        }
        entries.push(entry.right)
      }
      return Either.right(entries)
    }

    const publishAll = (events: Iterable<SseEvent.SseEvent>): Effect.Effect<ReadonlyArray<string>, PublishError> =>
      Effect.suspend((): Effect.Effect<ReadonlyArray<string>, PublishError> => {
        const entries = encodeAll(events)
        if (Either.isLeft(entries)) return Effect.fail(entries.left)
        return Effect.flatMap(dispatcher.ready, (): Effect.Effect<ReadonlyArray<string>, PublishError> => {
          // Looked at last: a hub that closed while this waited must not take the events.
          if (!open) return Effect.fail(new HubClosed())
          return Effect.tap(log.append(entries.right), (positions) => {
            published += positions.length
          })
        })
      })

    const shutdown = Effect.gen(function* () {
      if (!open) return
      open = false
      yield* dispatcher.flush
      const now = yield* Clock.currentTimeMillis
      const clients = yield* connected
      for (const client of clients) {
        if (settings.shutdownRetryMillis !== undefined) {
          const [min, max] = settings.shutdownRetryMillis
          client.write(frameOf(SseEvent.retry(yield* Random.nextIntBetween(min, max + 1))), now)
        }
        client.end("shutdown")
      }
      for (const stream of streams) stream.unsafeDone(Exit.void)
      if (clients.length > 0) yield* empty.await
      yield* PubSub.publish(changes, undefined)
    }).pipe(Effect.uninterruptible)
    yield* Effect.addFinalizer(() => shutdown)

    return SseHub.of({
      publish: (event) => Effect.map(publishAll([event]), (positions) => positions[0]!),
      publishAll,
      sink: Sink.foldLeftChunksEffect(0, (count, chunk: Chunk.Chunk<SseEvent.SseEvent>) =>
        Effect.map(publishAll(chunk), (positions) => count + positions.length)
      ),
      subscribe: (path) =>
        Stream.unwrapScoped(
          Effect.gen(function* () {
            const namespace = yield* Namespace.parse(path, { maxBytes: settings.maxNamespaceBytes })
            if (!open) return yield* new HubClosed()
            const mailbox = yield* Mailbox.make<SseEvent.SseEvent, SubscriberTooSlow>({
              capacity: settings.maxPendingEvents,
              strategy: "dropping"
            })
            const subscriber: Registry.Subscriber = {
              id: nextId++,
              namespaces: [namespace],
              deliver: (batch) => {
                const rest = mailbox.unsafeOfferAll(batch.entries.map((entry) => entry.event))
                if (Chunk.isNonEmpty(rest)) {
                  mailbox.unsafeDone(Exit.fail(new SubscriberTooSlow({ namespace, limit: settings.maxPendingEvents })))
                }
              }
            }
            yield* Effect.acquireRelease(
              Ref.update(registry, (current) => {
                streams.add(mailbox)
                return Registry.add(current, subscriber)
              }),
              () =>
                Ref.update(registry, (current) => {
                  streams.delete(mailbox)
                  return Registry.remove(current, subscriber)
                })
            )
            return Mailbox.toStream(mailbox)
          })
        ),
      connect: (request) =>
        Effect.gen(function* () {
          if (!open) return yield* new HubClosed()
          const now = yield* Clock.currentTimeMillis
          const client = new Client(
            {
              id: nextId++,
              namespaces: Registry.reduce(request.namespaces),
              requestPath: request.requestPath ?? "",
              address: request.address ?? "",
              userAgent: request.userAgent ?? "",
              connectedAt: now
            },
            request.connection,
            limits,
            totals,
            (client) => left.unsafeOffer(client)
          )
          yield* Ref.update(registry, (current) => Registry.add(current, client))
          if (!request.connection.keepsItselfAlive) yield* keepalives.add(client)
          yield* PubSub.publish(changes, { _tag: "Connected", client: clientStatus(client) })
          client.write(greeting, now)
          // Last, so that a connection that is closed already is forgotten after it was added.
          request.connection.onClose(() => client.end("client-closed"))
          return client.id
        }).pipe(Effect.uninterruptible),
      clients: Effect.map(connected, (clients) => clients.map(clientStatus)),
      status: Effect.map(Ref.get(registry), (current) => ({
        startedAt,
        open,
        clients: HashMap.size(current.subscribers) - streams.size,
        subscriptions: HashMap.size(current.subscriptions),
        published,
        ...totals,
        ended: { ...ended }
      })),
      disconnect: (id) =>
        Effect.map(Ref.get(registry), (current) => {
          const found = HashMap.get(current.subscribers, id)
          if (found._tag === "None" || !(found.value instanceof Client)) return false
          found.value.end("disconnected")
          return true
        }),
      changes: Effect.map(
        Stream.fromPubSub(changes, { scoped: true }),
        Stream.takeWhile((change) => change !== undefined)
      ),
      keepalive: Keepalive.stream(settings.keepalive),
      maxNamespaceBytes: settings.maxNamespaceBytes,
      shutdown
    })
  })

const encodeEntry = (
  event: SseEvent.SseEvent,
  maxNamespaceBytes: number
): Either.Either<EventLog.NewEntry, InvalidEvent> => {
  const namespace = Namespace.parse(event.namespace, { maxBytes: maxNamespaceBytes })
  if (Either.isLeft(namespace)) {
    return Either.left(new InvalidEvent({ field: "namespace", reason: namespace.left.message, index: 0 }))
  }
  const frame = SseEvent.encode(event)
  if (Either.isLeft(frame)) return Either.left(frame.left)
  return Either.right({
    namespace: namespace.right,
    event: event.namespace === namespace.right ? event : { ...event, namespace: namespace.right },
    frame: frame.right
  })
}

const clientStatus = (client: Client): ClientStatus => ({
  ...(client.info satisfies ClientInfo),
  events: client.events,
  bytes: client.bytes,
  pendingBytes: client.ended === undefined ? client.connection.pendingBytes() : 0
})

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
  Layer.provide(layerWithLog(options), EventLog.layerMemory())

/**
 * A hub with the given options on a log of your choice.
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
