/**
 * Who listens where: an immutable value, kept in the hub's `Ref`.
 *
 * Subscribers with the same namespaces share one {@link Subscription}, so that what they get is joined once. A tree with
 * a node for each segment finds the subscriptions that an event touches in as many steps as its namespace has segments,
 * however many others there are.
 *
 * @internal
 */
import * as HashMap from "effect/HashMap"
import * as HashSet from "effect/HashSet"
import * as Option from "effect/Option"
import type { Namespace } from "../Namespace.js"
import * as Ns from "../Namespace.js"
import type { Batch } from "./batch.js"
import type { Frame } from "./frame.js"

/** Takes what matches its namespaces. */
export interface Subscriber {
  readonly id: number
  readonly namespaces: ReadonlyArray<Namespace>
  /** Synchronous; must not throw. `now` is the time of the round, in ms. */
  readonly deliver: (batch: Batch, now: number) => void
  /** Takes what says that events are missing. Synchronous; must not throw. */
  readonly reset?: (frame: Frame, now: number) => void
}

/** All subscribers of the same namespaces. */
export class Subscription {
  private array: ReadonlyArray<Subscriber> | undefined
  constructor(readonly members: HashMap.HashMap<number, Subscriber>) {}

  /** The members as an array, made when a round first needs it. */
  get list(): ReadonlyArray<Subscriber> {
    return (this.array ??= Array.from(HashMap.values(this.members)))
  }
}

interface TreeNode {
  /** Keys of the subscriptions that name this node's namespace. */
  readonly keys: HashSet.HashSet<string>
  readonly children: HashMap.HashMap<string, TreeNode>
}

const emptyNode: TreeNode = { keys: HashSet.empty(), children: HashMap.empty() }

export interface Registry {
  readonly subscriptions: HashMap.HashMap<string, Subscription>
  readonly tree: TreeNode
}

export const empty: Registry = { subscriptions: HashMap.empty(), tree: emptyNode }

/** Drops every namespace that another one of the set covers, so that an event matches a set once at most. */
export const reduce = (namespaces: ReadonlyArray<Namespace>): ReadonlyArray<Namespace> => {
  if (namespaces.length === 1) return namespaces
  const unique = Array.from(new Set(namespaces)).sort()
  return unique.filter((namespace) => !unique.some((other) => other !== namespace && Ns.matches(other, namespace)))
}

// No namespace holds a control character, so the joined text is unambiguous.
const keyOf = (subscriber: Subscriber): string => subscriber.namespaces.join("\n")

export const add = (self: Registry, subscriber: Subscriber): Registry => {
  const key = keyOf(subscriber)
  const existing = HashMap.get(self.subscriptions, key)
  const members = Option.isSome(existing) ? existing.value.members : HashMap.empty<number, Subscriber>()
  return {
    subscriptions: HashMap.set(
      self.subscriptions,
      key,
      new Subscription(HashMap.set(members, subscriber.id, subscriber))
    ),
    tree: Option.isSome(existing)
      ? self.tree
      : subscriber.namespaces.reduce((tree, namespace) => insert(tree, Ns.keys(namespace), 0, key), self.tree)
  }
}

export const remove = (self: Registry, subscriber: Subscriber): Registry => {
  const key = keyOf(subscriber)
  const existing = HashMap.get(self.subscriptions, key)
  if (Option.isNone(existing) || !HashMap.has(existing.value.members, subscriber.id)) return self
  const members = HashMap.remove(existing.value.members, subscriber.id)
  const last = HashMap.isEmpty(members)
  return {
    subscriptions: last
      ? HashMap.remove(self.subscriptions, key)
      : HashMap.set(self.subscriptions, key, new Subscription(members)),
    tree: last
      ? subscriber.namespaces.reduce((tree, namespace) => prune(tree, Ns.keys(namespace), 0, key), self.tree)
      : self.tree
  }
}

const insert = (node: TreeNode, path: ReadonlyArray<string>, depth: number, key: string): TreeNode => {
  const segment = path[depth]
  if (segment === undefined) return { keys: HashSet.add(node.keys, key), children: node.children }
  const child = Option.getOrElse(HashMap.get(node.children, segment), () => emptyNode)
  return { keys: node.keys, children: HashMap.set(node.children, segment, insert(child, path, depth + 1, key)) }
}

const prune = (node: TreeNode, path: ReadonlyArray<string>, depth: number, key: string): TreeNode => {
  const segment = path[depth]
  if (segment === undefined) return { keys: HashSet.remove(node.keys, key), children: node.children }
  const child = HashMap.get(node.children, segment)
  if (Option.isNone(child)) return node
  const pruned = prune(child.value, path, depth + 1, key)
  const isEmpty = HashSet.size(pruned.keys) === 0 && HashMap.isEmpty(pruned.children)
  return {
    keys: node.keys,
    children: isEmpty ? HashMap.remove(node.children, segment) : HashMap.set(node.children, segment, pruned)
  }
}

/** Calls `f` with each subscription that an event published to `namespace` touches. */
export const forEachMatch = (self: Registry, namespace: Namespace, f: (subscription: Subscription) => void): void => {
  const path = Ns.keys(namespace)
  let node = self.tree
  for (let depth = 0; ; depth++) {
    for (const key of node.keys) f(HashMap.unsafeGet(self.subscriptions, key))
    const segment = path[depth]
    if (segment === undefined) return
    const child = HashMap.get(node.children, segment)
    if (Option.isNone(child)) return
    node = child.value
  }
}
