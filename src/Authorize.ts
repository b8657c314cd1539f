/**
 * Who may subscribe, publish and look: one hook for all of them, and those made of static tokens. `Authorize/Jwt` makes
 * them of JSON Web Tokens.
 *
 * @since 0.1.0
 */
import type { HttpServerRequest } from "@effect/platform/HttpServerRequest"
import type { HttpServerResponse } from "@effect/platform/HttpServerResponse"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Redacted from "effect/Redacted"
import type { Principal } from "./HubClient.js"
import * as Namespace from "./Namespace.js"
import { Refused } from "./SseError.js"

/**
 * Tells who is behind a request that wants these namespaces, or refuses it: with a {@link Refused}, or with a response of
 * its own, such as a redirect to a login. Run before anything is answered; who is refused is never connected.
 *
 * It may need services: they show in the type of the router or layer that it is given to. The namespaces are those to
 * subscribe to, or to publish to; the admin page and the metrics show everything, so there it is `/`.
 *
 * @since 0.1.0
 * @category models
 * @example
 * ```ts
 * import { Authorize, SseError, SseRoutes } from "effect-sse"
 * import { Context, Effect } from "effect"
 *
 * class Sessions extends Context.Tag("Sessions")<
 *   Sessions,
 *   { readonly find: (cookie: string) => Effect.Effect<{ readonly user: string; readonly until: number } | undefined> }
 * >() {}
 *
 * const signedIn: Authorize.Authorize<Sessions> = ({ cookies }, namespaces) =>
 *   Effect.gen(function* () {
 *     const session = yield* (yield* Sessions).find(cookies["session"] ?? "")
 *     if (session === undefined) {
 *       return yield* new SseError.Refused({ kind: "unauthenticated", reason: "sign in first" })
 *     }
 *     if (!Authorize.covers(["/news", `/users/${session.user}`], namespaces)) {
 *       return yield* new SseError.Refused({ kind: "forbidden", reason: "this is not yours to read" })
 *     }
 *     return { id: session.user, expiresAt: session.until }
 *   })
 *
 * // Needs SseHub and Sessions.
 * const routes = SseRoutes.router({ subscribe: signedIn })
 * ```
 */
export type Authorize<R = never> = (
  request: HttpServerRequest,
  namespaces: ReadonlyArray<Namespace.Namespace>
) => Effect.Effect<Principal, Refused | HttpServerResponse, R>

/**
 * Where a request carries its token.
 *
 * @since 0.1.0
 * @category models
 */
export interface CredentialOptions {
  /**
   * A cookie that carries it, for requests without one in `Authorization`: what a browser's `EventSource` can send. Set it
   * `HttpOnly`, `Secure` and `SameSite`. Default: none, cookies are not looked at.
   */
  readonly cookie?: string | undefined
}

/**
 * The token of a request: from `Authorization: Bearer <token>` (RFC 6750 section 2.1), or from the cookie. `undefined` if
 * it has none.
 *
 * @since 0.1.0
 * @category getters
 */
export const credential = (request: HttpServerRequest, options?: CredentialOptions): string | undefined => {
  const bearer = /^Bearer +(.+)$/i.exec(request.headers["authorization"] ?? "")?.[1]
  if (bearer !== undefined || options?.cookie === undefined) return bearer
  return request.cookies[options.cookie] || undefined
}

/**
 * Whether the patterns cover every one of the namespaces. A pattern is a namespace in which `*` stands for any one segment;
 * it covers what it matches and all below. What is no namespace covers nothing.
 *
 * @since 0.1.0
 * @category predicates
 * @example
 * ```ts
 * import { Authorize, Namespace } from "effect-sse"
 *
 * const mine = ["/pets", "/rooms/*"]
 * Authorize.covers(mine, [Namespace.make("/pets/dogs"), Namespace.make("/rooms/7")]) // true
 * Authorize.covers(mine, [Namespace.make("/rooms")]) // false: it is more than one room
 * Authorize.covers(mine, [Namespace.root]) // false: only "/" covers everything
 * ```
 */
export const covers = (patterns: ReadonlyArray<string>, namespaces: ReadonlyArray<Namespace.Namespace>): boolean => {
  const parsed = patterns.flatMap((pattern) => {
    const namespace = Namespace.parse(pattern)
    return Either.isRight(namespace) ? [Namespace.keys(namespace.right)] : []
  })
  return namespaces.every((namespace) => {
    const keys = Namespace.keys(namespace)
    return parsed.some((pattern) => pattern.every((key, i) => keys[i] === key || (key === "*" && i < keys.length)))
  })
}

/**
 * A static token, and what it may be used for.
 *
 * @since 0.1.0
 * @category models
 */
export interface TokenGrant {
  readonly token: string | Redacted.Redacted
  /** Patterns, as {@link covers} takes them. Default: `["/"]`, everything. */
  readonly namespaces?: ReadonlyArray<string> | undefined
}

/**
 * Whoever has one of these tokens. Each has a name, which is the principal's id; the tokens are compared in constant time. A
 * request without one is refused 401, one with another 403.
 *
 * @throws Error if a token is empty
 * @since 0.1.0
 * @category constructors
 * @example
 * ```ts
 * import { Authorize, SseRoutes } from "effect-sse"
 *
 * const routes = SseRoutes.router({
 *   publish: Authorize.tokens({
 *     shop: { token: "a long secret", namespaces: ["/orders"] },
 *     operator: "another long secret"
 *   })
 * })
 * ```
 */
export const tokens = (
  tokens: Readonly<Record<string, string | Redacted.Redacted | TokenGrant>>,
  options?: CredentialOptions
): Authorize => {
  const grants = Object.entries(tokens).map(([id, value]) => {
    const { namespaces = ["/"], token } =
      typeof value === "string" || Redacted.isRedacted(value) ? { token: value } : value
    const text = typeof token === "string" ? token : Redacted.value(token)
    if (text === "") throw new Error(`the token of ${id} is empty`)
    // Older than any revocation.
    return { bytes: new TextEncoder().encode(text), namespaces, principal: { id, issuedAt: 0 } }
  })
  return (request, namespaces) =>
    Effect.suspend(() => {
      const given = credential(request, options)
      if (given === undefined) {
        return new Refused({ kind: "unauthenticated", reason: "send a token as: Authorization: Bearer <token>" })
      }
      // A header's text has one character for each byte that was sent.
      const bytes = Uint8Array.from(given, (char) => char.charCodeAt(0))
      let found: (typeof grants)[number] | undefined
      for (const grant of grants) if (equalInConstantTime(bytes, grant.bytes)) found = grant
      if (found === undefined) return new Refused({ kind: "forbidden", reason: "the token is wrong" })
      return covers(found.namespaces, namespaces)
        ? Effect.succeed(found.principal)
        : new Refused({ kind: "forbidden", reason: "the token is not for this namespace" })
    })
}

/** Takes as long wherever the texts differ, so that the time of an answer tells nothing about the token. */
const equalInConstantTime = (given: Uint8Array, expected: Uint8Array): boolean => {
  let difference = given.length ^ expected.length
  for (let i = 0; i < given.length; i++) difference |= given[i]! ^ (expected[i % expected.length] ?? 0)
  return difference === 0
}
