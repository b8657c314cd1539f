/**
 * Tickets and idempotency keys that several processes of one machine share, by messages: {@link serve} where they are kept,
 * {@link connect} where they are used. Messages must arrive, whole and in order.
 *
 * @internal
 */
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Option from "effect/Option"
import * as Queue from "effect/Queue"
import type * as Scope from "effect/Scope"
import type { Idempotency, Known } from "../../Idempotency.js"
import { Refused } from "../../SseError.js"
import type { Grant, Tickets } from "../../Tickets.js"
import type { Channel } from "./log.js"

/** Named as the options of the routes that take them. */
export interface Stores {
  readonly tickets: Tickets["Type"]
  readonly idempotency: Idempotency["Type"]
}

type Call =
  | { readonly call: "put"; readonly args: Parameters<Tickets["Type"]["put"]> }
  | { readonly call: "take"; readonly args: Parameters<Tickets["Type"]["take"]> }
  | { readonly call: "begin"; readonly args: Parameters<Idempotency["Type"]["begin"]> }
  | { readonly call: "finish"; readonly args: Parameters<Idempotency["Type"]["finish"]> }
  | { readonly call: "abandon"; readonly args: Parameters<Idempotency["Type"]["abandon"]> }

export type Message =
  | (Call & { readonly id: number })
  | { readonly result: number; readonly value: unknown }
  | { readonly refused: number; readonly kind: Refused["kind"]; readonly reason: string }

/** Lets the other side of a channel use the stores, until the scope closes. */
export const serve = (
  { idempotency, tickets }: Stores,
  channel: Channel<Message>
): Effect.Effect<void, never, Scope.Scope> =>
  Effect.gen(function* () {
    // What is worked on when the other side is gone: nobody else would say what became of it.
    const begun = new Set<string>()
    const run = (message: Call): Effect.Effect<unknown, Refused> => {
      switch (message.call) {
        case "put":
          return tickets.put(...message.args)
        case "take":
          // An Option that was cloned is none.
          return Effect.map(tickets.take(...message.args), Option.getOrUndefined)
        case "begin":
          return Effect.tap(idempotency.begin(...message.args), ({ _tag }) => {
            if (_tag === "New") begun.add(message.args[0])
          })
        case "finish":
          begun.delete(message.args[0])
          return idempotency.finish(...message.args)
        case "abandon":
          begun.delete(message.args[0])
          return idempotency.abandon(...message.args)
      }
    }
    const called = yield* Queue.unbounded<Call & { readonly id: number }>()
    yield* Effect.acquireRelease(
      Effect.sync(() =>
        channel.listen((message) => {
          if ("call" in message) called.unsafeOffer(message)
        })
      ),
      (stop) =>
        Effect.suspend(() => {
          stop()
          return Effect.forEach(begun, idempotency.abandon, { discard: true })
        })
    )
    yield* Queue.take(called).pipe(
      Effect.flatMap((message) =>
        Effect.map(Effect.either(run(message)), (result) =>
          channel.send(
            Either.isRight(result)
              ? { result: message.id, value: result.right }
              : { refused: message.id, kind: result.left.kind, reason: result.left.reason }
          )
        )
      ),
      Effect.forever,
      Effect.forkScoped
    )
  })

/** The stores on the other side of a channel. */
export const connect = (channel: Channel<Message>): Effect.Effect<Stores, never, Scope.Scope> =>
  Effect.gen(function* () {
    const called = new Map<number, (result: Effect.Effect<unknown, Refused>) => void>()
    let last = 0
    yield* Effect.acquireRelease(
      Effect.sync(() =>
        channel.listen((message) => {
          if ("result" in message) called.get(message.result)?.(Effect.succeed(message.value))
          else if ("refused" in message) called.get(message.refused)?.(new Refused(message))
        })
      ),
      (stop) => Effect.sync(stop)
    )
    const call = <A>(message: Call): Effect.Effect<A, Refused> =>
      Effect.suspend(() => {
        const id = ++last
        return Effect.async<A, Refused>((resume) => {
          called.set(id, resume as (result: Effect.Effect<unknown, Refused>) => void)
          channel.send({ ...message, id })
        }).pipe(Effect.ensuring(Effect.sync(() => called.delete(id))))
      })
    return {
      tickets: {
        put: (...args) => call({ call: "put", args }),
        take: (...args) => Effect.map(call<Grant | undefined>({ call: "take", args }), Option.fromNullable)
      },
      idempotency: {
        begin: (...args) => call<Known>({ call: "begin", args }),
        finish: (...args) => Effect.orDie(call({ call: "finish", args })),
        abandon: (...args) => Effect.orDie(call({ call: "abandon", args }))
      }
    }
  })
