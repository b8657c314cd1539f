/**
 * What a hub measures, as Effect `Metric`s: any exporter of those sees them, `GET /metrics` shows them to Prometheus.
 *
 * They belong to the process, as all Effect metrics do: hubs of one process add up. No label takes its value from a
 * client or a publisher, so their number is bounded.
 *
 * | name | kind | |
 * |---|---|---|
 * | `sse_connections` | gauge | connected clients |
 * | `sse_connects_total` | counter | clients that connected |
 * | `sse_disconnects_total{reason}` | counter | clients that ended, by `EndReason` |
 * | `sse_refusals_total{limit}` | counter | clients that were not connected, by the limit that was reached |
 * | `sse_publishes_total` | counter | events taken |
 * | `sse_publish_refusals_total{reason}` | counter | publishes over HTTP that were refused, by the reason |
 * | `sse_deliveries_total` | counter | events handed to clients, once for each client |
 * | `sse_sent_bytes_total` | counter | bytes handed to clients |
 * | `sse_publish_to_write_seconds` | histogram | from the log's handing an event over to its last write |
 * | `sse_round_events` | histogram | events in a round of fan-out |
 * | `sse_pending_bytes` | gauge | bytes that wait for clients |
 * | `sse_slow_clients` | gauge | clients for which something waits |
 * | `sse_history_events` | gauge | events the log keeps |
 * | `sse_resumes_total{outcome}` | counter | clients that came with a last event id: `resumed`, or why they were not |
 * | `sse_replayed_events_total` | counter | events given from history |
 * | `sse_event_loop_delay_seconds{quantile}` | gauge | how late the event loop ran in the last second: `0.5`, `0.99`, `1` |
 * | `sse_memory_bytes` | gauge | resident memory of the process |
 *
 * Deliveries, bytes and gauges are looked at once a second; the last two only on a runtime that can tell (Node 20.16 and newer).
 *
 * @since 0.1.0
 */
import * as Metric from "effect/Metric"
import * as MetricBoundaries from "effect/MetricBoundaries"
import * as MetricLabel from "effect/MetricLabel"
import { type EndReason, endReasons } from "./Connection.js"
import type { Gap } from "./EventLog.js"
import type { LimitReached } from "./SseError.js"

/**
 * @since 0.1.0
 * @category metrics
 */
export const connections = Metric.gauge("sse_connections", { description: "Connected clients" })

/**
 * @since 0.1.0
 * @category metrics
 */
export const connects = Metric.counter("sse_connects_total", {
  description: "Clients that connected",
  incremental: true
})

/**
 * Tagged by reason with {@link reasonTags}.
 *
 * @since 0.1.0
 * @category metrics
 */
export const disconnects = Metric.counter("sse_disconnects_total", {
  description: "Clients that ended, by reason",
  incremental: true
})

/**
 * Tagged by limit with {@link limitTags}.
 *
 * @since 0.1.0
 * @category metrics
 */
export const refusals = Metric.counter("sse_refusals_total", {
  description: "Clients that were not connected, by the limit that was reached",
  incremental: true
})

/**
 * @since 0.1.0
 * @category metrics
 */
export const publishes = Metric.counter("sse_publishes_total", { description: "Events taken", incremental: true })

/**
 * Tagged by reason with {@link publishRefusalTags}.
 *
 * @since 0.1.0
 * @category metrics
 */
export const publishRefusals = Metric.counter("sse_publish_refusals_total", {
  description: "Publishes over HTTP that were refused, by the reason",
  incremental: true
})

/**
 * @since 0.1.0
 * @category metrics
 */
export const deliveries = Metric.counter("sse_deliveries_total", {
  description: "Events handed to clients, once for each client",
  incremental: true
})

/**
 * @since 0.1.0
 * @category metrics
 */
export const sentBytes = Metric.counter("sse_sent_bytes_total", {
  description: "Bytes handed to clients",
  incremental: true
})

/**
 * @since 0.1.0
 * @category metrics
 */
export const publishToWrite = Metric.histogram(
  "sse_publish_to_write_seconds",
  MetricBoundaries.fromIterable([0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5]),
  "Time from the log's handing an event over to its last write"
)

