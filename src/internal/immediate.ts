/**
 * Effects that never wait, and a `Ref` of that kind: plain code can run them without a fiber, which costs more than all that a
 * connect does.
 *
 * @internal
 */
import * as Effect from "effect/Effect"
import * as Effectable from "effect/Effectable"
import type * as Exit from "effect/Exit"
import * as Readable from "effect/Readable"
import * as Ref from "effect/Ref"

export class Immediate<A, E = never> extends Effectable.Class<A, E> {
  constructor(readonly evaluate: () => Exit.Exit<A, E>) {
    super()
  }
  commit(): Effect.Effect<A, E> {
    return Effect.suspend(this.evaluate)
  }
}

/** Runs an effect if it is immediate; `undefined`: it has to be run by a fiber. Throws its defects. */
export const unsafeRun = <A, E>(effect: Effect.Effect<A, E>): Exit.Exit<A, E> | undefined =>
  effect instanceof Immediate ? (effect as Immediate<A, E>).evaluate() : undefined

export class ImmediateRef<A> extends Effectable.Class<A> implements Ref.Ref<A> {
  readonly [Ref.RefTypeId] = { _A: (value: A) => value }
  readonly [Readable.TypeId]: typeof Readable.TypeId = Readable.TypeId
  readonly get: Effect.Effect<A> = Effect.sync(() => this.value)
  constructor(private value: A) {
    super()
  }
  commit(): Effect.Effect<A> {
    return this.get
  }
  modify<B>(change: (current: A) => readonly [B, A]): Effect.Effect<B> {
    return Effect.sync(() => this.unsafeModify(change))
  }
  unsafeModify<B>(change: (current: A) => readonly [B, A]): B {
    const [result, next] = change(this.value)
    this.value = next
    return result
  }
}
