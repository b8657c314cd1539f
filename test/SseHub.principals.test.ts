import { assert, describe, it } from "@effect/vitest"
import type { Connection, HubClient } from "effect-sse"
import { Namespace, SseHub, SseLayer } from "effect-sse"
import { Effect, FastCheck as fc, Fiber, TestClock, TestContext } from "effect"
import { eventually } from "./support/server.js"

/** An open response that remembers when and why it ended, which takes so many ms. */
const fake = (endMillis = 0) => {
  const seen = { endedBy: undefined as Connection.EndReason | undefined }
  const connection: Connection.Connection = {
    keepsItselfAlive: true,
    write: () => 0,
    pendingBytes: () => 0,
    end: (reason) => {
      seen.endedBy = reason
      for (const until = performance.now() + endMillis; performance.now() < until;);
    },
    onClose: () => {}
  }
  return Object.assign(seen, { connection })
}

const join = (principal?: HubClient.Principal, client = fake()) =>
  Effect.flatMap(SseHub.SseHub, (hub) =>
    Effect.map(
      hub.connect({ namespaces: [Namespace.make("/a")], connection: client.connection, principal }),
      ({ id }) => Object.assign(client, { id })
    )
  )

describe("principals of a hub", () => {
  describe("expiresAt", () => {
    it.scoped("ends a stream at that time and not before, others later, in whatever order they came", () =>
      Effect.gen(function* () {
        const hub = yield* SseHub.SseHub
        // In between, whoever waits goes to sleep.
        const sleep = TestClock.adjust(0)
        const late = yield* Effect.zipLeft(join({ id: "late", expiresAt: 90_000_000 }), sleep)
        const second = yield* Effect.zipLeft(join({ id: "second", expiresAt: 61_000 }), sleep)
        const first = yield* Effect.zipLeft(join({ id: "first", expiresAt: 60_000 }), sleep)
        const same = yield* join({ id: "same", expiresAt: 60_000 })
        const ever = yield* join({ id: "ever" })
        const unknown = yield* join()
        yield* TestClock.adjust(59_999)
        assert.deepStrictEqual(
          [first, same, second].map(({ endedBy }) => endedBy),
          [undefined, undefined, undefined]
        )
        yield* TestClock.adjust(1)
        assert.deepStrictEqual(
          [first, same, second].map(({ endedBy }) => endedBy),
          ["expired", "expired", undefined]
        )
        assert.strictEqual((yield* hub.status).ended.expired, 2)
        yield* TestClock.adjust(1000)
        assert.strictEqual(second.endedBy, "expired")
        yield* TestClock.adjust("25 hours")
        assert.strictEqual(late.endedBy, "expired")
        assert.deepStrictEqual([ever.endedBy, unknown.endedBy], [undefined, undefined])
      }).pipe(Effect.provide(SseLayer))
    )

    it.scoped("is exact for any times, also when clients leave before", () =>
      Effect.promise(() =>
        fc.assert(
          fc.asyncProperty(
            fc.array(fc.record({ at: fc.integer({ min: 1, max: 30 }), leaves: fc.boolean() }), { maxLength: 30 }),
            (plan) =>
              Effect.gen(function* () {
                const hub = yield* SseHub.SseHub
                const clients = yield* Effect.forEach(plan, ({ at }, i) => join({ id: String(i), expiresAt: at }))
                for (const [i, { leaves }] of plan.entries()) if (leaves) yield* hub.disconnect(clients[i]!.id)
                const stay = plan.filter(({ leaves }) => !leaves).length
                yield* eventually(Effect.map(hub.status, ({ clients }) => clients === stay))
                for (let now = 1; now <= 30; now++) {
                  yield* TestClock.adjust(1)
                  for (const [i, { at, leaves }] of plan.entries()) {
                    const expected = leaves ? "disconnected" : at <= now ? "expired" : undefined
                    assert.strictEqual(clients[i]!.endedBy, expected, `${i} at ${now}`)
                  }
                }
              }).pipe(Effect.provide(SseLayer), (effect) =>
                Effect.runPromise(Effect.provide(effect, TestContext.TestContext))
              )
          ),
          { numRuns: 20 }
        )
      )
    )

    it.scoped("counts for those who come when all others of that time have left", () =>
      Effect.gen(function* () {
        const hub = yield* SseHub.SseHub
        for (let i = 0; i < 3; i++) {
          const client = yield* join({ id: "ann", expiresAt: 1000 })
          yield* TestClock.adjust(1)
          if (i < 2) yield* hub.disconnect(client.id)
          yield* eventually(Effect.map(hub.status, ({ clients }) => clients === (i < 2 ? 0 : 1)))
        }
        yield* TestClock.adjust(997)
        assert.strictEqual((yield* hub.status).ended.expired, 1)
      }).pipe(Effect.provide(SseLayer))
    )

    it.scoped("in the past, or no time at all, is refused, and nobody is registered", () =>
      Effect.gen(function* () {
        const hub = yield* SseHub.SseHub
        yield* TestClock.adjust("10 seconds")
        for (const expiresAt of [9000, 10_000, Number.NaN, -Infinity]) {
          const client = fake()
          assert.deepInclude(yield* Effect.flip(join({ id: "ann", expiresAt }, client)), {
            _tag: "Refused",
            kind: "unauthenticated"
          })
          assert.deepInclude(yield* Effect.flip(hub.checkPrincipal({ id: "ann", expiresAt })), { _tag: "Refused" })
        }
        yield* join({ id: "ann", expiresAt: Infinity })
        yield* join({ id: "ann", expiresAt: 10_001 })
        assert.strictEqual((yield* hub.status).clients, 2)
      }).pipe(Effect.provide(SseLayer))
    )
  })

  describe("revoke", () => {
    it.scoped("ends the streams of that principal within a second, and of nobody else", () =>
      Effect.gen(function* () {
        const hub = yield* SseHub.SseHub
        const ann = yield* Effect.replicateEffect(join({ id: "ann" }), 3)
        const bob = yield* join({ id: "bob" })
        const nobody = yield* join()
        assert.strictEqual(yield* hub.revoke("ann"), 3)
        assert.deepStrictEqual(
          ann.map(({ endedBy }) => endedBy),
          ["revoked", "revoked", "revoked"]
        )
        assert.deepStrictEqual([bob.endedBy, nobody.endedBy], [undefined, undefined])
        yield* eventually(Effect.map(hub.status, ({ clients }) => clients === 2))
        assert.strictEqual((yield* hub.status).ended.revoked, 3)
        assert.strictEqual(yield* hub.revoke("ann"), 0)
        assert.strictEqual(yield* hub.revoke("carl"), 0)
      }).pipe(Effect.provide(SseLayer))
    )

    it.scoped("ends thousands and gives the event loop back between them", () =>
      Effect.gen(function* () {
        const hub = yield* SseHub.SseHub
        const clients = yield* Effect.replicateEffect(
          Effect.suspend(() => join({ id: "bot" }, fake(0.02))),
          3000
        )
        const turns = { count: 0 }
        const ticking = yield* Effect.fork(
          Effect.forever(
            Effect.zipRight(
              Effect.async<void>((resume) => void setImmediate(() => resume(Effect.void))),
              Effect.sync(() => turns.count++)
            )
          )
        )
        yield* Effect.yieldNow()
        assert.strictEqual(yield* hub.revoke("bot"), 3000)
        yield* Fiber.interrupt(ticking)
        assert.isTrue(clients.every(({ endedBy }) => endedBy === "revoked"))
        assert.isAtLeast(turns.count, 4)
      }).pipe(Effect.provide(SseLayer))
    )

    it.scoped("refuses what was proved before it, not what is proved after, nor where the hook decides", () =>
      Effect.gen(function* () {
        const hub = yield* SseHub.SseHub
        yield* TestClock.adjust("100 seconds")
        yield* hub.revoke("ann")
        for (const issuedAt of [0, 99_000, 100_000, Number.NaN]) {
          assert.deepInclude(yield* Effect.flip(join({ id: "ann", issuedAt })), {
            _tag: "Refused",
            kind: "unauthenticated"
          })
          assert.deepInclude(yield* Effect.flip(hub.checkPrincipal({ id: "ann", issuedAt })), { _tag: "Refused" })
        }
        yield* join({ id: "bob", issuedAt: 0 })
        yield* join({ id: "ann", issuedAt: 101_000 })
        yield* join({ id: "ann" })
        assert.strictEqual((yield* hub.status).clients, 3)
      }).pipe(Effect.provide(SseLayer))
    )

    it.scoped("is remembered for as long as is asked for, counted from the last time", () =>
      Effect.gen(function* () {
        const hub = yield* SseHub.SseHub
        const old = { id: "ann", issuedAt: 0 }
        yield* hub.revoke("ann", { remember: "1 hour" })
        yield* TestClock.adjust("50 minutes")
        yield* Effect.flip(hub.checkPrincipal(old))
        yield* hub.revoke("ann", { remember: "1 hour" })
        yield* TestClock.adjust("59 minutes")
        yield* Effect.flip(hub.checkPrincipal(old))
        yield* TestClock.adjust("1 minutes")
        yield* hub.checkPrincipal(old)
        yield* hub.revoke("ann", { remember: 0 })
        yield* hub.checkPrincipal(old)
        yield* hub.revoke("ann")
        yield* TestClock.adjust("23 hours")
        yield* Effect.flip(hub.checkPrincipal(old))
        yield* TestClock.adjust("1 hours")
        yield* hub.checkPrincipal(old)
      }).pipe(Effect.provide(SseLayer))
    )

    it.scoped("remembers the last 100,000", () =>
      Effect.gen(function* () {
        const hub = yield* SseHub.SseHub
        for (let i = 0; i <= 100_000; i++) yield* hub.revoke(`user ${i}`)
        yield* hub.checkPrincipal({ id: "user 0", issuedAt: 0 })
        yield* Effect.flip(hub.checkPrincipal({ id: "user 1", issuedAt: 0 }))
        yield* Effect.flip(hub.checkPrincipal({ id: "user 100000", issuedAt: 0 }))
      }).pipe(Effect.provide(SseLayer))
    )
  })

  it.scoped("are shown with their clients", () =>
    Effect.gen(function* () {
      const hub = yield* SseHub.SseHub
      yield* join({ id: "ann", expiresAt: 5000, metadata: { level: 3 } })
      yield* join()
      assert.deepStrictEqual(
        (yield* hub.clients).map(({ expiresAt, metadata, principal }) => ({ expiresAt, metadata, principal })),
        [
          { principal: "ann", expiresAt: 5000, metadata: { level: 3 } },
          { principal: undefined, expiresAt: undefined, metadata: undefined }
        ]
      )
    }).pipe(Effect.provide(SseLayer))
  )
})
