/**
 * Namespaces: the hierarchical names that events are published to and clients subscribe to.
 *
 * A namespace is a path of segments, `/pets/dogs`. A subscriber of `/pets` gets what is published to `/pets` and to
 * everything below it, by whole segments: `/pets/dogs` yes, `/petstore` no. `/` is everything.
 *
 * @since 0.1.0
 */
import type * as Brand from "effect/Brand"
import * as Either from "effect/Either"
import { InvalidNamespace } from "./SseError.js"

/**
 * A valid namespace in its canonical form: decoded text, no trailing slash, with only `%` and `/` inside a segment
 * written as `%25` and `%2F`, and a segment that is nothing but a star as `%2A`. Two namespaces are the same exactly when
 * their canonical forms are equal strings. Each is a pattern too, one without wildcards: see `NamespacePattern`.
 *
 * @since 0.1.0
 * @category models
 */
export type Namespace = string & Brand.Brand<"effect-sse/NamespacePattern"> & Brand.Brand<"effect-sse/Namespace">

/**
 * The namespace `/`: whoever subscribes to it gets every event.
 *
 * @since 0.1.0
 * @category constructors
 */
export const root: Namespace = "/" as Namespace

/**
 * The longest namespace taken by default: 2,048 bytes of UTF-8 in canonical form.
 *
 * @since 0.1.0
 * @category constants
 */
export const defaultMaxBytes = 2048

const encoder = new TextEncoder()
const decoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true })

// Most namespaces are plain ASCII with nothing to decode; one test settles those. A dot or a star may not begin a segment
// here, which leaves ".", ".." and "*" to the long way.
const plain = /^(?:\/[\w~!$&'()+,;=:@-][\w~!$&'()*+,;=:@.-]*)+$/

const control = /\p{Cc}/u

/** @internal */
export const invalid = (input: string, rule: InvalidNamespace["rule"]): InvalidNamespace =>
  new InvalidNamespace({ input: input.length > 200 ? input.slice(0, 200) + "…" : input, rule })

const fail = (input: string, rule: InvalidNamespace["rule"]): Either.Either<never, InvalidNamespace> =>
  Either.left(invalid(input, rule))

/**
 * Reads a namespace from a path, such as the part of a request's URL behind `/subscribe`.
 *
 * Each segment is percent-decoded once, as UTF-8 (RFC 3986 section 2.1); a decoded `%2F` belongs to its segment. One
 * trailing slash is ignored. The caller removes the query. A `*` is a character like any other: what is published has one
 * place. For what is listened to, see `NamespacePattern.parse`.
 *
 * @param path begins with `/`
 * @param options.maxBytes longest canonical form in bytes of UTF-8; 2,048 if not given
 * @returns the namespace, or an {@link InvalidNamespace} that names the broken rule
 * @since 0.1.0
 * @category constructors
 * @example
 * ```ts
 * import { Namespace } from "effect-sse"
 * import { Either } from "effect"
 *
 * Namespace.parse("/pets/dogs/") // right: "/pets/dogs"
 * Namespace.parse("/caf%C3%A9") // right: "/café"
 * Either.isLeft(Namespace.parse("/pets/../admin")) // true: "dot-segment"
 * ```
 */
export const parse = (
  path: string,
  options?: { readonly maxBytes?: number | undefined }
): Either.Either<Namespace, InvalidNamespace> => {
  const maxBytes = options?.maxBytes ?? defaultMaxBytes
  if (path.length <= maxBytes && plain.test(path)) return Either.right(path as Namespace)
  if (path[0] !== "/") return fail(path, "no-leading-slash")
  const trimmed = path.endsWith("/") ? path.slice(0, -1) : path
  if (trimmed === "") return Either.right(root)
  // A byte takes three characters at most ("%41"), so a longer text cannot fit and need not be decoded.
  if (trimmed.length > maxBytes * 3) return fail(path, "too-long")
  let canonical = ""
  for (const raw of trimmed.slice(1).split("/")) {
    if (raw === "") return fail(path, "empty-segment")
    const segment = decodeSegment(raw)
    if (Either.isLeft(segment)) return fail(path, segment.left)
    if (segment.right === "." || segment.right === "..") return fail(path, "dot-segment")
    if (control.test(segment.right)) return fail(path, "control-character")
    canonical += segment.right === "*" ? "/%2A" : "/" + segment.right.replace(/[%/]/g, encodeURIComponent)
  }
  return encoder.encode(canonical).length > maxBytes ? fail(path, "too-long") : Either.right(canonical as Namespace)
}

