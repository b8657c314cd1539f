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
  const slowestFirst: Array<{ readonly client: Client; readonly pending: number; frees: number }> = []
  for (const client of waiting) {
    const pending = client.pendingBytes
    if (pending > 0) slowestFirst.push({ client, pending, frees: pending })
  }
  slowestFirst.sort((a, b) => b.pending - a.pending)
  let held = 0
  const slower = new Map<string, (typeof slowestFirst)[number]>()
  for (const one of slowestFirst) {
    const set = one.client.namespaces.join("\n")
    const before = slower.get(set)
    if (before === undefined) held += one.pending
    else before.frees -= one.pending
    slower.set(set, one)
  }
  // The slowest of all is the slowest of the set that holds most.
  const chosen: Array<Client> = []
  for (const { client, frees } of slowestFirst) {
    if (held <= max) break
    held -= frees
    chosen.push(client)
  }
  return chosen
}
