import { assert, describe, it } from "@effect/vitest"
import { Namespace, NamespacePattern } from "effect-sse"
import { Either, FastCheck as fc } from "effect"

const ruleOf = (path: string, options?: { readonly maxBytes: number }) => {
  const parsed = Namespace.parse(path, options)
  return Either.isLeft(parsed) ? parsed.left.rule : `accepted as ${parsed.right}`
}

/** Any segment that the rules allow. */
const segment = fc
  .oneof(
    fc.string({ unit: "grapheme", minLength: 1 }),
    fc.string({ unit: "binary", minLength: 1 }),
    fc.constantFrom("a/b", "*", "%2A")
  )
  .filter((text) => text.isWellFormed() && !/\p{Cc}/u.test(text) && text !== "." && text !== "..")
const segments = fc.array(segment, { maxLength: 6 })
const namespace = fc.oneof(
  segments.map((list) => Either.getOrThrow(Namespace.fromSegments(list))),
  // A small alphabet, so that one is often above the other.
  fc
    .array(fc.constantFrom("a", "b", "ab"), { maxLength: 4 })
    .map((list) => Either.getOrThrow(Namespace.fromSegments(list)))
)

describe("Namespace", () => {
  it("accepts paths and brings them to one form", () => {
    assert.strictEqual(Either.getOrThrow(Namespace.parse("/")), Namespace.root)
    for (const [path, canonical] of [
      ["/pets/dogs", "/pets/dogs"],
      ["/pets/dogs/", "/pets/dogs"],
      ["/caf%C3%A9", "/café"],
      ["/café", "/café"],
      ["/a%2Fb/c", "/a%2Fb/c"],
      ["/a%2fb", "/a%2Fb"],
      ["/100%25", "/100%25"],
      ["/%252F", "/%252F"],
      ["/a%20b", "/a b"],
      ["/a*/*a", "/a*/*a"],
      ["/*/%2A/**", "/%2A/%2A/**"],
      ["/.hidden/..x/x..", "/.hidden/..x/x.."],
      ["/__proto__/constructor", "/__proto__/constructor"]
    ] as const) {
      assert.strictEqual<string>(Either.getOrThrow(Namespace.parse(path)), canonical, path)
    }
  })

  it("says which rule was broken", () => {
    for (const [path, rule] of [
      ["", "no-leading-slash"],
      ["pets", "no-leading-slash"],
      ["//", "empty-segment"],
      ["/pets//dogs", "empty-segment"],
      ["//pets", "empty-segment"],
      ["/pets//", "empty-segment"],
      ["/pets/../admin", "dot-segment"],
      ["/.", "dot-segment"],
      ["/%2e%2E/x", "dot-segment"],
      ["/a\nb", "control-character"],
      ["/a%00", "control-character"],
      ["/a%7f", "control-character"],
      ["/a%C2%85", "control-character"],
      ["/%", "bad-percent-encoding"],
      ["/%zz", "bad-percent-encoding"],
      ["/%4", "bad-percent-encoding"],
      ["/%ff", "bad-utf8"],
      ["/%C3", "bad-utf8"],
      ["/%ED%A0%80", "bad-utf8"],
      ["/%C0%AF", "bad-utf8"],
      ["/\ud800", "bad-utf8"],
      ["/" + "a".repeat(2048), "too-long"],
      ["/" + "%41".repeat(100_000), "too-long"]
    ] as const) {
      assert.strictEqual(ruleOf(path), rule, JSON.stringify(path.slice(0, 40)))
    }
  })

  it("counts the length in bytes of the decoded text", () => {
    assert.strictEqual(ruleOf("/éé", { maxBytes: 5 }), "accepted as /éé")
    assert.strictEqual(ruleOf("/%C3%A9%C3%A9", { maxBytes: 5 }), "accepted as /éé")
    assert.strictEqual(ruleOf("/ééé", { maxBytes: 5 }), "too-long")
  })

  it("cuts the refused text in the error", () => {
    const error = Either.flip(Namespace.parse("x".repeat(10_000))).pipe(Either.getOrThrow)
    assert.isBelow(error.message.length, 300)
    assert.include(error.message, 'a namespace begins with "/"')
  })

  it("takes segments literally", () => {
    assert.deepStrictEqual(Namespace.fromSegments(["a/b", "100%"]), Namespace.parse("/a%2Fb/100%25"))
    assert.deepStrictEqual(Namespace.fromSegments(["rooms", "*"]), Namespace.parse("/rooms/%2A"))
    assert.strictEqual(Namespace.toPath(Namespace.make("/rooms/*")), "/rooms/%2A")
    assert.isTrue(Either.isLeft(Namespace.fromSegments([".."])))
    assert.isTrue(Either.isLeft(Namespace.fromSegments([""])))
    assert.isTrue(Either.isLeft(Namespace.fromSegments(["rooms", ""])), "an empty id must not reach all rooms")
    assert.isTrue(Either.isLeft(Namespace.fromSegments(["\udfff"])))
  })

  it("tells the namespaces above", () => {
    assert.deepStrictEqual(Namespace.ancestors(Namespace.make("/a/b/c")), ["/", "/a", "/a/b"].map(Namespace.make))
    assert.deepStrictEqual(Namespace.ancestors(Namespace.root), [])
  })

  it("matches by whole segments", () => {
    const matches = (a: string, b: string) => Namespace.matches(Namespace.make(a), Namespace.make(b))
    assert.isTrue(matches("/", "/pets"))
    assert.isTrue(matches("/", "/"))
    assert.isTrue(matches("/pets", "/pets"))
    assert.isTrue(matches("/pets/", "/pets/dogs"))
    assert.isFalse(matches("/pets", "/petstore"))
    assert.isFalse(matches("/pets/dogs", "/pets"))
    assert.isFalse(matches("/a", "/a%2Fb"))
    assert.isFalse(matches("/pets", "/"))
  })

  it.prop("reads back what it wrote", [segments], ([list]) => {
    const made = Either.getOrThrow(Namespace.fromSegments(list))
    assert.deepStrictEqual(Namespace.segments(made), list)
    for (const path of [made, Namespace.toPath(made)]) {
      assert.deepStrictEqual(Namespace.parse(path), Either.right(made), path)
      assert.deepStrictEqual(NamespacePattern.parse(path), Either.right(made), "as a pattern it is the same")
    }
  })

  it.prop("matches exactly what a walk over segments matches", [namespace, namespace], ([a, b]) => {
    const [above, below] = [Namespace.segments(a), Namespace.segments(b)]
    const expected = above.length <= below.length && above.every((text, i) => text === below[i])
    assert.strictEqual(Namespace.matches(a, b), expected)
    assert.strictEqual(a === b || Namespace.ancestors(b).includes(a), expected)
  })

  it.prop("never throws, whatever the path", [fc.string({ unit: "binary" })], ([text]) => {
    const parsed = Namespace.parse("/" + text)
    if (Either.isRight(parsed)) assert.notMatch(parsed.right, /\p{Cc}/u)
  })
})
