/**
 * The connected clients: how they come, what ends them, and who is told.
 *
 * @internal
 */
import * as Effect from "effect/Effect"
import * as HashMap from "effect/HashMap"
import * as PubSub from "effect/PubSub"
import * as Queue from "effect/Queue"
import * as Random from "effect/Random"
import * as Ref from "effect/Ref"
import * as Schedule from "effect/Schedule"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import type { EndReason } from "../Connection.js"
import type { ClientChange, ClientStatus, ConnectRequest } from "../HubClient.js"
import type { HubSettings } from "../SseConfig.js"
import { HubClosed } from "../SseError.js"
import * as SseEvent from "../SseEvent.js"
import { Client, type Totals } from "./client.js"
import { of as frameOf } from "./frame.js"
import * as Keepalives from "./keepalives.js"
import * as Registry from "./registry.js"

const greeting = frameOf(SseEvent.comment("ok"))

export interface Clients {
  readonly connect: (request: ConnectRequest) => Effect.Effect<number, HubClosed>
  readonly list: Effect.Effect<ReadonlyArray<Client>>
  readonly disconnect: (id: number) => Effect.Effect<boolean>
  readonly changes: Effect.Effect<Stream.Stream<ClientChange>, never, Scope.Scope>
  readonly farewell: Effect.Effect<string>
  /** Ends all, and waits until they are forgotten. None may come any more. */
  readonly endAll: Effect.Effect<void>
  readonly totals: Totals
  readonly ended: Record<EndReason, number>
}

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
    const changes = yield* PubSub.unbounded<ClientChange | undefined>()
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
    let watchers = 0

    const announce = (change: () => ClientChange) => {
      if (watchers > 0) changes.unsafeOffer(change())
    }

    const list = Effect.map(Ref.get(registry), (current) => {
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
        const now = clock.unsafeCurrentTimeMillis()
        const clients = Array.from(gone)
        yield* Ref.update(registry, (current) => clients.reduce(Registry.remove, current))
        for (const client of clients) {
          const reason = client.ended ?? "client-closed"
          ended[reason]++
          yield* keepalives.remove(client)
          announce(() => ({
            _tag: "Disconnected",
            client: clientStatus(client),
            reason,
            durationMillis: now - client.info.connectedAt
          }))
        }
        if (!isOpen() && (yield* list).length === 0) yield* empty.open
      })
    yield* Queue.takeBetween(left, 1, 4096).pipe(Effect.flatMap(forget), Effect.forever, Effect.forkScoped)

    yield* Effect.map(list, (clients) => {
      const now = clock.unsafeCurrentTimeMillis()
      for (const client of clients) client.checkStall(now)
    }).pipe(Effect.schedule(Schedule.spaced(settings.stallMillis / 10)), Effect.forkScoped)

    // Multiples of the golden ratio spread evenly over a range, however many there are, and need no generator where no
    // effect can run.
    const seed = yield* Random.next
    const retryMillis = (turn: number): number | undefined => {
      const range = settings.shutdownRetryMillis
      if (range === undefined) return undefined
      return Math.floor(range[0] + ((seed + turn * 0.6180339887498949) % 1) * (range[1] + 1 - range[0]))
    }
    const shutdownOne = (client: Client, now: number) => client.shutdown(retryMillis(client.id), now)

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
              connectedAt: now
            },
            request.connection,
            settings,
            totals,
            (client) => left.unsafeOffer(client)
          )
          announce(() => ({ _tag: "Connected", client: clientStatus(client) }))
          if (!request.connection.keepsItselfAlive) keepalives.add(client)
          client.write(greeting, now)
          request.connection.onClose((reason) => {
            if (reason === "shutdown") shutdownOne(client, clock.unsafeCurrentTimeMillis())
            else client.end(reason)
          })
          return [client.id, Registry.add(current, client)]
        }),
        (id) => (id === undefined ? Effect.fail(new HubClosed()) : Effect.succeed(id))
      )

    return {
      connect,
      list,
      disconnect: (id) =>
        Effect.map(Ref.get(registry), (current) => {
          const found = HashMap.get(current.subscribers, id)
          if (found._tag === "None" || !(found.value instanceof Client)) return false
          found.value.end("disconnected")
          return true
        }),
      changes: Effect.acquireRelease(
        Effect.sync(() => void watchers++),
        () => Effect.sync(() => void watchers--)
      ).pipe(
        Effect.zipRight(Stream.fromPubSub(changes, { scoped: true })),
        Effect.map((stream) => (isOpen() ? Stream.takeWhile(stream, (change) => change !== undefined) : Stream.empty))
      ),
      farewell: Effect.sync(() => {
        const millis = retryMillis(nextId())
        return millis === undefined ? "" : SseEvent.retry(millis)
      }),
      endAll: Effect.gen(function* () {
        const now = clock.unsafeCurrentTimeMillis()
        const clients = yield* list
        for (const client of clients) shutdownOne(client, now)
        if (clients.length > 0) yield* empty.await
        changes.unsafeOffer(undefined)
      }),
      totals,
      ended
    }
  })

export const clientStatus = (client: Client): ClientStatus => ({
  ...client.info,
  events: client.events,
  bytes: client.bytes,
  pendingBytes: client.pendingBytes
})
