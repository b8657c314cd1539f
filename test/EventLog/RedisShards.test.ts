/** The log on Redis in shards, on one server and on a cluster, under hubs. */
import { assert, describe, it } from "@effect/vitest"
import { EventLog, Namespace, NamespacePattern, SseConfig, SseHub } from "effect-sse"
import * as RedisLog from "effect-sse/EventLog/Redis"
import { Cause, ConfigProvider, Effect, Logger, Option } from "effect"
import * as Sharding from "../../src/internal/shards/sharding.js"
import { blocksOf, RecordedConnection } from "../support/recorded.js"
import { clusterServer, redisCluster, redisServer, type RedisServer } from "../support/redis.js"
import { eventually } from "../support/server.js"

const quiet = Effect.provide(Logger.remove(Logger.defaultLogger))

const shards = 6
const shardOf = (namespace: string) => Sharding.shardOf({ count: shards, depth: 1 }, Namespace.make(namespace))
// One namespace of each shard.
const names = Array.from({ length: shards }, (_, shard) => {
  for (let i = 0; ; i++) if (shardOf(`/n${i}`) === shard) return `/n${i}`
})
const everywhere: ReadonlyArray<string> = names

/** A node: its hub, and clients of it. */
const node = (options: RedisLog.RedisLogOptions) =>
  Effect.gen(function* () {
    const log = yield* RedisLog.make({ shards, answerTimeout: "500 millis", shardLinger: 0, ...options })
    const hub = yield* SseHub.make({ keepalive: false, shutdownRetry: false }).pipe(
      Effect.provideService(EventLog.EventLog, log)
    )
    const connect = (paths: ReadonlyArray<string>, id?: string) =>
      Effect.gen(function* () {
        const connection = new RecordedConnection()
        const [first, ...rest] = paths.map((path) => NamespacePattern.make(path))
        yield* hub.connect({
          namespaces: [first!, ...rest],
          connection,
          start: id === undefined ? undefined : { _tag: "After", id }
        })
        const blocks = () => blocksOf(connection.text)
        const data = () =>
          blocks().flatMap(({ data, event }) => (data === undefined ? [] : [event === "message" ? data : event]))
        return {
          connection,
          data,
          gets: (one: string) => eventually(Effect.sync(() => data().includes(one))),
          lastId: () => blocks().findLast(({ id }) => id !== undefined)!.id!
        }
      })
    const publish = (data: string, ...paths: ReadonlyArray<string>) =>
      hub.publishAll((paths.length === 0 ? everywhere : paths).map((namespace) => ({ namespace, data })))
    return { log, hub, connect, publish }
  })

const readers = (server: RedisServer) =>
  Effect.promise(async () =>
    ((await server.admin.client("LIST")) as string)
      .split("\n")
      .filter((line) => line.includes("name=effect-sse-reader"))
  )

