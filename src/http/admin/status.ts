/**
 * The documents of the admin API: the Go server's status, field for field, with what we add.
 *
 * @internal
 */
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import type { Health } from "../../EventLog.js"
import type { ClientStatus } from "../../HubClient.js"
import type { Sample } from "../../HubStatus.js"
import { rates } from "../../internal/activity.js"
import { turn } from "../../internal/eventLoop.js"
import { json } from "../../internal/json.js"
import { defaultLimit } from "../../internal/selection.js"
import { version } from "../../internal/version.js"
import * as NamespacePattern from "../../NamespacePattern.js"
import * as Nodes from "../../Nodes.js"
import type { NodeUnreachable, UnknownNode } from "../../SseError.js"
import type { SseHub } from "../../SseHub.js"
import type * as Schemas from "../schemas.js"

type Hub = SseHub["Type"]

/** Which connections are shown. */
export interface Query {
  /** Of this node, of all, or of the one with this id. */
  readonly node: "self" | "all" | (string & {})
  readonly limit: number
  /** Only those that connected behind the one with this id. Only with `sort` by age, and of one node. */
  readonly after: number
  /** Only those that listen to it or below it, and only the namespaces from it down. */
  readonly namespace: NamespacePattern.NamespacePattern
  /** Only those whose address, user agent, path, principal or metadata has this text, in any case. */
  readonly filter: string
  readonly sort: Sort
}

/** By age as the Go server does, or the largest first. */
export const sorts = { age: "age", msgs_sent: "events", pending_bytes: "pendingBytes" } as const
export type Sort = keyof typeof sorts

export { defaultLimit }
export const maxLimit = 10_000

/** Namespaces that are shown: the most listened to, then the most published to. */
const shownNamespaces = 500

/** Rows written before the event loop gets its turn. */
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
    const all = yield* hub.nodes.status
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
      log: logOf(status.log),
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
        })),
      node_id: all.self.id,
      totals: totalsOf(Nodes.totals(all)),
      nodes: [{ ...all.self, name: all.self.name || node }, ...all.others].map((one) =>
        nodeOf(one, one.id === all.self.id)
      ),
      other_nodes:
        all.problem === undefined
          ? { status: "known" }
          : { status: "unknown", reason: all.problem.reason, since: seconds(all.problem.since) }
    }
  })

const logOf = (log: Health) => (log.status === "ok" ? log : { ...log, since: seconds(log.since) })

const totalsOf = (totals: Nodes.Totals): (typeof Schemas.Summary.Encoded)["totals"] => ({
  nodes: totals.nodes,
  msgs_broadcast: totals.published,
  connections_total: totals.clients,
  deliveries_total: totals.deliveries,
  bytes_total: totals.bytes,
  rates: totals.rates,
  disconnects: totals.ended,
  slow_clients: totals.slowClients,
  pending_bytes: totals.pendingBytes
})

const nodeOf = (node: Nodes.NodeStatus, self: boolean): typeof Schemas.Node.Encoded => ({
  id: node.id,
  node: node.name,
  self,
  pid: node.pid ?? null,
  status: node.open ? "OK" : "DRAINING",
  reported_at: seconds(node.reportedAt),
  startup_time: seconds(node.startedAt),
  version: node.version,
  msgs_broadcast: node.published,
  connections_total: node.clients,
  deliveries_total: node.deliveries,
  bytes_total: node.bytes,
  rates: node.rates,
  slow_clients: node.slowClients,
  pending_bytes: node.pendingBytes,
  memory_bytes: node.memoryBytes ?? null,
  log: logOf(node.log)
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
export const document = (
  hub: Hub,
  node: string,
  { after, filter, limit, namespace, node: asked, sort }: Query
): Effect.Effect<string, UnknownNode | NodeUnreachable> =>
  Effect.gen(function* () {
    const head = yield* summary(hub, node, namespace)
    const of = asked === "self" ? { node: hub.nodes.id } : asked === "all" ? {} : { node: asked }
    const page = yield* hub.nodes.clients({ ...of, after, filter, limit, namespace, sort: sorts[sort] })
    const rows: Array<string> = []
    for (let i = 0; i < page.clients.length; i += slice) {
      rows.push(...page.clients.slice(i, i + slice).map((one) => JSON.stringify(connection(one))))
      yield* turn
    }
    const text = JSON.stringify({
      ...head,
      connections_asked: page.total,
      connections_matching: page.matching,
      nodes_missing: page.missing,
      next: page.next ?? null
    })
    return `${text.slice(0, -1)},"connections":[${rows.join(",")}]}`
  })

const connection = ({
  client,
  node
}: {
  readonly client: ClientStatus
  readonly node: string
}): typeof Schemas.Connection.Encoded => ({
  // The Go server's.
  request_path: client.requestPath,
  namespace: client.namespaces.join(" "),
  created_at: seconds(client.connectedAt),
  client_ip: client.address,
  user_agent: client.userAgent,
  msgs_sent: client.events,
  // Ours.
  id: client.id,
  node_id: node,
  bytes_sent: client.bytes,
  pending_bytes: client.pendingBytes,
  ...(client.principal === undefined ? {} : { principal: client.principal }),
  ...(client.metadata === undefined ? {} : { metadata: JSON.parse(json(client.metadata)) as unknown })
})
