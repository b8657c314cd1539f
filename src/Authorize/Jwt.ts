/**
 * Who may subscribe, publish and look, by JSON Web Tokens (RFC 7519). Needs the package `jose`, which is not installed with
 * this one.
 *
 * @since 0.1.0
 */
import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as DateTime from "effect/DateTime"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Redacted from "effect/Redacted"
import * as Schema from "effect/Schema"
import * as Jose from "jose"
import { type Authorize, covers, credential, type CredentialOptions } from "../Authorize.js"
import { Refused } from "../SseError.js"

/**
 * What a token lets its bearer do. Namespaces are patterns, as `Authorize.covers` takes them: `*` is any one segment, and
 * each covers itself and all below. Who subscribes to `/` needs `/`.
 *
 * @since 0.1.0
 * @category models
 */
export interface Grants {
  /** What may be subscribed to. Default: nothing. */
  readonly subscribe?: ReadonlyArray<string> | undefined
  /** What may be published to. Default: nothing. */
  readonly publish?: ReadonlyArray<string> | undefined
  /** Whether the admin page and the metrics may be seen and used. Default: `false`. */
  readonly admin?: boolean | undefined
  /** What is shown with the bearer's clients, and told by `hub.presence`. */
  readonly metadata?: unknown
}

/**
 * How tokens are verified: by a `secret` or by `keys`, or by either.
 *
 * @since 0.1.0
 * @category models
 */
export interface JwtOptions extends CredentialOptions {
  /** The secret of HS256 tokens, at least 32 bytes (RFC 7518 section 3.2). A text stands for its UTF-8. */
  readonly secret?: string | Uint8Array | Redacted.Redacted<string> | undefined
  /**
   * The public keys of RS256, ES256 and EdDSA tokens, as a JSON Web Key Set (RFC 7517), or the URL where there is one. It is
   * fetched when first needed, and kept for 10 minutes.
   */
  readonly keys?: string | URL | Jose.JSONWebKeySet | undefined
  /** How long after a fetch the set is not fetched again for a token whose key is not in it. Default: 30 seconds. */
  readonly keysCooldown?: Duration.DurationInput | undefined
  /** Who must have issued a token (`iss`), or one of several. Default: anyone. */
  readonly issuer?: string | ReadonlyArray<string> | undefined
  /** For whom a token must be (`aud`), or for one of several. Default: anyone; set it where others get tokens of the same keys. */
  readonly audience?: string | ReadonlyArray<string> | undefined
  /** By how much the clocks may differ. A stream ends so much later than its token. Default: 0. */
  readonly clockTolerance?: Duration.DurationInput | undefined
  /** What a verified token grants. Default: what stands in its claim `sse`: `{"subscribe":[...],"publish":[...],"admin":true,"metadata":...}`. */
  readonly grants?: ((claims: Jose.JWTPayload) => Grants) | undefined
}

/**
 * The hooks that {@link make} gives, named as the options of the routes that take them.
 *
 * @since 0.1.0
 * @category models
 */
export interface JwtHooks {
  readonly subscribe: Authorize
  readonly publish: Authorize
  readonly admin: Authorize
  readonly metrics: Authorize
}

/**
 * Makes the hooks. A token comes in `Authorization: Bearer`, or in the `cookie`. It must have `sub`, which is the principal's
 * id, and `exp`, at which streams end; `nbf` and `iat` count if they are there.
 *
 * Only the algorithms of what is configured are taken, so that a public key cannot pass for a secret (RFC 8725 section 2.1).
 * A token that does not verify is refused 401, one that does not grant what is wanted 403. While the keys cannot be
 * fetched, subscribers are told to come back, and others get 503.
 *
 * @throws Error if there is neither a secret nor keys, or the secret is too short
 * @since 0.1.0
 * @category constructors
 * @example
 * ```ts
 * import { SseRoutes } from "effect-sse"
 * import * as Jwt from "effect-sse/Authorize/Jwt"
 *
 * // {"sub":"ann","exp":1924992000,"aud":"live","sse":{"subscribe":["/pets"],"publish":["/rooms/7"]}}
 * const { publish, subscribe } = Jwt.make({
 *   keys: "https://login.example.com/.well-known/jwks.json",
 *   issuer: "https://login.example.com",
 *   audience: "live"
 * })
 * const routes = SseRoutes.router({ subscribe, publish })
 * ```
 */
export const make = (options: JwtOptions): JwtHooks => {
  const verify = verifier(options)
  const grantsOf = options.grants ?? (({ sse }): Grants => Either.getOrElse(decodeGrants(sse), (): Grants => ({})))
  const tolerance = Duration.toMillis(options.clockTolerance ?? 0)
  const hook =
    (mayDo: (grants: Grants, namespaces: Parameters<Authorize>[1]) => boolean): Authorize =>
    (request, namespaces) =>
      Effect.gen(function* () {
        const token = credential(request, options)
        if (token === undefined)
          return yield* unauthenticated("send a token as: Authorization: Bearer <token>", "Bearer")
        const claims = yield* verify(token)
        const grants = grantsOf(claims)
        if (!mayDo(grants, namespaces)) {
          return yield* new Refused({ kind: "forbidden", reason: "the token does not allow this" })
        }
        return {
          id: claims.sub,
          expiresAt: claims.exp * 1000 + tolerance,
          // A token that does not say is older than any revocation.
          issuedAt: (claims.iat ?? 0) * 1000,
          metadata: grants.metadata
        }
      })
  const admin = hook((grants) => grants.admin === true)
  return {
    subscribe: hook(({ subscribe = [] }, namespaces) => covers(subscribe, namespaces)),
    publish: hook(({ publish = [] }, namespaces) => covers(publish, namespaces)),
    admin,
    metrics: admin
  }
}

