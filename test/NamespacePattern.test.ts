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

  const segment = fc.constantFrom("a", "b", "c")
  const path = fc.array(segment, { maxLength: 4 }).map((segments) => "/" + segments.join("/"))
  const pattern = fc
    .array(fc.oneof(segment, fc.constant("*")), { maxLength: 4 })
    .map((segments) => "/" + segments.join("/"))

  it.prop(
    "overlaps what a subscriber can get something of",
    [pattern, path, path],
    ([pattern, subscribed, published]) => {
      const self = NamespacePattern.make(pattern)
      const isCovered = NamespacePattern.matches(self, Namespace.make(published))
      const isGot = Namespace.matches(Namespace.make(subscribed), Namespace.make(published))
      if (isCovered && isGot) assert.isTrue(NamespacePattern.overlaps(self, Namespace.make(subscribed)))
      // And the other way round: something below both exists.
      if (NamespacePattern.overlaps(self, Namespace.make(subscribed))) {
        const keys = Namespace.segments(Namespace.make(subscribed))
        const below = self.keys.map((key, i) => key ?? keys[i] ?? "x").concat(keys.slice(self.keys.length))
        const both = Namespace.make("/" + below.join("/"))
        assert.isTrue(NamespacePattern.matches(self, both) && Namespace.matches(Namespace.make(subscribed), both))
      }
    }
  )
})
