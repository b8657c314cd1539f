/**
 * Who is told of clients that come and go.
 *
 * @internal
 */
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Mailbox from "effect/Mailbox"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import type { ClientChange, ClientStatus, Presence } from "../HubClient.js"
import * as Pattern from "../NamespacePattern.js"
import { SubscriberTooSlow } from "../SseError.js"
import { type Client, clientStatus } from "./client.js"

/** One who is told, synchronously, of clients that come and go, and of the end. */
interface Watcher {
  readonly onChange: (change: ClientChange) => void
  readonly onClose: () => void
}

export interface Watchers {
  readonly connected: (client: Client) => void
  readonly disconnected: (change: ClientChange) => void
  /** All are gone, and none comes any more. */
  readonly close: () => void
  readonly changes: Effect.Effect<Stream.Stream<ClientChange>, never, Scope.Scope>
  readonly presence: (namespace: Pattern.NamespacePattern) => Stream.Stream<Presence, SubscriberTooSlow>
  /** The same, with those who are there apart from those who come and go. */
  readonly follow: (
    namespace: Pattern.NamespacePattern
  ) => Effect.Effect<
    readonly [present: ReadonlyArray<ClientStatus>, changes: Stream.Stream<Presence, SubscriberTooSlow>],
    never,
    Scope.Scope
  >
}

/**
 * @param connected the clients by age; read, never changed
 * @param limit changes that may wait for one that follows presence
 */
export const make = (connected: ReadonlyMap<number, Client>, limit: number, isOpen: () => boolean): Watchers => {
  const watchers = new Set<Watcher>()

  // Gives those who are there in the step in which it begins, so that nobody is missed or told twice.
  const watch = (watcher: Watcher): Effect.Effect<ReadonlyArray<Client>, never, Scope.Scope> =>
    Effect.acquireRelease(
      Effect.sync(() => {
        if (isOpen()) watchers.add(watcher)
        else watcher.onClose()
        return Array.from(connected.values())
      }),
      () => Effect.sync(() => void watchers.delete(watcher))
    )

  const follow: Watchers["follow"] = (namespace) =>
    Effect.gen(function* () {
      const mailbox = yield* Mailbox.make<Presence, SubscriberTooSlow>({ capacity: limit, strategy: "dropping" })
      const isThere = ({ namespaces }: ClientStatus) => namespaces.some((one) => Pattern.covers(namespace, one))
      const offer = (presence: Presence) => {
        if (!isThere(presence.client) || mailbox.unsafeOffer(presence)) return
        mailbox.unsafeDone(Exit.fail(new SubscriberTooSlow({ namespace, limit })))
      }
      const present = yield* watch({
        onChange: (change) =>
          offer(
            change._tag === "Connected"
              ? { _tag: "Joined", client: change.client, wasThere: false }
              : { _tag: "Left", client: change.client, reason: change.reason }
          ),
        onClose: () => mailbox.unsafeDone(Exit.void)
      })
      // One that has ended and is not forgotten yet is among them: that it left follows.
      return [present.map(clientStatus).filter(isThere), Mailbox.toStream(mailbox)]
    })

  return {
    connected: (client) => {
      for (const watcher of watchers) watcher.onChange({ _tag: "Connected", client: clientStatus(client) })
    },
    disconnected: (change) => {
      for (const watcher of watchers) watcher.onChange(change)
    },
    close: () => {
      for (const watcher of watchers) watcher.onClose()
    },
    changes: Effect.gen(function* () {
      const mailbox = yield* Mailbox.make<ClientChange>()
      yield* watch({
        onChange: (change) => void mailbox.unsafeOffer(change),
        onClose: () => mailbox.unsafeDone(Exit.void)
      })
      return Mailbox.toStream(mailbox)
    }),
    follow,
    presence: (namespace) =>
      Stream.unwrapScoped(
        Effect.map(follow(namespace), ([present, changes]) =>
          Stream.concat(
            Stream.fromIterable(present.map((client): Presence => ({ _tag: "Joined", client, wasThere: true }))),
            changes
          )
        )
      )
  }
}