const decodeGrants = Schema.decodeUnknownEither(
  Schema.Struct({
    subscribe: Schema.optional(Schema.Array(Schema.String)),
    publish: Schema.optional(Schema.Array(Schema.String)),
    admin: Schema.optional(Schema.Boolean),
    metadata: Schema.optional(Schema.Unknown)
  })
)

interface Claims extends Jose.JWTPayload {
  readonly sub: string
  readonly exp: number
}

const verifier = (options: JwtOptions): ((token: string) => Effect.Effect<Claims, Refused>) => {
  const secret = options.secret === undefined ? undefined : bytesOf(options.secret)
  if (secret !== undefined && secret.length < 32) throw new Error("jwt: the secret has less than 32 bytes")
  const keys = options.keys === undefined ? undefined : keySet(options.keys, options.keysCooldown ?? "30 seconds")
  if (secret === undefined && keys === undefined) throw new Error("jwt: give a secret or keys")
  const algorithms: Array<Jose.JWSAlgorithm> = [
    ...(secret === undefined ? [] : (["HS256"] as const)),
    // EdDSA's older and newer name (RFC 9864).
    ...(keys === undefined ? [] : (["RS256", "ES256", "EdDSA", "Ed25519"] as const))
  ]
  // Once, as it costs as much as a verification.
  let imported: Promise<CryptoKey> | undefined
  const importSecret = (bytes: Uint8Array<ArrayBuffer>) =>
    crypto.subtle.importKey("raw", bytes, { name: "HMAC", hash: "SHA-256" }, false, ["verify"])
  const getKey: Jose.JWTVerifyGetKey = (header, token) =>
    // The algorithm is one of those above, so where it is this one there is a secret.
    header.alg === "HS256" ? (imported ??= importSecret(secret!)) : keys!(header, token)
  const tellOperator = onceA("1 minute")

  return (token) =>
    Effect.gen(function* () {
      const now = yield* Clock.currentTimeMillis
      const { payload } = yield* Effect.tryPromise({
        try: () =>
          Jose.jwtVerify(token, getKey, {
            algorithms,
            requiredClaims: ["sub", "exp"],
            currentDate: DateTime.toDateUtc(DateTime.unsafeMake(now)),
            clockTolerance: Duration.toSeconds(options.clockTolerance ?? 0),
            ...(options.issuer === undefined ? {} : { issuer: mutable(options.issuer) }),
            ...(options.audience === undefined ? {} : { audience: mutable(options.audience) })
          }),
        catch: (error) => error
      }).pipe(
        Effect.catchAll((error) => {
          const reason = fault(error)
          if (reason !== undefined) return unauthenticated(reason)
          return Effect.zipRight(
            tellOperator(Effect.logError("effect-sse: tokens cannot be verified", Cause.fail(error))),
            new Refused({ kind: "unavailable", reason: "tokens cannot be verified now" })
          )
        })
      )
      const { exp, sub } = payload
      if (typeof sub !== "string" || sub === "" || exp === undefined) return yield* unauthenticated(claimFault("sub"))
      return { ...payload, exp, sub }
    })
}

const unauthenticated = (reason: string, challenge = 'Bearer error="invalid_token"') =>
  Effect.fail(new Refused({ kind: "unauthenticated", reason, challenge }))

const claimFault = (claim: string) => `the token's claim ${JSON.stringify(claim)} is missing or not accepted`

/** What is wrong with a token, in words that hold nothing of it; `undefined` if something is wrong on this side. */
const fault = (error: unknown): string | undefined => {
  if (error instanceof Jose.errors.JWTExpired) return "the token has expired"
  if (error instanceof Jose.errors.JWTClaimValidationFailed) return claimFault(error.claim)
  if (error instanceof Jose.errors.JWSSignatureVerificationFailed) return "the token's signature is wrong"
  if (error instanceof Jose.errors.JOSEAlgNotAllowed) return "the token's algorithm is not accepted"
  if (error instanceof Jose.errors.JWKSNoMatchingKey) return "the token's key is not known"
  if (error instanceof Jose.errors.JWKSMultipleMatchingKeys) return "the token must name its key (kid)"
  if (error instanceof Jose.errors.JWSInvalid || error instanceof Jose.errors.JWTInvalid) return "this is no token"
  if (error instanceof Jose.errors.JOSENotSupported) return "the token has extensions that are not supported"
  return undefined
}

const bytesOf = (secret: NonNullable<JwtOptions["secret"]>): Uint8Array<ArrayBuffer> =>
  secret instanceof Uint8Array
    ? Uint8Array.from(secret)
    : new TextEncoder().encode(typeof secret === "string" ? secret : Redacted.value(secret))

const keySet = (keys: NonNullable<JwtOptions["keys"]>, cooldown: Duration.DurationInput) =>
  typeof keys === "string" || keys instanceof URL
    ? Jose.createRemoteJWKSet(new URL(keys), { cooldownDuration: Duration.toMillis(cooldown) })
    : Jose.createLocalJWKSet(keys)

const mutable = (values: string | ReadonlyArray<string>): string | Array<string> =>
  typeof values === "string" ? values : Array.from(values)

/** Runs the first effect that comes, and none for a while behind it. */
const onceA = (time: Duration.DurationInput) => {
  let last = -Infinity
  return (effect: Effect.Effect<void>): Effect.Effect<void> =>
    Effect.flatMap(Clock.currentTimeMillis, (now) => {
      if (now - last < Duration.toMillis(time)) return Effect.void
      last = now
      return effect
    })
}
