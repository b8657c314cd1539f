/** A log in memory, one of whose questions about its history is never answered but by a failure. */
import { EventLog, SseError } from "effect-sse"
import { Effect, Layer } from "effect"

export const failingLog = (question: "locate" | "read"): Layer.Layer<EventLog.EventLog> =>
  Layer.effect(
    EventLog.EventLog,
    Effect.map(EventLog.makeMemory(true), (log) => ({
      ...log,
      history: {
        ...log.history!,
        [question]: () => Effect.fail(new SseError.EventLogError({ operation: "since", reason: "down" }))
      }
    }))
  )
