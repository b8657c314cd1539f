/**
 * What is sent and answered as JSON: read by the handlers, and told by the OpenAPI document.
 *
 * @internal
 */
import * as Schema from "effect/Schema"
import { endReasons } from "../Connection.js"

const says = <A, I, R>(schema: Schema.Schema<A, I, R>, description: string): Schema.Schema<A, I, R> =>
  schema.annotations({ description })

const namespace = says(Schema.String, "where it is published: a path such as /pets/dogs, percent-encoded or not")

const fields = {
  event: Schema.optional(says(Schema.String, "the name that listeners are called by; not given: message")),
  data: Schema.optional(says(Schema.String, "the text that clients get")),
  json: Schema.optional(says(Schema.Unknown, "instead of data: any JSON value, which clients get as its text")),
  id: Schema.optional(says(Schema.String, "an id of your own: 1 to 128 visible ASCII characters")),
  retry: Schema.optional(says(Schema.Number, "ms after which clients that lose their connection come back"))
}

const oneOfBoth = <
  S extends Schema.Schema.Any & { readonly Type: { readonly data?: unknown; readonly json?: unknown } }
>(
  schema: S
) =>
  schema.pipe(
    Schema.filter(
      ({ data, json }) => (data === undefined) !== (json === undefined) || "give data or json, one of them",
      {
        jsonSchema: { allOf: [{ oneOf: [{ required: ["data"] }, { required: ["json"] }] }] }
      }
    )
  )

/** An event as it is published, where it need not say where. */
export const Event = oneOfBoth(Schema.Struct({ namespace: Schema.optional(namespace), ...fields }))

/** One that has to. */
export const PlacedEvent = oneOfBoth(Schema.Struct({ namespace, ...fields })).annotations({ identifier: "Event" })

export const Batch = Schema.Struct({ events: Schema.NonEmptyArray(PlacedEvent) }).annotations({ identifier: "Batch" })

export const Position = Schema.Struct({
  position: says(Schema.String, "its place in the order of all events")
}).annotations({ identifier: "Position" })

export const Positions = Schema.Struct({
  positions: says(Schema.Array(Schema.String), "the places of the events, in the order in which they were sent")
}).annotations({ identifier: "Positions" })

/** What every refusal has. It may have fields that say where. */
export const Refusal = Schema.Struct(
  { error: says(Schema.String, "a name for programs"), message: says(Schema.String, "a sentence for people") },
  { key: Schema.String, value: Schema.Unknown }
).annotations({ identifier: "Refusal" })

const counts = Schema.Number

export const Namespace = Schema.Struct({
  namespace: Schema.String,
  subscribers: counts,
  publishes: counts,
  last_event_at: Schema.NullOr(Schema.Number)
}).annotations({ identifier: "Namespace" })

export const Connection = Schema.Struct({
  request_path: Schema.String,
  namespace: says(Schema.String, "what it listens to, with spaces between"),
  created_at: says(Schema.Number, "seconds since 1970"),
  client_ip: Schema.String,
  user_agent: Schema.String,
  msgs_sent: counts,
  id: says(Schema.Number, "unique on its node"),
  node_id: says(Schema.String, "the node that it is connected to"),
  bytes_sent: counts,
  pending_bytes: counts,
  principal: Schema.optional(Schema.String),
  metadata: Schema.optional(says(Schema.Unknown, "what the app knows of it"))
}).annotations({ identifier: "Connection" })

const Log = Schema.Union(
  Schema.Struct({ status: Schema.Literal("ok") }),
  Schema.Struct({
    status: Schema.Literal("degraded"),
    reason: Schema.String,
    since: says(Schema.Number, "seconds since 1970")
  })
)

const Rates = Schema.Struct({ publishes: Schema.Number, deliveries: Schema.Number, bytes: Schema.Number })

const Disconnects = Schema.Record({ key: Schema.Literal(...endReasons), value: counts })

/** One of the nodes that share a log, as it reported last. */
export const Node = Schema.Struct({
  id: says(Schema.String, "unique, and new each time it starts"),
  node: Schema.String,
  self: says(Schema.Boolean, "whether it is the one that answers"),
  pid: Schema.NullOr(Schema.Number),
  status: Schema.Literal("OK", "DRAINING"),
  reported_at: says(Schema.Number, "seconds since 1970, by its own clock"),
  startup_time: Schema.Number,
  version: Schema.String,
  msgs_broadcast: counts,
  connections_total: counts,
  deliveries_total: counts,
  bytes_total: counts,
  rates: Rates,
  slow_clients: counts,
  pending_bytes: counts,
  memory_bytes: Schema.NullOr(Schema.Number),
  log: Log
}).annotations({ identifier: "Node" })

const summary = {
  node: Schema.String,
  status: Schema.Literal("OK", "DRAINING"),
  reported_at: Schema.Number,
  startup_time: Schema.Number,
  msgs_broadcast: counts,
  version: Schema.String,
  reported_at_ms: Schema.Number,
  uptime_seconds: Schema.Number,
  connections_total: counts,
  deliveries_total: counts,
  bytes_total: counts,
  rates: Rates,
  disconnects: Disconnects,
  recent_disconnects: Schema.Array(
    Schema.Struct({
      id: Schema.Number,
      namespace: Schema.String,
      client_ip: Schema.String,
      reason: Schema.Literal(...endReasons),
      ended_at: Schema.Number,
      seconds: Schema.Number,
      msgs_sent: counts
    })
  ),
  slow_clients: counts,
  pending_bytes: counts,
  history_events: counts,
  log: Log,
  memory_bytes: Schema.NullOr(Schema.Number),
  event_loop_delay_ms: Schema.NullOr(Schema.Struct({ p50: Schema.Number, p99: Schema.Number, max: Schema.Number })),
  namespaces_total: counts,
  namespaces: Schema.Array(Namespace),
  node_id: says(Schema.String, "the node that answers; what stands above is of it alone"),
  totals: says(
    Schema.Struct({
      nodes: counts,
      msgs_broadcast: counts,
      connections_total: counts,
      deliveries_total: counts,
      bytes_total: counts,
      rates: Rates,
      disconnects: Disconnects,
      slow_clients: counts,
      pending_bytes: counts
    }),
    "the sums over nodes"
  ),
  nodes: says(Schema.Array(Node), "those that have reported lately, the one that answers first"),
  other_nodes: Schema.Union(
    Schema.Struct({ status: Schema.Literal("known") }),
    Schema.Struct({
      status: says(Schema.Literal("unknown"), "they are out of reach: what is above is of those that are known"),
      reason: Schema.String,
      since: says(Schema.Number, "seconds since 1970")
    })
  )
}

/** What is said of the hub as a whole. */
export const Summary = Schema.Struct(summary)

export const Status = Schema.Struct({
  ...summary,
  connections_asked: says(counts, "connections of the nodes that were asked for"),
  connections_matching: says(counts, "those of them that match"),
  nodes_missing: says(Schema.Array(Schema.String), "nodes that did not answer"),
  next: says(Schema.NullOr(Schema.Number), "what to give as after to get the next ones"),
  connections: Schema.Array(Connection)
}).annotations({ identifier: "Status" })
