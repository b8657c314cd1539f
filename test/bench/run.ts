/**
 * `npm run bench`: this hub and its peers, the same work in one run on one machine. Only the ratios mean anything.
 *
 *     npm run bench -- [--quick] [--json] [--svg FILE] [--repeat N] [--scenarios a,b] [--servers NAME,NAME] [--cold] [--peer "COMMAND"]
 *
 * Where events flow they do so for a second before, at the same rate, which does not count: in it, code is compiled.
 * `--cold`: without that second.
 * `--peer`: a further server, started by the command with `PORT` in it; it serves `/subscribe/bench` and
 * `/bench/start?rate=&secs=&size=`.
 */
import { DateTime } from "effect"
import { execFileSync } from "node:child_process"
import { writeFileSync } from "node:fs"
import { availableParallelism, cpus, release } from "node:os"
import { parseArgs } from "node:util"
import { chart } from "./chart.js"
import { nodes, withRedis, workers } from "./nodes.js"
import { measure, type Measured, nodeServer, pinned, type Server } from "./measure.js"
import { nchanModule } from "./support/nchan.js"

const { values } = parseArgs({
  options: {
    quick: { type: "boolean", default: false },
    json: { type: "boolean", default: false },
    svg: { type: "string" },
    repeat: { type: "string", default: "3" },
    scenarios: { type: "string", default: "a,b,c,d,e,f,g,h,i,o,t" },
    servers: { type: "string" },
    cold: { type: "boolean", default: false },
    peer: { type: "string", multiple: true, default: [] }
  }
})

const ours = nodeServer("effect-sse", "effect-sse")
const portable = nodeServer("effect-sse portable", "effect-sse", "portable")
const mounted = nodeServer("effect-sse mounted", "effect-sse", "mounted")
const http2 = nodeServer("effect-sse http2", "effect-sse", "http2")
const http2Portable = nodeServer("effect-sse http2 portable", "effect-sse", "http2", "portable")
const history = nodeServer("effect-sse history", "effect-sse", "history")
const write = nodeServer("node res.write", "node-write")
const joined = nodeServer("node joined socket", "node-joined")
const succeeds = (command: string) => {
  try {
    execFileSync("sh", ["-c", command], { stdio: "ignore" })
    return true
  } catch {
    return false
  }
}
const hasNchan = succeeds(`command -v nginx && { nginx -V 2>&1 | grep -q nchan || test -e ${nchanModule}; }`)
const all: ReadonlyArray<Server> = [
  ours,
  portable,
  history,
  write,
  joined,
  nodeServer("better-sse", "better-sse"),
  nodeServer("effect naive", "effect-naive"),
  ...(hasNchan ? [nodeServer("nginx nchan", "nchan")] : []),
  ...values.peer.map((command): Server => ({ name: command.slice(0, 24), command: command.split(" ") }))
]
const wanted = values.servers?.split(",")
const choose = (among: ReadonlyArray<Server>) =>
  wanted === undefined ? among : among.filter(({ name }) => wanted.includes(name))
const servers = choose(all)
const repeat = Number(values.repeat)

const say = (text: string) => process.stderr.write(text + "\n")

const median = (numbers: ReadonlyArray<number>): number =>
  numbers.toSorted((a, b) => a - b)[Math.floor((numbers.length - 1) / 2)] ?? 0

type Row = Record<string, number>

/** Medians of each. They take turns, so that a machine that becomes slower does so for all. */
const compare = async (runs: Readonly<Record<string, () => Promise<Row>>>): Promise<Record<string, Row>> => {
  const rows: Record<string, Array<Row>> = {}
  for (let i = 0; i < repeat; i++) {
    for (const [label, run] of Object.entries(runs)) {
      try {
        const row = await run()
        ;(rows[label] ??= []).push(row)
        say(`  ${label}: ${JSON.stringify(row)}`)
      } catch (error) {
        say(`  ${label}: ${String(error)}`)
      }
    }
  }
  const medians = (rows: ReadonlyArray<Row>): Row =>
    Object.fromEntries(Object.keys(rows[0]!).map((key) => [key, median(rows.map((row) => row[key]!))]))
  return Object.fromEntries(Object.entries(rows).map(([label, rows]) => [label, medians(rows)]))
}

const round = (value: number, places = 2): number => Number(value.toFixed(places))

const warmup = (rate: number) => (values.cold ? {} : { warmup: { rate, seconds: 1 } })

const lost = (result: Measured): number => result.expected - result.events + result.broken + result.closed

