/**
 * Which clients an operator wants to see.
 *
 * @internal
 */
import * as Effect from "effect/Effect"
import type { ClientStatus } from "../HubClient.js"
import { root } from "../Namespace.js"
import * as NamespacePattern from "../NamespacePattern.js"
import type { ClientQuery } from "../Nodes.js"
import { turn } from "./eventLoop.js"
import { json } from "./json.js"

export const defaultLimit = 1000

/** Clients that are looked at before the event loop gets its turn. */
const slice = 1000

export interface Selection {
  readonly total: number
  readonly matching: number
  readonly clients: ReadonlyArray<ClientStatus>
  readonly next: number | undefined
}

/** How clients are sorted. */
export const order: Record<NonNullable<ClientQuery["sort"]>, (a: ClientStatus, b: ClientStatus) => number> = {
  age: (a, b) => a.connectedAt - b.connectedAt,
  events: (a, b) => b.events - a.events,
  pendingBytes: (a, b) => b.pendingBytes - a.pendingBytes
}

/** @param clients oldest first */
export const select = (
  clients: ReadonlyArray<ClientStatus>,
  { after = 0, filter = "", limit = defaultLimit, namespace = root, sort = "age" }: ClientQuery
): Effect.Effect<Selection> =>
  Effect.gen(function* () {
    const text = filter.toLowerCase()
    const matches = (client: ClientStatus) =>
      client.namespaces.some((one) => NamespacePattern.covers(namespace, one)) &&
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
    if (sort !== "age") found.sort(order[sort])
    const behind = after === 0 ? found : found.filter(({ id }) => id > after)
    const shown = behind.slice(0, limit)
    return {
      total: clients.length,
      matching: found.length,
      clients: shown,
      next: sort === "age" && behind.length > shown.length ? shown.at(-1)?.id : undefined
    }
  })
