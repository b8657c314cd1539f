/**
 * Publishing over HTTP twice what was meant to be published once: what is remembered of requests with an `Idempotency-Key`.
 *
 * A publisher that got no answer cannot know whether its events were taken. It sends the same request with the same key again,
 * and gets the answer of the first one (IETF draft-ietf-httpapi-idempotency-key-header).
 *
 * @since 0.1.0
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type { Refused } from "./SseError.js"

/**
 * What is known of a key:
 *
 * - `New`: nothing. From now on it is being worked on, until `finish` or `abandon`.
 * - `Running`: a request with it is being worked on
 * - `Done`: a request with it was answered so
 * - `Different`: it was used for another request
 *
 * @since 0.1.0
 * @category models
 */
export type Known =
  | { readonly _tag: "New" }
  | { readonly _tag: "Running" }
  | { readonly _tag: "Done"; readonly answer: string }
  | { readonly _tag: "Different" }

/**
 * Remembers answers for a while. Keys are SHA-256 digests of who publishes and the key that he sent, fingerprints of the
 * request; both in hexadecimal. Only requests whose events were taken are remembered. A store that many servers share makes a
 * repeated publish deliver once whichever of them it reaches.
 *
 * @since 0.1.0
 * @category services
 */
export class Idempotency extends Context.Tag("effect-sse/Idempotency")<
  Idempotency,
  {
    /** What is known of a key; in the same step, of two who ask, one gets `New`. What is kept goes after so many ms. */
    readonly begin: (key: string, fingerprint: string, millis: number) => Effect.Effect<Known, Refused>
    /** The events were taken, and this is the answer. */
    readonly finish: (key: string, answer: string) => Effect.Effect<void>
    /** Nothing was taken: the key may be used again. */
    readonly abandon: (key: string) => Effect.Effect<void>
  }
>() {}

/** What is kept of one key. */
interface Kept {
  readonly fingerprint: string
  readonly until: number
  /** `undefined` while it is being worked on. */
  answer: string | undefined
}

/** About what one takes besides its answer. */
const overhead = 400

/**
 * Keeps answers in the memory of this process. The oldest goes when there are too many.
 *
 * @param options.max keys that are kept at most. Default: 10,000
 * @param options.maxBytes bytes that they take at most, about. Default: 16 MiB
 * @since 0.1.0
 * @category constructors
 */
export const unsafeMakeMemory = (options?: {
  readonly max?: number | undefined
  readonly maxBytes?: number | undefined
}): Idempotency["Type"] => {
  const { max = 10_000, maxBytes = 16 * 1024 * 1024 } = options ?? {}
  // In the order of asking, which is that in which their times are over.
  const kept = new Map<string, Kept>()
  let bytes = 0
  const sizeOf = ({ answer = "" }: Kept) => overhead + answer.length
  const forget = (key: string) => {
    const one = kept.get(key)
    if (one === undefined) return
    bytes -= sizeOf(one)
    kept.delete(key)
  }
  const makeRoom = (now: number) => {
    for (const [key, { answer, until }] of kept) {
      if (until > now && kept.size <= max && bytes <= maxBytes) return
      // What is being worked on is not forgotten: its repetition would be published.
      if (answer !== undefined || until <= now) forget(key)
    }
  }
  return {
    begin: (key, fingerprint, millis) =>
      Effect.clockWith((clock) =>
        Effect.sync((): Known => {
          const now = clock.unsafeCurrentTimeMillis()
          const known = kept.get(key)
          if (known !== undefined && known.until > now) {
            if (known.fingerprint !== fingerprint) return { _tag: "Different" }
            return known.answer === undefined ? { _tag: "Running" } : { _tag: "Done", answer: known.answer }
          }
          forget(key)
          const one: Kept = { fingerprint, until: now + millis, answer: undefined }
          kept.set(key, one)
          bytes += sizeOf(one)
          makeRoom(now)
          return { _tag: "New" }
        })
      ),
    finish: (key, answer) =>
      Effect.clockWith((clock) =>
        Effect.sync(() => {
          const one = kept.get(key)
          if (one === undefined) return
          one.answer = answer
          bytes += answer.length
          makeRoom(clock.unsafeCurrentTimeMillis())
        })
      ),
    abandon: (key) => Effect.sync(() => forget(key))
  }
}

/**
 * As {@link unsafeMakeMemory}, as a layer. Routes remember so by themselves; this is for those who hand the same store to
 * several.
 *
 * @since 0.1.0
 * @category layers
 */
export const layerMemory = (options?: {
  readonly max?: number | undefined
  readonly maxBytes?: number | undefined
}): Layer.Layer<Idempotency> => Layer.sync(Idempotency, () => unsafeMakeMemory(options))
