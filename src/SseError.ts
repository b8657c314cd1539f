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
 * A request was refused, or a client not connected, for who is behind it: what an `Authorize` hook fails with.
 *
 * - `unauthenticated`: it does not say who it is, or does not prove it; 401
 * - `forbidden`: it may not; 403
 * - `unavailable`: this cannot be told now. A subscriber is told to come back, others get 503.
 *
 * The `reason` is sent to the client: it must hold no secret. `challenge` is what `WWW-Authenticate` says with a 401
 * (RFC 9110 section 11.6.1); `Bearer` if not given.
 *
 * @since 0.1.0
 * @category errors
 */
export class Refused extends Schema.TaggedError<Refused>("effect-sse/Refused")("Refused", {
  kind: Schema.Literal("unauthenticated", "forbidden", "unavailable"),
  reason: Schema.String,
  challenge: Schema.optional(Schema.String)
}) {
  override get message(): string {
    return this.reason
  }
}

/**
 * The server cannot use its TLS key or certificate. `reason` says why, and nothing of what is in them.
 *
 * @since 0.1.0
 * @category errors
 */
export class TlsError extends Schema.TaggedError<TlsError>("effect-sse/TlsError")("TlsError", {
  reason: Schema.String
}) {
  override get message(): string {
    return `TLS: ${this.reason}`
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
   * publish them twice. `partial`: some were published, the others not, or it is not known; a log in shards can say so of
   * events of several shards. Left out: it has not, and will not.
   */
  outcome: Schema.optional(Schema.Literal("unknown", "partial")),
  cause: Schema.optional(Schema.Defect)
}) {
  override get message(): string {
    return `event log: ${this.operation} failed: ${this.reason}${outcomes[this.outcome ?? "none"]}`
  }
}

const outcomes = {
  none: "",
  unknown: "; whether the events were published is not known",
  partial: "; some of the events were published, whether the others were is not known"
}

/**
 * The way between nodes could not carry something, for instance because its engine is out of reach.
 *
 * @since 0.1.0
 * @category errors
 */
export class NodeBusError extends Schema.TaggedError<NodeBusError>("effect-sse/NodeBusError")("NodeBusError", {
  reason: Schema.String
}) {
  override get message(): string {
    return `the other nodes are out of reach: ${this.reason}`
  }
}

/**
 * No node with this id reports: it never was, has ended, or has been silent for too long.
 *
 * @since 0.1.0
 * @category errors
 */
export class UnknownNode extends Schema.TaggedError<UnknownNode>("effect-sse/UnknownNode")("UnknownNode", {
  node: Schema.String
}) {
  override get message(): string {
    return `there is no node ${JSON.stringify(this.node.slice(0, 100))}`
  }
}

/**
 * Another node was asked for something in vain.
 *
 * - `no-connection`: the way to the others is down; it was not asked
 * - `no-answer`: it did not answer in time, and may have done it, or do it yet
 * - `failed`: it could not do it
 *
 * @since 0.1.0
 * @category errors
 */
export class NodeUnreachable extends Schema.TaggedError<NodeUnreachable>("effect-sse/NodeUnreachable")(
  "NodeUnreachable",
  { node: Schema.String, kind: Schema.Literal("no-connection", "no-answer", "failed"), reason: Schema.String }
) {
  override get message(): string {
    return `node ${this.node}: ${this.reason}`
  }
}

/**
 * More clients of other nodes are there than the presence over nodes follows (`limit`), or more such streams are open on this
 * node than it may have.
 *
 * @since 0.1.0
 * @category errors
 */
export class PresenceLimit extends Schema.TaggedError<PresenceLimit>("effect-sse/PresenceLimit")("PresenceLimit", {
  limit: Schema.Literal("clients", "streams"),
  max: Schema.NonNegativeInt
}) {
  override get message(): string {
    return `presence over nodes: more than ${this.max} ${this.limit}`
  }
}

/**
 * What a publish can fail with.
 *
 * @since 0.1.0
 * @category errors
 */
export type PublishError = InvalidEvent | HubClosed | EventLogError

/**
 * A value, or the parameters of the namespace, do not fit the definition of an `SseChannel`: nothing was published.
 * `channel` is its namespace as it was defined, `part` says what does not fit, `reason` why, and `index` is the value's
 * place in a batch (0 for a single one).
 *
 * @since 0.1.0
 * @category errors
 */
