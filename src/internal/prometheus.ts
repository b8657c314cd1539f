/**
 * Effect metrics in Prometheus' text format, version 0.0.4.
 *
 * @internal
 */
import * as MetricKeyType from "effect/MetricKeyType"
import type * as MetricPair from "effect/MetricPair"
import * as MetricState from "effect/MetricState"
import * as Option from "effect/Option"

export const contentType = "text/plain; version=0.0.4; charset=utf-8"

type Labels = ReadonlyArray<readonly [name: string, value: string]>

interface Family {
  readonly type: "counter" | "gauge" | "histogram" | "summary"
  readonly help: string
  readonly lines: Array<string>
}

/** All metrics of the process, those of one name together, as the format demands. */
export const format = (pairs: ReadonlyArray<MetricPair.MetricPair.Untyped>): string => {
  const families = new Map<string, Family>()
  for (const { metricKey, metricState } of pairs) {
    const shown = show(metricState as MetricState.MetricState.Untyped, metricKey.keyType)
    if (shown === undefined) continue
    const name = metricKey.name.replace(/[^\w:]/g, "_").replace(/^\d/, "_$&")
    let family = families.get(name)
    if (family === undefined) {
      const help = Option.getOrElse(metricKey.description as Option.Option<string>, () => "")
      families.set(name, (family = { type: shown.type, help, lines: [] }))
    }
    // A name has one type. That of the first is taken, and what does not fit it cannot be shown.
    if (family.type !== shown.type) continue
    const tags: Labels = metricKey.tags.map(({ key, value }) => [key, value])
    for (const [suffix, labels, value] of shown.samples) {
      family.lines.push(`${name}${suffix}${labelled([...tags, ...labels])} ${number(value)}`)
    }
  }
  let text = ""
  for (const [name, { help, lines, type }] of families) {
    if (help !== "") text += `# HELP ${name} ${help.replace(/\\/g, "\\\\").replace(/\n/g, "\\n")}\n`
    text += `# TYPE ${name} ${type}\n${lines.join("\n")}\n`
  }
  return text
}

type Samples = ReadonlyArray<readonly [suffix: string, labels: Labels, value: number | bigint]>

const show = (
  state: MetricState.MetricState.Untyped,
  keyType: MetricKeyType.MetricKeyType.Untyped
): { readonly type: Family["type"]; readonly samples: Samples } | undefined => {
  if (MetricState.isCounterState(state)) {
    // Others of Effect's counters may go down, which Prometheus takes for a restart.
    const onlyUp = MetricKeyType.isCounterKey(keyType) && keyType.incremental
    return { type: onlyUp ? "counter" : "gauge", samples: [["", [], state.count]] }
  }
  if (MetricState.isGaugeState(state)) return { type: "gauge", samples: [["", [], state.value]] }
  if (MetricState.isFrequencyState(state)) {
    return {
      type: "counter",
      samples: Array.from(state.occurrences, ([value, count]) => ["", [["value", value]], count] as const)
    }
  }
  if (MetricState.isHistogramState(state)) {
    // The counts are cumulative already. What is beyond the last boundary is in the count only.
    const finite = state.buckets.filter(([boundary]) => Number.isFinite(boundary))
    return {
      type: "histogram",
      samples: [
        ...finite.map(([boundary, count]) => ["_bucket", [["le", String(boundary)]], count] as const),
        ["_bucket", [["le", "+Inf"]], state.count],
        ["_sum", [], state.sum],
        ["_count", [], state.count]
      ]
    }
  }
  if (MetricState.isSummaryState(state)) {
    return {
      type: "summary",
      samples: [
        ...state.quantiles.map(
          ([quantile, value]) => ["", [["quantile", String(quantile)]], Option.getOrElse(value, () => NaN)] as const
        ),
        ["_sum", [], state.sum],
        ["_count", [], state.count]
      ]
    }
  }
  return undefined
}

const labelled = (labels: Labels): string =>
  labels.length === 0
    ? ""
    : `{${labels.map(([name, value]) => `${name.replace(/\W/g, "_").replace(/^\d/, "_$&")}="${escape(value)}"`).join(",")}}`

const escape = (value: string): string => value.replace(/\\/g, "\\\\").replace(/"/g, '\\"').replace(/\n/g, "\\n")

const number = (value: number | bigint): string =>
  value === Infinity ? "+Inf" : value === -Infinity ? "-Inf" : String(value)
