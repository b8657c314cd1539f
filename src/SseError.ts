/**
 * Every error a publisher, a subscriber or an operator can meet. All are tagged, so `Effect.catchTag` tells them apart,
 * and every message says what is wrong with which input.
 *
 * @since 0.1.0
 */
import * as Schema from "effect/Schema"

/**
 * The rule of a namespace that an input broke. See {@link InvalidNamespace}.
 *
 * @since 0.1.0
 * @category errors
 */
export const NamespaceRule = Schema.Literal(
  "no-leading-slash",
  "empty-segment",
  "dot-segment",
  "control-character",
  "bad-percent-encoding",
  "bad-utf8",
  "too-long"
)

const namespaceRules: Record<typeof NamespaceRule.Type, string> = {
  "no-leading-slash": 'a namespace begins with "/"',
  "empty-segment": "a segment is empty (two slashes in a row)",
  "dot-segment": 'the segments "." and ".." are not allowed',
  "control-character": "control characters are not allowed",
  "bad-percent-encoding": '"%" must be followed by two hexadecimal digits',
  "bad-utf8": "the text is not valid UTF-8",
  "too-long": "the namespace is too long"
}

/**
 * A text is not a namespace; `rule` says which rule it broke. `input` is the refused text, cut at 200 characters.
 *
 * @since 0.1.0
 * @category errors
 */
export class InvalidNamespace extends Schema.TaggedError<InvalidNamespace>("effect-sse/InvalidNamespace")(
  "InvalidNamespace",
  { input: Schema.String, rule: NamespaceRule }
) {
  override get message(): string {
    return `invalid namespace ${JSON.stringify(this.input)}: ${namespaceRules[this.rule]}`
  }
}

/**
 * An event cannot be put on the wire. `field` names the field, `reason` says why, and `index` is the event's place in a
 * batch (0 for a single event).
 *
 * @since 0.1.0
 * @category errors
 */
export class InvalidEvent extends Schema.TaggedError<InvalidEvent>("effect-sse/InvalidEvent")("InvalidEvent", {
  field: Schema.Literal("namespace", "event", "data", "id", "retry"),
  reason: Schema.String,
  index: Schema.NonNegativeInt
}) {
  override get message(): string {
    return `invalid event: ${this.field} ${this.reason}`
  }
}

/**
 * The hub has been shut down: nothing was published, nobody was connected.
 *
 * @since 0.1.0
 * @category errors
 */
export class HubClosed extends Schema.TaggedError<HubClosed>("effect-sse/HubClosed")("HubClosed", {}) {
  override get message(): string {
    return "the hub is closed"
  }
}

/**
 * A client was not connected, because so many are already. See `HubOptions` for the limits and for `whenFull`.
 *
 * @since 0.1.0
 * @category errors
 */
export class LimitReached extends Schema.TaggedError<LimitReached>("effect-sse/LimitReached")("LimitReached", {
  limit: Schema.Literal("maxClients", "maxClientsPerAddress", "maxClientsPerNamespace", "maxNamespacesPerClient"),
  max: Schema.NonNegativeInt
}) {
  override get message(): string {
    return `${this.limit} is ${this.max}`
  }
}

/**
 * An in-process subscriber let more than `limit` events wait. Its stream fails with this; nobody else is affected.
 *
 * @since 0.1.0
 * @category errors
 */
export class SubscriberTooSlow extends Schema.TaggedError<SubscriberTooSlow>("effect-sse/SubscriberTooSlow")(
  "SubscriberTooSlow",
  { namespace: Schema.String, limit: Schema.NonNegativeInt }
) {
  override get message(): string {
    return `the subscriber of ${this.namespace} let more than ${this.limit} events wait`
  }
}

/**
 * The event log could not take or give events, for instance because its engine is out of reach.
 *
 * @since 0.1.0
 * @category errors
 */
export class EventLogError extends Schema.TaggedError<EventLogError>("effect-sse/EventLogError")("EventLogError", {
  operation: Schema.Literal("append", "tail", "since"),
  reason: Schema.String,
  /**
   * Of an append: `unknown` if the engine may have taken the events, or may still take them; whoever publishes them again may
   * publish them twice. Left out: it has not, and will not.
   */
  outcome: Schema.optional(Schema.Literal("unknown")),
  cause: Schema.optional(Schema.Defect)
}) {
  override get message(): string {
    const unknown = this.outcome === "unknown" ? "; whether the events were published is not known" : ""
    return `event log: ${this.operation} failed: ${this.reason}${unknown}`
  }
}

/**
 * What a publish can fail with.
 *
 * @since 0.1.0
 * @category errors
 */
export type PublishError = InvalidEvent | HubClosed | EventLogError
