/**
 * What runs in the admin page. It is sent as its own source text, so it must stand alone: no import but of types, and
 * nothing from around it. Whatever comes from clients and publishers is put into the page as text.
 *
 * @internal
 */

interface Summary {
  readonly node: string
  readonly status: string
  readonly log: { readonly status: string; readonly reason?: string }
  readonly version: string
  readonly reported_at_ms: number
  readonly startup_time: number
  readonly uptime_seconds: number
  readonly connections_total: number
  readonly msgs_broadcast: number
  readonly deliveries_total: number
  readonly bytes_total: number
  readonly pending_bytes: number
  readonly slow_clients: number
  readonly memory_bytes: number | null
  readonly event_loop_delay_ms: { readonly p99: number } | null
  readonly disconnects: Readonly<Record<string, number>>
  readonly recent_disconnects: ReadonlyArray<{
    readonly id: number
    readonly namespace: string
    readonly client_ip: string
    readonly reason: string
    readonly ended_at: number
    readonly seconds: number
  }>
  readonly namespaces_total: number
  readonly namespaces: ReadonlyArray<NamespaceRow>
  readonly node_id: string
  readonly totals: Figures
  readonly nodes: ReadonlyArray<NodeRow>
  readonly other_nodes: { readonly status: string; readonly reason?: string }
}

interface Figures {
  readonly connections_total: number
  readonly rates: { readonly publishes: number; readonly deliveries: number; readonly bytes: number }
  readonly pending_bytes: number
  readonly slow_clients: number
}

interface NodeRow extends Figures {
  readonly id: string
  readonly node: string
  readonly self: boolean
  readonly pid: number | null
  readonly status: string
  readonly log: { readonly status: string; readonly reason?: string }
  readonly memory_bytes: number | null
  readonly reported_at: number
  readonly startup_time: number
}

interface NamespaceRow {
  readonly namespace: string
  readonly subscribers: number
  readonly publishes: number
}

interface ConnectionRow {
  readonly id: number
  readonly node_id: string
  readonly namespace: string
  readonly created_at: number
  readonly client_ip: string
  readonly user_agent: string
  readonly msgs_sent: number
  readonly pending_bytes: number
}

interface Connections {
  readonly reported_at: number
  readonly connections_asked: number
  readonly nodes_missing: ReadonlyArray<string>
  readonly connections_matching: number
  readonly connections: ReadonlyArray<ConnectionRow>
}

interface Watched {
  readonly skipped: number
  readonly events: ReadonlyArray<{
    readonly namespace: string
    readonly event: string
    readonly id: string
    readonly data: string
    readonly length: number
  }>
}

/** At, clients, published, deliveries, bytes, pending, slow, memory, delay; counts are totals. */
type Sample = ReadonlyArray<number | null>