/**
 * @since 0.1.0
 * @category metrics
 */
export const roundEvents = Metric.histogram(
  "sse_round_events",
  MetricBoundaries.exponential({ start: 1, factor: 4, count: 8 }),
  "Events in a round of fan-out"
)

/**
 * @since 0.1.0
 * @category metrics
 */
export const pendingBytes = Metric.gauge("sse_pending_bytes", { description: "Bytes that wait for clients" })

/**
 * @since 0.1.0
 * @category metrics
 */
export const slowClients = Metric.gauge("sse_slow_clients", {
  description: "Clients for which something waits"
})

/**
 * @since 0.1.0
 * @category metrics
 */
export const historyEvents = Metric.gauge("sse_history_events", { description: "Events the log keeps" })

/**
 * Tagged by outcome with {@link resumeTags}.
 *
 * @since 0.1.0
 * @category metrics
 */
export const resumes = Metric.counter("sse_resumes_total", {
  description: "Clients that came with a last event id, by what became of it",
  incremental: true
})

/**
 * @since 0.1.0
 * @category metrics
 */
export const replayedEvents = Metric.counter("sse_replayed_events_total", {
  description: "Events given from history",
  incremental: true
})

/**
 * Tagged by quantile with {@link quantileTags}.
 *
 * @since 0.1.0
 * @category metrics
 */
export const eventLoopDelay = Metric.gauge("sse_event_loop_delay_seconds", {
  description: "How late the event loop ran in the last second"
})

/**
 * @since 0.1.0
 * @category metrics
 */
export const memory = Metric.gauge("sse_memory_bytes", { description: "Resident memory of the process" })

type Tags = ReadonlyArray<MetricLabel.MetricLabel>

const tagsOf = <K extends string>(label: string, values: ReadonlyArray<K>): Readonly<Record<K, Tags>> =>
  Object.fromEntries(values.map((value) => [value, [MetricLabel.make(label, value)]])) as unknown as Record<K, Tags>

/**
 * The tags of {@link disconnects}, for each reason.
 *
 * @since 0.1.0
 * @category metrics
 */
export const reasonTags: Readonly<Record<EndReason, Tags>> = tagsOf("reason", endReasons)

/**
 * The tags of {@link refusals}, for each limit.
 *
 * @since 0.1.0
 * @category metrics
 */
export const limitTags: Readonly<Record<LimitReached["limit"], Tags>> = tagsOf("limit", [
  "maxClients",
  "maxClientsPerAddress",
  "maxClientsPerNamespace",
  "maxNamespacesPerClient"
])

/**
 * The tags of {@link resumes}, for each outcome.
 *
 * @since 0.1.0
 * @category metrics
 */
export const resumeTags: Readonly<Record<"resumed" | Gap["reason"], Tags>> = tagsOf("outcome", [
  "resumed",
  "expired",
  "unknown",
  "restarted"
])

/**
 * The tags of {@link publishRefusals}, for each reason: 400 `invalid`, 401 `unauthorized`, 403 `forbidden`, 405 `method`,
 * 413 `too-large`, 415 `media-type`, 429 `too-many`, 503 `unavailable`, and `other`.
 *
 * @since 0.1.0
 * @category metrics
 */
export const publishRefusalTags: Readonly<
  Record<
    | "invalid"
    | "unauthorized"
    | "forbidden"
    | "method"
    | "too-large"
    | "media-type"
    | "too-many"
    | "unavailable"
    | "other",
    Tags
  >
> = tagsOf("reason", [
  "invalid",
  "unauthorized",
  "forbidden",
  "method",
  "too-large",
  "media-type",
  "too-many",
  "unavailable",
  "other"
])

/**
 * The tags of {@link eventLoopDelay}: median, 99th percentile and maximum.
 *
 * @since 0.1.0
 * @category metrics
 */
export const quantileTags: Readonly<Record<"0.5" | "0.99" | "1", Tags>> = tagsOf("quantile", ["0.5", "0.99", "1"])