describe("EventLog on Redis, in shards", () => {
  it.scopedLive("is read where somebody listens, by a connection for each shard", () =>
    Effect.gen(function* () {
      const server = yield* redisServer()
      const one = yield* node({ url: server.url })
      assert.strictEqual((yield* readers(server)).length, 0)
      const narrow = yield* one.connect([names[2]! + "/x"])
      yield* eventually(Effect.map(readers(server), (all) => all.length === 1 && all[0]!.includes("cmd=xread")))
      const wide = yield* one.connect(["/"])
      yield* eventually(Effect.map(readers(server), (all) => all.length === shards))
      yield* one.publish("1")
      yield* one.publish("2", names[2]! + "/x/y")
      yield* narrow.gets("2")
      yield* wide.gets("2")
      assert.strictEqual(wide.data().length, shards + 1)
      wide.connection.close()
      yield* eventually(Effect.map(readers(server), (all) => all.length === 1))
      yield* one.publish("3", ...everywhere, names[2]! + "/x")
      yield* narrow.gets("3")
      narrow.connection.close()
      yield* eventually(Effect.map(readers(server), (all) => all.length === 0))
      const keys = yield* Effect.promise(() => server.admin.keys("*:events"))
      assert.strictEqual(keys.length, shards)
      const again = yield* one.connect([names[2]!], narrow.lastId())
      yield* one.publish("4", names[2]!)
      yield* again.gets("4")
      assert.deepStrictEqual(again.data(), ["4"])
      assert.strictEqual(yield* one.log.size, 3 * shards - shards + 3)
    }).pipe(quiet)
  )

  it.scopedLive("3 nodes give clients of all shards every event once, and each is resumed on any of them", () =>
    Effect.gen(function* () {
      const server = yield* redisServer()
      const nodes = [
        yield* node({ url: server.url }),
        yield* node({ url: server.url }),
        yield* node({ url: server.url })
      ]
      const wanted = [...everywhere.map((name) => [name]), ["/"], everywhere.slice(0, 2), ["/*/x"]]
      const publish = (from: number, to: number) =>
        Effect.forEach(
          Array.from({ length: to - from }, (_, i) => from + i),
          (i) => nodes[i % 3]!.publish(String(i), ...everywhere.map((name) => (i % 2 === 0 ? name : name + "/x"))),
          { concurrency: 8 }
        )
      const clients = []
      for (const [i, paths] of wanted.entries())
        clients.push({ paths, on: i % 3, seen: yield* nodes[i % 3]!.connect(paths) })
      yield* publish(0, 50)
      const all = (paths: ReadonlyArray<string>, from: number, to: number) =>
        Array.from({ length: to - from }, (_, i) => String(from + i)).flatMap((one) =>
          everywhere
            .filter((name) =>
              NamespacePattern.matchesAny(paths.map((path) => NamespacePattern.make(path)))(
                Namespace.make(Number(one) % 2 === 0 ? name : name + "/x")
              )
            )
            .map(() => one)
        )
      const sorted = (data: ReadonlyArray<string>) => data.toSorted((a, b) => Number(a) - Number(b))
      for (const { paths, seen } of clients) {
        const expected = all(paths, 0, 50)
        yield* eventually(Effect.sync(() => seen.data().length >= expected.length))
        assert.deepStrictEqual(sorted(seen.data()), expected, paths.join())
        seen.connection.close()
      }
      yield* publish(50, 80)
      for (const { on, paths, seen } of clients) {
        for (const other of [1, 2, 3]) {
          const again = yield* nodes[(on + other) % 3]!.connect(paths, seen.lastId())
          const expected = all(paths, 50, 80)
          yield* eventually(Effect.sync(() => again.data().length >= expected.length))
          assert.deepStrictEqual(sorted(again.data()), expected, paths.join())
          assert.isBelow(
            seen.lastId().length,
            paths.length === 1 && paths[0] !== "/" && paths[0] !== "/*/x" ? 30 : 28 * shards
          )
          again.connection.close()
        }
      }
    }).pipe(quiet)
  )

  it.scopedLive("a shard that lost what it had tells those who listen to it, and no others", () =>
    Effect.gen(function* () {
      const server = yield* redisServer()
      const one = yield* node({ url: server.url })
      const clients = [yield* one.connect([names[0]!]), yield* one.connect([names[1]!]), yield* one.connect(["/"])]
      const stay = yield* one.connect([names[1]!])
      yield* one.publish("1")
      for (const client of clients) yield* client.gets("1")
      yield* eventually(Effect.sync(() => clients[2]!.data().length === shards))
      const before = clients.map((client) => client.lastId())
      yield* Effect.promise(() => server.admin.del(`{effect-sse:0}:events`, `{effect-sse:0}:meta`))
      yield* one.publish("2")
      for (const client of clients) yield* client.gets("2")
      yield* eventually(Effect.sync(() => clients[2]!.data().length === 2 * shards + 1))
      assert.deepStrictEqual(clients[0]!.data(), ["1", "sse-reset", "2"])
      assert.deepStrictEqual(clients[1]!.data(), ["1", "2"])
      assert.deepStrictEqual(stay.data(), ["1", "2"])
      const seen = [
        yield* one.connect([names[0]!], before[0]),
        yield* one.connect([names[1]!], before[1]),
        yield* one.connect(["/"], before[2])
      ]
      for (const client of seen) yield* eventually(Effect.sync(() => client.data().length > 0))
      assert.deepStrictEqual(
        seen.map((client) => client.data()[0]),
        ["sse-reset", "2", "sse-reset"]
      )
      assert.include(seen[2]!.connection.text, '"reason":"restarted"')
      // What came with the gap can be continued, too.
      const told = /event:sse-reset\n.*\n\nid:(\S+)\n/.exec(clients[2]!.connection.text)![1]!
      const back = yield* one.connect(["/"], told)
      yield* back.gets("2")
      assert.notInclude(back.data(), "sse-reset")
    }).pipe(quiet)
  )

  it.scopedLive("refuses to start with another number of shards than the log has", () =>
    Effect.gen(function* () {
      const server = yield* redisServer()
      const make = (options: RedisLog.RedisLogOptions) => Effect.scoped(RedisLog.make({ url: server.url, ...options }))
      yield* make({ shards: 4 })
      yield* make({ shards: 4 })
      for (const options of [{}, { shards: 5 }, { shards: 4, shardDepth: 2 }]) {
        const error = yield* Effect.flip(make(options))
        assert.strictEqual(error._tag, "EventLogError")
        assert.match(error.reason, /the number of shards is \d.* here, and 4 in the log "effect-sse"/)
      }
      yield* make({ prefix: "other" })
      assert.include((yield* Effect.flip(make({ prefix: "other", shards: 2 }))).reason, "2 here, and 1 in")
      for (const options of [{ shards: 0 }, { shards: 65 }, { shards: 1.5 }, { shardDepth: 0 }]) {
        assert.include(Cause.pretty(yield* Effect.flip(Effect.sandbox(make(options)))), "whole number from 1")
      }
    }).pipe(quiet)
  )

  it.effect("is configured by the environment", () =>
    Effect.gen(function* () {
      const read = (entries: Record<string, string>) =>
        Effect.withConfigProvider(SseConfig.redisFromEnv, ConfigProvider.fromMap(new Map(Object.entries(entries))))
      const all = yield* read({
        SSE_REDIS_CLUSTER: "10.0.0.1:7000, [::1]:7001",
        SSE_REDIS_SHARDS: "16",
        SSE_REDIS_SHARD_DEPTH: "2"
      })
      assert.deepInclude(Option.getOrThrow(all), {
        cluster: [
          { host: "10.0.0.1", port: 7000 },
          { host: "::1", port: 7001 }
        ],
        shards: 16,
        shardDepth: 2
      })
      assert.isTrue(Option.isNone(yield* read({ SSE_REDIS_SHARDS: "16" })))
      for (const [name, value] of [
        ["SSE_REDIS_CLUSTER", "redis://10.0.0.1:7000"],
        ["SSE_REDIS_CLUSTER", "10.0.0.1"],
        ["SSE_REDIS_SHARDS", "0"],
        ["SSE_REDIS_SHARDS", "65"],
        ["SSE_REDIS_SHARD_DEPTH", "9"]
      ] as const) {
        assert.include(String(yield* Effect.flip(read({ [name]: value }))), name)
      }
    })
  )

  it.scopedLive("publishes, and connects, as soon as Redis is back; until then both fail", () =>
    Effect.gen(function* () {
      const server = yield* redisServer("--appendonly", "yes", "--appendfsync", "always")
      const one = yield* node({ url: server.url, publishTimeout: "200 millis" })
      const there = yield* one.connect([names[0]!])
      yield* one.publish("1", names[0]!)
      yield* there.gets("1")
      yield* server.kill
      yield* eventually(Effect.map(one.log.health, ({ status }) => status === "degraded"))
      assert.strictEqual((yield* Effect.flip(one.publish("2"))).message.includes("partial"), false)
      assert.strictEqual((yield* Effect.flip(one.connect([names[1]!])))._tag, "EventLogError")
      yield* server.start
      yield* eventually(Effect.map(one.log.health, ({ status }) => status === "ok"))
      const wide = yield* one.connect(["/"])
      yield* one.publish("3")
      yield* eventually(Effect.sync(() => wide.data().length === shards))
      yield* there.gets("3")
      assert.deepStrictEqual(there.data(), ["1", "3"])
    }).pipe(quiet)
  )
})

