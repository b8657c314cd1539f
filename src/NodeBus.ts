/**
 * The way between nodes: how hubs that share a log tell each other how they are, and ask each other for what one alone cannot
 * do. Without one a hub is alone, and pays nothing.
 *
 * It is the seam for engines, as `EventLog` is for events: `NodeBus/Redis` is one. It carries text that only hubs understand;
 * what they make of it is `Nodes`.
 *
 * @since 0.1.0
 */
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type * as Scope from "effect/Scope"
import type { NodeBusError } from "./SseError.js"

/**
 * A principal whose streams are to end, and whose proofs of before are refused. See `revoke` of `SseHub`.
 *
 * @since 0.1.0
 * @category models
 */
export interface Revocation {
  readonly principal: string
  /** When it was revoked, in ms since 1970, by the clock of the node that did so. */
  readonly at: number
  /** How long ago that was, in ms: nodes' clocks may differ. */
  readonly ageMillis: number
  /** For how long it is remembered from then on, in ms. */
  readonly rememberMillis: number
}

/**
 * What one hub does on the bus, once it has joined.
 *
 * @since 0.1.0
 * @category models
 */
export interface Member {
  /**
   * Tells how this node is; others see it for as long as the bus says. In the same step it is given what was revoked behind
   * `after` (empty: all that is remembered), oldest first, at most some thousand: it asks again until there is nothing new.
   * One step, so that whoever revokes something either finds this node among those that report, or is read by it.
   */
  readonly report: (
    status: string,
    after: string
  ) => Effect.Effect<{ readonly revocations: ReadonlyArray<Revocation>; readonly after: string }, NodeBusError>
  /** The last reports of the nodes that have reported lately. */
  readonly reports: Effect.Effect<ReadonlyArray<string>, NodeBusError>
  /** Sends to a node, or to all, this one too. It may be lost; what arrives does so once, in the order in which it was sent. */
  readonly send: (to: string | undefined, message: string) => Effect.Effect<void, NodeBusError>
  /** Has it remembered for nodes that read it later; at least the last 100,000. */
  readonly remember: (revocation: Revocation) => Effect.Effect<void, NodeBusError>
}

/**
 * How a hub reports and asks.
 *
 * @since 0.1.0
 * @category models
 */
export interface NodeOptions {
  /** What people call this node. Default: what the engine finds, such as the host's name. */
  readonly name?: string | undefined
  /** How often it reports. Default: every second. */
  readonly reportEvery?: Duration.DurationInput | undefined
  /** How long it is known after its last report. Default: 5 seconds. All nodes should have the same. */
  readonly expireAfter?: Duration.DurationInput | undefined
  /** How long it waits for the answer of another. Default: 2 seconds. */
  readonly answerTimeout?: Duration.DurationInput | undefined
}

/**
 * The same with defaults, in ms.
 *
 * @since 0.1.0
 * @category models
 */
export interface NodeSettings {
  readonly name: string
  readonly reportMillis: number
  readonly expireMillis: number
  readonly answerMillis: number
}

/**
 * The way between nodes.
 *
 * @since 0.1.0
 * @category models
 */
export interface Bus extends NodeSettings {
  /**
   * Joins under an id that nobody else has, until the scope closes; it is then gone at once. `onMessage` gets what is sent to
   * it, synchronously, and must not throw.
   */
  readonly join: (id: string, onMessage: (message: string) => void) => Effect.Effect<Member, never, Scope.Scope>
}

/**
 * The bus of the hubs that are made under it; `undefined`, the default: they are alone.
 *
 * @since 0.1.0
 * @category services
 */
export class NodeBus extends Context.Reference<NodeBus>()("effect-sse/NodeBus", {
  defaultValue: (): Bus | undefined => undefined
}) {}

/**
 * Fills in the defaults.
 *
 * @throws Error if an option is out of its range
 * @since 0.1.0
 * @category conversions
 */
export const settings = (options: NodeOptions, name: string): NodeSettings => {
  const time = (name: string, value: Duration.DurationInput) => {
    const millis = Duration.toMillis(value)
    if (!(millis >= 10 && millis < 2 ** 30))
      throw new Error(`${name} is ${millis} ms; it must be from 10 ms to 12 days`)
    return millis
  }
  const made = {
    name: options.name ?? name,
    reportMillis: time("reportEvery", options.reportEvery ?? "1 second"),
    expireMillis: time("expireAfter", options.expireAfter ?? "5 seconds"),
    answerMillis: time("answerTimeout", options.answerTimeout ?? "2 seconds")
  }
  if (made.expireMillis < 2 * made.reportMillis) throw new Error("expireAfter must be at least twice reportEvery")
  return made
}

/** Revocations that are kept at most. */
const maxRevocations = 100_000

/** Those that are read in one go. */
const pageSize = 1000

/**
 * A bus for hubs of one process: for tests, and for those who hold it for other processes.
 *
 * @throws Error as a defect, if an option is out of its range
 * @since 0.1.0
 * @category constructors
 */
export const makeMemory = (options: NodeOptions = {}): Effect.Effect<Bus> =>
  Effect.sync(() => {
    const chosen = settings(options, "memory")
    const members = new Map<string, (message: string) => void>()
    const reports = new Map<string, { readonly status: string; readonly until: number }>()
    // By number, in order.
    const kept = new Map<number, Revocation & { readonly keptAt: number }>()
    let last = 0
    const forget = (now: number) => {
      for (const [number, { ageMillis, keptAt, rememberMillis }] of kept) {
        if (keptAt - ageMillis + rememberMillis > now && kept.size <= maxRevocations) return
        kept.delete(number)
      }
    }
    return {
      ...chosen,
      join: (id, onMessage) =>
        Effect.acquireRelease(
          Effect.sync(() => {
            members.set(id, onMessage)
            return {
              report: (status, after) =>
                Effect.map(Clock.currentTimeMillis, (now) => {
                  reports.set(id, { status, until: now + chosen.expireMillis })
                  forget(now)
                  const page: Array<Revocation> = []
                  let seen = Number(after)
                  for (const [number, { keptAt, ...revocation }] of kept) {
                    if (number <= seen) continue
                    if (page.length === pageSize) break
                    seen = number
                    page.push({ ...revocation, ageMillis: revocation.ageMillis + now - keptAt })
                  }
                  return { revocations: page, after: String(seen) }
                }),
              reports: Effect.map(Clock.currentTimeMillis, (now) => {
                for (const [id, { until }] of reports) if (until <= now) reports.delete(id)
                return Array.from(reports.values(), ({ status }) => status)
              }),
              send: (to, message) =>
                Effect.sync(() => {
                  if (to !== undefined) members.get(to)?.(message)
                  else for (const member of members.values()) member(message)
                }),
              remember: (revocation) =>
                Effect.map(Clock.currentTimeMillis, (now) => {
                  kept.set(++last, { ...revocation, keptAt: now })
                  forget(now)
                })
            } satisfies Member
          }),
          () =>
            Effect.sync(() => {
              members.delete(id)
              reports.delete(id)
            })
        )
    }
  })

/**
 * The bus in memory as a layer: hubs under the same layer know each other.
 *
 * @since 0.1.0
 * @category layers
 */
export const layerMemory = (options?: NodeOptions): Layer.Layer<NodeBus> => Layer.effect(NodeBus, makeMemory(options))
