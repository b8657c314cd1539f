/**
 * A bus in another process of this machine, by messages: {@link serve} where it is, {@link connect} where it is used. Messages
 * must arrive, whole and in order.
 *
 * @internal
 */
import * as Effect from "effect/Effect"
import * as ExecutionStrategy from "effect/ExecutionStrategy"
import * as Exit from "effect/Exit"
import * as Queue from "effect/Queue"
import * as Scope from "effect/Scope"
import type { Bus, Member, NodeSettings, Revocation } from "../../NodeBus.js"
import type { Channel } from "./log.js"

type Request =
  | { readonly _tag: "Join" | "Leave" | "Reports" }
  | { readonly _tag: "Report"; readonly status: string; readonly after: string }
  | { readonly _tag: "Send"; readonly to: string | undefined; readonly message: string }
  | { readonly _tag: "Remember"; readonly revocation: Revocation }

/** Under a name of its own: a log may use the same channel. */
export interface Message {
  readonly bus:
    | { readonly ask: number; readonly node: string; readonly request: Request }
    | { readonly answer: number; readonly value: unknown }
    | { readonly node: string; readonly message: string }
}

const isMessage = (message: unknown): message is Message =>
  typeof message === "object" && message !== null && "bus" in message

/** Lets the other side of a channel use a bus in memory, until the scope closes. */
export const serve = (bus: Bus, channel: Channel<Message>): Effect.Effect<void, never, Scope.Scope> =>
  Effect.gen(function* () {
    const scope = yield* Effect.scope
    const asked = yield* Queue.unbounded<Extract<Message["bus"], { readonly ask: number }>>()
    const members = new Map<string, { readonly member: Member; readonly scope: Scope.CloseableScope }>()
    yield* Effect.acquireRelease(
      Effect.sync(() =>
        channel.listen((message) => {
          if (isMessage(message) && "ask" in message.bus) asked.unsafeOffer(message.bus)
        })
      ),
      (stop) => Effect.sync(stop)
    )
    const join = (node: string) =>
      Effect.gen(function* () {
        const own = yield* Scope.fork(scope, ExecutionStrategy.sequential)
        const member = yield* Scope.extend(
          bus.join(node, (message) => channel.send({ bus: { node, message } })),
          own
        )
        members.set(node, { member, scope: own })
      })
    const run = (node: string, request: Request): Effect.Effect<unknown> => {
      if (request._tag === "Join") return join(node)
      const found = members.get(node)
      if (found === undefined) return Effect.dieMessage(`${node} has not joined`)
      const { member, scope } = found
      switch (request._tag) {
        case "Leave":
          members.delete(node)
          return Scope.close(scope, Exit.void)
        case "Report":
          return Effect.orDie(member.report(request.status, request.after))
        case "Reports":
          return Effect.orDie(member.reports)
        case "Send":
          return Effect.orDie(member.send(request.to, request.message))
        case "Remember":
          return Effect.orDie(member.remember(request.revocation))
      }
    }
    yield* Queue.take(asked).pipe(
      Effect.flatMap(({ ask, node, request }) =>
        Effect.map(run(node, request), (value) => channel.send({ bus: { answer: ask, value } }))
      ),
      Effect.catchAllCause((cause) => Effect.logError("effect-sse: a request of a worker failed", cause)),
      Effect.forever,
      Effect.forkScoped
    )
  })

/** The bus on the other side of a channel. Its life is that of the channel. */
export const connect = (channel: Channel<Message>, settings: NodeSettings): Bus => ({
  ...settings,
  join: (node, onMessage) =>
    Effect.gen(function* () {
      const asked = new Map<number, (value: unknown) => void>()
      let last = 0
      yield* Effect.acquireRelease(
        Effect.sync(() =>
          channel.listen((message) => {
            if (!isMessage(message)) return
            const { bus } = message
            if ("answer" in bus) asked.get(bus.answer)?.(bus.value)
            else if ("message" in bus && bus.node === node) onMessage(bus.message)
          })
        ),
        (stop) => Effect.sync(stop)
      )
      const send = (request: Request) => {
        channel.send({ bus: { ask: ++last, node, request } })
        return last
      }
      const ask = <A>(request: Request): Effect.Effect<A> =>
        Effect.async((resume) => {
          const number = send(request)
          asked.set(number, (value) => {
            asked.delete(number)
            resume(Effect.succeed(value as A))
          })
          return Effect.sync(() => void asked.delete(number))
        })
      yield* Effect.acquireRelease(ask<void>({ _tag: "Join" }), () => Effect.sync(() => void send({ _tag: "Leave" })))
      return {
        report: (status, after) => ask({ _tag: "Report", status, after }),
        reports: Effect.suspend(() => ask<ReadonlyArray<string>>({ _tag: "Reports" })),
        send: (to, message) => ask({ _tag: "Send", to, message }),
        remember: (revocation) => ask({ _tag: "Remember", revocation })
      } satisfies Member
    })
})
