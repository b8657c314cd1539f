/**
 * The documents of the admin API: the Go server's status, field for field, with what we add.
 *
 * @internal
 */
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import type { ClientStatus } from "../../HubClient.js"
import type { Sample } from "../../HubStatus.js"
import { turn } from "../../internal/eventLoop.js"
import { version } from "../../internal/version.js"
import * as NamespacePattern from "../../NamespacePattern.js"
import type * as Schemas from "../schemas.js"
import type { SseHub } from "../../SseHub.js"

type Hub = SseHub["Type"]

/** Which connections are shown. */
export interface Query {
  readonly limit: number
  /** Only those that connected behind the one with this id. Only with `sort` by age. */
  readonly after: number
  /** Only those that listen to it or below it, and only the namespaces from it down. */
  readonly namespace: NamespacePattern.NamespacePattern
  /** Only those whose address, user agent, path, principal or metadata has this text, in any case. */
  readonly filter: string
  readonly sort: Sort
}

/** By age as the Go server does, or the largest first. */
export type Sort = "age" | "msgs_sent" | "pending_bytes"

export const defaultLimit = 1000
export const maxLimit = 10_000

/** Namespaces that are shown: the most listened to, then the most published to. */
const shownNamespaces = 500

/** Rows made or written before the event loop gets its turn. */
const slice = 1000

const seconds = (millis: number) => Math.floor(millis / 1000)

/** What is said of the hub as a whole. */
export const summary = (
  hub: Hub,
  node: string,
  below: NamespacePattern.NamespacePattern
): Effect.Effect<typeof Schemas.Summary.Encoded> =>
  Effect.gen(function* () {
    const now = yield* Clock.currentTimeMillis
    const status = yield* hub.status
    const { recentEnds, samples } = yield* hub.activity
    const used = (yield* hub.namespaces).filter(({ namespace }) => NamespacePattern.covers(below, namespace))
    const last = samples.at(-1)
    return {
      // The Go server's.
      node,
      status: status.open ? "OK" : "DRAINING",
      reported_at: seconds(now),
      startup_time: seconds(status.startedAt),
      msgs_broadcast: status.published,
      // Ours.
      version,
      reported_at_ms: now,
      uptime_seconds: seconds(now - status.startedAt),
      connections_total: status.clients,
      deliveries_total: status.deliveries,
      bytes_total: status.bytes,
      rates: rates(samples),
      disconnects: status.ended,
      recent_disconnects: recentEnds.toReversed().map(({ client, endedAt, reason }) => ({
        id: client.id,
        namespace: client.namespaces.join(" "),
        client_ip: client.address,
        reason,
        ended_at: seconds(endedAt),
        seconds: Math.round((endedAt - client.connectedAt) / 1000),
        msgs_sent: client.events
      })),
      slow_clients: last?.slowClients ?? 0,
      pending_bytes: last?.pendingBytes ?? 0,
      history_events: last?.historyEvents ?? 0,
      log: status.log.status === "ok" ? status.log : { ...status.log, since: seconds(status.log.since) },
      memory_bytes: last?.memoryBytes ?? null,
      event_loop_delay_ms: last?.eventLoopDelay ?? null,
      namespaces_total: used.length,
      namespaces: used
        .sort((a, b) => b.subscribers - a.subscribers || b.events - a.events)
        .slice(0, shownNamespaces)
        .map(({ events, lastEventAt, namespace, subscribers }) => ({
          namespace,
          subscribers,
          publishes: events,
          last_event_at: lastEventAt === undefined ? null : seconds(lastEventAt)
        }))
    }
  })

/** The samples as columns, for the page. */
export const history = (samples: ReadonlyArray<Sample>) =>
  samples.map((sample) => [
    sample.at,
    sample.clients,
    sample.published,
    sample.deliveries,
    sample.bytes,
    sample.pendingBytes,
    sample.slowClients,
    sample.memoryBytes ?? null,
    sample.eventLoopDelay?.p99 ?? null
  ])

/**
 * The whole document as JSON. With ten thousand connections it is some megabytes: rows are made and written in slices, and
 * the event loop gets its turn between them.
 */
export const document = (hub: Hub, node: string, query: Query): Effect.Effect<string> =>
  Effect.gen(function* () {
    const head = yield* summary(hub, node, query.namespace)
    const matching = yield* select(yield* hub.clients, query)
    const behind = query.after === 0 ? matching : matching.filter(({ id }) => id > query.after)
    const shown = behind.slice(0, query.limit)
    const rows: Array<string> = []
    for (let i = 0; i < shown.length; i += slice) {
      rows.push(...shown.slice(i, i + slice).map((client) => JSON.stringify(connection(client))))
      yield* turn
    }
    const next = query.sort === "age" && behind.length > shown.length ? (shown.at(-1)?.id ?? null) : null
    const page = JSON.stringify({ ...head, connections_matching: matching.length, next })
    return `${page.slice(0, -1)},"connections":[${rows.join(",")}]}`
  })

const select = (clients: ReadonlyArray<ClientStatus>, query: Query): Effect.Effect<Array<ClientStatus>> =>
  Effect.gen(function* () {
    const text = query.filter.toLowerCase()
    const matches = (client: ClientStatus) =>
      client.namespaces.some((one) => NamespacePattern.covers(query.namespace, one)) &&
      (text === "" ||
        [
          client.address,
          client.userAgent,
          client.requestPath,
          client.principal ?? "",
          client.metadata === undefined ? "" : json(client.metadata)
        ].some((value) => value.toLowerCase().includes(text)))
    const found: Array<ClientStatus> = []
    for (let i = 0; i < clients.length; i += slice) {
      found.push(...clients.slice(i, i + slice).filter(matches))
      yield* turn
    }
    if (query.sort === "msgs_sent") return found.sort((a, b) => b.events - a.events)
    if (query.sort === "pending_bytes") return found.sort((a, b) => b.pendingBytes - a.pendingBytes)
    return found
  })

const connection = (client: ClientStatus): typeof Schemas.Connection.Encoded => ({
  // The Go server's.
  request_path: client.requestPath,
  namespace: client.namespaces.join(" "),
  created_at: seconds(client.connectedAt),
  client_ip: client.address,
  user_agent: client.userAgent,
  msgs_sent: client.events,
  // Ours.
  id: client.id,
  bytes_sent: client.bytes,
  pending_bytes: client.pendingBytes,
  ...(client.principal === undefined ? {} : { principal: client.principal }),
  ...(client.metadata === undefined ? {} : { metadata: JSON.parse(json(client.metadata)) as unknown })
})

/** An app may say anything of a client; what JSON cannot carry is shown as text. */
const json = (value: unknown): string => {
  try {
    return JSON.stringify(value) ?? "null"
  } catch {
    return '"(not JSON)"'
  }
}
