/**
 * Presence over nodes: this node follows others, and others follow this one.
 *
 * Who follows tells all nodes, with each report, its sessions; a node that hears of a new one tells it who is there and then
 * who comes and goes, in numbered messages, or each time the number that it is at. Messages may be lost: one that misses a
 * number begins a new session, and takes what it is told then as the outcome of what it did not hear.
 *
 * @internal
 */
import * as Chunk from "effect/Chunk"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Mailbox from "effect/Mailbox"
import * as Queue from "effect/Queue"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import type { ClientStatus } from "../../HubClient.js"
import type { NamespacePattern } from "../../NamespacePattern.js"
import type { NodePresence } from "../../Nodes.js"
import { PresenceLimit, SubscriberTooSlow } from "../../SseError.js"
import { pause } from "../eventLoop.js"
import type { Watchers } from "../watchers.js"
import * as Messages from "./messages.js"
import type { Peers } from "./peers.js"

/** Clients of other nodes that one stream knows at most, and streams of this kind. */
const maxClients = 100_000
const maxStreams = 256

/** Changes that travel in one message. */
const perMessage = 100

type Seen = Extract<Messages.Message, { readonly _tag: "Seen" }>
type Quiet = Extract<Messages.Message, { readonly _tag: "Quiet" }>
type Follow = Extract<Messages.Message, { readonly _tag: "Follow" }>

/** What is known of another node. */
interface Known {
  /** The number of the next message of this session. */
  next: number
  /** Whether all who were there when it began have been told. */
  live: boolean
  readonly clients: Map<number, ClientStatus>
  /** While it is not live: those who were told in this session. */
  readonly confirmed: Set<number>
}

/** A stream of this node that follows the others. */
interface Follower {
  session: string
  readonly namespace: NamespacePattern
  readonly onSeen: (message: Seen | Quiet) => void
  /** Nodes that report now. */
  readonly onNodes: (nodes: ReadonlySet<string>) => void
}

/** A stream of another node that follows this one. */
interface Session {
  readonly fiber: Fiber.RuntimeFiber<void>
  readonly state: { number: number; quiet: boolean }
}

/** What another node follows here. */
interface Following {
  readonly sessions: Map<string, Session>
  /** Reports in a row in which it said nothing of them. */
  unheard: number
}

export interface NodesPresence {
  readonly onMessage: (message: Seen | Quiet | Follow) => void
  /** Works on what others want to follow. */
  readonly run: (peers: Peers) => Effect.Effect<void, never, Scope.Scope>
  /** Behind each report: tells the others what is followed, and sees who is gone. */
  readonly look: (peers: Peers) => Effect.Effect<void>
  readonly of: (
    namespace: NamespacePattern,
    peers: Peers
  ) => Stream.Stream<NodePresence, SubscriberTooSlow | PresenceLimit>
}

