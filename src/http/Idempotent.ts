/**
 * A publish with an `Idempotency-Key` is done once, and answered as often as it comes (IETF
 * draft-ietf-httpapi-idempotency-key-header).
 *
 * @internal
 */
import type * as HttpServerRequest from "@effect/platform/HttpServerRequest"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type { Idempotency } from "../Idempotency.js"
import type { Principal } from "../HubClient.js"
import * as Access from "./Access.js"
import { Refused } from "./body.js"
import { digest } from "./digest.js"
import * as Refusal from "./Refusal.js"

export interface IdempotencyOptions {
  readonly store: Idempotency["Type"]
  readonly windowMillis: number
}

/** The text of an answer, and whether it was given before. */
export interface Answer {
  readonly text: string
  readonly replayed: boolean
}

const refusal = (status: number, error: string, message: string, headers?: Record<string, string>) =>
  new Refused(Refusal.refuse(status, error, message, headers === undefined ? undefined : { headers }))

/** The key of a request, without the quotes that it has as a structured field (RFC 9651 section 3.3.3). */
export const keyOf = (
  request: HttpServerRequest.HttpServerRequest,
  options: IdempotencyOptions | undefined
): Effect.Effect<string | undefined, Refused> => {
  const header = request.headers["idempotency-key"]
  if (header === undefined) return Effect.succeed(undefined)
  if (options === undefined) {
    return Effect.fail(refusal(400, "BadRequest", "this server remembers no keys: publish without Idempotency-Key"))
  }
  const key = /^("?)([\x21\x23-\x7e]{1,255})\1$/.exec(header)?.[2]
  return key === undefined
    ? Effect.fail(refusal(400, "BadRequest", "Idempotency-Key must be 1 to 255 visible ASCII characters"))
    : Effect.succeed(key)
}

/**
 * @param target what is published to, and how: with the body it tells requests from each other
 * @param publish gives the text of the answer
 */
export const once = <E, R>(
  { store, windowMillis }: IdempotencyOptions,
  key: string,
  principal: Principal | undefined,
  target: string,
  body: Uint8Array,
  publish: Effect.Effect<string, E, R>
): Effect.Effect<Answer, E | Refused, R> =>
  Effect.gen(function* () {
    // The key has no line break, so the text is unambiguous.
    const id = yield* digest(`${principal?.id ?? ""}\n${key}`)
    const fingerprint = yield* digest(`${target}\n${yield* digest(body)}`)
    // A client that goes away in between must not leave events that were taken without their answer.
    return yield* Effect.uninterruptible(
      Effect.gen(function* () {
        const known = yield* Effect.mapError(
          store.begin(id, fingerprint, windowMillis),
          (refused) => new Refused(Access.answer(refused))
        )
        switch (known._tag) {
          case "Done":
            return { text: known.answer, replayed: true }
          case "Running":
            return yield* Effect.fail(
              refusal(409, "Conflict", "a request with this Idempotency-Key is being worked on", { "retry-after": "1" })
            )
          case "Different":
            return yield* Effect.fail(
              refusal(422, "IdempotencyKeyReused", "this Idempotency-Key was used for another request")
            )
          case "New":
            return {
              text: yield* Effect.onExit(publish, (exit) =>
                Exit.isSuccess(exit) ? store.finish(id, exit.value) : store.abandon(id)
              ),
              replayed: false
            }
        }
      })
    )
  })
