/**
 * The places of events that were published with ids of their own. An id is a publisher's: another one may have the same in
 * another namespace.
 *
 * @internal
 */
import type { Namespace } from "../../Namespace.js"
import type { MemoryEntry } from "./shelf.js"

/** Ids of events that are kept no more and are known still: whoever was at one may have missed nothing since. */
const maxGone = 4096

export class OwnIds {
  /** For each id the place in each namespace, or `NaN` if it was published there more than once. */
  private readonly places = new Map<string, Map<Namespace, number>>()
  private count = 0
  private kept = 0

  add({ event: { id }, namespace, seq }: MemoryEntry): void {
    if (id === undefined) return
    this.kept++
    let places = this.places.get(id)
    if (places === undefined) this.places.set(id, (places = new Map()))
    if (places.has(namespace)) {
      places.set(namespace, NaN)
    } else {
      places.set(namespace, seq)
      this.count++
    }
  }

  onGone({ event: { id } }: MemoryEntry): void {
    if (id === undefined) return
    this.kept--
    for (const [oldest, { size }] of this.places) {
      if (this.count <= this.kept + maxGone) return
      this.places.delete(oldest)
      this.count -= size
    }
  }

  /** Where the event is. `unknown` if it may be one of several; `undefined` if there is none. */
  placeOf(id: string, isWanted: (namespace: Namespace) => boolean): number | "unknown" | undefined {
    const all = this.places.get(id)
    if (all === undefined) return undefined
    const wanted = Array.from(all).filter(([namespace]) => isWanted(namespace))
    const places = (wanted.length === 0 ? Array.from(all) : wanted).map(([, place]) => place)
    return places.length === 1 && !Number.isNaN(places[0]) ? places[0]! : "unknown"
  }
}