export class ChannelEncodeError extends Schema.TaggedError<ChannelEncodeError>("effect-sse/ChannelEncodeError")(
  "ChannelEncodeError",
  {
    channel: Schema.String,
    part: Schema.Literal("params", "value"),
    reason: Schema.String,
    index: Schema.NonNegativeInt
  }
) {
  override get message(): string {
    return `channel ${this.channel}: the ${this.part} cannot be encoded: ${this.reason}`
  }
}

/**
 * An event does not fit the definition of an `SseChannel`: its name, the parameters in its namespace, or the value in its
 * data. `channel` is the namespace as it was defined, `part` says what does not fit, and `reason` why.
 *
 * @since 0.1.0
 * @category errors
 */
export class ChannelDecodeError extends Schema.TaggedError<ChannelDecodeError>("effect-sse/ChannelDecodeError")(
  "ChannelDecodeError",
  {
    channel: Schema.String,
    part: Schema.Literal("event", "params", "value"),
    reason: Schema.String
  }
) {
  override get message(): string {
    return `channel ${this.channel}: the ${this.part} cannot be decoded: ${this.reason}`
  }
}

/**
 * The server refused a client's request with a status that another attempt does not mend: not 200, 204, 408, 425, 429 or
 * 5xx. `body` is the beginning of its answer, at most 1,024 characters.
 *
 * @since 0.1.0
 * @category errors
 */
export class RequestRefused extends Schema.TaggedError<RequestRefused>("effect-sse/RequestRefused")("RequestRefused", {
  status: Schema.Int,
  body: Schema.String
}) {
  override get message(): string {
    return `the server answered ${this.status}${this.body === "" ? "" : `: ${this.body.replace(/\s+/g, " ")}`}`
  }
}

/**
 * The server answered 200 with something else than an event stream. `contentType` is what it said it is, empty if nothing.
 *
 * @since 0.1.0
 * @category errors
 */
export class NotAnEventStream extends Schema.TaggedError<NotAnEventStream>("effect-sse/NotAnEventStream")(
  "NotAnEventStream",
  { contentType: Schema.String }
) {
  override get message(): string {
    return `expected text/event-stream, got ${this.contentType === "" ? "no content type" : this.contentType}`
  }
}

/**
 * An event of the server is larger than `limit` bytes. See `ClientOptions.maxEventBytes`.
 *
 * @since 0.1.0
 * @category errors
 */
export class EventTooLarge extends Schema.TaggedError<EventTooLarge>("effect-sse/EventTooLarge")("EventTooLarge", {
  limit: Schema.Number
}) {
  override get message(): string {
    return `an event is larger than ${this.limit} bytes`
  }
}

/**
 * A client's schedule of reconnects came to its end. The fields say why there was no connection the last time; see
 * `SseClient.Disconnection`.
 *
 * @since 0.1.0
 * @category errors
 */
export class ReconnectsExhausted extends Schema.TaggedError<ReconnectsExhausted>("effect-sse/ReconnectsExhausted")(
  "ReconnectsExhausted",
  {
    reason: Schema.Literal("ended", "broken", "silent", "refused", "unreachable"),
    status: Schema.UndefinedOr(Schema.Int),
    cause: Schema.Defect
  }
) {
  override get message(): string {
    return `gave up reconnecting; the last connection: ${this.reason}${this.status === undefined ? "" : ` (${this.status})`}`
  }
}

/**
 * A client's request cannot be sent, for instance because its URL is none.
 *
 * @since 0.1.0
 * @category errors
 */
export class InvalidRequest extends Schema.TaggedError<InvalidRequest>("effect-sse/InvalidRequest")("InvalidRequest", {
  cause: Schema.Defect
}) {
  override get message(): string {
    return `invalid request: ${this.cause instanceof Error ? this.cause.message : String(this.cause)}`
  }
}

/**
 * What a client's stream can fail with: what another attempt cannot mend.
 *
 * @since 0.1.0
 * @category errors
 */
export type SseClientError = RequestRefused | NotAnEventStream | EventTooLarge | ReconnectsExhausted | InvalidRequest
