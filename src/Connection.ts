/**
 * One open response: the seam between the hub, which writes frames, and HTTP, which carries them. Two implementations
 * give the same bytes: the portable one here, which is a `Stream`, and `node/NodeConnection`.
 *
 * @since 0.1.0
 */
import * as Cause from "effect/Cause"
import * as Chunk from "effect/Chunk"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Stream from "effect/Stream"
import { type Frame, of as frameOf } from "./internal/frame.js"

export type {
  /**
   * Bytes ready to be written to many connections: as they are, and as one HTTP/1.1 chunk.
   *
   * @since 0.1.0
   * @category models
   */
  Frame
} from "./internal/frame.js"

/**
 * Why a connection ended.
 *
 * - `client-closed`: the client went away
 * - `pending-overflow`: more than `maxPendingBytes` waited for the client
 * - `stalled`: something waited longer than `stallTimeout`, or the peer acknowledged nothing for that long
 * - `hub-overflow`: more than `maxTotalPendingBytes` waited for all clients, and most of it for this one
 * - `disconnected`: `hub.disconnect` was called
 * - `evicted`: it was the oldest, and another one came (`whenFull: "evict-oldest"`)
 * - `lifetime`: it was connected as long as `maxLifetime` allows
 * - `expired`: what proved who it is ended, such as a token at its `exp`
 * - `revoked`: `hub.revoke` was called for who it is
 * - `shutdown`: the hub is closing
 * - `failed`: the connection threw
 *
 * @since 0.1.0
 * @category models
 */
export type EndReason = (typeof endReasons)[number]

/**
 * All of them.
 *
 * @since 0.1.0
 * @category constants
 */
export const endReasons = [
  "client-closed",
  "pending-overflow",
  "hub-overflow",
  "stalled",
  "disconnected",
  "evicted",
  "lifetime",
  "expired",
  "revoked",
  "shutdown",
  "failed"
] as const

/**
 * Whether what still waits is thrown away at the end: a client that does not read cannot be waited for.
 *
 * @since 0.1.0
 * @category predicates
 */
export const isAbrupt = (reason: EndReason): boolean =>
  reason === "pending-overflow" || reason === "hub-overflow" || reason === "stalled" || reason === "failed"

/**
 * Why a connection closed, as it says itself: see {@link Connection.onClose}.
 *
 * @since 0.1.0
 * @category models
 */
export type CloseReason = "client-closed" | "stalled" | "shutdown"

/**
 * An open response. All members are synchronous, before and after the end. One that throws is ended; nobody else notices.
 *
 * @since 0.1.0
 * @category models
 */
export interface Connection {
  /**
   * Hands over a frame. Never blocks; after the end it does nothing. Gives the bytes it adds to what waits, counted as
   * {@link Connection.pendingBytes} counts them.
   */
  write(frame: Frame): number
  /** Bytes written but not yet taken by the network. */
  pendingBytes(): number
  /** Ends the response: behind all that waits, or at once if the reason {@link isAbrupt}. */
  end(reason: EndReason): void
  /**
   * Calls the listener, the only one, when the connection has closed, by itself or by {@link Connection.end}: with
   * `stalled` if that was because its peer acknowledged nothing any more. And with `shutdown` when the server behind it
   * wants to close, upon which the hub says goodbye and ends it.
   */
  onClose(listener: (reason: CloseReason) => void): void
  /** Whether keepalives are part of the connection; if not, the hub writes them. */
  readonly keepsItselfAlive: boolean
}

/**
 * A connection that is read as a `Stream`.
 *
 * @since 0.1.0
 * @category models
 */
export interface PortableConnection extends Connection {
  /** The body of the response. It cannot fail; it may be run once. */
  readonly stream: Stream.Stream<Uint8Array>
  /** Tells that the body will not be read (any more): its reader is gone, or it was never sent. */
  close(): void
}

/**
 * Makes a connection that works on any `HttpServer`, in a web handler and under `TestClock`.
 *
 * @param options.keepalive merged into the body; it ends with the connection. `Stream.empty` for none.
 * @param options.onEnd called when the hub ends the connection, to free a reader that is stuck on the network: at once if
 * the end is abrupt, else when it had time to read what waits
 * @param options.closeReason why it closed that nobody here has ended. Default: `client-closed`
 * @since 0.1.0
 * @category constructors
 */
export const makePortable = (options: {
  readonly keepalive: Stream.Stream<string>
  readonly onEnd?: ((abrupt: boolean) => void) | undefined
  readonly closeReason?: (() => CloseReason) | undefined
}): PortableConnection => {
  let queue: Array<Uint8Array> = []
  let waiting = 0
  // Taken by the reader, which asks for more only when the network has taken them.
  let underway = 0
  let state: "open" | "ending" | "closed" = "open"
  let wake: (() => void) | undefined
  let listener: ((reason: CloseReason) => void) | undefined
  const closeReason = options.closeReason ?? (() => "client-closed" as const)

  const close = () => {
    if (state === "closed") return
    state = "closed"
    queue = []
    waiting = underway = 0
    wake?.()
    listener?.(closeReason())
  }
  const push = (bytes: Uint8Array): number => {
    if (state !== "open") return 0
    queue.push(bytes)
    waiting += bytes.length
    wake?.()
    return bytes.length
  }
  const take = (): Effect.Effect<Chunk.Chunk<Uint8Array>, Option.Option<never>> => {
    if (queue.length === 0) return Effect.fail(Option.none())
    const taken = Chunk.unsafeFromArray(queue)
    queue = []
    underway = waiting
    waiting = 0
    return Effect.succeed(taken)
  }
  const pull = Effect.async<Chunk.Chunk<Uint8Array>, Option.Option<never>>((resume) => {
    underway = 0
    if (queue.length > 0 || state !== "open") return resume(Effect.suspend(take))
    wake = () => {
      wake = undefined
      resume(Effect.suspend(take))
    }
    return Effect.sync(() => (wake = undefined))
  })

  return {
    keepsItselfAlive: true,
    write: (frame) => push(frame.bytes),
    pendingBytes: () => waiting + underway,
    end: (reason) => {
      if (state !== "open") return
      if (isAbrupt(reason)) {
        close()
      } else {
        state = "ending"
        wake?.()
      }
      options.onEnd?.(isAbrupt(reason))
    },
    onClose: (onClose) => {
      listener = onClose
      if (state === "closed") onClose(closeReason())
    },
    close,
    // The keepalives are merged by feeding the queue: Stream.merge starts a fiber for each pull of either side, which
    // halves what this connection can carry.
    stream: Stream.unwrapScoped(
      // What waits keeps the connection as busy as a keepalive would, and more must not pile up for a reader that is stuck.
      Stream.runForEach(options.keepalive, (block) =>
        Effect.sync(() => void (waiting + underway === 0 && push(frameOf(block).bytes)))
      ).pipe(
        // A schedule of the app that throws.
        Effect.catchAllDefect((defect) => {
          close()
          return Effect.logError("effect-sse: a keepalive failed", Cause.die(defect))
        }),
        Effect.forkScoped,
        Effect.as(Stream.repeatEffectChunkOption(pull))
      )
    ).pipe(Stream.ensuring(Effect.sync(close)))
  }
}
