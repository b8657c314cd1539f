/**
 * One stream of a log on Redis, with all that belongs to it: a log of its own.
 *
 * @internal
 */
import * as Effect from "effect/Effect"
import { EventLog, type NewEntry } from "../../EventLog.js"
import * as Pattern from "../../NamespacePattern.js"
import { EventLogError } from "../../SseError.js"
import type { Connect } from "./connections.js"
import * as History from "./history.js"
import type * as Life from "./life.js"
import * as Link from "./link.js"
import type { Kind } from "./position.js"
import * as Reader from "./reader.js"
import { Recent } from "./recent.js"
import * as Scripts from "./scripts.js"
import * as Writer from "./writer.js"

/** Entries that a node may have to read before it appends more. */
const maxUnread = 16_384

export interface Settings {
  readonly maxEvents: number
  readonly maxValues: number
  readonly maxAge: number
  /** The same as Redis takes it: whole ms, or 0. */
  readonly age: number
  readonly answerMillis: number
  readonly waitMillis: number
  readonly hasLatest: boolean
  readonly kindOf: (entry: NewEntry) => Kind
  readonly backlog: Writer.Backlog
  readonly recentLength: number
  readonly connect: Connect
}

export const failed =
  (operation: "append" | "tail" | "since") =>
  ({ reason }: { readonly reason: string }) =>
    new EventLogError({ operation, reason })

/** Refuses to go on with other shards than the other nodes have: it would publish where they do not read. */
export const agree = (
  prefix: string,
  wanted: string,
  { answerMillis, connect }: Settings,
  started: (link: Link.Link) => Effect.Effect<void, EventLogError>
): Effect.Effect<void, EventLogError> =>
  Effect.gen(function* () {
    let found = wanted
    const link = yield* Link.make(connect("start"), answerMillis, (run) =>
      Effect.map(
        run((redis) => redis.call("set", [Scripts.shardsKey(prefix), wanted, "NX", "GET"])),
        (answer) => void (found = (answer as string | null) ?? wanted)
      )
    )
    yield* started(link)
    if (found === wanted) return
    const reason = `the number of shards is ${wanted} here, and ${found} in the log "${prefix}": all nodes must have the same`
    return yield* new EventLogError({ operation: "tail", reason })
  }).pipe(Effect.scoped)

/** One stream, with all that belongs to it; and what makes it read though nobody listens. */
export const make = (
  { keys, life }: { readonly keys: Scripts.Keys; readonly life: Life.Life },
  commands: Link.Link,
  settings: Settings,
  readMillis: number
) =>
  Effect.gen(function* () {
    const { age, answerMillis, backlog, hasLatest, kindOf, maxAge, maxEvents, maxValues, waitMillis } = settings
    const recent = new Recent(Math.min(maxEvents, 8192), settings.recentLength, maxAge, yield* Effect.clock)
    const reader = yield* Reader.make(
      Link.make(settings.connect("reader"), answerMillis, (run) => Effect.asVoid(life.reopen(run))),
      readMillis,
      life,
      keys,
      recent,
      hasLatest ? maxValues : 0
    )
    const writer = yield* Writer.make(commands, life, {
      keys,
      kindOf,
      maxEvents,
      maxAge: age,
      maxValues,
      waitMillis,
      backlog,
      room: Effect.suspend(() => reader.caughtUp(life.known().n - Math.min(maxUnread, maxEvents / 4)))
    })
    const log = EventLog.of({
      append: writer.append,
      tail: (tail) => Effect.mapError(reader.tail(tail), failed("tail")),
      history: History.make(commands, life, keys, recent, reader, hasLatest, failed("since")),
      size: commands
        .run((redis) => Scripts.size(redis, [keys.meta, keys.stream], [age]))
        .pipe(Effect.map(Number), Effect.mapError(failed("since"))),
      health: Effect.sync(() => {
        const now = reader.problem() ?? commands.problem()
        return now === undefined
          ? { status: "ok" }
          : { status: "degraded", reason: `Redis: ${now.reason}`, since: now.since }
      }),
      settled: Effect.suspend(() => reader.caughtUp(life.known().n))
    })
    return { log, read: Effect.mapError(reader.read, failed("tail")) }
  })

export const kindsOf = (
  rules: ReadonlyArray<{ readonly keep: "events" | "latest" | "nothing"; readonly pattern: Pattern.NamespacePattern }>
): ((entry: NewEntry) => Kind) => {
  const ruled = new Map<string, Kind>()
  const kinds = { events: "t", latest: "v", nothing: "x" } as const
  return ({ namespace }) => {
    if (rules.length === 0) return "t"
    let kind = ruled.get(namespace)
    if (kind === undefined) {
      const rule = rules.find(({ pattern }) => Pattern.matches(pattern, namespace))
      kind = kinds[rule?.keep ?? "events"]
      if (ruled.size >= 4096) ruled.clear()
      ruled.set(namespace, kind)
    }
    return kind
  }
}
