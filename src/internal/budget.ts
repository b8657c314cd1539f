/**
 * The hub-wide bound on what waits for clients.
 *
 * What waits for a client is the tail of what was written to all who listen to the same namespaces, and they share that
 * memory. So the memory that is held is, for each such set of namespaces, what waits for the slowest of them; the sum over all
 * clients would be many times that, and would end healthy clients of a crowd for one large event.
 *
 * @internal
 */
import type { Client } from "./client.js"

/**
 * Those to end so that no more than `max` bytes are held: always the slowest of the set that holds most.
 *
 * @param waiting the clients for which something may wait
 */
export const overflowing = (waiting: Iterable<Client>, max: number): ReadonlyArray<Client> => {
  const sets = new Map<string, Array<{ readonly client: Client; readonly pending: number }>>()
  for (const client of waiting) {
    const pending = client.pendingBytes
    if (pending === 0) continue
    const key = client.namespaces.join("\n")
    const set = sets.get(key)
    if (set === undefined) sets.set(key, [{ client, pending }])
    else set.push({ client, pending })
  }
  const slowestLast = Array.from(sets.values(), (set) => set.sort((a, b) => a.pending - b.pending))
  let held = slowestLast.reduce((sum, set) => sum + set.at(-1)!.pending, 0)
  const chosen: Array<Client> = []
  while (held > max) {
    const set = slowestLast.reduce((most, set) =>
      (set.at(-1)?.pending ?? 0) > (most.at(-1)?.pending ?? 0) ? set : most
    )
    const slowest = set.pop()!
    held -= slowest.pending - (set.at(-1)?.pending ?? 0)
    chosen.push(slowest.client)
  }
  return chosen
}
