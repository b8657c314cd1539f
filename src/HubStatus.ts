/**
 * The hub as operators see it: counts, the last minutes, and its namespaces.
 *
 * @since 0.1.0
 */
import type { EndReason } from "./Connection.js"
import type { Health } from "./EventLog.js"
import type { ClientChange } from "./HubClient.js"
import type { NamespacePattern } from "./NamespacePattern.js"

/**
 * The hub at one moment.
 *
 * @since 0.1.0
 * @category models
 */
export interface HubStatus {
  /** When the hub was made, in ms since 1970. */
  readonly startedAt: number
  /** Whether it still takes clients and events. */
  readonly open: boolean
  /** Whether the log can do its work. */
  readonly log: Health
  /** Connected clients. */
  readonly clients: number
  /** Distinct sets of namespaces that are listened to. */
  readonly subscriptions: number
  /** Events taken by this hub's `publish`. */
  readonly published: number
  /** Events handed to clients, counted once for each client. */
  readonly deliveries: number
  /** Bytes handed to clients. */
  readonly bytes: number
  /** Ended connections by reason. */
  readonly ended: Readonly<Record<EndReason, number>>
}

/**
 * What is looked at once a second. The counts are those since the hub was made: rates are differences.
 *
 * @since 0.1.0
 * @category models
 */
export interface Sample {
  /** When, in ms since 1970. */
  readonly at: number
  readonly clients: number
  readonly published: number
  readonly deliveries: number
  readonly bytes: number
  /** Bytes that wait for clients. */
  readonly pendingBytes: number
  /** Clients for which something waits. */
  readonly slowClients: number
  /** Events the log keeps. */
  readonly historyEvents: number
  /** Resident memory of the process in bytes, where the runtime tells. */
  readonly memoryBytes: number | undefined
  /** How late the event loop ran since the sample before, in ms, where the runtime tells. */
  readonly eventLoopDelay: { readonly p50: number; readonly p99: number; readonly max: number } | undefined
}

/**
 * What happens in a second.
 *
 * @since 0.1.0
 * @category models
 */
export interface Rates {
  readonly publishes: number
  readonly deliveries: number
  readonly bytes: number
}

/**
 * The last minutes.
 *
 * @since 0.1.0
 * @category models
 */
export interface Activity {
  /** One for each second of the last 10 minutes, oldest first. */
  readonly samples: ReadonlyArray<Sample>
  /** The last 50 clients that ended, oldest first. */
  readonly recentEnds: ReadonlyArray<Extract<ClientChange, { readonly _tag: "Disconnected" }>>
}

/**
 * A namespace or pattern that clients listen to, or a namespace that was published to lately.
 *
 * @since 0.1.0
 * @category models
 */
export interface NamespaceStatus {
  readonly namespace: NamespacePattern
  /** Clients that named it; those of the namespaces above, and of patterns that cover it, get its events too. */
  readonly subscribers: number
  /** Events published to it, not to those below, since it was first seen. */
  readonly events: number
  /** When the last of them was handed out, in ms since 1970. */
  readonly lastEventAt: number | undefined
}
