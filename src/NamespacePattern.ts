/**
 * Patterns: namespaces in which `*` stands for any one segment, such as `/rooms/*`, at any place. As a subscription does, a
 * pattern covers what it names and everything below.
 *
 * @since 0.1.0
 */
import * as Either from "effect/Either"
import type { Namespace } from "./Namespace.js"
import * as Ns from "./Namespace.js"
import type { InvalidNamespace } from "./SseError.js"

/**
 * A valid pattern.
 *
 * @since 0.1.0
 * @category models
 */
export interface NamespacePattern {
  /** The pattern as it was given. */
  readonly text: string
  /** Segments in canonical form; `undefined` is any segment. */
  readonly keys: ReadonlyArray<string | undefined>
}

/**
 * Reads a pattern. A segment that is `*` is any one segment; `%2A` is a star. Other segments follow the rules of
 * `Namespace.parse`.
 *
 * @since 0.1.0
 * @category constructors
 * @example
 * ```ts
 * import { Namespace, NamespacePattern } from "effect-sse"
 *
 * const rooms = NamespacePattern.make("/rooms/*")
 * NamespacePattern.matches(rooms, Namespace.make("/rooms/7/alerts")) // true
 * NamespacePattern.matches(rooms, Namespace.make("/rooms")) // false
 * ```
 */
export const parse = (text: string): Either.Either<NamespacePattern, InvalidNamespace> => {
  // Read with a plain segment in place of each star, so that a decoded star is told from one that stands for any.
  const stars = text.split("/").map((segment) => segment === "*")
  const plain = text.replaceAll(/(?<=\/)\*(?=\/|$)/g, "any")
  return Either.map(Ns.parse(plain), (namespace) => ({
    text,
    keys: Ns.keys(namespace).map((key, i) => (stars[i + 1] === true ? undefined : key))
  }))
}

/**
 * As {@link parse}, for texts known when the program is written.
 *
 * @throws InvalidNamespace
 * @since 0.1.0
 * @category constructors
 */
export const make = (text: string): NamespacePattern => Either.getOrThrowWith(parse(text), (error) => error)

/**
 * Whether the pattern covers a namespace: one that it names, or one below.
 *
 * @since 0.1.0
 * @category predicates
 */
export const matches = (self: NamespacePattern, namespace: Namespace): boolean => {
  const keys = Ns.keys(namespace)
  return self.keys.length <= keys.length && self.keys.every((key, i) => key === undefined || key === keys[i])
}

/**
 * Whether a subscriber of `namespace` can get anything that the pattern covers.
 *
 * @since 0.1.0
 * @category predicates
 */
export const overlaps = (self: NamespacePattern, namespace: Namespace): boolean => {
  const keys = Ns.keys(namespace)
  const depth = Math.min(self.keys.length, keys.length)
  return self.keys.slice(0, depth).every((key, i) => key === undefined || key === keys[i])
}
