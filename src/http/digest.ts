/**
 * SHA-256 in hexadecimal.
 *
 * @internal
 */
import * as Effect from "effect/Effect"

export const digest = (content: string | Uint8Array): Effect.Effect<string> =>
  Effect.map(
    Effect.promise(() =>
      crypto.subtle.digest(
        "SHA-256",
        typeof content === "string" ? new TextEncoder().encode(content) : new Uint8Array(content)
      )
    ),
    (bytes) => Array.from(new Uint8Array(bytes), (byte) => byte.toString(16).padStart(2, "0")).join("")
  )
