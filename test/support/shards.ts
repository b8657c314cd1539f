/** A log in shards seen from below one namespace: a log as any other, since all of that is one shard. */
import { EventLog, Namespace, type NamespacePattern } from "effect-sse"
import { Effect } from "effect"

type Log = EventLog.EventLog["Type"]

export const below = (root: string, log: Log): Log => {
  const history = log.history!
  const down = <A extends string>(namespace: A) => (namespace === "/" ? root : root + namespace) as A
  const up = (namespace: string) => Namespace.make(namespace === root ? "/" : namespace.slice(root.length))
  const raise = (entries: ReadonlyArray<EventLog.LogEntry>) =>
    entries.map(({ event, namespace, position, text }) => ({
      namespace: up(namespace),
      event: { ...event, namespace: up(namespace) },
      position,
      text
    }))
  const all = (namespaces: ReadonlyArray<NamespacePattern.NamespacePattern>) => namespaces.map(down)
  return EventLog.EventLog.of({
    ...log,
    append: (entries) => log.append(entries.map((entry) => ({ ...entry, namespace: down(entry.namespace) }))),
    tail: (tail) =>
      Effect.zipRight(
        log.shards!.follow([Namespace.make(root)]),
        log.tail({ ...tail, offer: (entries) => tail.offer(raise(entries)) })
      ),
    history: {
      ...history,
      locate: (start, upTo, namespaces) => history.locate(start, upTo, all(namespaces)),
      read: (range) =>
        Effect.map(history.read({ ...range, namespaces: all(range.namespaces) }), (page) =>
          page._tag === "Gap" ? page : { ...page, entries: raise(page.entries) }
        ),
      latest: (upTo, namespaces) => Effect.map(history.latest(upTo, all(namespaces)), raise)
    }
  })
}
