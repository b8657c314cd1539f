/**
 * Which clients may come: the limits, and whom one more costs its place.
 *
 * @internal
 */
import type { NamespacePattern } from "../NamespacePattern.js"
import type { HubSettings } from "../SseConfig.js"
import { LimitReached } from "../SseError.js"
import type { Client } from "./client.js"

export interface Admission {
  /** Why it may not come; makes room for it if the oldest has to go. */
  readonly admit: (
    namespaces: ReadonlyArray<NamespacePattern>,
    address: string,
    now: number
  ) => LimitReached | undefined
  /** Counts one that came, or one that is forgotten. */
  readonly count: (client: Client, change: 1 | -1) => void
  /** How many clients named each namespace. */
  readonly byNamespace: ReadonlyMap<NamespacePattern, number>
}

/** @param connected the clients by age; read, never changed */
export const make = (
  connected: ReadonlyMap<number, Client>,
  settings: HubSettings,
  evict: (client: Client, now: number) => void
): Admission => {
  const byNamespace = new Map<NamespacePattern, number>()
  const byAddress = new Map<string, number>()

  /** The limit that one more would break, and those of whom the oldest would make room. */
  const full = (
    namespaces: ReadonlyArray<NamespacePattern>,
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

  const admit = (
    namespaces: ReadonlyArray<NamespacePattern>,
    address: string,
    now: number
  ): LimitReached | undefined => {
    const { maxNamespacesPerClient: max } = settings
    if (namespaces.length > max) return new LimitReached({ limit: "maxNamespacesPerClient", max })
    const found = full(namespaces, address)
    if (found === undefined || settings.whenFull !== "evict-oldest") return found?.error
    for (const client of connected.values()) {
      if (client.ended !== undefined || !found.isOne(client)) continue
      evict(client, now)
      return undefined
    }
    // All of them have ended already, and are forgotten in a moment.
    return undefined
  }

  return {
    admit,
    count: ({ info: { address, namespaces } }, change) => {
      for (const namespace of namespaces) add(byNamespace, namespace, change)
      if (address !== "") add(byAddress, address, change)
    },
    byNamespace
  }
}

const add = <K>(counts: Map<K, number>, key: K, change: number): void => {
  const next = (counts.get(key) ?? 0) + change
  if (next === 0) counts.delete(key)
  else counts.set(key, next)
}
