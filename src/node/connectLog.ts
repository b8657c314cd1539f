/**
 * A log line for each connect and disconnect.
 *
 * @internal
 */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Fiber from "effect/Fiber"
import * as FiberRef from "effect/FiberRef"
import * as LogLevel from "effect/LogLevel"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import type { ClientChange } from "../HubClient.js"
import type { SseHub } from "../SseHub.js"

/**
 * Writes them from now on until the hub has shut down; none when the least log level is above `Info`.
 *
 * @returns the fiber that does
 */
export const start = (hub: SseHub["Type"]): Effect.Effect<Fiber.Fiber<void>, never, Scope.Scope> =>
  Effect.gen(function* () {
    return yield* Effect.forkScoped((yield* isLogged) ? Stream.runForEach(yield* hub.changes, logChange) : Effect.void)
  })

/** To make a line that nobody reads costs as much as a connect. */
const isLogged = Effect.map(FiberRef.get(FiberRef.currentMinimumLogLevel), LogLevel.lessThanEqual(LogLevel.Info))

const logChange = (change: ClientChange): Effect.Effect<void> => {
  const { address, events, id, namespaces, principal } = change.client
  const who = {
    client: id,
    namespace: namespaces.map(visible).join(" "),
    address,
    ...(principal === undefined ? {} : { principal: visible(principal) })
  }
  return change._tag === "Connected"
    ? Effect.logInfo("connected").pipe(Effect.annotateLogs(who))
    : Effect.logInfo("disconnected").pipe(
        Effect.annotateLogs({
          ...who,
          duration: Duration.format(Duration.millis(change.endedAt - change.client.connectedAt)),
          events,
          reason: change.reason
        })
      )
}

/**
 * Characters that would end the line, that a terminal obeys or does not show, or that turn the direction of what it shows, as
 * escapes. A principal's id may hold any.
 */
const visible = (text: string): string =>
  text.replace(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/gu, (char) => `\\u{${char.codePointAt(0)!.toString(16)}}`)
