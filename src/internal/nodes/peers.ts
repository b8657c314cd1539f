/**
 * The other nodes, for one hub: who they are, and how they are asked.
 *
 * Waits are in real time, as those for an engine are: whoever hangs does so whatever the `Clock` says.
 *
 * @internal
 */
import * as Clock from "effect/Clock"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Queue from "effect/Queue"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import type { Bus, Revocation } from "../../NodeBus.js"
import type { NodesStatus, NodeStatus } from "../../Nodes.js"
import { type NodeBusError, NodeUnreachable, UnknownNode } from "../../SseError.js"
import { pause } from "../eventLoop.js"
import * as Messages from "./messages.js"

/** Requests of others that are worked on at the same time, and that wait. */
const workers = 8
const maxWaiting = 1024

/** Revocations that wait until others can be told. */
const maxUntold = 100_000

type Reply = Extract<Messages.Message, { readonly _tag: "Answer" | "Failed" }>
type Asked = Extract<Messages.Message, { readonly _tag: "Ask" }>

/** What the others may ask. */
export interface Answering {
  readonly status: Effect.Effect<NodeStatus>
  readonly answer: (operation: Messages.Operation) => Effect.Effect<unknown>
  /** Has been revoked on another node. */
  readonly revoked: (revocation: Revocation) => Effect.Effect<void>
  readonly onFollowing: (message: Extract<Messages.Message, { readonly _tag: "Follow" | "Seen" | "Quiet" }>) => void
  /** Runs behind each report. */
  readonly onReport: Effect.Effect<void>
}

export interface Peers {
  readonly list: Effect.Effect<Omit<NodesStatus, "self">>
  readonly ask: <S extends Schema.Schema.AnyNoContext>(
    node: string,
    operation: Messages.Operation,
    answer: S
  ) => Effect.Effect<S["Type"], UnknownNode | NodeUnreachable>
  /** Tells all nodes; gives the number of streams that were ended by those who answered. What cannot be told now is told later. */
  readonly revoke: (revocation: Revocation) => Effect.Effect<number>
  /** Sends, if that can be done. */
  readonly send: (to: string | undefined, message: Messages.Message) => Effect.Effect<void, NodeBusError>
}

export const alone: Peers = {
  list: Effect.succeed({ others: [], problem: undefined }),
  ask: (node) => new UnknownNode({ node }),
  revoke: () => Effect.succeed(0),
  send: () => Effect.void
}

