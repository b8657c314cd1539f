import { assert, describe, it } from "@effect/vitest"
import { Namespace, NamespacePattern } from "effect-sse"
import { FastCheck as fc } from "effect"
import * as Sharding from "../../../src/internal/shards/sharding.js"

const sharding = fc.record({ count: fc.integer({ min: 1, max: 64 }), depth: fc.integer({ min: 1, max: 3 }) })
const segments = (...more: ReadonlyArray<string>) =>
  fc.array(fc.constantFrom("a", "b", "c", ...more), { maxLength: 4 }).map((keys) => "/" + keys.join("/"))

describe("sharding", () => {
  it.prop(
    "whoever gets an event touches its shard",
    [sharding, segments(), segments("*")],
    ([sharding, ns, pattern]) => {
      const namespace = Namespace.make(ns)
      const wanted = NamespacePattern.make(pattern)
      const shard = Sharding.shardOf(sharding, namespace)
      assert.isTrue(shard >= 0 && shard < sharding.count)
      if (NamespacePattern.matches(wanted, namespace)) assert.include(Sharding.touched(sharding, [wanted]), shard)
    }
  )

  it("goes by the first segments, and is the same for ever", () => {
    const of = (path: string, depth = 1) => Sharding.shardOf({ count: 64, depth }, Namespace.make(path))
    assert.strictEqual(of("/rooms"), of("/rooms/7/alerts"))
    assert.strictEqual(of("/rooms/7", 2), of("/rooms/7/alerts", 2))
    assert.notStrictEqual(of("/rooms/7", 2), of("/rooms/8", 2))
    assert.deepStrictEqual(
      ["/", "/a", "/rooms/7", "/ü", "/pets"].map((path) => of(path)),
      [18, 63, 12, 20, 4]
    )
    const counts = Array.from({ length: 16 }, () => 0)
    for (let i = 0; i < 1600; i++) {
      counts[Sharding.shardOf({ count: 16, depth: 2 }, Namespace.make(`/rooms/${i}`))]!++
    }
    assert.isTrue(
      counts.every((count) => count > 50 && count < 150),
      counts.join()
    )
  })

  it("touches one shard by a name, and all by less or by a wildcard", () => {
    const touched = (depth: number, ...paths: ReadonlyArray<string>) =>
      Sharding.touched(
        { count: 8, depth },
        paths.map((path) => NamespacePattern.make(path))
      ).length
    assert.strictEqual(touched(1, "/a"), 1)
    assert.strictEqual(touched(1, "/a/*"), 1)
    assert.strictEqual(touched(1, "/%2A"), 1)
    assert.strictEqual(touched(1, "/*"), 8)
    assert.strictEqual(touched(1, "/"), 8)
    assert.strictEqual(touched(2, "/a"), 8)
    assert.strictEqual(touched(2, "/a/*"), 8)
    assert.strictEqual(touched(2, "/a/b/*"), 1)
    assert.strictEqual(touched(1, "/a/b", "/a/c"), 1)
    assert.strictEqual(touched(1, "/a", "/*/c"), 8)
  })

  it.prop(
    "reads positions back as they were written, and no others",
    [fc.uniqueArray(fc.tuple(fc.nat(63), fc.constantFrom("abc-1", "x", "0-0-0")), { selector: ([shard]) => shard })],
    ([places]) => assert.deepStrictEqual(Sharding.parse(Sharding.toText(places)), new Map(places))
  )

  it("takes nothing else for a position", () => {
    for (const text of ["x", "0~", "~x", "0~x.", "0~x~y", ".0~x", "0~x..1~y", "-1~x", "a~x", "00000~x"]) {
      assert.isUndefined(Sharding.parse(text), text)
    }
  })
})
