/**
 * A hub and those it shares a log with: how all are, whose clients are where, and who is there. A hub that is alone is the
 * only one.
 *
 * @since 0.1.0
 */
import type * as Effect from "effect/Effect"
import type * as Stream from "effect/Stream"
import { type EndReason, endReasons } from "./Connection.js"
import type { ClientStatus } from "./HubClient.js"
import type { HubStatus, Rates } from "./HubStatus.js"
import type { NamespacePattern } from "./NamespacePattern.js"
import type { InvalidNamespace, NodeUnreachable, PresenceLimit, SubscriberTooSlow, UnknownNode } from "./SseError.js"

/**
 * A node at the time of its last report.
 *
 * @since 0.1.0
 * @category models
 */
export interface NodeStatus extends HubStatus {
  /** Unique, and new each time a hub is made. */
  readonly id: string
  /** What people call it. */
  readonly name: string
  /** Its process; `undefined` where there is no such thing. */
  readonly pid: number | undefined
  readonly version: string
  /** When it reported, in ms since 1970, by its own clock. */
  readonly reportedAt: number
  /** A second's share over the last ten seconds. */
  readonly rates: Rates
  /** Bytes that wait for its clients. */
  readonly pendingBytes: number
  /** Its clients for which something waits. */
  readonly slowClients: number
  /** Resident memory of its process in bytes, where the runtime tells. */
  readonly memoryBytes: number | undefined
}

/**
 * All nodes that report.
 *
 * @since 0.1.0
 * @category models
 */
export interface NodesStatus {
  /** The node that was asked. */
  readonly self: NodeStatus
  /** The others, by name. */
  readonly others: ReadonlyArray<NodeStatus>
  /** Why, and since when in ms since 1970, the others are not known; `undefined` if they are. */
  readonly problem: { readonly reason: string; readonly since: number } | undefined
}

/**
 * The sums over nodes.
 *
 * @since 0.1.0
 * @category models
 */
export interface Totals {
  readonly nodes: number
  readonly clients: number
  readonly published: number
  readonly deliveries: number
  readonly bytes: number
  readonly pendingBytes: number
  readonly slowClients: number
  readonly rates: Rates
  readonly ended: Readonly<Record<EndReason, number>>
}

/**
 * Which clients are wanted.
 *
 * @since 0.1.0
 * @category models
 */
export interface ClientQuery {
  /** Of this node only. Default: of all. */
  readonly node?: string | undefined
  /** Only those that listen to it or below it. Default: `/`. */
  readonly namespace?: NamespacePattern | undefined
  /** Only those whose address, user agent, path, principal or metadata has this text, in any case. */
  readonly filter?: string | undefined
  /** The oldest first, or those first that were sent most events, or for which most bytes wait. Default: `age`. */
  readonly sort?: "age" | "events" | "pendingBytes" | undefined
  /** Only those that connected behind the one with this id; with `node`, and sorted by `age`. */
  readonly after?: number | undefined
  /** How many at most; of another node never more than 1,000. Default: 1,000. */
  readonly limit?: number | undefined
}

/**
 * Some clients, and how many there are.
 *
 * @since 0.1.0
 * @category models
 */
export interface ClientPage {
  /** Clients of the nodes that were asked. */
  readonly total: number
  /** Those that match. */
  readonly matching: number
  readonly clients: ReadonlyArray<{ readonly node: string; readonly client: ClientStatus }>
  /** What to give as `after` to get the next ones; `undefined` if there are none, or clients of several nodes were asked for. */
  readonly next: number | undefined
  /** Nodes that did not answer. */
  readonly missing: ReadonlyArray<string>
}

/**
 * Who is there, on which node. `wasThere`: whether it was when this node began to follow that one.
 *
 * A client left for the reason for which it was ended; because its node was lost (`node-gone`); or while nothing was heard
 * from its node (`unknown`).
 *
 * @since 0.1.0
 * @category models
 */
export type NodePresence =
  | { readonly _tag: "Joined"; readonly node: string; readonly client: ClientStatus; readonly wasThere: boolean }
  | {
      readonly _tag: "Left"
      readonly node: string
      readonly client: ClientStatus
      readonly reason: EndReason | "node-gone" | "unknown"
    }

/**
 * What a hub knows of all nodes, and can do on them. Of clients of other nodes it knows what JSON carries: `metadata` is as
 * that gives it back.
 *
 * @since 0.1.0
 * @category models
 */
export interface Nodes {
  /** The id of this node. */
  readonly id: string
  /** All nodes. Never fails: while others are out of reach it tells so. */
  readonly status: Effect.Effect<NodesStatus>
  /**
   * Some clients of all nodes, or of one, asked for as it is called. Of all: the first by `sort`; nodes that do not answer
   * are told as `missing`. Of one: fails if there is no such node, or it does not answer.
   */
  readonly clients: (query?: ClientQuery) => Effect.Effect<ClientPage, UnknownNode | NodeUnreachable>
  /** Ends the connection of a client of any node; `false` if that has no such client. */
  readonly disconnect: (node: string, client: number) => Effect.Effect<boolean, UnknownNode | NodeUnreachable>
  /**
   * Who is there on any node: clients that listen to `namespace` or below it. First a `Joined` for each that is there on this
   * node, then those of other nodes as these answer, and who comes and goes, in each node's order.
   *
   * It is for lists of who is there, not for accounts: when nothing is heard from a node for a while, what happened meanwhile
   * is told as its outcome. While the way between nodes is down, what was known of others stays.
   *
   * It holds what is known of each client of other nodes in memory: at most 100,000, else it fails with `PresenceLimit`, as
   * it does if 256 such streams are open on this node. A stream that lets more than `maxPendingEvents`, and as many as are
   * there, wait fails with `SubscriberTooSlow`. It ends when the hub is closed.
   */
  readonly presence: (
    namespace: string
  ) => Stream.Stream<NodePresence, InvalidNamespace | SubscriberTooSlow | PresenceLimit>
}

/**
 * The sums over all nodes that are known. They go down when a node ends: its counts are its own.
 *
 * @since 0.1.0
 * @category conversions
 */
export const totals = ({ others, self }: NodesStatus): Totals => {
  const nodes = [self, ...others]
  const sum = (of: (node: NodeStatus) => number) => nodes.reduce((sum, node) => sum + of(node), 0)
  const rate = (of: keyof Rates) => Math.round(sum(({ rates }) => rates[of]) * 10) / 10
  return {
    nodes: nodes.length,
    clients: sum(({ clients }) => clients),
    published: sum(({ published }) => published),
    deliveries: sum(({ deliveries }) => deliveries),
    bytes: sum(({ bytes }) => bytes),
    pendingBytes: sum(({ pendingBytes }) => pendingBytes),
    slowClients: sum(({ slowClients }) => slowClients),
    rates: { publishes: rate("publishes"), deliveries: rate("deliveries"), bytes: rate("bytes") },
    ended: Object.fromEntries(endReasons.map((reason) => [reason, sum(({ ended }) => ended[reason])])) as Record<
      EndReason,
      number
    >
  }
}
