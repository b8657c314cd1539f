import { assert, describe, it } from "@effect/vitest"
import { Namespace, NamespacePattern } from "effect-sse"
import { Either, FastCheck as fc } from "effect"

const matches = (pattern: string, namespace: string) =>
  NamespacePattern.matches(NamespacePattern.make(pattern), Namespace.make(namespace))

describe("NamespacePattern", () => {
  it("covers what it names and all below, a star being any one segment", () => {
    for (const [pattern, yes, no] of [
      ["/", ["/", "/a", "/a/b"], []],
      ["/a", ["/a", "/a/b"], ["/", "/b", "/ab"]],
      ["/*", ["/a", "/a/b"], ["/"]],
      [
        "/rooms/*/alerts",
        ["/rooms/7/alerts", "/rooms/7/alerts/fire"],
        ["/rooms/7", "/rooms/alerts", "/rooms/7/8/alerts"]
      ],
      ["/*/b/*", ["/a/b/c", "/x/b/c/d"], ["/a/b", "/a/c/b"]],
      ["/%2A", ["/*", "/*/x"], ["/a"]],
      ["/a*", ["/a*"], ["/ab"]],
      ["/caf%C3%A9/", ["/café"], ["/cafe"]]
    ] as const) {
      for (const namespace of yes) assert.isTrue(matches(pattern, namespace), `${pattern} ${namespace}`)
      for (const namespace of no) assert.isFalse(matches(pattern, namespace), `${pattern} ${namespace}`)
    }
  })

  it("refuses what is no namespace", () => {
    for (const text of ["", "*", "a/*", "//*", "/../*", "/%zz"]) {
      assert.isTrue(Either.isLeft(NamespacePattern.parse(text)), text)
    }
    assert.throws(() => NamespacePattern.make("*"), /invalid namespace/)
  })

  it("has one form, in which a wildcard is told from a star", () => {
    for (const [text, canonical] of [
      ["/rooms/*/alerts/", "/rooms/*/alerts"],
      ["/*", "/*"],
      ["/%2a/*", "/%2A/*"],
      ["/caf%C3%A9/*", "/café/*"],
      ["/*/a%2Fb", "/*/a%2Fb"],
      ["/*a/**", "/*a/**"]
    ] as const) {
      assert.strictEqual<string>(NamespacePattern.make(text), canonical)
      assert.strictEqual<string>(NamespacePattern.make(canonical), canonical)
    }
    const error = Either.getOrThrow(Either.flip(NamespacePattern.parse("/rooms/*/../x")))
    assert.deepInclude(error, { input: "/rooms/*/../x", rule: "dot-segment" })
    assert.isTrue(Either.isLeft(NamespacePattern.parse("/*/*", { maxBytes: 3 })))
    assert.isTrue(Either.isRight(NamespacePattern.parse("/*/*", { maxBytes: 4 })))
  })

  const segment = fc.constantFrom("a", "b", "c", "%2A")
  const path = fc.array(segment, { maxLength: 4 }).map((segments) => Namespace.make("/" + segments.join("/")))
  const pattern = fc
    .array(fc.oneof(segment, fc.constant("*")), { maxLength: 4 })
    .map((segments) => NamespacePattern.make("/" + segments.join("/")))

  /** What a pattern matches, without a word of the code that is tested. */
  const reference = (pattern: string, published: string): boolean => {
    const [wanted, given] = [pattern, published].map((text) => text.split("/").filter((segment) => segment !== ""))
    return wanted!.every((segment, i) => (segment === "*" ? given![i] !== undefined : segment === given![i]))
  }

  it.prop(
    "matches what a walk over segments matches",
    [fc.array(pattern, { maxLength: 5 }), path],
    ([all, published]) => {
      for (const one of all) assert.strictEqual(NamespacePattern.matches(one, published), reference(one, published))
      const expected = all.some((one) => reference(one, published))
      assert.strictEqual(NamespacePattern.matchesAny(all)(published), expected)
      const reduced = NamespacePattern.reduce(all)
      assert.strictEqual(NamespacePattern.matchesAny(reduced)(published), expected, "nothing is lost by reducing")
    }
  )

  it.prop("covers what can match nothing else", [pattern, pattern, path], ([self, other, published]) => {
    const covered = NamespacePattern.covers(self, other)
    if (covered && reference(other, published)) assert.isTrue(reference(self, published))
    // And the other way round: one that covers another matches it with anything in place of its wildcards.
    const witness = Namespace.make(other.replaceAll("*", "nobody-names-this"))
    assert.strictEqual(reference(self, witness), covered)
  })

  it.prop("overlaps what a subscriber can get something of", [pattern, pattern, path], ([self, other, published]) => {
    if (reference(self, published) && reference(other, published)) {
      assert.isTrue(NamespacePattern.overlaps(self, other))
    }
    // And the other way round: something below both exists.
    if (NamespacePattern.overlaps(self, other)) {
      const [as, bs] = [self, other].map((text) => text.split("/").filter((key) => key !== ""))
      const both = Array.from({ length: Math.max(as!.length, bs!.length) }, (_, i) => {
        const key = as![i] === undefined || as![i] === "*" ? bs![i] : as![i]
        return key === undefined || key === "*" ? "x" : key
      })
      assert.isTrue(reference(self, "/" + both.join("/")) && reference(other, "/" + both.join("/")))
    }
  })
})
