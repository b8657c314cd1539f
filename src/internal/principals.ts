/**
 * Who the clients are, for as far as the app says so: until when each may stay, and who may not come back.
 *
 * @internal
 */
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import type { Principal } from "../HubClient.js"
import type { Revocation } from "../NodeBus.js"
import { Refused } from "../SseError.js"
import type { Client } from "./client.js"
import { forEach } from "./eventLoop.js"
import * as Expiries from "./expiries.js"

/** Revocations that are remembered at most. */
const maxRevoked = 100_000

export interface Principals {
  /** Why it may not come. */
  readonly refusal: (principal: Principal, now: number) => Refused | undefined
  readonly add: (client: Client) => void
  readonly remove: (client: Client) => void
  /**
   * Ends the principal's clients and gives their number. One that another node has revoked some time ago ends those that were
   * here then, and those whose proof is older; who proved again who it is, and came since, stays. One who came within some ms
   * may be ended with them: it is let in when it comes back.
   */
  readonly revoke: (revocation: Revocation, now: number) => Effect.Effect<number>
}

export const make: Effect.Effect<Principals, never, Scope.Scope> = Effect.gen(function* () {
  const expiries = yield* Expiries.make
  const clients = new Map<string, Set<Client>>()
  // In the order of revoking.
  const revoked = new Map<string, { readonly at: number; readonly until: number }>()

  const remember = (id: string, at: number, now: number, until: number) => {
    const earlier = revoked.get(id)
    revoked.delete(id)
    // The same may be told twice, and an earlier one behind a later one.
    const merged = { at: Math.max(at, earlier?.at ?? at), until: Math.max(until, earlier?.until ?? until) }
    if (merged.until > now) revoked.set(id, merged)
    for (const [first, entry] of revoked) {
      if (entry.until > now && revoked.size <= maxRevoked) return
      revoked.delete(first)
    }
  }

  return {
    refusal: ({ expiresAt, id, issuedAt }, now) => {
      // Anything that is not later, such as NaN, is over.
      if (expiresAt !== undefined && !(expiresAt > now)) {
        return new Refused({ kind: "unauthenticated", reason: "what this request proves has expired" })
      }
      const entry = issuedAt === undefined ? undefined : revoked.get(id)
      return entry === undefined || entry.until <= now || issuedAt! > entry.at
        ? undefined
        : new Refused({ kind: "unauthenticated", reason: "what this request proves has been revoked" })
    },
    add: (client) => {
      const { expiresAt, principal } = client.info
      if (principal === undefined) return
      const others = clients.get(principal)
      if (others === undefined) clients.set(principal, new Set([client]))
      else others.add(client)
      if (expiresAt !== undefined) expiries.add(client, expiresAt)
    },
    remove: (client) => {
      const { expiresAt, principal } = client.info
      if (principal === undefined) return
      const others = clients.get(principal)
      if (others?.delete(client) === true && others.size === 0) clients.delete(principal)
      if (expiresAt !== undefined) expiries.remove(client, expiresAt)
    },
    revoke: ({ ageMillis, at, principal, rememberMillis }, now) =>
      Effect.gen(function* () {
        const since = now - ageMillis
        remember(principal, at, now, since + rememberMillis)
        let ended = 0
        yield* forEach(Array.from(clients.get(principal) ?? []), (client) => {
          const { connectedAt, issuedAt } = client.info
          const isOlder = connectedAt <= since || (issuedAt !== undefined && !(issuedAt > at))
          if (client.ended !== undefined || !isOlder) return
          client.end("revoked")
          ended++
        })
        return ended
      })
  }
})
