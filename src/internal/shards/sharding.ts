/**
 * Which shard an event belongs to, which shards a client touches, and positions that tell of several shards.
 *
 * @internal
 */
import type { Namespace } from "../../Namespace.js"
import * as Ns from "../../Namespace.js"
import type { NamespacePattern } from "../../NamespacePattern.js"

export interface Sharding {
  /** Shards there are. */
  readonly count: number
  /** Segments of a namespace that tell its shard. */
  readonly depth: number
}

/** FNV-1a over UTF-16 code units: every node, of every version, must come to the same shard. */
const hash = (text: string): number => {
  let value = 0x811c9dc5
  for (let i = 0; i < text.length; i++) value = Math.imul(value ^ text.charCodeAt(i), 0x01000193)
  // The lowest bits alone are those of few letters.
  return (value ^ (value >>> 16)) >>> 0
}

/** The shard of what is published to a namespace. One with fewer segments than `depth` goes by those that it has. */
export const shardOf = ({ count, depth }: Sharding, namespace: Namespace): number => {
  let end = 0
  for (let i = 0; i < depth && end !== -1; i++) end = namespace.indexOf("/", end + 1)
  return hash(end === -1 ? namespace : namespace.slice(0, end)) % count
}

/** The shards from which those who listen to these patterns can get anything, ascending. */
export const touched = (
  sharding: Sharding,
  patterns: ReadonlyArray<NamespacePattern>
): readonly [number, ...ReadonlyArray<number>] => {
  const found = new Set<number>()
  for (const pattern of patterns) {
    const keys = Ns.keys(pattern).slice(0, sharding.depth)
    if (keys.length < sharding.depth || keys.includes("*")) return all(sharding.count)
    found.add(shardOf(sharding, pattern as string as Namespace))
  }
  const [first = 0, ...rest] = Array.from(found).sort((a, b) => a - b)
  return [first, ...rest]
}

const all = (count: number): readonly [number, ...ReadonlyArray<number>] => [
  0,
  ...Array.from({ length: count - 1 }, (_, i) => i + 1)
]

/** Where one is in each of some shards: each shard's own position, by its number. */
export type Places = ReadonlyMap<number, string>

/** As text: `0~position.3~position`, ascending. */
export const toText = (places: Iterable<readonly [shard: number, position: string]>): string =>
  Array.from(places, ([shard, position]) => `${shard}~${position}`).join(".")

const pattern = /^\d{1,4}~[^.~]+(?:\.\d{1,4}~[^.~]+)*$/

export const parse = (text: string): Places | undefined => {
  if (text === "") return new Map()
  if (!pattern.test(text)) return undefined
  return new Map(
    text.split(".").map((one) => {
      const tilde = one.indexOf("~")
      return [Number(one.slice(0, tilde)), one.slice(tilde + 1)]
    })
  )
}

/** What it tells of some shards; `undefined` if it does not tell of all of them. */
export const pick = (places: Places, shards: ReadonlyArray<number>): Map<number, string> | undefined => {
  const picked = new Map<number, string>()
  for (const shard of shards) {
    const position = places.get(shard)
    if (position === undefined) return undefined
    picked.set(shard, position)
  }
  return picked
}