const megabytes = (bytes: number) => round(bytes / 1e6, 1)

const headline = async (server: Server, seconds = 5): Promise<Row> => {
  const result = await measure(server, { clients: 1000, ...warmup(100), broadcast: { rate: 100, seconds, size: 64 } })
  return {
    cpuSeconds: round(result.cpuSeconds),
    p50: round(result.p50),
    p99: round(result.p99),
    lost: lost(result),
    loadCpu: round(result.clientCpu)
  }
}

const at = async (server: Server, rate: number, size: number, seconds = 3): Promise<Row> => {
  const result = await measure(server, {
    clients: 1000,
    ...warmup(rate),
    broadcast: { rate, seconds, size }
  })
  const kept = lost(result) === 0 && result.p99 < 250 && result.spanSeconds < seconds * 1.1 ? 1 : 0
  return {
    rate,
    kept,
    deliveries: Math.round(result.eventsPerSecond),
    p99: round(result.p99),
    lost: lost(result),
    cpuSeconds: round(result.cpuSeconds),
    loadCpu: round(result.clientCpu)
  }
}

/** The highest rate that is kept, within 6 %. One that is not kept is tried twice more: the machine may have been busy. */
const ceiling = async (server: Server, size: number): Promise<Row> => {
  let good: Row | undefined
  let bad = Infinity
  let rate = 400
  while (bad / (good?.["rate"] ?? 1) > 1.06) {
    const attempt = async () => {
      const row = await at(server, Math.round(rate), size)
      say(`    ${server.name}, ${size} B: ${JSON.stringify(row)}`)
      return row
    }
    let row = await attempt()
    for (let again = 0; again < 2 && row["kept"] === 0; again++) row = await attempt()
    if (row["kept"] === 1) good = row
    else bad = rate
    const floor = good?.["rate"]
    rate = floor === undefined ? rate / 2 : bad === Infinity ? floor * 4 : Math.sqrt(floor * bad)
    if (rate < 10) break
  }
  return { deliveries: good?.["deliveries"] ?? 0, p99: good?.["p99"] ?? 0, loadCpu: good?.["loadCpu"] ?? 0 }
}

/** Over HTTP/2 and TLS, 100 streams on a connection. */
const overHttp2 = async (server: Server, clients: number, rate: number): Promise<Row> => {
  const result = await measure(
    server,
    { clients, streams: 100, ...warmup(rate), broadcast: { rate, seconds: 5, size: 64 } },
    { collect: true }
  )
  return {
    cpuSeconds: round(result.cpuSeconds),
    p50: round(result.p50),
    p99: round(result.p99),
    lost: lost(result),
    kbEachCollected: round((result.rssCollected - result.rssBefore) / clients / 1024, 1),
    connectSeconds: round(result.connectSeconds),
    deliveries: Math.round(result.eventsPerSecond),
    loadCpu: round(result.clientCpu)
  }
}

const idle = async (server: Server): Promise<Row> => {
  const result = await measure(server, { clients: 10_000, idleSeconds: 0.2 }, { settleMs: 3000, collect: true })
  const each = (rss: number) => round((rss - result.rssBefore) / 10_000 / 1024, 1)
  return {
    connectSeconds: round(result.connectSeconds),
    kbEach: each(result.rssConnected),
    kbEachCollected: each(result.rssCollected),
    totalMb: megabytes(result.rssConnected)
  }
}

const crowd = async (server: Server): Promise<Row> => {
  const result = await measure(server, { clients: 10_000, ...warmup(5), broadcast: { rate: 5, seconds: 5, size: 64 } })
  return { p50: round(result.p50), p99: round(result.p99), cpuSeconds: round(result.cpuSeconds), lost: lost(result) }
}

/** Publishes to the same 100 namespaces, with so many others that are listened to; all with a wildcard, if they are. */
const namespaces = async (others: number, wildcards = false): Promise<Row> => {
  const seconds = 4
  const rate = 20_000
  const result = await measure(ours, {
    clients: 100 + others,
    namespaces: 100 + others,
    wildcards,
    broadcast: { rate, seconds, size: 64, namespaces: 100 }
  })
  return {
    microsEach: round((result.cpuSeconds / (rate * seconds)) * 1e6),
    p99: round(result.p99),
    delivered: round(result.events / result.expected, 4)
  }
}

const operated = async (operator: boolean): Promise<Row> => {
  const broadcast = { rate: 100, seconds: 10, size: 64 }
  const result = await measure(ours, { clients: 1000, operator, ...warmup(100), broadcast })
  return { cpuSeconds: round(result.cpuSeconds), p99: round(result.p99), lost: lost(result) }
}

