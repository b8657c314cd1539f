import { assert, describe, it } from "@effect/vitest"
import { Namespace, SseHub, SseMetrics } from "effect-sse"
import { Effect, Metric, MetricBoundaries } from "effect"
import parsePrometheus from "parse-prometheus-text-format"
import { format } from "../../src/internal/prometheus.js"
import { connect, type RawOptions, request } from "../support/rawClient.js"
import { eventually, port, serverLayer } from "../support/server.js"

interface Parsed {
  readonly name: string
  readonly help: string
  readonly type: string
  readonly metrics: ReadonlyArray<{
    readonly value?: string
    readonly labels?: Record<string, string>
    readonly buckets?: Record<string, string>
    readonly count?: string
    readonly sum?: string
  }>
}

const parse = (text: string) =>
  new Map((parsePrometheus(text) as ReadonlyArray<Parsed>).map((family) => [family.name, family]))

describe("GET /metrics", () => {
  it.scopedLive("shows to a real parser what the hub did", () =>
    Effect.gen(function* () {
      const hub = yield* SseHub.SseHub
      const listening = yield* port
      const scrape = Effect.map(request(listening, "/metrics"), ({ body, head }) => {
        assert.match(head, /content-type: text\/plain; version=0\.0\.4; charset=utf-8/i)
        return parse(body)
      })
      const value = (families: Map<string, Parsed>, name: string, labels: Record<string, string> = {}) =>
        Number(
          families
            .get(name)!
            .metrics.find((metric) =>
              Object.entries(labels).every(([label, text]) => (metric.labels ?? {})[label] === text)
            )?.value ?? 0
        )
      // The registry is the process's: other tests count as well.
      const before = yield* scrape
      const one = yield* connect(listening, "/subscribe/a")
      const two = yield* connect(listening, "/subscribe/")
      yield* Effect.all([one.until((body) => body !== ""), two.until((body) => body !== "")])
      yield* hub.publishAll(Array.from({ length: 10 }, () => ({ namespace: "/a", data: "0123456789" })))
      yield* one.until((body) => body.split("data:").length === 11)
      one.socket.destroy()
      yield* eventually(Effect.map(hub.clients, (clients) => clients.length === 1))
      yield* eventually(Effect.map(Metric.value(SseMetrics.connections), ({ value }) => value === 1))
      const after = yield* scrape
      const grown = (name: string, labels?: Record<string, string>) =>
        value(after, name, labels) - (before.has(name) ? value(before, name, labels) : 0)
      assert.strictEqual(value(after, "sse_connections"), 1)
      assert.strictEqual(grown("sse_connects_total"), 2)
      assert.strictEqual(grown("sse_disconnects_total", { reason: "client-closed" }), 1)
      assert.strictEqual(grown("sse_publishes_total"), 10)
      assert.strictEqual(grown("sse_deliveries_total"), 20)
      assert.strictEqual(grown("sse_sent_bytes_total"), 2 * (5 + 10 * 17))
      assert.strictEqual(value(after, "sse_history_events"), 0)
      assert.strictEqual(after.get("sse_publish_to_write_seconds")!.type, "HISTOGRAM")
      const rounds = after.get("sse_round_events")!.metrics[0]!
      assert.strictEqual(rounds.buckets!["+Inf"], rounds.count)
      if (process.getBuiltinModule !== undefined) {
        assert.isAbove(value(after, "sse_memory_bytes"), 1e6)
        assert.isAtLeast(value(after, "sse_event_loop_delay_seconds", { quantile: "0.99" }), 0)
      }
    }).pipe(Effect.provide(serverLayer()))
  )

  it.scopedLive("counts publishes that are refused, by the reason", () =>
    Effect.gen(function* () {
      const listening = yield* port
      const count = (reason: keyof typeof SseMetrics.publishRefusalTags) =>
        SseMetrics.publishRefusals.unsafeValue(SseMetrics.publishRefusalTags[reason]).count
      const publish = (options: RawOptions) =>
        request(listening, "/publish/a", {
          method: "POST",
          body: "x",
          ...options,
          headers: { Authorization: "Bearer secret", ...options.headers }
        })
      for (const [reason, status, options] of [
        ["invalid", 400, { headers: { "Content-Type": "application/x-ndjson" } }],
        ["unauthorized", 401, { headers: { Authorization: "" } }],
        ["forbidden", 403, { headers: { Authorization: "Bearer wrong" } }],
        ["method", 405, { method: "PUT" }],
        ["too-large", 413, { body: "x".repeat(1001) }],
        ["media-type", 415, { headers: { "Content-Type": "image/png" } }],
        ["too-many", 429, {}]
      ] as const) {
        const before = count(reason)
        assert.strictEqual((yield* publish(options)).status, status)
        assert.strictEqual(count(reason), before + 1, reason)
        // From here on the second's share is used.
        if (reason === "media-type") assert.strictEqual((yield* publish({})).status, 202)
      }
      const { body } = yield* request(listening, "/metrics")
      assert.match(body, /^sse_publish_refusals_total\{reason="too-many"\} [1-9]/m)
    }).pipe(Effect.provide(serverLayer({ maxBodyBytes: 1000, maxPublishesPerSecond: 0.01 })))
  )

  it.effect("writes every kind of metric, and hostile names and values, as the format demands", () =>
    Effect.gen(function* () {
      const counter = Metric.counter("odd name-1", { description: 'a "\\\n b', incremental: true }).pipe(
        Metric.tagged("label.x", 'va"l\\ue\n')
      )
      const histogram = Metric.histogram("odd_histogram", MetricBoundaries.fromIterable([1, 10]))
      const summary = Metric.summary({
        name: "odd_summary",
        maxAge: "1 minute",
        maxSize: 10,
        error: 0.01,
        quantiles: [0.5]
      })
      const frequency = Metric.frequency("odd_frequency")
      const big = Metric.counter("odd_big", { bigint: true })
      yield* Metric.incrementBy(counter, 3)
      yield* Metric.incrementBy(Metric.counter("odd_down"), -3)
      for (const value of [0.5, 5, 50]) yield* histogram(Effect.succeed(value))
      yield* summary(Effect.succeed(2))
      yield* frequency(Effect.succeed("x"))
      yield* big(Effect.succeed(12345678901234567890n))
      const pairs = (yield* Metric.snapshot).filter(({ metricKey }) => metricKey.name.startsWith("odd"))
      const text = format(pairs)
      const families = parse(text)
      assert.strictEqual(families.size, 6)
      assert.include(text, "# TYPE odd_name_1 counter\n")
      assert.include(text, "# TYPE odd_down gauge\nodd_down -3\n")
      assert.include(text, '# HELP odd_name_1 a "\\\\\\n b\n')
      assert.include(text, 'odd_name_1{label_x="va\\"l\\\\ue\\n"} 3\n')
      assert.deepStrictEqual(families.get("odd_histogram")!.metrics[0], {
        buckets: { "1": "1", "10": "2", "+Inf": "3" },
        count: "3",
        sum: "55.5"
      })
      assert.include(text, 'odd_summary{quantile="0.5"} 2\n')
      assert.include(text, 'odd_frequency{value="x"} 1\n')
      assert.include(text, "odd_big 12345678901234567890\n")
    })
  )

  it.scopedLive("takes a hub's share of the gauges back when it ends", () =>
    Effect.gen(function* () {
      const before = yield* Metric.value(SseMetrics.connections)
      yield* Effect.gen(function* () {
        const hub = yield* SseHub.SseHub
        yield* hub.connect({
          namespaces: [Namespace.root],
          connection: {
            keepsItselfAlive: true,
            write: () => 0,
            pendingBytes: () => 7,
            end: () => {},
            onClose: () => {}
          }
        })
        yield* eventually(Effect.map(hub.activity, ({ samples }) => samples.at(-1)?.pendingBytes === 7))
        assert.strictEqual((yield* Metric.value(SseMetrics.connections)).value, before.value + 1)
      }).pipe(Effect.provide(SseHub.layer()), Effect.scoped)
      assert.strictEqual((yield* Metric.value(SseMetrics.connections)).value, before.value)
    })
  )
})