const decodeSegment = (raw: string): Either.Either<string, "bad-percent-encoding" | "bad-utf8"> => {
  if (!raw.isWellFormed()) return Either.left("bad-utf8")
  if (!raw.includes("%")) return Either.right(raw)
  if (/%(?![0-9A-Fa-f]{2})/.test(raw)) return Either.left("bad-percent-encoding")
  const bytes = encoder.encode(raw)
  let length = 0
  for (let i = 0; i < bytes.length; i++) {
    if (bytes[i] === 0x25) {
      bytes[length++] = Number.parseInt(String.fromCharCode(bytes[i + 1]!, bytes[i + 2]!), 16)
      i += 2
    } else {
      bytes[length++] = bytes[i]!
    }
  }
  return Either.try({ try: () => decoder.decode(bytes.subarray(0, length)), catch: () => "bad-utf8" as const })
}

/**
 * As {@link parse}, for texts known when the program is written.
 *
 * @throws InvalidNamespace
 * @since 0.1.0
 * @category constructors
 */
export const make = (path: string): Namespace => Either.getOrThrowWith(parse(path), (error) => error)

/**
 * A namespace from its segments, taken literally: nothing is decoded, a `/` in a segment stays in it, and a `*` stands for
 * nothing else. For names that others chose, such as those of users.
 *
 * @since 0.1.0
 * @category constructors
 * @example
 * ```ts
 * import { Namespace } from "effect-sse"
 *
 * Namespace.fromSegments(["rooms", "a/b"]) // right: "/rooms/a%2Fb"
 * ```
 */
export const fromSegments = (
  segments: ReadonlyArray<string>,
  options?: { readonly maxBytes?: number | undefined }
): Either.Either<Namespace, InvalidNamespace> =>
  segments.includes("")
    ? fail("/" + segments.join("/"), "empty-segment")
    : segments.every((segment) => segment.isWellFormed())
      ? parse("/" + segments.map(encodeURIComponent).join("/"), options)
      : fail("/" + segments.join("/"), "bad-utf8")

/**
 * The decoded segments, from the root on. `/` has none.
 *
 * @since 0.1.0
 * @category getters
 */
export const segments = (self: Namespace): ReadonlyArray<string> =>
  keys(self).map((key) => key.replace(/%25|%2F|%2A/g, decodeURIComponent))

/**
 * The segments as they stand in the canonical form, which is enough to compare them and cheaper than decoding.
 *
 * @internal
 */
export const keys = (self: string): ReadonlyArray<string> => (self === root ? [] : self.slice(1).split("/"))

/**
 * The namespaces above this one, from `/` down. `/` has none.
 *
 * @since 0.1.0
 * @category getters
 * @example
 * ```ts
 * import { Namespace } from "effect-sse"
 *
 * Namespace.ancestors(Namespace.make("/pets/dogs")) // ["/", "/pets"]
 * ```
 */
export const ancestors = (self: Namespace): ReadonlyArray<Namespace> => {
  if (self === root) return []
  const above: Array<Namespace> = [root]
  for (let slash = self.indexOf("/", 1); slash !== -1; slash = self.indexOf("/", slash + 1)) {
    above.push(self.slice(0, slash) as Namespace)
  }
  return above
}

/**
 * Whether a subscriber of `subscribed` gets what is published to `published`: the same namespace, or one below it.
 *
 * @since 0.1.0
 * @category predicates
 */
export const matches = (subscribed: Namespace, published: Namespace): boolean =>
  subscribed === published ||
  subscribed === root ||
  (published.startsWith(subscribed) && published[subscribed.length] === "/")

/**
 * The namespace as a URL path, percent-encoded; {@link parse} reads it back, and so does `NamespacePattern.parse`.
 *
 * @since 0.1.0
 * @category conversions
 */
export const toPath = (self: Namespace): string =>
  "/" +
  segments(self)
    .map((segment) => (segment === "*" ? "%2A" : encodeURIComponent(segment)))
    .join("/")