const manyNamespaces = async (): Promise<Row> => {
  const result = await measure(ours, {
    clients: 10_000,
    namespaces: 10_000,
    broadcast: { rate: 20_000, seconds: 4, size: 64, namespaces: 10_000 }
  })
  return {
    p99: round(result.p99),
    cpuSeconds: round(result.cpuSeconds),
    delivered: round(result.events / result.expected, 4)
  }
}

const stalled = async (server: Server, count: number): Promise<Row> => {
  const result = await measure(server, {
    clients: 1000,
    stalled: count,
    ...warmup(1000),
    // Enough that the buffers of the system cannot hold it for those who do not read.
    broadcast: { rate: 1000, seconds: 8, size: 1024 }
  })
  return { p99: round(result.p99), lost: lost(result), rssMb: megabytes(result.rssAfter) }
}

/** Clients that come at once and are given the last 1,000 events, beside 1,000 that get 20 events/s. */
const resumption = async (clients: number): Promise<Row> => {
  const result = await measure(history, {
    clients: 1000,
    resume: { clients, events: 1000 },
    ...warmup(20),
    broadcast: { rate: 20, seconds: 10, size: 64 }
  })
  return {
    resumeSeconds: round(result.resumeSeconds),
    liveP50: round(result.p50),
    liveP99: round(result.p99),
    liveMax: round(result.max),
    cpuSeconds: round(result.cpuSeconds),
    lost: lost(result),
    loadCpu: round(result.clientCpu)
  }
}

const single = async (server: Server): Promise<Row> => {
  const result = await measure(server, { clients: 1, ...warmup(50), broadcast: { rate: 50, seconds: 4, size: 64 } })
  return { p50: round(result.p50, 3), p99: round(result.p99, 3), lost: lost(result) }
}

const conditions = {
  node: process.version,
  cpu: cpus()[0]?.model.trim() ?? "unknown",
  cores: availableParallelism(),
  kernel: release(),
  pinned,
  repeat,
  date: DateTime.formatIsoDate(DateTime.unsafeNow())
}

const table = (title: string, rows: Readonly<Record<string, Row>>) => {
  const columns = Object.keys(Object.values(rows)[0] ?? {})
  const cell = (value: number | undefined) => (value === undefined ? "" : value.toLocaleString("en"))
  const out = [`\n${title}\n`, `| server | ${columns.join(" | ")} |`, `|---|${columns.map(() => "---:|").join("")}`]
  for (const [name, row] of Object.entries(rows)) {
    out.push(`| ${name} | ${columns.map((column) => cell(row[column])).join(" | ")} |`)
  }
  process.stdout.write(out.join("\n") + "\n")
}

const each = (run: (server: Server) => Promise<Row>, among = servers): Promise<Record<string, Row>> =>
  compare(Object.fromEntries(among.map((server) => [server.name, () => run(server)])))