/** Which of them has a key's slot. */
const ownerOf = (servers: ReadonlyArray<RedisServer>, key: string) =>
  Effect.promise(async () => {
    for (const server of servers) {
      const has = await server.admin.exists(key).then(
        () => true,
        () => false
      )
      if (has) return server
    }
    throw new Error("nobody has it")
  })

const streamOf = (shard: number) => `{effect-sse:${shard}}:events`

describe("EventLog on a Redis Cluster", () => {
  it.scopedLive("shards are spread over the servers; one that is away stops its own shards only", () =>
    Effect.gen(function* () {
      const servers = yield* redisCluster("--appendonly", "yes", "--appendfsync", "always")
      // Whichever of them is asked first leads to the others.
      const cluster = (first: number) => ({ cluster: [{ host: "127.0.0.1", port: servers[first]!.port }] })
      const nodes = [
        yield* node({ ...cluster(0), publishTimeout: "300 millis" }),
        yield* node({ cluster: servers.map(({ port }) => ({ host: "127.0.0.1", port })) })
      ]
      const owners = yield* Effect.forEach(Array.from({ length: shards }), (_, i) => ownerOf(servers, streamOf(i)))
      assert.isAbove(new Set(owners).size, 1)
      const wide = yield* nodes[1]!.connect(["/"])
      const narrow = []
      for (const name of everywhere) narrow.push(yield* nodes[1]!.connect([name]))
      yield* nodes[0]!.publish("1")
      for (const client of narrow) yield* client.gets("1")
      yield* eventually(Effect.sync(() => wide.data().length === shards))
      const lastId = wide.lastId()
      assert.include((yield* Effect.flip(RedisLog.make({ ...cluster(1), shards: 2 }))).reason, "2 here, and 6 in")

      const gone = owners[0]!
      const [lost, kept] = [0, owners.findIndex((owner) => owner !== gone)]
      yield* gone.kill
      yield* nodes[0]!.publish("2", names[kept]!)
      yield* narrow[kept]!.gets("2")
      yield* eventually(Effect.map(nodes[0]!.log.health, ({ status }) => status === "degraded"))
      const error = yield* Effect.flip(nodes[0]!.publish("3", names[lost]!, names[kept]!))
      assert.deepInclude(error, { _tag: "EventLogError", outcome: "partial" })
      yield* narrow[kept]!.gets("3")
      yield* gone.start
      yield* eventually(Effect.map(nodes[0]!.log.health, ({ status }) => status === "ok"))
      // The cluster takes it back when it has heard of it.
      yield* eventually(Effect.isSuccess(nodes[0]!.publish("4", names[lost]!)))
      yield* narrow[lost]!.gets("4")
      assert.deepStrictEqual(narrow[lost]!.data(), ["1", "4"])
      assert.deepStrictEqual(narrow[kept]!.data(), ["1", "2", "3"])
      const again = yield* nodes[0]!.connect(["/"], lastId)
      yield* eventually(Effect.sync(() => again.data().length === 3))
      assert.deepStrictEqual(again.data().toSorted(), ["2", "3", "4"])
    }).pipe(quiet)
  )

  it.scopedLive("a shard that moves to another server goes on where it was", () =>
    Effect.gen(function* () {
      const servers = yield* redisCluster()
      const one = yield* node({ cluster: [{ host: "127.0.0.1", port: servers[0]!.port }] })
      const client = yield* one.connect([names[0]!])
      yield* one.publish("1", names[0]!)
      yield* client.gets("1")
      const from = yield* ownerOf(servers, streamOf(0))
      const to = servers.find((server) => server !== from)!
      yield* Effect.promise(async () => {
        const slot = (await from.admin.call("CLUSTER", "KEYSLOT", streamOf(0))) as number
        const [fromId, toId] = (await Promise.all([from, to].map(({ admin }) => admin.call("CLUSTER", "MYID")))) as [
          string,
          string
        ]
        await to.admin.call("CLUSTER", "SETSLOT", slot, "IMPORTING", fromId)
        await from.admin.call("CLUSTER", "SETSLOT", slot, "MIGRATING", toId)
        const keys = (await from.admin.call("CLUSTER", "GETKEYSINSLOT", slot, 100)) as Array<string>
        await from.admin.call("MIGRATE", "127.0.0.1", to.port, "", 0, 1000, "KEYS", ...keys)
        for (const { admin } of [to, from, ...servers]) await admin.call("CLUSTER", "SETSLOT", slot, "NODE", toId)
      })
      yield* one.publish("2", names[0]!)
      yield* client.gets("2")
      assert.deepStrictEqual(client.data(), ["1", "2"])
      assert.strictEqual((yield* ownerOf(servers, streamOf(0))).port, to.port)
      const again = yield* one.connect([names[0]!], client.lastId())
      yield* one.publish("3", names[0]!)
      yield* again.gets("3")
      assert.deepStrictEqual(again.data(), ["3"])
    }).pipe(quiet)
  )

  it.scopedLive("a replica that takes over goes on where its master was", () =>
    Effect.gen(function* () {
      const servers = yield* redisCluster()
      const one = yield* node({ cluster: servers.map(({ port }) => ({ host: "127.0.0.1", port })) })
      const client = yield* one.connect([names[0]!])
      const wide = yield* one.connect(["/"])
      const master = yield* ownerOf(servers, streamOf(0))
      const replica = yield* clusterServer()
      yield* Effect.promise(async () => {
        const id = (await master.admin.call("CLUSTER", "MYID")) as string
        await replica.meet(servers[0]!)
        const tries = async (): Promise<unknown> =>
          replica.admin
            .call("CLUSTER", "REPLICATE", id)
            .catch(() => new Promise((resolve) => setTimeout(resolve, 20)).then(tries))
        await tries()
      })
      yield* one.publish("1")
      yield* client.gets("1")
      const [key, length] = [streamOf(0), 2]
      yield* eventually(
        Effect.promise(async () => {
          await replica.admin.readonly()
          return Number(await replica.admin.xlen(key).catch(() => 0)) === length
        })
      )
      yield* master.kill
      // Until the others have made it the master, publishes fail.
      yield* eventually(Effect.isSuccess(one.publish("2", names[0]!)))
      yield* client.gets("2")
      yield* eventually(Effect.sync(() => wide.data().includes("2")))
      const seen = client.data().filter((data, i, all) => all.indexOf(data) === i)
      assert.deepStrictEqual(seen, ["1", "2"], "no reset")
      const again = yield* one.connect([names[0]!], client.lastId())
      yield* one.publish("3", names[0]!)
      yield* again.gets("3")
      assert.deepStrictEqual(again.data(), ["3"])
    }).pipe(quiet)
  )
})
