import { assert, describe, it } from "@effect/vitest"
import { SseHub, SseLayer, SseRoutes } from "effect-sse"
import * as Jwt from "effect-sse/Authorize/Jwt"
import { Clock, Effect, Layer, Logger, Redacted, TestClock } from "effect"
import * as Jose from "jose"
import { inspect } from "node:util"
import { bySecret, claims, keyServer, secret, sign, signer } from "../support/jwt.js"
import { connect, request } from "../support/rawClient.js"
import { eventually, port, serverLayer } from "../support/server.js"
import { bearer, handlerOf, json, reader, said, type Send } from "../support/web.js"

/** What an answer says: status and, where it is a refusal, why. */
const why = (response: Response) =>
  Effect.gen(function* () {
    return response.ok ? String(response.status) : `${response.status} ${String((yield* json(response))["message"])}`
  })

const routes = (options: Jwt.JwtOptions) => handlerOf(SseRoutes.router(Jwt.make(options)))

const subscribe = (send: Send, token: string, path = "/pets") =>
  Effect.flatMap(send(`/subscribe${path}`, bearer(token)), why)

const encode = (value: unknown) => Buffer.from(JSON.stringify(value)).toString("base64url")

describe("Jwt", () => {
  for (const alg of ["RS256", "ES256", "EdDSA"] as const) {
    it.scoped(`${alg}: by the keys of a set`, () =>
      Effect.gen(function* () {
        const key = yield* signer(alg, "1")
        const other = yield* signer(alg, "1")
        const send = yield* routes({ keys: { keys: [key.jwk] } })
        assert.strictEqual(yield* subscribe(send, yield* sign(key, claims(0))), "200")
        assert.strictEqual(
          yield* subscribe(send, yield* sign(other, claims(0))),
          "401 the token's signature is wrong",
          "another key that calls itself the same"
        )
      }).pipe(Effect.provide(SseLayer))
    )
  }

  it.scoped("HS256: by the secret, as text, bytes or redacted", () =>
    Effect.gen(function* () {
      const token = yield* sign(bySecret(), claims(0))
      for (const one of [secret, new TextEncoder().encode(secret), Redacted.make(secret)]) {
        const send = yield* routes({ secret: one })
        assert.strictEqual(yield* subscribe(send, token), "200")
        const wrong = yield* sign(bySecret(secret.replace("0", "1")), claims(0))
        assert.strictEqual(yield* subscribe(send, wrong), "401 the token's signature is wrong")
      }
    }).pipe(Effect.provide(SseLayer))
  )

  it.scoped("does what the claim says, by pattern, and shows who it is", () =>
    Effect.gen(function* () {
      const hub = yield* SseHub.SseHub
      const send = yield* routes({ secret })
      const token = yield* sign(bySecret(), claims(0))
      assert.strictEqual(yield* subscribe(send, token, "/pets/cats"), "200")
      assert.strictEqual(yield* subscribe(send, token, "/rooms/7/alerts"), "200")
      const forbidden = "403 the token does not allow this"
      for (const path of ["/", "/petstore", "/rooms/7", "/rooms/7/chat", "/time"]) {
        assert.strictEqual(yield* subscribe(send, token, path), forbidden, path)
      }
      const publish = (path: string, token: string) =>
        Effect.flatMap(send(`/publish${path}`, { ...bearer(token), method: "POST", body: "x" }), why)
      assert.strictEqual(yield* publish("/pets/dogs/corgi", token), "202")
      assert.strictEqual(yield* publish("/pets", token), forbidden)
      assert.strictEqual(yield* publish("/rooms/7/alerts", token), forbidden)
      assert.strictEqual(yield* said(yield* send("/admin/status.json", bearer(token))), "403 Forbidden")
      const all = yield* sign(bySecret(), {
        ...claims(0, { sub: "operator" }),
        sse: { subscribe: ["/"], admin: true, metadata: { desk: 3 } }
      })
      assert.strictEqual(yield* subscribe(send, all, "/"), "200")
      for (const path of ["/admin/status.json", "/metrics"]) {
        assert.strictEqual(yield* said(yield* send(path, bearer(all))), "200")
      }
      assert.deepStrictEqual(
        (yield* hub.clients).map(({ expiresAt, metadata, principal }) => [principal, expiresAt, metadata]),
        [
          ["ann", 60_000, undefined],
          ["ann", 60_000, undefined],
          ["operator", 60_000, { desk: 3 }]
        ]
      )
    }).pipe(Effect.provide(SseLayer))
  )

  it.scoped("takes the token from the cookie, when it is told to", () =>
    Effect.gen(function* () {
      const token = yield* sign(bySecret(), claims(0))
      const get = (send: Send) =>
        Effect.flatMap(send("/subscribe/pets", { headers: { cookie: `a=b; session=${token}` } }), why)
      assert.strictEqual(yield* get(yield* routes({ secret, cookie: "session" })), "200")
      const refused = "401 send a token as: Authorization: Bearer <token>"
      assert.strictEqual(yield* get(yield* routes({ secret, cookie: "other" })), refused)
      assert.strictEqual(yield* get(yield* routes({ secret })), refused)
    }).pipe(Effect.provide(SseLayer))
  )

  it.scoped("reads other claims where the app does", () =>
    Effect.gen(function* () {
      const send = yield* routes({
        secret,
        grants: ({ scope }) => ({ subscribe: String(scope).split(" "), metadata: "by scope" })
      })
      assert.strictEqual(yield* subscribe(send, yield* sign(bySecret(), claims(0, { scope: "/a /b" })), "/b"), "200")
      assert.strictEqual((yield* (yield* SseHub.SseHub).clients)[0]?.metadata, "by scope")
    }).pipe(Effect.provide(SseLayer))
  )

  describe("refuses, and registers nobody", () => {
    const all = (
      options: Jwt.JwtOptions,
      cases: Record<string, readonly [token: Effect.Effect<string>, why: string]>
    ) =>
      Effect.gen(function* () {
        const hub = yield* SseHub.SseHub
        yield* TestClock.setTime(1_000_000)
        const send = yield* routes(options)
        for (const [name, [token, expected]] of Object.entries(cases)) {
          const response = yield* send("/subscribe/pets", bearer(yield* token))
          assert.strictEqual(
            response.headers.get("www-authenticate"),
            expected.startsWith("401") ? 'Bearer error="invalid_token"' : null,
            name
          )
          assert.strictEqual(yield* why(response), expected, name)
        }
        assert.deepStrictEqual(yield* hub.clients, [])
        assert.deepStrictEqual((yield* hub.activity).recentEnds, [])
      }).pipe(Effect.provide(SseLayer))

    const now = 1000
    const by = bySecret()
    const claimed = (claim: string) => `401 the token's claim "${claim}" is missing or not accepted`

    it.scoped("what is not valid (any more)", () =>
      all(
        { secret, issuer: ["https://login.example", "https://other.example"], audience: "live" },
        {
          expired: [
            sign(by, claims(now, { exp: now - 1, aud: "live", iss: "https://login.example" })),
            "401 the token has expired"
          ],
          "at its end": [
            sign(by, claims(now, { exp: now, aud: "live", iss: "https://login.example" })),
            "401 the token has expired"
          ],
          "not yet valid": [
            sign(by, claims(now, { nbf: now + 1, aud: "live", iss: "https://login.example" })),
            claimed("nbf")
          ],
          "another audience": [sign(by, claims(now, { aud: ["dead"], iss: "https://login.example" })), claimed("aud")],
          "no audience": [sign(by, claims(now, { iss: "https://login.example" })), claimed("aud")],
          "another issuer": [sign(by, claims(now, { aud: "live", iss: "https://evil.example" })), claimed("iss")],
          "no issuer": [sign(by, claims(now, { aud: "live" })), claimed("iss")],
          "no end": [
            sign(by, claims(now, { aud: "live", iss: "https://other.example", exp: undefined })),
            claimed("exp")
          ],
          nobody: [
            sign(by, claims(now, { aud: "live", iss: "https://other.example", sub: undefined })),
            claimed("sub")
          ],
          "an empty name": [
            sign(by, claims(now, { aud: "live", iss: "https://other.example", sub: "" })),
            claimed("sub")
          ],
          "a name that is none": [
            sign(by, claims(now, { aud: "live", iss: "https://other.example", sub: 7 })),
            claimed("sub")
          ]
        }
      )
    )

    it.scoped("what grants nothing, or in no known way", () => {
      const forbidden = "403 the token does not allow this"
      return all(
        { secret },
        Object.fromEntries(
          [undefined, null, "/pets", [], { subscribe: "/pets" }, { subscribe: [1] }, { publish: ["/"] }].map((sse) => [
            JSON.stringify(sse) ?? "no claim",
            [sign(by, claims(now, { sse })), forbidden] as const
          ])
        )
      )
    })

    it.scoped("what is no token, or signed by nobody", () =>
      all(
        { secret },
        {
          text: [Effect.succeed("hello"), "401 this is no token"],
          dots: [Effect.succeed("a.b.c"), "401 this is no token"],
          "not JSON": [Effect.succeed(`${Buffer.from("x").toString("base64url")}.x.x`), "401 this is no token"],
          "alg: none": [
            Effect.succeed(`${encode({ alg: "none" })}.${encode(claims(now))}.`),
            "401 the token's algorithm is not accepted"
          ],
          "alg: None, signed": [
            Effect.map(
              sign(by, claims(now)),
              (token) => `${encode({ alg: "None" })}${token.slice(token.indexOf("."))}`
            ),
            "401 the token's algorithm is not accepted"
          ],
          "another payload": [
            Effect.map(sign(by, claims(now)), (token) => {
              const [head, , signature] = token.split(".")
              return `${head}.${encode(claims(now, { sub: "bob" }))}.${signature}`
            }),
            "401 the token's signature is wrong"
          ],
          "extensions that must be understood": [
            Effect.promise(() =>
              new Jose.SignJWT(claims(now))
                .setProtectedHeader({ alg: "HS256", crit: ["x"], x: 1 })
                .sign(by.key as Uint8Array, { crit: { x: true } })
            ),
            "401 the token has extensions that are not supported"
          ]
        }
      )
    )

    for (const alg of ["RS256", "ES256", "EdDSA"] as const) {
      it.scoped(`a public key (${alg}) that is used as the secret`, () =>
        Effect.gen(function* () {
          const key = yield* signer(alg, "1")
          const server = yield* keyServer([key.jwk])
          const refused = "401 the token's algorithm is not accepted"
          for (const text of [key.pem, key.pem.trim(), JSON.stringify(key.jwk), String(key.jwk.n ?? key.jwk.x)]) {
            yield* all(
              { keys: server.url },
              { confused: [sign({ ...bySecret(text), kid: "1" }, claims(now)), refused] }
            )
          }
          // Where there is a secret as well, it is that one that counts.
          yield* all(
            { keys: server.url, secret },
            { confused: [sign({ ...bySecret(key.pem), kid: "1" }, claims(now)), "401 the token's signature is wrong"] }
          )
        })
      )
    }

    it.scoped("an algorithm that no key is for", () =>
      Effect.gen(function* () {
        const key = yield* signer("RS256", "1")
        const strange = { ...key, alg: "PS256" }
        const token = Effect.promise(async () => {
          const pkcs8 = await Jose.exportPKCS8(key.key as CryptoKey)
          return new Jose.SignJWT(claims(now))
            .setProtectedHeader({ alg: "PS256", kid: "1" })
            .sign(await Jose.importPKCS8(pkcs8, strange.alg))
        })
        yield* all({ keys: { keys: [key.jwk] } }, { PS256: [token, "401 the token's algorithm is not accepted"] })
        yield* all({ secret }, { RS256: [sign(key, claims(now)), "401 the token's algorithm is not accepted"] })
      })
    )
  })

  describe("keys at an address", () => {
    it.scoped("are fetched once, and again for a key that is not known, which is how keys rotate", () =>
      Effect.gen(function* () {
        const [first, second, unknown] = yield* Effect.all([
          signer("ES256", "1"),
          signer("ES256", "2"),
          signer("ES256", "3")
        ])
        const server = yield* keyServer([first.jwk])
        const send = yield* routes({ keys: server.url, keysCooldown: 0 })
        assert.strictEqual(server.state.fetches, 0)
        for (let i = 0; i < 3; i++) assert.strictEqual(yield* subscribe(send, yield* sign(first, claims(0))), "200")
        assert.strictEqual(server.state.fetches, 1)
        assert.strictEqual(yield* subscribe(send, yield* sign(unknown, claims(0))), "401 the token's key is not known")
        server.state.keys = [second.jwk]
        assert.strictEqual(yield* subscribe(send, yield* sign(second, claims(0))), "200")
        assert.strictEqual(
          yield* subscribe(send, yield* sign(first, claims(0))),
          "401 the token's key is not known",
          "the old one is gone"
        )
      }).pipe(Effect.provide(SseLayer))
    )

    it.scoped("are not asked for at every unknown key", () =>
      Effect.gen(function* () {
        const [known, unknown] = yield* Effect.all([signer("EdDSA", "1"), signer("EdDSA", "2")])
        const server = yield* keyServer([known.jwk])
        const send = yield* routes({ keys: server.url })
        const token = yield* sign(unknown, claims(0))
        for (let i = 0; i < 10; i++) yield* subscribe(send, token)
        assert.strictEqual(server.state.fetches, 1)
      }).pipe(Effect.provide(SseLayer))
    )

    it.scoped("must be named where several fit", () =>
      Effect.gen(function* () {
        const keys = yield* Effect.all([signer("ES256", "1"), signer("ES256", "2")])
        const send = yield* routes({ keys: { keys: keys.map(({ jwk }) => jwk) } })
        const { alg, key } = keys[0]
        assert.strictEqual(
          yield* subscribe(send, yield* sign({ alg, key }, claims(0))),
          "401 the token must name its key (kid)"
        )
      }).pipe(Effect.provide(SseLayer))
    )

    it.scoped("that cannot be had bring subscribers back, and are told to the operator once a minute", () => {
      const logged: Array<unknown> = []
      return Effect.gen(function* () {
        const key = yield* signer("ES256", "1")
        const server = yield* keyServer([key.jwk])
        server.state.status = 500
        const send = yield* routes({ keys: server.url })
        const token = yield* sign(key, claims(0, { exp: 10_000 }))
        for (let i = 0; i < 5; i++) {
          const stream = yield* send("/subscribe/pets", bearer(token))
          assert.strictEqual(stream.status, 200)
          assert.match(yield* Effect.promise(() => stream.text()), /^retry:\d+\n\n$/)
        }
        const publish = send("/publish/pets/dogs", { ...bearer(token), method: "POST", body: "x" })
        assert.strictEqual(yield* said(yield* publish), "503 Unavailable")
        assert.strictEqual(logged.length, 1)
        assert.notInclude(inspect(logged, { depth: 10 }), token)
        yield* TestClock.adjust("1 minutes")
        yield* send("/subscribe/pets", bearer(token))
        assert.strictEqual(logged.length, 2)
        server.state.status = 200
        assert.strictEqual(yield* subscribe(send, token), "200")
        assert.strictEqual(yield* said(yield* publish), "202")
      }).pipe(
        Effect.provide(
          Layer.merge(
            SseLayer,
            Logger.replace(
              Logger.defaultLogger,
              Logger.make(({ message }) => void logged.push(message))
            )
          )
        )
      )
    })
  })

  describe("a stream", () => {
    it.scoped("ends at exp, and not before", () =>
      Effect.gen(function* () {
        const hub = yield* SseHub.SseHub
        const send = yield* routes({ secret })
        const token = yield* sign(bySecret(), claims(0))
        const until = reader(yield* send("/subscribe/pets", bearer(token)))
        yield* until((body) => body !== "")
        yield* TestClock.adjust(59_999)
        yield* hub.publish({ namespace: "/pets", data: "last" })
        yield* until((body) => body.includes("data:last"))
        assert.strictEqual((yield* hub.status).clients, 1)
        yield* TestClock.adjust(1)
        yield* until(() => false)
        assert.strictEqual((yield* hub.status).ended.expired, 1)
        assert.strictEqual(yield* subscribe(send, token), "401 the token has expired", "an EventSource gives up")
      }).pipe(Effect.provide(SseLayer))
    )

    it.scoped("ends so much later as the clocks may differ", () =>
      Effect.gen(function* () {
        const hub = yield* SseHub.SseHub
        yield* TestClock.adjust("65 seconds")
        const send = yield* routes({ secret, clockTolerance: "10 seconds" })
        const token = yield* sign(bySecret(), claims(0))
        assert.strictEqual(yield* subscribe(send, token), "200")
        yield* TestClock.adjust(4999)
        assert.strictEqual((yield* hub.status).clients, 1)
        yield* TestClock.adjust(1)
        assert.strictEqual((yield* hub.status).ended.expired, 1)
        assert.strictEqual(yield* subscribe(send, token), "401 the token has expired")
      }).pipe(Effect.provide(SseLayer))
    )

    it.scoped("of a revoked principal ends, and its tokens work no more; new ones do", () =>
      Effect.gen(function* () {
        const hub = yield* SseHub.SseHub
        yield* TestClock.setTime(1_000_000)
        const send = yield* routes({ secret })
        const token = yield* sign(bySecret(), claims(1000))
        const until = reader(yield* send("/subscribe/pets", bearer(token)))
        yield* until((body) => body !== "")
        assert.strictEqual(yield* hub.revoke("ann"), 1)
        yield* until(() => false)
        const revoked = "401 what this request proves has been revoked"
        assert.strictEqual(yield* subscribe(send, token), revoked)
        assert.strictEqual(yield* subscribe(send, yield* sign(bySecret(), claims(1000, { iat: undefined }))), revoked)
        assert.strictEqual(yield* subscribe(send, yield* sign(bySecret(), claims(1001))), "200")
        assert.strictEqual(yield* subscribe(send, yield* sign(bySecret(), claims(1000, { sub: "bob" }))), "200")
      }).pipe(Effect.provide(SseLayer))
    )

    it.scopedLive("over a real socket: ends at exp, and within a second of being revoked", () =>
      Effect.gen(function* () {
        const hub = yield* SseHub.SseHub
        const listening = yield* port
        const now = Math.floor((yield* Clock.currentTimeMillis) / 1000)
        const open = (token: string) =>
          connect(listening, "/subscribe/pets", { headers: { Authorization: `Bearer ${token}` } })
        const short = yield* open(yield* sign(bySecret(), claims(now, { exp: now + 2 })))
        yield* short.until((body) => body !== "")
        const { clean } = yield* short.ended
        assert.isTrue(clean)
        const over = (yield* Clock.currentTimeMillis) - (now + 2) * 1000
        assert.isAtLeast(over, 0)
        assert.isBelow(over, 1000)

        const token = yield* sign(bySecret(), claims(now))
        const clients = yield* Effect.replicateEffect(open(token), 20)
        yield* Effect.forEach(clients, (client) => client.until((body) => body !== ""))
        const start = performance.now()
        assert.strictEqual(yield* hub.revoke("ann"), 20)
        for (const client of clients) assert.isTrue((yield* client.ended).clean)
        assert.isBelow(performance.now() - start, 1000)
        yield* eventually(Effect.map(hub.status, ({ ended }) => ended.revoked === 20))
        const again = yield* request(listening, "/subscribe/pets", { headers: { Authorization: `Bearer ${token}` } })
        assert.strictEqual(again.status, 401)
        assert.match(again.head, /\r\nwww-authenticate: Bearer/i)
      }).pipe(Effect.provide(serverLayer({ subscribe: Jwt.make({ secret }).subscribe })))
    )
  })

  it("what makes no sense is refused when it is made", () => {
    assert.throws(() => Jwt.make({}), /a secret or keys/)
    assert.throws(() => Jwt.make({ secret: secret.slice(1) }), /less than 32 bytes/)
    assert.throws(() => Jwt.make({ keys: "no url" }))
    assert.throws(() => Jwt.make({ keys: { keys: "none" } as never }))
  })
})