export const app = (): void => {
  const spanMillis = 600_000
  const shownClients = 100
  const keptEvents = 200
  // What is published and listened to may be of any shape; the tree that is drawn of it may not.
  const shownDepth = 8
  const shownBranches = 400
  const shownName = 200

  const find = <E extends Element = HTMLElement>(id: string): E => document.getElementById(id) as unknown as E

  const element = <K extends keyof HTMLElementTagNameMap>(
    tag: K,
    attributes: Readonly<Record<string, string>> = {},
    ...children: ReadonlyArray<Node | string>
  ): HTMLElementTagNameMap[K] => {
    const made = document.createElement(tag)
    for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value)
    made.append(...children)
    return made
  }

  const setText = (node: Element, text: string) => {
    if (node.textContent !== text) node.textContent = text
  }

  /** Makes the children of a parent match the items, and keeps those that stay, with their focus. */
  const reconcile = <T>(
    parent: Element,
    items: ReadonlyArray<T>,
    keyOf: (item: T) => string,
    make: (item: T) => HTMLElement,
    update: (node: HTMLElement, item: T) => void
  ) => {
    const old = new Map(Array.from(parent.children, (child) => [(child as HTMLElement).dataset["key"], child] as const))
    let at = parent.firstElementChild
    for (const item of items) {
      const key = keyOf(item)
      let node = old.get(key) as HTMLElement | undefined
      old.delete(key)
      if (node === undefined) {
        node = make(item)
        node.dataset["key"] = key
      }
      update(node, item)
      if (node === at) at = at.nextElementSibling
      else parent.insertBefore(node, at)
    }
    for (const node of old.values()) node.remove()
  }

  const count = (value: number) => value.toLocaleString("en", { maximumFractionDigits: value < 10 ? 1 : 0 })

  const bytes = (value: number) => {
    const units = ["B", "KiB", "MiB", "GiB", "TiB"]
    let scaled = value
    let unit = 0
    for (; scaled >= 1024 && unit < units.length - 1; unit++) scaled /= 1024
    return `${count(scaled)} ${units[unit]}`
  }

  const duration = (seconds: number) => {
    if (seconds < 60) return `${seconds} s`
    if (seconds < 3600) return `${Math.floor(seconds / 60)} min ${seconds % 60} s`
    if (seconds < 86_400) return `${Math.floor(seconds / 3600)} h ${Math.floor((seconds % 3600) / 60)} min`
    return `${Math.floor(seconds / 86_400)} d ${Math.floor((seconds % 86_400) / 3600)} h`
  }

  const clock = new Intl.DateTimeFormat(undefined, { timeStyle: "medium" })
  /** Of now, if not told. */
  const time = (millis?: number) => clock.format(millis)

  // Totals, each with its last ten minutes.

  const value = (column: number) => (sample: Sample) => sample[column] ?? null
  const rate = (column: number) => (sample: Sample, before: Sample | undefined) => {
    const millis = before === undefined ? 0 : sample[0]! - before[0]!
    return millis <= 0 ? null : ((sample[column]! - before![column]!) * 1000) / millis
  }
  const cards: ReadonlyArray<{
    readonly name: string
    readonly read: (sample: Sample, before: Sample | undefined) => number | null
    readonly show: (value: number) => string
  }> = [
    { name: "Clients", read: value(1), show: count },
    { name: "Publishes / s", read: rate(2), show: count },
    { name: "Deliveries / s", read: rate(3), show: count },
    { name: "Sent / s", read: rate(4), show: bytes },
    { name: "Waiting for clients", read: value(5), show: bytes },
    { name: "Slow clients", read: value(6), show: count },
    { name: "Memory", read: value(7), show: bytes },
    { name: "Event loop late (p99)", read: value(8), show: (millis) => `${count(millis)} ms` }
  ]
  let samples: Array<Sample> = []

  const svg = (tag: string, attributes: Readonly<Record<string, string>>) => {
    const made = document.createElementNS("http://www.w3.org/2000/svg", tag)
    for (const [name, text] of Object.entries(attributes)) made.setAttribute(name, text)
    return made
  }
  const drawn = cards.map((card) => {
    const line = svg("polyline", {
      fill: "none",
      stroke: "currentColor",
      "stroke-width": "1.5",
      "vector-effect": "non-scaling-stroke"
    })
    const chart = svg("svg", { viewBox: "0 0 100 30", preserveAspectRatio: "none", role: "img" })
    chart.append(line)
    const shown = element("strong", {}, "–")
    const name = element("span", {}, card.name)
    find("cards").append(element("div", { class: "card", "data-card": card.name }, name, shown, chart))
    return { card, chart, line, shown }
  })
  const draw = () => {
    const now = samples.at(-1)?.[0] ?? 0
    for (const { card, chart, line, shown } of drawn) {
      const points: Array<readonly [number, number]> = []
      samples.forEach((sample, i) => {
        const read = card.read(sample, samples[i - 1])
        if (read !== null) points.push([sample[0]!, read])
      })
      const max = Math.max(...points.map(([, y]) => y), 0)
      const path = points.map(
        ([x, y]) =>
          `${(100 - ((now - x) / spanMillis) * 100).toFixed(2)},${(28 - (max === 0 ? 0 : y / max) * 26).toFixed(2)}`
      )
      line.setAttribute("points", path.join(" "))
      chart.setAttribute("aria-label", `the last 10 minutes, at most ${card.show(max)}`)
      setText(shown, points.length === 0 ? "–" : card.show(points.at(-1)![1]))
    }
  }

  // The tree of namespaces.

  interface Branch {
    readonly path: string
    readonly name: string
    readonly children: Map<string, Branch>
    subscribers: number
    rate: number
  }
  let earlier = new Map<string, number>()
  let earlierAt = 0

  const tree = ({ namespaces, namespaces_total, reported_at_ms }: Summary) => {
    const root: Branch = { path: "/", name: "/", children: new Map(), subscribers: 0, rate: 0 }
    const seconds = (reported_at_ms - earlierAt) / 1000
    let made = 0
    let shown = 0
    for (const { namespace, publishes, subscribers } of namespaces) {
      const names = namespace === "/" ? [] : namespace.slice(1).split("/")
      if (names.length > shownDepth) names.push(names.splice(shownDepth - 1).join("/"))
      if (made + names.length > shownBranches) continue
      shown++
      let branch = root
      const grown = publishes - (earlier.get(namespace) ?? publishes)
      const perSecond = seconds > 0 && seconds < 60 ? Math.max(0, grown) / seconds : 0
      branch.rate += perSecond
      for (const name of names) {
        let child = branch.children.get(name)
        if (child === undefined) {
          made++
          const path = `${branch === root ? "" : branch.path}/${name}`
          branch.children.set(name, (child = { path, name, children: new Map(), subscribers: 0, rate: 0 }))
        }
        branch = child
        branch.rate += perSecond
      }
      branch.subscribers = subscribers
    }
    earlier = new Map(namespaces.map(({ namespace, publishes }) => [namespace, publishes]))
    earlierAt = reported_at_ms
    branches(find("tree"), [root])
    setText(find("tree-note"), namespaces_total > shown ? `the ${shown} busiest of ${count(namespaces_total)}` : "")
  }

  const branches = (list: Element, all: ReadonlyArray<Branch>) =>
    reconcile(
      list,
      all.toSorted((a, b) => (a.name < b.name ? -1 : 1)),
      ({ path }) => path,
      ({ name, path }) => {
        const label = element(
          "span",
          { class: "name" },
          name.length > shownName ? `${name.slice(0, shownName)}…` : name
        )
        const figures = element("span", { class: "figures" })
        const button = element("button", { type: "button", class: "small", "aria-label": `watch ${path}` }, "watch")
        button.addEventListener("click", (event) => {
          event.preventDefault()
          watch(path)
        })
        return element(
          "li",
          {},
          element("details", { open: "" }, element("summary", {}, label, figures, button), element("ul"))
        )
      },
      (item, branch) => {
        const [summary, list] = item.firstElementChild!.children as unknown as [HTMLElement, HTMLElement]
        setText(summary.children[1]!, `${count(branch.subscribers)} listening, ${count(branch.rate)}/s`)
        item.classList.toggle("leaf", branch.children.size === 0)
        branches(list, Array.from(branch.children.values()))
      }
    )

  // Nodes: shown if there are others, or were.

  let self = ""
  let names = new Map<string, string>()
  let several = false

  const nodes = ({ nodes: all, other_nodes, totals }: Summary) => {
    self = all.find((node) => node.self)?.id ?? ""
    several ||= all.length > 1
    find("nodes-section").hidden = !several && other_nodes.status === "known"
    find("of-label").hidden = !several
    // Nodes of one machine have one name.
    const counted = new Map<string, number>()
    for (const { node } of all) counted.set(node, (counted.get(node) ?? 0) + 1)
    names = new Map(
      all.map(({ id, node, pid }) => [id, counted.get(node)! > 1 ? `${node} (${pid ?? id})` : node === "" ? id : node])
    )
    const unknown = other_nodes.status === "known" ? "" : `the others are not known: ${other_nodes.reason ?? ""}`
    setText(find("nodes-note"), unknown)
    const sum = { id: "sum", name: `all ${all.length}`, state: "", memory: "", up: "", figures: totals as Figures }
    const lines = all.map((node) => ({
      id: node.id,
      name: `${names.get(node.id)}${node.self ? ", this one" : ""}`,
      state:
        node.status !== "OK"
          ? "shutting down"
          : node.log.status === "ok"
            ? "ok"
            : `log degraded: ${node.log.reason ?? ""}`,
      memory: node.memory_bytes === null ? "" : bytes(node.memory_bytes),
      up: duration(Math.max(0, node.reported_at - node.startup_time)),
      figures: node as Figures
    }))
    reconcile(
      find("nodes"),
      [sum, ...lines],
      ({ id }) => id,
      () =>
        element(
          "tr",
          {},
          ...[
            "Node",
            "State",
            "Clients",
            "Publishes / s",
            "Deliveries / s",
            "Sent / s",
            "Waiting",
            "Slow",
            "Memory",
            "Up"
          ].map((label) => element("td", { "data-label": label }))
        ),
      (row, { figures: { connections_total, pending_bytes, rates, slow_clients }, memory, name, state, up }) =>
        [
          name,
          state,
          count(connections_total),
          count(rates.publishes),
          count(rates.deliveries),
          bytes(rates.bytes),
          pending_bytes === 0 ? "" : bytes(pending_bytes),
          slow_clients === 0 ? "" : count(slow_clients),
          memory,
          up
        ].forEach((text, i) => setText(row.children[i]!, text))
    )
    // What is chosen stays while its node is there.
    reconcile(
      find("of"),
      [
        ["all", "all nodes"],
        // By its id: on one port, another process may answer the next request.
        ...all.map((node) => [node.id, node.self ? `this one, ${names.get(node.id)}` : names.get(node.id)!] as const)
      ],
      ([id]) => id,
      ([id]) => element("option", { value: id }),
      (option, [, name]) => setText(option, name)
    )
  }

  // Clients.

  let sort = "age"
  let asking: AbortController | undefined
  let timer = 0

  const clients = async () => {
    clearTimeout(timer)
    asking?.abort()
    const mine = (asking = new AbortController())
    const query = new URLSearchParams({
      limit: String(shownClients),
      sort,
      filter: find<HTMLInputElement>("filter").value,
      node: several ? find<HTMLSelectElement>("of").value || "all" : "self"
    })
    try {
      const response = await fetch(`status.json?${query}`, { signal: mine.signal })
      if (response.ok) rows((await response.json()) as Connections)
      else setText(find("clients-note"), ((await response.json()) as { readonly message: string }).message)
    } catch {
      // The badge tells that the server is away.
    }
    if (!mine.signal.aborted) timer = window.setTimeout(() => void clients(), 2000)
  }

  const rows = ({ connections, connections_asked, connections_matching, nodes_missing, reported_at }: Connections) => {
    const hidden = connections.length < connections_matching ? `the first ${connections.length} of ` : ""
    const all = connections_matching === connections_asked ? "" : ` that match, of ${count(connections_asked)}`
    const missing = nodes_missing.map((id) => names.get(id) ?? id).join(", ")
    const silent = missing === "" ? "" : `; no answer from ${missing}`
    setText(find("clients-note"), `${hidden}${count(connections_matching)}${all}${silent}`)
    reconcile(
      find("clients"),
      connections,
      ({ id, node_id }) => `${node_id}/${id}`,
      (row) => {
        const button = element("button", { type: "button", class: "small danger" }, "disconnect")
        button.setAttribute("aria-label", `disconnect client ${row.id}`)
        button.addEventListener("click", () => ask(row))
        const cells = ["Client", "Namespace", "Address", "User agent", "Connected", "Events", "Waiting"].map((label) =>
          element("td", { "data-label": label })
        )
        return element("tr", {}, ...cells, element("td", {}, button))
      },
      (node, row) => {
        const texts = [
          several ? `${names.get(row.node_id) ?? row.node_id} / ${row.id}` : String(row.id),
          row.namespace,
          row.client_ip,
          row.user_agent,
          duration(Math.max(0, reported_at - row.created_at)),
          count(row.msgs_sent),
          row.pending_bytes === 0 ? "" : bytes(row.pending_bytes)
        ]
        texts.forEach((text, i) => setText(node.children[i]!, text))
      }
    )
  }

  let asked: ConnectionRow | undefined

  const ask = (row: ConnectionRow) => {
    asked = row
    const { client_ip, id, namespace, node_id } = row
    const where = node_id === self ? "" : ` of ${names.get(node_id) ?? node_id}`
    setText(
      find("ask-text"),
      `Disconnect client ${id}${where} at ${client_ip}, which listens to ${namespace}? A browser comes back by itself.`
    )
    const dialog = find<HTMLDialogElement>("ask")
    dialog.returnValue = ""
    dialog.showModal()
  }

  const disconnect = async ({ id, node_id }: ConnectionRow) => {
    const said = (text: string) => setText(find("said"), `client ${id}${text}`)
    try {
      const response = await fetch(`nodes/${node_id}/clients/${id}`, { method: "DELETE" })
      if (response.ok) said(" was disconnected")
      else said(`: ${((await response.json()) as { readonly message: string }).message}`)
      void clients()
    } catch {
      said(": the server cannot be reached")
    }
  }

  find<HTMLDialogElement>("ask").addEventListener("close", ({ target }) => {
    if ((target as HTMLDialogElement).returnValue === "yes" && asked !== undefined) void disconnect(asked)
  })

  find("filter").addEventListener("input", () => {
    clearTimeout(timer)
    timer = window.setTimeout(() => void clients(), 200)
  })
  find("of").addEventListener("change", () => void clients())
  find<HTMLSelectElement>("sort").addEventListener("change", (event) => {
    sort = (event.target as HTMLSelectElement).value
    void clients()
  })

  // Those who left.

  const ends = ({ disconnects, recent_disconnects }: Summary) => {
    reconcile(
      find("reasons"),
      Object.entries(disconnects).filter(([, number]) => number > 0),
      ([reason]) => reason,
      ([reason]) => element("li", {}, element("span", {}, reason), " ", element("strong")),
      (node, [, number]) => setText(node.lastElementChild!, count(number))
    )
    reconcile(
      find("ends"),
      recent_disconnects.slice(0, 20),
      ({ id }) => String(id),
      () => element("li"),
      (node, { client_ip, ended_at, id, namespace, reason, seconds }) =>
        setText(
          node,
          `${time(ended_at * 1000)} client ${id} (${client_ip}) left ${namespace} after ${duration(seconds)}: ${reason}`
        )
    )
  }

  // The watch pane.

  let watching: EventSource | undefined
  let watched = ""

  const watch = (namespace: string) => {
    find<HTMLInputElement>("watch-namespace").value = namespace
    watched = namespace
    find("watched").replaceChildren()
    watchAgain()
  }

  const watchState = (text: string) => setText(find("watch-state"), text)

  const watchAgain = () => {
    watching?.close()
    // In the API's own terms: a path whose segments are percent-encoded. A star is a wildcard, and "%2A" a star, in both.
    const path = watched
      .split("/")
      .map((segment) =>
        segment === "%2A" ? segment : encodeURIComponent(segment.replace(/%2F/g, "/").replace(/%25/g, "%"))
      )
      .join("/")
    const source = (watching = new EventSource(`watch${path}`))
    watchState(`asking for ${watched}`)
    source.addEventListener("open", () => watchState(`watching ${watched}`))
    source.addEventListener("error", () => {
      if (source.readyState !== EventSource.CLOSED) return watchState("connection lost, trying again")
      watchState("refused: this is no namespace, or the server is away; trying again")
      setTimeout(() => source === watching && watchAgain(), 2000)
    })
    source.addEventListener("events", ({ data }: MessageEvent<string>) => {
      if (find<HTMLInputElement>("pause").checked) return
      const { events, skipped } = JSON.parse(data) as Watched
      const list = find("watched")
      const at = time()
      if (skipped > 0) list.prepend(element("li", { class: "skipped" }, `${at} ${count(skipped)} more, not shown`))
      for (const { data, event, id, length, namespace } of events) {
        const head = element(
          "div",
          { class: "head" },
          element("time", {}, at),
          " ",
          element("b", {}, namespace),
          " ",
          element("i", {}, event)
        )
        if (id !== "") head.append(` id ${id}`)
        const cut = length > data.length ? `… (${count(length)} characters)` : ""
        list.prepend(element("li", {}, head, element("pre", {}, data + cut)))
      }
      while (list.children.length > keptEvents) list.lastElementChild!.remove()
    })
  }

  find("watch").addEventListener("submit", (event) => {
    event.preventDefault()
    const typed = find<HTMLInputElement>("watch-namespace").value.trim()
    watch(typed.startsWith("/") ? typed : `/${typed}`)
  })
  find("watch-stop").addEventListener("click", () => {
    watching?.close()
    watching = undefined
    watchState(watched === "" ? "" : `stopped watching ${watched}`)
  })

  // The stream behind it all.

  const badge = (state: "live" | "lost" | "draining" | "degraded", text: string) => {
    find("badge").className = state
    setText(find("badge"), text)
  }
  let startedAt = 0

  let feed: EventSource | undefined

  const connect = () => {
    feed?.close()
    const source = (feed = new EventSource("events"))
    source.addEventListener("history", ({ data }: MessageEvent<string>) => {
      samples = JSON.parse(data) as Array<Sample>
    })
    source.addEventListener("status", ({ data }: MessageEvent<string>) => {
      const summary = JSON.parse(data) as Summary
      if (summary.startup_time !== startedAt) earlier = new Map()
      startedAt = summary.startup_time
      if (summary.status !== "OK") badge("draining", "shutting down")
      else if (summary.log.status === "ok") badge("live", "live")
      else badge("degraded", `log degraded: ${summary.log.reason ?? ""}`)
      setText(find("node"), `${summary.node}, version ${summary.version}, up ${duration(summary.uptime_seconds)}`)
      samples.push([
        summary.reported_at_ms,
        summary.connections_total,
        summary.msgs_broadcast,
        summary.deliveries_total,
        summary.bytes_total,
        summary.pending_bytes,
        summary.slow_clients,
        summary.memory_bytes,
        summary.event_loop_delay_ms?.p99 ?? null
      ])
      samples = samples.filter(([at]) => at! > summary.reported_at_ms - spanMillis)
      draw()
      nodes(summary)
      tree(summary)
      ends(summary)
    })
    source.addEventListener("error", () => {
      badge("lost", `connection lost at ${time()}, trying again`)
      // An answer other than a stream, as from a proxy before a server that restarts, makes an EventSource give up.
      if (source.readyState === EventSource.CLOSED) setTimeout(() => source === feed && connect(), 2000)
    })
  }

  // Over HTTP/1.1 a browser has six connections to a server for all its tabs: one that nobody sees holds none.
  const show = () => {
    if (document.hidden) {
      feed?.close()
      watching?.close()
      clearTimeout(timer)
      return badge("lost", "paused while hidden")
    }
    connect()
    if (watching !== undefined) watchAgain()
    void clients()
  }
  document.addEventListener("visibilitychange", show)
  show()
}
