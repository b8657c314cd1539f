/**
 * What a hub makes of the bus it is on: see `Nodes`.
 *
 * @internal
 */
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Random from "effect/Random"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import type { HubStatus, Sample } from "../../HubStatus.js"
import type { NamespacePattern } from "../../NamespacePattern.js"
import { NodeBus } from "../../NodeBus.js"
import type { ClientPage, ClientQuery, Nodes, NodeStatus } from "../../Nodes.js"
import type { InvalidNamespace, NodeUnreachable, UnknownNode } from "../../SseError.js"
import { rates } from "../activity.js"
import { clientStatus } from "../client.js"
import type { Clients } from "../clients.js"
import { defaultLimit, order, select } from "../selection.js"
import { version } from "../version.js"
import * as Messages from "./messages.js"
import * as Peers from "./peers.js"
import * as Presence from "./presence.js"

/** The hub's own part. */
export interface Local {
  readonly clients: Clients
  readonly status: Effect.Effect<HubStatus>
  readonly samples: Effect.Effect<ReadonlyArray<Sample>>
  readonly parse: (path: string) => Effect.Effect<NamespacePattern, InvalidNamespace>
  readonly maxPendingEvents: number
}

export interface HubNodes {
  readonly nodes: Nodes
  /** Ends the principal's streams on all nodes, and gives their number. */
  readonly revoke: (principal: string, rememberMillis: number) => Effect.Effect<number>
}

/** Clients of another node that travel in one answer. */
const maxRemote = 1000

export const make = (local: Local): Effect.Effect<HubNodes, never, Scope.Scope> =>
  Effect.gen(function* () {
    const { clients } = local
    const bus = yield* NodeBus
    const id = yield* makeId
    const pid = typeof process === "undefined" ? undefined : process.pid
    const self: Effect.Effect<NodeStatus> = Effect.gen(function* () {
      const samples = yield* local.samples
      const last = samples.at(-1)
      return {
        ...(yield* local.status),
        id,
        name: bus?.name ?? "",
        pid,
        version,
        reportedAt: yield* Clock.currentTimeMillis,
        rates: rates(samples),
        pendingBytes: last?.pendingBytes ?? 0,
        slowClients: last?.slowClients ?? 0,
        memoryBytes: last?.memoryBytes
      }
    })
    const selectOwn = (query: ClientQuery) =>
      Effect.flatMap(clients.list, (all) => select(all.map(clientStatus), query))

    const answer = (operation: Messages.Operation): Effect.Effect<unknown> => {
      switch (operation._tag) {
        case "Clients":
          return Effect.map(
            selectOwn({ ...operation.query, limit: Math.min(operation.query.limit ?? defaultLimit, maxRemote) }),
            (selection) => ({ ...selection, clients: selection.clients.map(Messages.plain) })
          )
        case "Disconnect":
          return clients.disconnect(operation.client)
        case "Revoke":
          return clients.revoke(operation)
      }
    }

    const presence = yield* Presence.make(id, clients.follow, local.maxPendingEvents)
    const peers: Peers.Peers =
      bus === undefined
        ? Peers.alone
        : yield* Peers.join(bus, id, {
            status: self,
            answer,
            revoked: clients.revoke,
            onFollowing: presence.onMessage,
            onReport: Effect.suspend(() => presence.look(peers))
          })
    if (bus !== undefined) yield* presence.run(peers)

    const page = (node: string, query: ClientQuery): Effect.Effect<ClientPage, UnknownNode | NodeUnreachable> =>
      Effect.map(
        node === id ? selectOwn(query) : peers.ask(node, { _tag: "Clients", query }, Messages.Clients),
        (selection) => ({
          ...selection,
          clients: selection.clients.map((client) => ({ node, client })),
          missing: []
        })
      )

    const pageOfAll = (query: ClientQuery): Effect.Effect<ClientPage> =>
      Effect.gen(function* () {
        const { others } = yield* peers.list
        const asked = [id, ...others.map(({ id }) => id)]
        const pages = yield* Effect.forEach(asked, (node) => Effect.option(page(node, { ...query, after: 0 })), {
          concurrency: "unbounded"
        })
        const answered = pages.flatMap((page) => (page._tag === "Some" ? [page.value] : []))
        const sorted = order[query.sort ?? "age"]
        return {
          total: answered.reduce((sum, { total }) => sum + total, 0),
          matching: answered.reduce((sum, { matching }) => sum + matching, 0),
          clients: answered
            .flatMap(({ clients }) => clients)
            // Always the same order, of clients that came in the same millisecond as well.
            .sort((a, b) => sorted(a.client, b.client) || (a.node < b.node ? -1 : a.node > b.node ? 1 : 0))
            .slice(0, query.limit ?? defaultLimit),
          next: undefined,
          missing: asked.filter((_, i) => pages[i]!._tag === "None")
        }
      })

    return {
      nodes: {
        id,
        status: Effect.zipWith(self, peers.list, (self, others) => ({ self, ...others })),
        clients: ({ node, ...query } = {}) => (node === undefined ? pageOfAll(query) : page(node, query)),
        disconnect: (node, client) =>
          node === id ? clients.disconnect(client) : peers.ask(node, { _tag: "Disconnect", client }, Schema.Boolean),
        presence: (path) => Stream.unwrap(Effect.map(local.parse(path), (namespace) => presence.of(namespace, peers)))
      },
      revoke: (principal, rememberMillis) =>
        Effect.gen(function* () {
          const at = yield* Clock.currentTimeMillis
          // Longer than any process lives is the same as for ever, and a number that every engine takes.
          const revocation = { principal, at, ageMillis: 0, rememberMillis: Math.min(rememberMillis, tenYears) }
          // Here first: it must not wait for others.
          return (yield* clients.revoke(revocation)) + (yield* peers.revoke(revocation))
        })
    }
  })

const tenYears = 10 * 365 * 24 * 3_600_000

/** Random, and of the time, so that nodes that start together differ, and those with one seed do. */
const makeId = Effect.gen(function* () {
  const now = yield* Clock.currentTimeMillis
  const parts = [yield* Random.nextIntBetween(0, 36 ** 5), Math.floor(Math.random() * 36 ** 5), now % 36 ** 4]
  return parts.map((part, i) => part.toString(36).padStart(i === 2 ? 4 : 5, "0")).join("")
})
