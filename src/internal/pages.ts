/**
 * Pages of history, read and joined once for all clients that resume at the same place with the same namespaces.
 *
 * @internal
 */
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import type { Gap, History } from "../EventLog.js"
import type { NamespacePattern } from "../NamespacePattern.js"
import type { EventLogError } from "../SseError.js"
import { pause } from "./eventLoop.js"
import { type Frame, join } from "./frame.js"
import { cursor, withoutId } from "../SseEvent.js"

export interface SharedPage {
  readonly frame: Frame | undefined
  readonly events: number
  /** The position of its last event. */
  readonly last: string | undefined
  /** The position up to which it goes. */
  readonly cursor: string
  /** Up to where it was read, if it goes that far: more may come behind it. */
  readonly upTo: string | undefined
}

export interface Pages {
  /** A page of what was missed. */
  readonly read: (
    after: string,
    upTo: string,
    namespaces: ReadonlyArray<NamespacePattern>
  ) => Effect.Effect<SharedPage | Gap, EventLogError>
  /** The latest values that hold at a position, without ids; the last page with the position behind it. */
  readonly latest: (
    upTo: string,
    namespaces: ReadonlyArray<NamespacePattern>
  ) => Effect.Effect<ReadonlyArray<Values>, EventLogError>
}

/** Some of the latest values. */
export interface Values {
  readonly frame: Frame
  readonly events: number
}

/** Bytes of pages that are held. */
const maxBytes = 16 * 1024 * 1024

/** Real time in ms for which they are held when nobody asks for any. */
const keptMillis = 1000

/** What is held under a key, and its size. */
type Held = { readonly page: SharedPage } | { readonly values: ReadonlyArray<Values> }

const sizeOf = (held: Held | undefined): number =>
  held === undefined
    ? 0
    : "page" in held
      ? 256 + (held.page.frame?.size ?? 0)
      : held.values.reduce((sum, { frame }) => sum + 256 + frame.size, 0)

const keyOf = (kind: string, position: string, namespaces: ReadonlyArray<NamespacePattern>): string =>
  [kind, position, ...namespaces].join("\n")

/** @param pageBytes bytes of one page, if it is of more than one event */
export const make = (history: History, pageBytes: number): Effect.Effect<Pages, never, Scope.Scope> =>
  Effect.gen(function* () {
    // Those that were asked for last stand last.
    const pages = new Map<string, Held>()
    const some = yield* Effect.makeLatch(false)
    let bytes = 0
    let wasAsked = false

    const keep = (key: string, held: Held) => {
      bytes += sizeOf(held) - sizeOf(pages.get(key))
      pages.delete(key)
      pages.set(key, held)
      wasAsked = true
      some.unsafeOpen()
      for (const [oldest, held] of pages) {
        if (bytes <= maxBytes) return
        pages.delete(oldest)
        bytes -= sizeOf(held)
      }
    }

    yield* some.await.pipe(
      Effect.zipRight(pause(keptMillis, true)),
      Effect.map(() => {
        if (!wasAsked) {
          some.unsafeClose()
          pages.clear()
          bytes = 0
        }
        wasAsked = false
      }),
      Effect.forever,
      Effect.forkScoped
    )

    return {
      read: (after, upTo, namespaces) =>
        Effect.suspend(() => {
          const key = keyOf("page", after, namespaces)
          const held = pages.get(key)
          if (held !== undefined && "page" in held && (held.page.upTo === undefined || held.page.upTo === upTo)) {
            keep(key, held)
            return Effect.succeed(held.page)
          }
          return Effect.map(history.read({ after, upTo, namespaces, maxBytes: pageBytes }), (found) => {
            if (found._tag === "Gap") return found
            const page: SharedPage = {
              frame: found.entries.length === 0 ? undefined : join(found.entries.map(({ text }) => text)),
              events: found.entries.length,
              last: found.entries.at(-1)?.position,
              cursor: found.cursor,
              upTo: found.done ? upTo : undefined
            }
            keep(key, { page })
            return page
          })
        }),
      latest: (upTo, namespaces) =>
        Effect.suspend(() => {
          const key = keyOf("latest", upTo, namespaces)
          const held = pages.get(key)
          if (held !== undefined && "values" in held) {
            keep(key, held)
            return Effect.succeed(held.values)
          }
          return Effect.map(history.latest(upTo, namespaces), (entries) => {
            const values: Array<Values> = []
            let blocks: Array<string> = []
            let length = 0
            const cut = (last: ReadonlyArray<string>) => {
              values.push({ frame: join([...blocks, ...last]), events: blocks.length })
              blocks = []
              length = 0
            }
            for (const { text } of entries) {
              if (length > 0 && (length + text.length) * maxBytesEach > pageBytes) cut([])
              blocks.push(withoutId(text))
              length += text.length
            }
            cut([cursor(upTo)])
            keep(key, { values })
            return values
          })
        })
    }
  })

/** Bytes that a character can take in UTF-8, as a string counts them. */
const maxBytesEach = 3
