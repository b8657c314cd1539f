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
  readonly read: (range: Parameters<History["read"]>[0]) => Effect.Effect<SharedPage | Gap, EventLogError>
}

/** Bytes of pages that are held. */
const maxBytes = 16 * 1024 * 1024

/** Real time in ms for which they are held when nobody asks for any. */
const keptMillis = 1000

const sizeOf = (page: SharedPage | undefined): number => (page === undefined ? 0 : 256 + (page.frame?.size ?? 0))

const keyOf = (after: string, namespaces: ReadonlyArray<NamespacePattern>): string => [after, ...namespaces].join("\n")

export const make = (history: History): Effect.Effect<Pages, never, Scope.Scope> =>
  Effect.gen(function* () {
    // Those that were asked for last stand last.
    const pages = new Map<string, SharedPage>()
    const some = yield* Effect.makeLatch(false)
    let bytes = 0
    let wasAsked = false

    const keep = (key: string, page: SharedPage) => {
      bytes += sizeOf(page) - sizeOf(pages.get(key))
      pages.delete(key)
      pages.set(key, page)
      some.unsafeOpen()
      for (const [oldest, page] of pages) {
        if (bytes <= maxBytes) return
        pages.delete(oldest)
        bytes -= sizeOf(page)
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
      read: (range) =>
        Effect.suspend(() => {
          wasAsked = true
          const key = keyOf(range.after, range.namespaces)
          const known = pages.get(key)
          if (known !== undefined && (known.upTo === undefined || known.upTo === range.upTo)) {
            keep(key, known)
            return Effect.succeed(known)
          }
          return Effect.map(history.read(range), (page) => {
            if (page._tag === "Gap") return page
            const shared: SharedPage = {
              frame: page.entries.length === 0 ? undefined : join(page.entries.map(({ text }) => text)),
              events: page.entries.length,
              last: page.entries.at(-1)?.position,
              cursor: page.cursor,
              upTo: page.done ? range.upTo : undefined
            }
            keep(key, shared)
            return shared
          })
        })
    }
  })