/** @param limit changes that may wait for one that follows, beside as many as are there */
export const make = (id: string, follow: Watchers["follow"], limit: number): Effect.Effect<NodesPresence> =>
  Effect.gen(function* () {
    const followers = new Set<Follower>()
    const wanted = yield* Queue.sliding<Follow>(1024)
    const following = new Map<string, Following>()
    let lastSession = 0
    // Whether others may still believe that this node follows something.
    let told = false
    const newSession = () => `${id}-${++lastSession}`

    const tell = (peers: Peers) =>
      Effect.suspend(() => {
        if (followers.size === 0 && !told) return Effect.void
        told = followers.size > 0
        const sessions = Array.from(followers, ({ namespace, session }) => ({ namespace, session }))
        return Effect.ignore(peers.send(undefined, { _tag: "Follow", from: id, sessions }))
      })

    const serve = (peers: Peers, to: string, session: string, namespace: NamespacePattern, state: Session["state"]) => {
      const send = (seen: Seen["seen"], live: boolean) => {
        state.quiet = false
        return peers.send(to, { _tag: "Seen", from: id, session, number: state.number++, seen, live })
      }
      return Effect.gen(function* () {
        const [present, changes] = yield* follow(namespace)
        for (let i = 0; i < present.length; i += perMessage) {
          const some = present.slice(i, i + perMessage)
          yield* send(
            some.map((client) => ({ _tag: "Joined", client: Messages.plain(client), wasThere: true })),
            false
          )
        }
        yield* send([], true)
        yield* changes.pipe(
          Stream.map((one) => ({ ...one, client: Messages.plain(one.client) })),
          Stream.runForEachChunk((chunk) =>
            Effect.forEach(Chunk.chunksOf(chunk, perMessage), (some) => send(Chunk.toReadonlyArray(some), true), {
              discard: true
            })
          )
        )
      }).pipe(
        Effect.scoped,
        // The number that is never sent is missed, and all is asked for anew.
        Effect.catchAllCause(() => Effect.sync(() => void state.number++))
      )
    }

    const takeUp = (peers: Peers, { from, sessions: all }: Follow) =>
      Effect.gen(function* () {
        const theirs = following.get(from) ?? { sessions: new Map<string, Session>(), unheard: 0 }
        theirs.unheard = 0
        following.set(from, theirs)
        const still = new Set(all.map(({ session }) => session))
        for (const [session, { fiber }] of theirs.sessions) {
          if (still.has(session)) continue
          theirs.sessions.delete(session)
          yield* Fiber.interruptFork(fiber)
        }
        for (const { namespace, session } of all) {
          const running = theirs.sessions.get(session)
          if (running === undefined) {
            if (theirs.sessions.size >= maxStreams) continue
            const state = { number: 0, quiet: false }
            const fiber = yield* Effect.forkDaemon(serve(peers, from, session, namespace, state))
            theirs.sessions.set(session, { fiber, state })
          } else if (running.state.quiet) {
            // So that one that misses the last message sees that it does.
            const { number } = running.state
            yield* Effect.ignore(peers.send(from, { _tag: "Quiet", from: id, session, number }))
          } else running.state.quiet = true
        }
        if (theirs.sessions.size === 0) following.delete(from)
      })

    return {
      onMessage: (message) => {
        if (message._tag === "Follow") return void wanted.unsafeOffer(message)
        for (const follower of followers) if (follower.session === message.session) follower.onSeen(message)
      },
      run: (peers) =>
        Effect.gen(function* () {
          yield* Effect.addFinalizer(() => {
            // The hub is closed: they end by themselves, when they have told why the last clients left.
            const fibers = Array.from(following.values()).flatMap(({ sessions }) =>
              Array.from(sessions.values(), ({ fiber }) => fiber)
            )
            following.clear()
            return Effect.zipRight(
              Effect.raceFirst(Effect.interruptible(Fiber.awaitAll(fibers)), Effect.interruptible(pause(lastMillis))),
              Fiber.interruptAll(fibers)
            )
          })
          yield* Queue.take(wanted).pipe(
            Effect.flatMap((message) => takeUp(peers, message)),
            Effect.forever,
            Effect.forkScoped
          )
        }),
      look: (peers) =>
        Effect.gen(function* () {
          if (followers.size > 0 || following.size > 0) {
            const { others, problem } = yield* peers.list
            if (problem === undefined) {
              const nodes = new Set(others.map(({ id }) => id))
              for (const follower of followers) follower.onNodes(nodes)
              for (const [node, theirs] of following) {
                // That it has ended what it follows may have been lost.
                if (nodes.has(node) && ++theirs.unheard <= maxSilent) continue
                following.delete(node)
                for (const { fiber } of theirs.sessions.values()) yield* Fiber.interruptFork(fiber)
              }
            }
          }
          yield* tell(peers)
        }),
      of: (namespace, peers) =>
        Stream.unwrapScoped(
          Effect.gen(function* () {
            if (followers.size >= maxStreams) return yield* new PresenceLimit({ limit: "streams", max: maxStreams })
            const mailbox = yield* Mailbox.make<NodePresence, SubscriberTooSlow | PresenceLimit>()
            const nodes = new Map<string, Known>()
            let count = 0
            const fail = (error: SubscriberTooSlow | PresenceLimit) => void mailbox.unsafeDone(Exit.fail(error))
            const offer = (presence: NodePresence) => {
              mailbox.unsafeOffer(presence)
              const size = mailbox.unsafeSize()
              if (size._tag === "Some" && size.value > limit + count) fail(new SubscriberTooSlow({ namespace, limit }))
            }
            const joined = (node: string, known: Known, client: ClientStatus, wasThere: boolean) => {
              if (known.clients.has(client.id)) return
              known.clients.set(client.id, client)
              if (++count > maxClients) return fail(new PresenceLimit({ limit: "clients", max: maxClients }))
              offer({ _tag: "Joined", node, client, wasThere })
            }
            const left = (
              node: string,
              known: Known,
              client: ClientStatus,
              reason: Extract<NodePresence, { readonly _tag: "Left" }>["reason"]
            ) => {
              if (!known.clients.delete(client.id)) return
              count--
              offer({ _tag: "Left", node, client, reason })
            }
            /** From here on all nodes tell again who is there. */
            const again = () => {
              follower.session = newSession()
              for (const known of nodes.values()) {
                known.next = 0
                known.live = false
                known.confirmed.clear()
              }
            }
            const follower: Follower = {
              session: newSession(),
              namespace,
              onSeen: (message) => {
                const { from, number } = message
                let known = nodes.get(from)
                if (known === undefined) {
                  known = { next: 0, live: false, clients: new Map(), confirmed: new Set() }
                  nodes.set(from, known)
                }
                if (number !== known.next) return again()
                if (message._tag === "Quiet") return
                known.next++
                for (const one of message.seen) {
                  if (one._tag === "Left") left(from, known, one.client, one.reason)
                  else {
                    if (!known.live) known.confirmed.add(one.client.id)
                    joined(from, known, one.client, one.wasThere)
                  }
                }
                if (!message.live || known.live) return
                known.live = true
                for (const client of known.clients.values()) {
                  if (!known.confirmed.has(client.id)) left(from, known, client, "unknown")
                }
                known.confirmed.clear()
              },
              onNodes: (reporting) => {
                for (const [node, known] of nodes) {
                  if (reporting.has(node)) continue
                  nodes.delete(node)
                  for (const client of known.clients.values()) left(node, known, client, "node-gone")
                }
              }
            }
            yield* Effect.acquireRelease(
              Effect.sync(() => void followers.add(follower)),
              () => Effect.sync(() => void followers.delete(follower))
            )
            const [present, changes] = yield* follow(namespace)
            yield* changes.pipe(
              Stream.runForEach((one) => Effect.sync(() => offer({ ...one, node: id }))),
              Effect.matchCause({
                onFailure: () => fail(new SubscriberTooSlow({ namespace, limit })),
                onSuccess: () => void mailbox.unsafeDone(Exit.void)
              }),
              Effect.forkScoped
            )
            yield* tell(peers)
            const own = present.map((client): NodePresence => ({ _tag: "Joined", node: id, client, wasThere: true }))
            return Stream.concat(Stream.fromIterable(own), Mailbox.toStream(mailbox))
          })
        )
    }
  })

/** How long a node that ends takes to tell who left, in ms. */
const lastMillis = 500

/** Reports in a row in which a node that reports says nothing of what it follows, until that is over. */
const maxSilent = 8
