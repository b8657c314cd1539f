/**
 * Who may subscribe, publish and look: one hook for all of them, and those made of static tokens. `Authorize/Jwt` makes
 * them of JSON Web Tokens.
 *
 * @since 0.1.0
 */
import type { HttpServerRequest } from "@effect/platform/HttpServerRequest"
import type { HttpServerResponse } from "@effect/platform/HttpServerResponse"
import * as Arr from "effect/Array"
import * as Effect from "effect/Effect"
import * as Redacted from "effect/Redacted"
import type { Principal } from "./HubClient.js"
import * as NamespacePattern from "./NamespacePattern.js"
import { Refused } from "./SseError.js"

/**
 * Tells who is behind a request that wants these namespaces, or refuses it: with a {@link Refused}, or with a response of
 * its own, such as a redirect to a login. Run before anything is answered; who is refused is never connected.
 *
 * It may need services: they show in the type of the router or layer that it is given to. The namespaces are those to
 * subscribe to, or to publish to; the admin page and the metrics show everything, so there it is `/`. What is subscribed to
 * may be patterns such as `/rooms/*`, which are more than any one room: {@link covers} knows of them. A batch that names its
 * namespaces in the body is asked for twice: with none, for who it is, before the body is read, and then with them.
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
 *   { readonly find: (cookie: string) => Effect.Effect<{ readonly user: number; readonly until: number } | undefined> }
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
 *     return { id: String(session.user), expiresAt: session.until }
 *   })
 *
 * // Needs SseHub and Sessions.
 * const routes = SseRoutes.router({ subscribe: signedIn })
 * ```
 */
export type Authorize<R = never> = (
  request: HttpServerRequest,
  namespaces: ReadonlyArray<NamespacePattern.NamespacePattern>
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
 * it covers what it matches and all below. What is no pattern covers nothing. A namespace may be a pattern as well, as those
 * who subscribe can ask for some: its `*` is covered by a `*`, and by what is above it.
 *
 * Build a pattern from the name of a user with `Namespace.fromSegments`: to one whose name is `*` a text made by hand would
 * give what belongs to all.
 *
 * @since 0.1.0
 * @category predicates
 * @example
 * ```ts
 * import { Authorize, Namespace, NamespacePattern } from "effect-sse"
 *
 * const mine = ["/pets", "/rooms/*"]
 * Authorize.covers(mine, [Namespace.make("/pets/dogs"), Namespace.make("/rooms/7")]) // true
 * Authorize.covers(mine, [Namespace.make("/rooms")]) // false: it is more than one room
 * Authorize.covers(mine, [NamespacePattern.make("/rooms/*")]) // true
 * Authorize.covers(["/rooms/7"], [NamespacePattern.make("/rooms/*")]) // false: that is all rooms
 * Authorize.covers(mine, [Namespace.root]) // false: only "/" covers everything
 * ```
 */
export const covers = (
  patterns: ReadonlyArray<string>,
  namespaces: ReadonlyArray<NamespacePattern.NamespacePattern>
): boolean => {
  const granted = Arr.getRights(patterns.map((pattern) => NamespacePattern.parse(pattern)))
  return namespaces.every((namespace) => granted.some((pattern) => NamespacePattern.covers(pattern, namespace)))
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
