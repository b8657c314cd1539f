/**
 * The whole body of a request, up to a size.
 *
 * @internal
 */
import type * as HttpServerRequest from "@effect/platform/HttpServerRequest"
import type * as HttpServerResponse from "@effect/platform/HttpServerResponse"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Stream from "effect/Stream"
import * as Refusal from "./Refusal.js"

/** A request that is refused, with the answer. */
export class Refused {
  readonly _tag = "Refused"
  constructor(readonly response: HttpServerResponse.HttpServerResponse) {}
}

/** How long, and how much of, a body that is too large is still read after it was refused. */
const lingerTime = "5 seconds"
const lingerBytes = 16 * 1024 * 1024

export const readBody = (
  request: HttpServerRequest.HttpServerRequest,
  maxBytes: number
): Effect.Effect<Uint8Array, Refused> => {
  const tooLarge = new Refused(
    Refusal.refuse(413, "BodyTooLarge", `the body is larger than ${maxBytes} bytes`, { details: { maxBytes } })
  )
  if (Number(request.headers["content-length"] ?? 0) > maxBytes) return Effect.fail(tooLarge)
  return Effect.gen(function* () {
    const result = yield* Deferred.make<Uint8Array, Refused>()
    const parts: Array<Uint8Array> = []
    let size = 0
    // In a fiber of its own: to stop reading closes the connection, and the client would not see why. What comes after a
    // refusal is read for a while, and dropped.
    yield* request.stream.pipe(
      Stream.takeWhile(() => size <= maxBytes + lingerBytes),
      Stream.runForEach((part) => {
        size += part.length
        if (size <= maxBytes) parts.push(part)
        return size > maxBytes ? Deferred.fail(result, tooLarge) : Effect.void
      }),
      Effect.catchTag("RequestError", (error) =>
        // A request without a body is an event with empty data.
        error.description === "can not create stream from empty body" ? Effect.void : Deferred.fail(result, unreadable)
      ),
      Effect.andThen(
        Effect.suspend(() => (size > maxBytes ? Effect.void : Deferred.succeed(result, concat(parts, size))))
      ),
      Effect.raceFirst(Effect.zipRight(Effect.exit(Deferred.await(result)), Effect.sleep(lingerTime))),
      Effect.forkDaemon
    )
    return yield* Deferred.await(result)
  })
}

const unreadable = new Refused(Refusal.refuse(400, "BadRequest", "the body could not be read"))

const concat = (parts: ReadonlyArray<Uint8Array>, size: number): Uint8Array => {
  const whole = new Uint8Array(size)
  let offset = 0
  for (const part of parts) {
    whole.set(part, offset)
    offset += part.length
  }
  return whole
}
