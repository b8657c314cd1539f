/**
 * What nodes tell each other, as JSON.
 *
 * @internal
 */
import * as Either from "effect/Either"
import * as Schema from "effect/Schema"
import { endReasons } from "../../Connection.js"
import type { ClientStatus } from "../../HubClient.js"
import type { NamespacePattern } from "../../NamespacePattern.js"
import type { NodeStatus } from "../../Nodes.js"
import { json } from "../json.js"

const optional = <A, I>(schema: Schema.Schema<A, I>) =>
  Schema.optionalWith(Schema.UndefinedOr(schema), { default: () => undefined })

const pattern = Schema.String as Schema.Schema<string> as unknown as Schema.Schema<NamespacePattern, string>

const Reason = Schema.Literal(...endReasons)

const Health = Schema.Union(
  Schema.Struct({ status: Schema.Literal("ok") }),
  Schema.Struct({ status: Schema.Literal("degraded"), reason: Schema.String, since: Schema.Number })
)

/** Of another release, which may know reasons that this one does not, those that are known count. */
const Ended = Schema.Struct(
  Object.fromEntries(
    endReasons.map((reason) => [reason, Schema.optionalWith(Schema.Number, { default: () => 0 })])
  ) as Record<(typeof endReasons)[number], Schema.optionalWith<typeof Schema.Number, { default: () => number }>>
)

const Status = Schema.Struct({
  id: Schema.String,
  name: Schema.String,
  pid: optional(Schema.Number),
  version: Schema.String,
  reportedAt: Schema.Number,
  rates: Schema.Struct({ publishes: Schema.Number, deliveries: Schema.Number, bytes: Schema.Number }),
  pendingBytes: Schema.Number,
  slowClients: Schema.Number,
  memoryBytes: optional(Schema.Number),
  startedAt: Schema.Number,
  open: Schema.Boolean,
  log: Health,
  clients: Schema.Number,
  subscriptions: Schema.Number,
  published: Schema.Number,
  deliveries: Schema.Number,
  bytes: Schema.Number,
  ended: Ended
})

const Client = Schema.Struct({
  id: Schema.Number,
  namespaces: Schema.Array(pattern),
  requestPath: Schema.String,
  address: Schema.String,
  userAgent: Schema.String,
  principal: optional(Schema.String),
  expiresAt: optional(Schema.Number),
  metadata: Schema.optionalWith(Schema.Unknown, { default: () => undefined }),
  connectedAt: Schema.Number,
  events: Schema.Number,
  bytes: Schema.Number,
  pendingBytes: Schema.Number
})

const Operation = Schema.Union(
  Schema.TaggedStruct("Clients", {
    query: Schema.Struct({
      namespace: Schema.optional(pattern),
      filter: Schema.optional(Schema.String),
      sort: Schema.optional(Schema.Literal("age", "events", "pendingBytes")),
      after: Schema.optional(Schema.Number),
      limit: Schema.optional(Schema.Number)
    })
  }),
  Schema.TaggedStruct("Disconnect", { client: Schema.Number }),
  Schema.TaggedStruct("Revoke", {
    principal: Schema.String,
    at: Schema.Number,
    ageMillis: Schema.Number,
    rememberMillis: Schema.Number
  })
)

/** What one node asks of another. */
export type Operation = typeof Operation.Type

/** The answer to `Clients`. */
export const Clients = Schema.Struct({
  total: Schema.Number,
  matching: Schema.Number,
  clients: Schema.Array(Client),
  next: optional(Schema.Number)
})

const Seen = Schema.Union(
  Schema.TaggedStruct("Joined", { client: Client, wasThere: Schema.Boolean }),
  Schema.TaggedStruct("Left", { client: Client, reason: Reason })
)

const Message = Schema.Union(
  Schema.TaggedStruct("Ask", { from: Schema.String, number: Schema.Number, operation: Operation }),
  Schema.TaggedStruct("Answer", { from: Schema.String, number: Schema.Number, value: Schema.Unknown }),
  Schema.TaggedStruct("Failed", { from: Schema.String, number: Schema.Number, reason: Schema.String }),
  /** All that a node follows on others. What is not named any more is over. */
  Schema.TaggedStruct("Follow", {
    from: Schema.String,
    sessions: Schema.Array(Schema.Struct({ session: Schema.String, namespace: pattern }))
  }),
  /** What is seen for a session; the number tells that none is missing. `live`: those who were there have been told. */
  Schema.TaggedStruct("Seen", {
    from: Schema.String,
    session: Schema.String,
    number: Schema.Number,
    seen: Schema.Array(Seen),
    live: Schema.Boolean
  }),
  /** Nothing was seen; the number is that of the next message. */
  Schema.TaggedStruct("Quiet", { from: Schema.String, session: Schema.String, number: Schema.Number })
)

export type Message = typeof Message.Type

const readStatus = Schema.decodeUnknownEither(Schema.parseJson(Status))
const readMessage = Schema.decodeUnknownEither(Schema.parseJson(Message))

/** `undefined`: it is of a release that this one does not understand, or of somebody else. */
export const decodeStatus = (text: string): NodeStatus | undefined => Either.getOrUndefined(readStatus(text))

export const decode = (text: string): Message | undefined => Either.getOrUndefined(readMessage(text))

export const encode = (message: Message): string => JSON.stringify(message)

/** As JSON carries it. */
export const plain = (client: ClientStatus): ClientStatus => ({
  ...client,
  expiresAt: Number.isFinite(client.expiresAt) ? client.expiresAt : undefined,
  metadata: client.metadata === undefined ? undefined : (JSON.parse(json(client.metadata)) as unknown)
})
