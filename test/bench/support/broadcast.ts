/**
 * What every benchmark server does on `GET /bench/start`: it publishes events of one size at one rate for some time. Each
 * event's data is `n=<number> t=<µs of wall clock> m=<µs of monotonic clock>` and padding; the clocks tell when it was
 * due. Were it when the event was handed to the server's publish, a server that is late with one event would be so with the
 * next ones unseen, as nothing is published while it works.
 */

export interface Broadcast {
  /** Events a second. */
  readonly rate: number
  readonly seconds: number
  /** Bytes of data in an event. */
  readonly size: number
}

export const readBroadcast = (url: string): Broadcast => {
  const query = new URL(url, "http://localhost").searchParams
  const read = (name: string, otherwise: number) => Number(query.get(name) ?? otherwise)
  return { rate: read("rate", 100), seconds: read("secs", 5), size: read("size", 64) }
}

const digits = (value: number, width: number): string => String(Math.trunc(value)).padStart(width, "0")

/** When this process's clock began, on the one that all processes share; both run alike. What lies between two looks makes it less. */
const processStart = Math.max(
  ...Array.from({ length: 20 }, () => Number(process.hrtime.bigint()) / 1000 - performance.now() * 1000)
)

/** Microseconds of a clock that all processes of a machine share. Read from the cheaper one: once for each event and client. */
export const monotonicMicros = (): number => processStart + performance.now() * 1000

/** @param due when it is, on `performance.now()`'s clock */
export const payload = (n: number, size: number, due: number): string => {
  const wall = (performance.timeOrigin + due) * 1000
  return `n=${digits(n, 10)} t=${digits(wall, 16)} m=${digits(processStart + due * 1000, 16)} `.padEnd(size, "x")
}

/**
 * Calls `publish` with the data of what is due, about every millisecond; late ones are made up for. `publish` may be
 * called many times in a tick.
 */
export const broadcast = ({ rate, seconds, size }: Broadcast, publish: (data: string) => void): void => {
  const start = performance.now()
  const total = Math.round(rate * seconds)
  let sent = 0
  const dueAt = (n: number) => start + (n / rate) * 1000
  const tick = () => {
    for (const now = performance.now(); sent < total && dueAt(sent) <= now; sent++) {
      publish(payload(sent, size, dueAt(sent)))
    }
    if (sent < total) setTimeout(tick, Math.min(50, Math.max(1, dueAt(sent) - performance.now())))
  }
  tick()
}

/** The port to listen on, from the command line; and the line by which the benchmark knows the server is ready. */
export const port = Number(process.argv[2] ?? 8001)
export const ready = () => process.stdout.write("ready\n")

/** Frees what is garbage, so that the memory that is left can be compared. */
export const collect = (): void => {
  ;(globalThis as { readonly gc?: () => void }).gc?.()
}
