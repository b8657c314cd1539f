/**
 * One-time tickets, for those who cannot send headers: a browser's `EventSource`.
 *
 * A page that may subscribe asks for one (`POST /tickets`) and opens its stream with it (`?ticket=`) once, shortly after.
 * What is here is where tickets are kept in between; the tickets themselves are never kept.
 *
 * @since 0.1.0
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import type { Principal } from "./HubClient.js"
import type { NamespacePattern } from "./NamespacePattern.js"
import { Refused } from "./SseError.js"

/**
 * What a ticket stands for: who got it, and what may be subscribed to with it.
 *
 * @since 0.1.0
 * @category models
 */
export interface Grant {
  readonly principal: Principal
  readonly namespaces: ReadonlyArray<NamespacePattern>
}

/**
 * Keeps grants for a short time. The keys are SHA-256 digests of tickets, in hexadecimal: who reads the store cannot use
 * what is in it. A store of many servers has to write grants as JSON, with what the app says of its principals.
 *
 * @since 0.1.0
 * @category services
 */
export class Tickets extends Context.Tag("effect-sse/Tickets")<
  Tickets,
  {
    /** Keeps a grant for so many ms. Fails with `unavailable` if it cannot, for instance because it is full. */
    readonly put: (key: string, grant: Grant, millis: number) => Effect.Effect<void, Refused>
    /** Gives the grant, and forgets it in the same step: of two who ask, one gets it. `None` if there is none, or its time is over. */
    readonly take: (key: string) => Effect.Effect<Option.Option<Grant>, Refused>
  }
>() {}

/**
 * Keeps grants in the memory of this process.
 *
 * @param options.max grants that are kept at most; with more, `put` fails. Default: 20,000
 * @since 0.1.0
 * @category constructors
 */
export const unsafeMakeMemory = (options?: { readonly max?: number | undefined }): Tickets["Type"] => {
  const max = options?.max ?? 20_000
  // In the order of asking, which is nearly that in which their times are over.
  const grants = new Map<string, { readonly grant: Grant; readonly until: number }>()
  return {
    put: (key, grant, millis) =>
      Effect.clockWith((clock) => {
        const now = clock.unsafeCurrentTimeMillis()
        for (const [first, { until }] of grants) {
          if (until > now) break
          grants.delete(first)
        }
        if (grants.size >= max) return new Refused({ kind: "unavailable", reason: "too many tickets are open" })
        grants.set(key, { grant, until: now + millis })
        return Effect.void
      }),
    take: (key) =>
      Effect.clockWith((clock) =>
        Effect.sync(() => {
          const kept = grants.get(key)
          grants.delete(key)
          return kept === undefined || kept.until <= clock.unsafeCurrentTimeMillis()
            ? Option.none()
            : Option.some(kept.grant)
        })
      )
  }
}

/**
 * As {@link unsafeMakeMemory}, as a layer. Routes keep their tickets so by themselves; this is for those who hand the
 * same store to several.
 *
 * @since 0.1.0
 * @category layers
 */
export const layerMemory = (options?: { readonly max?: number | undefined }): Layer.Layer<Tickets> =>
  Layer.sync(Tickets, () => unsafeMakeMemory(options))
