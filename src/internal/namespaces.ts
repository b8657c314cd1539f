/**
 * What was published where, for those who look: the namespaces that were used last, of which a bounded number is
 * remembered, whatever publishers and clients ask for.
 *
 * @internal
 */
import type { Namespace } from "../Namespace.js"

/** Namespaces that are remembered: at least this many, at most twice as many. */
const kept = 4096

export interface Use {
  events: number
  lastEventAt: number
}

export class NamespaceUse {
  private readonly uses = new Map<Namespace, Use>()

  /** The use of a namespace, to be counted up. */
  of(namespace: Namespace, now: number): Use {
    let use = this.uses.get(namespace)
    if (use === undefined) {
      if (this.uses.size >= 2 * kept) this.forget()
      use = { events: 0, lastEventAt: now }
      this.uses.set(namespace, use)
    }
    use.lastEventAt = now
    return use
  }

  get all(): ReadonlyMap<Namespace, Readonly<Use>> {
    return this.uses
  }

  private forget(): void {
    const oldest = Array.from(this.uses).sort(([, a], [, b]) => a.lastEventAt - b.lastEventAt)
    for (const [namespace] of oldest.slice(0, kept)) this.uses.delete(namespace)
  }
}
