/**
 * Who listens where, kept in the hub's `Ref`.
 *
 * Subscribers with the same patterns share one {@link Subscription}, so that what they get is joined once. Which there are
 * is an immutable value; who belongs to one changes in place, as a crowd mostly joins what is there already. A tree with a
 * node for each segment finds the subscriptions that an event touches in as many steps as its namespace has segments,
 * however many others there are; and once more from each wildcard that it meets.
 *
 * @internal
 */
import * as HashMap from "effect/HashMap"
import * as HashSet from "effect/HashSet"
import * as Option from "effect/Option"
import type { Namespace } from "../Namespace.js"
import * as Ns from "../Namespace.js"
import * as Pattern from "../NamespacePattern.js"
import type { Batch } from "./batch.js"
import type { Frame } from "./frame.js"

/** Takes what matches its patterns. */
export interface Subscriber {
  readonly id: number
  /** None covers another; see `Pattern.reduce`. */
  readonly namespaces: ReadonlyArray<Pattern.NamespacePattern>
  /** Synchronous; must not throw. `now` is the time of the round, in ms. */
  readonly deliver: (batch: Batch, now: number) => void
  /** Takes what says that events are missing. Synchronous; must not throw. */
  readonly reset?: (frame: Frame, now: number) => void
}

/** All subscribers of the same patterns. */
export class Subscription {
  /** By id, oldest first: in about that order they lie in memory, and to write to 10,000 in another one costs a third more. */
  private readonly members = new Map<number, Subscriber>()
  private array: ReadonlyArray<Subscriber> | undefined
  constructor(
    /** Whether an event can match several of its patterns. */
    readonly canMatchTwice: boolean
  ) {}

  /** The members now: what is done over several turns must keep the array. */
  get list(): ReadonlyArray<Subscriber> {
    return (this.array ??= Array.from(this.members.values()))
  }
  get isEmpty(): boolean {
    return this.members.size === 0
  }
  add(subscriber: Subscriber): void {
    this.members.set(subscriber.id, subscriber)
    this.array = undefined
  }
  /** @returns whether it was a member */
  remove(subscriber: Subscriber): boolean {
    this.array = undefined
    return this.members.delete(subscriber.id)
  }
}

interface TreeNode {
  /** Keys of the subscriptions that name this node's pattern. */
  readonly keys: HashSet.HashSet<string>
  readonly children: HashMap.HashMap<string, TreeNode>
  /** The child that any segment leads to as well. It stands apart, so that one look tells that there is none. */
  readonly wildcard: TreeNode | undefined
}

const emptyNode: TreeNode = { keys: HashSet.empty(), children: HashMap.empty(), wildcard: undefined }

export interface Registry {
  readonly subscriptions: HashMap.HashMap<string, Subscription>
  readonly tree: TreeNode
}

export const empty: Registry = { subscriptions: HashMap.empty(), tree: emptyNode }

// No pattern holds a control character, so the joined text is unambiguous.
const keyOf = (subscriber: Subscriber): string => subscriber.namespaces.join("\n")

export const add = (self: Registry, subscriber: Subscriber): Registry => {
  const key = keyOf(subscriber)
  const existing = HashMap.get(self.subscriptions, key)
  if (Option.isSome(existing)) {
    existing.value.add(subscriber)
    return self
  }
  const { namespaces } = subscriber
  const subscription = new Subscription(Pattern.canMatchTwice(namespaces))
  subscription.add(subscriber)
  return {
    subscriptions: HashMap.set(self.subscriptions, key, subscription),
    tree: namespaces.reduce((tree, namespace) => insert(tree, Ns.keys(namespace), 0, key), self.tree)
  }
}

export const remove = (self: Registry, subscriber: Subscriber): Registry => {
  const key = keyOf(subscriber)
  const existing = HashMap.get(self.subscriptions, key)
  if (Option.isNone(existing) || !existing.value.remove(subscriber) || !existing.value.isEmpty) return self
  return {
    subscriptions: HashMap.remove(self.subscriptions, key),
    tree: subscriber.namespaces.reduce((tree, namespace) => prune(tree, Ns.keys(namespace), 0, key), self.tree)
  }
}

const childOf = (node: TreeNode, segment: string): TreeNode | undefined =>
  segment === "*" ? node.wildcard : Option.getOrUndefined(HashMap.get(node.children, segment))

const withChild = (node: TreeNode, segment: string, child: TreeNode | undefined): TreeNode =>
  segment === "*"
    ? { ...node, wildcard: child }
    : {
        ...node,
        children:
          child === undefined ? HashMap.remove(node.children, segment) : HashMap.set(node.children, segment, child)
      }

const insert = (node: TreeNode, path: ReadonlyArray<string>, depth: number, key: string): TreeNode => {
  const segment = path[depth]
  if (segment === undefined) return { ...node, keys: HashSet.add(node.keys, key) }
  return withChild(node, segment, insert(childOf(node, segment) ?? emptyNode, path, depth + 1, key))
}

const prune = (node: TreeNode, path: ReadonlyArray<string>, depth: number, key: string): TreeNode => {
  const segment = path[depth]
  if (segment === undefined) return { ...node, keys: HashSet.remove(node.keys, key) }
  const child = childOf(node, segment)
  if (child === undefined) return node
  const pruned = prune(child, path, depth + 1, key)
  const isEmpty = HashSet.size(pruned.keys) === 0 && HashMap.isEmpty(pruned.children) && pruned.wildcard === undefined
  return withChild(node, segment, isEmpty ? undefined : pruned)
}

/** Calls `f` once with each subscription that an event published to `namespace` touches. */
export const forEachMatch = (self: Registry, namespace: Namespace, f: (subscription: Subscription) => void): void => {
  const path = Ns.keys(namespace)
  let seen: Set<Subscription> | undefined
  const walk = (from: TreeNode, start: number): void => {
    let node = from
    for (let depth = start; ; depth++) {
      for (const key of node.keys) {
        const subscription = HashMap.unsafeGet(self.subscriptions, key)
        if (subscription.canMatchTwice) {
          if (seen?.has(subscription) === true) continue
          ;(seen ??= new Set()).add(subscription)
        }
        f(subscription)
      }
      const segment = path[depth]
      if (segment === undefined) return
      if (node.wildcard !== undefined) walk(node.wildcard, depth + 1)
      const child = HashMap.get(node.children, segment)
      if (Option.isNone(child)) return
      node = child.value
    }
  }
  walk(self.tree, 0)
}
