/**
 * A client as the hub takes and shows it.
 *
 * @since 0.1.0
 */
import type { Connection, EndReason } from "./Connection.js"
import type { Start } from "./EventLog.js"
import type { NamespacePattern } from "./NamespacePattern.js"
import type { Reset } from "./SseEvent.js"

/**
 * Who is behind a request, as a hook of the app or one of `Authorize` found.
 *
 * @since 0.1.0
 * @category models
 */
export interface Principal {
  /** The name under which its streams are revoked. Shown with its clients and logged: never a secret. */
  readonly id: string
  /** When its streams end, in ms since 1970. Default: they do not end by themselves. */
  readonly expiresAt?: number | undefined
  /**
   * When the proof was made, in ms since 1970. Who has one and was revoked since is refused; without one, it is the hook
   * that decides who comes back after `hub.revoke`. 0 if the proof is older than any revocation.
   */
  readonly issuedAt?: number | undefined
  /** What else the app knows of it. Kept and shown as it is; the admin API shows it as JSON. */
  readonly metadata?: unknown
}

/**
 * Who asks to be connected.
 *
 * @since 0.1.0
 * @category models
 */
export interface ConnectRequest {
  /**
   * What it listens to: namespaces, or patterns. One that another covers is dropped: `/pets` and `/pets/dogs` is the same as
   * `/pets`.
   */
  readonly namespaces: readonly [NamespacePattern, ...ReadonlyArray<NamespacePattern>]
  /** The open response. The hub owns it from here on. */
  readonly connection: Connection
  /** The path that was asked for, without the query. */
  readonly requestPath?: string | undefined
  /** The client's address. */
  readonly address?: string | undefined
  /** The client's `User-Agent`. */
  readonly userAgent?: string | undefined
  /** Who it is, where that is known. */
  readonly principal?: Principal | undefined
  /**
   * Where it wants to begin, if the log keeps events: behind the last event it got, or so far back. Left out: from now on, with
   * the latest values of namespaces that keep theirs.
   */
  readonly start?: Start | undefined
}

/**
 * A client that was connected.
 *
 * @since 0.1.0
 * @category models
 */
export interface Connected {
  /** Unique in this hub. */
  readonly id: number
  /** What it is told if it cannot be given all that it missed. It goes on as `afterReset` says. */
  readonly reset: Reset | undefined
}

/**
 * A connected client, as seen at one moment.
 *
 * @since 0.1.0
 * @category models
 */
export interface ClientStatus {
  /** Unique in this hub. */
  readonly id: number
  /** What it listens to. */
  readonly namespaces: ReadonlyArray<NamespacePattern>
  /** Cut at 512 characters, as is the user agent. */
  readonly requestPath: string
  readonly address: string
  readonly userAgent: string
  /** The id of its principal; `undefined` if it has none. */
  readonly principal: string | undefined
  /** When it will be ended, in ms since 1970; `undefined` if never. */
  readonly expiresAt: number | undefined
  /** The principal's metadata; `undefined` if there is none. */
  readonly metadata: unknown
  /** When it connected, in ms since 1970. */
  readonly connectedAt: number
  /** Events sent to it. */
  readonly events: number
  /** Bytes sent to it by the hub. HTTP framing is not counted, nor are keepalives that the connection sends itself. */
  readonly bytes: number
  /** Bytes that wait for it. */
  readonly pendingBytes: number
}

/**
 * A client came or went.
 *
 * @since 0.1.0
 * @category models
 */
export type ClientChange =
  | { readonly _tag: "Connected"; readonly client: ClientStatus }
  | {
      readonly _tag: "Disconnected"
      readonly client: ClientStatus
      readonly reason: EndReason
      /** When it ended, in ms since 1970. */
      readonly endedAt: number
    }

/**
 * Who is there: first a `Joined` for each client that is, then those who come and go.
 *
 * @since 0.1.0
 * @category models
 */
export type Presence =
  | {
      readonly _tag: "Joined"
      readonly client: ClientStatus
      /** Whether it was there when the stream began. */
      readonly wasThere: boolean
    }
  | { readonly _tag: "Left"; readonly client: ClientStatus; readonly reason: EndReason }