export const join = (bus: Bus, id: string, answering: Answering): Effect.Effect<Peers, never, Scope.Scope> =>
  Effect.gen(function* () {
    const asked = yield* Queue.dropping<Asked>(maxWaiting)
    const waiting = new Map<number, { readonly node: string; readonly done: (reply: Reply) => void }>()
    let lastNumber = 0
    let known = false
    let problem: NodesStatus["problem"] = { reason: "not connected yet", since: yield* Clock.currentTimeMillis }
    let after = ""
    // By principal: only the last one counts. `since` is when it was revoked, here.
    const untold = new Map<string, Revocation & { readonly since: number }>()

    const onMessage = (text: string) => {
      const message = Messages.decode(text)
      if (message === undefined || message.from === id) return
      switch (message._tag) {
        case "Ask":
          return void asked.unsafeOffer(message)
        case "Answer":
        case "Failed": {
          const one = waiting.get(message.number)
          if (one?.node === message.from) one.done(message)
          return
        }
        case "Follow":
        case "Seen":
        case "Quiet":
          return answering.onFollowing(message)
      }
    }
    const member = yield* bus.join(id, onMessage)
    const send: Peers["send"] = (to, message) => member.send(to, Messages.encode(message))

    const report = Effect.gen(function* () {
      for (const [principal, { since, ...revocation }] of untold) {
        yield* member.remember({ ...revocation, ageMillis: (yield* Clock.currentTimeMillis) - since })
        untold.delete(principal)
      }
      const status = JSON.stringify(yield* answering.status)
      for (;;) {
        const found = yield* member.report(status, after)
        after = found.after
        if (found.revocations.length === 0) break
        for (const revocation of found.revocations) yield* answering.revoked(revocation)
      }
      if (problem !== undefined && known) yield* Effect.logInfo("effect-sse: the other nodes are in reach again")
      known = true
      problem = undefined
    }).pipe(
      Effect.catchAll(({ reason }) =>
        Effect.gen(function* () {
          if (problem === undefined || !known) {
            yield* Effect.logWarning(`effect-sse: the other nodes are out of reach: ${reason}`)
          }
          known = true
          problem = { reason, since: problem?.since ?? (yield* Clock.currentTimeMillis) }
        })
      )
    )
    const read = Effect.map(member.reports, (reports) =>
      reports
        .map(Messages.decodeStatus)
        .filter((status) => status !== undefined && status.id !== id)
        .map((status) => status!)
        .sort((a, b) => (a.name < b.name ? -1 : a.name > b.name ? 1 : a.id < b.id ? -1 : 1))
    )

    const handle = ({ from, number, operation }: Asked) =>
      answering.answer(operation).pipe(
        Effect.map((value): Messages.Message => ({ _tag: "Answer", from: id, number, value })),
        Effect.catchAllCause((cause) =>
          Effect.as(Effect.logError("effect-sse: a request of another node failed", cause), {
            _tag: "Failed",
            from: id,
            number,
            reason: "it failed; the log of that node has the reason"
          } as const)
        ),
        Effect.flatMap((message) => Effect.ignore(send(from, message)))
      )
    for (let i = 0; i < workers; i++) {
      yield* Queue.take(asked).pipe(Effect.flatMap(handle), Effect.forever, Effect.forkScoped)
    }

    const unreachable = (node: string, kind: NodeUnreachable["kind"], reason: string) =>
      new NodeUnreachable({ node, kind, reason })

    /** Asks one that reports. */
    const askKnown = <S extends Schema.Schema.AnyNoContext>(
      node: string,
      operation: Messages.Operation,
      answer: S
    ): Effect.Effect<S["Type"], NodeUnreachable> =>
      Effect.gen(function* () {
        const number = ++lastNumber
        const answered = yield* Deferred.make<Reply, NodeUnreachable>()
        const late = unreachable(node, "no-answer", `no answer for ${bus.answerMillis} ms`)
        const timer = setTimeout(() => Deferred.unsafeDone(answered, Effect.fail(late)), bus.answerMillis)
        // Before it is sent: the answer may come at once.
        waiting.set(number, { node, done: (reply) => Deferred.unsafeDone(answered, Effect.succeed(reply)) })
        const reply = yield* send(node, { _tag: "Ask", from: id, number, operation }).pipe(
          Effect.mapError(({ reason }) => unreachable(node, "no-connection", reason)),
          Effect.zipRight(Deferred.await(answered)),
          Effect.ensuring(
            Effect.sync(() => {
              clearTimeout(timer)
              waiting.delete(number)
            })
          )
        )
        if (reply._tag === "Failed") return yield* unreachable(node, "failed", reply.reason)
        return yield* Effect.mapError(Schema.decodeUnknown(answer)(reply.value), () =>
          unreachable(node, "failed", "its answer is not understood")
        )
      })

    yield* report
    yield* pause(bus.reportMillis, true).pipe(
      Effect.zipRight(report),
      Effect.zipRight(answering.onReport),
      Effect.catchAllCause((cause) => Effect.logError("effect-sse: a report to the other nodes failed", cause)),
      Effect.forever,
      Effect.forkScoped
    )

    return {
      list: Effect.flatMap(Effect.either(read), (result) =>
        Effect.map(Clock.currentTimeMillis, (now) =>
          result._tag === "Right"
            ? { others: result.right, problem }
            : { others: [], problem: problem ?? { reason: result.left.reason, since: now } }
        )
      ),
      ask: (node, operation, answer) =>
        Effect.gen(function* () {
          const others = yield* Effect.mapError(read, ({ reason }) => unreachable(node, "no-connection", reason))
          if (!others.some(({ id }) => id === node)) return yield* new UnknownNode({ node })
          return yield* askKnown(node, operation, answer)
        }),
      revoke: (revocation) =>
        Effect.gen(function* () {
          // First it is kept, so that a node that does not report yet reads it.
          yield* member.remember(revocation)
          const others = yield* read
          const counts = yield* Effect.forEach(
            others,
            ({ id }) => Effect.orElseSucceed(askKnown(id, { _tag: "Revoke", ...revocation }, Schema.Number), () => 0),
            { concurrency: "unbounded" }
          )
          return counts.reduce((sum, count) => sum + count, 0)
        }).pipe(
          Effect.catchAll(() =>
            Effect.map(Clock.currentTimeMillis, (since) => {
              untold.delete(revocation.principal)
              untold.set(revocation.principal, { ...revocation, since })
              if (untold.size > maxUntold) untold.delete(untold.keys().next().value!)
              return 0
            })
          )
        ),
      send
    }
  })
