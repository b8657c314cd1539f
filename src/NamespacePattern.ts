/**
 * Patterns: what is listened to, kept, or allowed. A pattern is a namespace in which `*` may stand for any one segment, such
 * as `/rooms/*`, at any place. It covers what it names and everything below.
 *
 * @since 0.1.0
 */
import type * as Brand from "effect/Brand"
import * as Either from "effect/Either"
import type { Namespace } from "./Namespace.js"
import * as Ns from "./Namespace.js"
import type { InvalidNamespace } from "./SseError.js"

/**
 * A valid pattern in its canonical form: that of a namespace, with `*` for each segment that may be any; a segment that is a
 * star is `%2A`. Two patterns cover the same exactly when their canonical forms are equal strings. Every `Namespace` is one.
 *
 * @since 0.1.0
 * @category models
 */
export type NamespacePattern = string & Brand.Brand<"effect-sse/NamespacePattern">

/** Whether it has a wildcard: whether it is no namespace. */
const isWild = (self: NamespacePattern): boolean => /\/\*(?:\/|$)/.test(self)

/**
 * Reads a pattern. A segment that is `*` is any one segment; `%2A` is a star. Other segments follow the rules of
 * `Namespace.parse`.
 *
 * @param text begins with `/`
 * @param options.maxBytes longest canonical form in bytes of UTF-8; 2,048 if not given
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
export const parse = (
  text: string,
  options?: { readonly maxBytes?: number | undefined }
): Either.Either<NamespacePattern, InvalidNamespace> => {
  if (!text.includes("/*")) return Ns.parse(text, options)
  // Read with a letter in place of each wildcard, so that a decoded star is told from it.
  const segments = text.split("/")
  const isWildcard = (index: number) => index > 0 && segments[index] === "*"
  const plain = segments.map((segment, i) => (isWildcard(i) ? "x" : segment)).join("/")
  return Either.mapBoth(Ns.parse(plain, options), {
    onLeft: ({ rule }) => Ns.invalid(text, rule),
    onRight: (namespace) =>
      namespace
        .split("/")
        .map((key, i) => (isWildcard(i) ? "*" : key))
        .join("/") as NamespacePattern
  })
}

/**
 * As {@link parse}, for texts known when the program is written.
 *
 * @throws InvalidNamespace
 * @since 0.1.0
 * @category constructors
 */
export const make = (text: string): NamespacePattern => Either.getOrThrowWith(parse(text), (error) => error)

const coversKeys = (pattern: ReadonlyArray<string>, keys: ReadonlyArray<string>): boolean => {
  if (pattern.length > keys.length) return false
  // From the end: what is named together often begins alike.
  for (let i = pattern.length - 1; i >= 0; i--) if (pattern[i] !== "*" && pattern[i] !== keys[i]) return false
  return true
}

/**
 * Whether the pattern covers all that another one does: whether whoever may have the first may have the second. A wildcard is
 * covered by a wildcard or by what is above it, never by a name: `/rooms/7` does not cover `/rooms/*`.
 *
 * @since 0.1.0
 * @category predicates
 */
export const covers = (self: NamespacePattern, other: NamespacePattern): boolean =>
  coversKeys(Ns.keys(self), Ns.keys(other))

/**
 * Whether the pattern covers a namespace: one that it names, or one below.
 *
 * @since 0.1.0
 * @category predicates
 */
export const matches: (self: NamespacePattern, namespace: Namespace) => boolean = covers

/**
 * Whether one of the patterns covers a namespace: whether whoever listens to them gets what is published there. Made once
 * for many namespaces; however many of the patterns are without wildcards, it looks once for each segment.
 *
 * @since 0.1.0
 * @category predicates
 */
export const matchesAny = (patterns: ReadonlyArray<NamespacePattern>): ((namespace: Namespace) => boolean) => {
  const named = new Set<string>(patterns.filter((pattern) => !isWild(pattern)))
  const wild = patterns.filter(isWild).map(Ns.keys)
  return (namespace) => {
    if (named.size > 0 && (named.has(namespace) || named.has(Ns.root))) return true
    for (let end = namespace.lastIndexOf("/"); named.size > 0 && end > 0; end = namespace.lastIndexOf("/", end - 1)) {
      if (named.has(namespace.slice(0, end))) return true
    }
    if (wild.length === 0) return false
    const keys = Ns.keys(namespace)
    return wild.some((pattern) => coversKeys(pattern, keys))
  }
}

/**
 * Whether there are namespaces that both cover: whether a subscriber of the one can get anything of the other.
 *
 * @since 0.1.0
 * @category predicates
 */
export const overlaps = (self: NamespacePattern, other: NamespacePattern): boolean => {
  const keys = Ns.keys(other)
  return Ns.keys(self)
    .slice(0, keys.length)
    .every((key, i) => key === "*" || keys[i] === "*" || key === keys[i])
}

/**
 * Without those that others of them cover, sorted.
 *
 * @internal
 */
export const reduce = (patterns: ReadonlyArray<NamespacePattern>): ReadonlyArray<NamespacePattern> => {
  if (patterns.length === 1) return patterns
  // Split once: what a client names may be long, and each is compared with each.
  const unique = Array.from(new Set(patterns))
    .sort()
    .map((pattern) => ({ pattern, keys: Ns.keys(pattern) }))
  return unique
    .filter(({ keys }) => !unique.some((other) => other.keys !== keys && coversKeys(other.keys, keys)))
    .map(({ pattern }) => pattern)
}

/**
 * Whether a namespace can match several of the patterns, though none covers another.
 *
 * @internal
 */
export const canMatchTwice = (patterns: ReadonlyArray<NamespacePattern>): boolean =>
  patterns.length > 1 && patterns.some(isWild)