const full = async () => {
  const chosen = values.scenarios.split(",")
  const results: Record<string, Record<string, Row>> = {}
  const scenario = async (key: string, title: string, run: () => Promise<Record<string, Row>>) => {
    if (!chosen.includes(key)) return
    say(title)
    results[title] = await run()
    if (!values.json) table(title, results[title])
  }
  if (!values.json) process.stdout.write(`${JSON.stringify(conditions)}\n`)
  await scenario("a", "(a) headline: 100 events/s of 64 B to 1,000 clients, 5 s", () =>
    each((server) => headline(server))
  )
  await scenario("b", "(b) ceiling: most deliveries/s to 1,000 clients, 64 B", async () => {
    const rows = await each((server) => ceiling(server, 64))
    if (values.svg !== undefined) {
      const bars = Object.entries(rows).map(([name, row]) => ({ name, value: row["deliveries"] ?? 0 }))
      writeFileSync(values.svg, chart("Deliveries a second sustained on one core: 1,000 clients, 64 B events", bars))
    }
    return rows
  })
  await scenario("b", "(b) ceiling: most deliveries/s to 1,000 clients, 1 KiB", () =>
    each((server) => ceiling(server, 1024))
  )
  await scenario("t", "(t) as (a) over HTTP/2 and TLS: 10 connections of 100 streams", () =>
    each((server) => overHttp2(server, 1000, 100), [http2, http2Portable])
  )
  await scenario("t", "(t) 10 events/s to 100 connections of 100 streams, over HTTP/2 and TLS", () =>
    each((server) => overHttp2(server, 10_000, 10), [http2, http2Portable])
  )
  await scenario("c", "(c) 10,000 idle clients", () => each(idle, choose([...all, mounted])))
  await scenario("d", "(d) 5 events/s to 10,000 clients, 5 s", () => each(crowd))
  await scenario("e", "(e) 20,000 publishes/s to 100 namespaces, beside others that are listened to", () =>
    compare({
      "100 others": () => namespaces(100),
      "9,900 others": () => namespaces(9900),
      "100 others, wildcards": () => namespaces(100, true),
      "9,900 others, wildcards": () => namespaces(9900, true)
    })
  )
  await scenario("e", "(e) 20,000 publishes/s to random ones of 10,000 namespaces, a client each", () =>
    compare({ "effect-sse": manyNamespaces })
  )
  await scenario("f", "(f) 1,000 events/s of 1 KiB to 1,000 clients, all reading, or 10 more that do not read", () =>
    compare(
      Object.fromEntries(
        servers.flatMap((server) => [
          [server.name, () => stalled(server, 0)],
          [`${server.name}, 10 stalled`, () => stalled(server, 10)]
        ])
      )
    )
  )
  await scenario(
    "h",
    "(h) 20 events/s to 1,000 clients for 10 s, with history; 10,000 others come at once from 1,000 events back",
    () => compare({ "nobody resumes": () => resumption(0), "10,000 resume": () => resumption(10_000) })
  )
  if (succeeds("command -v redis-server")) {
    await scenario(
      "i",
      "(i) nodes on one Redis: batches of 1,000 events of 64 B on each, then 100 events/s in all",
      () =>
        compare({
          "memory, 1 node": () => nodes(1, "memory"),
          "Redis, 1 node": () => withRedis((url) => nodes(1, url)),
          "Redis, 2 nodes": () => withRedis((url) => nodes(2, url)),
          "Redis, 3 nodes": () => withRedis((url) => nodes(3, url))
        })
    )
  }
  await scenario("i", "(i) --workers: 1,000 clients, batches of 50 events of 64 B over HTTP", () =>
    compare({ "1 worker": () => workers(1), "2 workers": () => workers(2) })
  )
  await scenario("o", "(o) as (a) for 10 s, with the admin page open and the metrics scraped every second", () =>
    compare({ "nobody looks": () => operated(false), "page and metrics": () => operated(true) })
  )
  await scenario("g", "(g) one client, one event at a time", () => each(single))
  if (values.json) process.stdout.write(JSON.stringify({ conditions, results }) + "\n")
}

const quick = async () => {
  const a: Record<string, Row> = {}
  const c: Record<string, Row> = {}
  for (const server of [ours, write, joined]) {
    a[server.name] = await headline(server, 3)
    say(`a ${server.name} ${JSON.stringify(a[server.name])}`)
    c[server.name] = await idle(server)
    say(`c ${server.name} ${JSON.stringify(c[server.name])}`)
  }
  const b: Record<string, Row> = {}
  for (const [server, rate] of [
    [write, 250],
    [ours, 2000],
    [joined, 2000],
    [ours, 8000],
    [joined, 8000]
  ] as const) {
    b[`${server.name} at ${rate}`] = await at(server, rate, 64, 2)
    say(`b ${server.name} ${JSON.stringify(b[`${server.name} at ${rate}`])}`)
  }
  const ratio = (rows: Record<string, Row>, one: string, other: string, key: string) =>
    round((rows[one]?.[key] ?? 0) / (rows[other]?.[key] ?? 1))
  const ratios = {
    "a: p99 to res.write": ratio(a, "effect-sse", "node res.write", "p99"),
    "a: p99 to joined": ratio(a, "effect-sse", "node joined socket", "p99"),
    "a: CPU to res.write": ratio(a, "effect-sse", "node res.write", "cpuSeconds"),
    "b: CPU to joined at 8,000,000/s": ratio(b, "effect-sse at 8000", "node joined socket at 8000", "cpuSeconds"),
    "b: kept 8,000,000/s": b["effect-sse at 8000"]?.["kept"] ?? 0,
    "c: memory to res.write": ratio(c, "effect-sse", "node res.write", "kbEachCollected"),
    "c: seconds to connect": c["effect-sse"]?.["connectSeconds"] ?? 0
  }
  process.stdout.write(JSON.stringify({ conditions, ratios, a, b, c }) + "\n")
}

await (values.quick ? quick() : full())
