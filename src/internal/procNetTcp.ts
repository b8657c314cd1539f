/**
 * Linux' table of TCP sockets, `/proc/self/net/tcp` and `tcp6` (`proc(5)`): which of them have bytes that the peer has not
 * acknowledged. Most have none and are passed over without making anything.
 *
 * @internal
 */
import ipaddr from "ipaddr.js"

/** A socket with bytes that are not acknowledged: sent and lost, or kept back because the peer takes none. */
export interface Unacknowledged {
  readonly localPort: number
  /** IPv4 in IPv6 as IPv4. */
  readonly remoteAddress: string
  readonly remotePort: number
  readonly bytes: number
}

const newline = 0x0a
const colon = 0x3a
const zero = 0x30

/**
 * Reads the whole lines of a part of the table, and gives how many bytes they are; what is behind them belongs to the next
 * part.
 *
 * @param addressLength characters of an address: 8 in `tcp`, 32 in `tcp6`
 * @param littleEndian the machine's byte order, in which the kernel prints the words of an address
 */
export const parse = (
  table: Buffer,
  addressLength: 8 | 32,
  littleEndian: boolean,
  found: (socket: Unacknowledged) => void
): number => {
  // Behind the line's number: " local:port remote:port state unacknowledged:unread ...".
  const local = 2
  const localPort = local + addressLength + 1
  const remote = localPort + 5
  const remotePort = remote + addressLength + 1
  const bytes = remotePort + 8
  let start = 0
  for (;;) {
    const end = table.indexOf(newline, start)
    if (end === -1) return start
    const line = table.indexOf(colon, start)
    if (line !== -1 && line + bytes + 8 < end && !isZero(table, line + bytes)) {
      const hex = (from: number, length: number) =>
        Number.parseInt(table.toString("latin1", line + from, line + from + length), 16)
      const count = hex(bytes, 8)
      // The line of names is none.
      if (count > 0) {
        found({
          localPort: hex(localPort, 4),
          remoteAddress: readAddress(
            table.toString("latin1", line + remote, line + remote + addressLength),
            littleEndian
          ),
          remotePort: hex(remotePort, 4),
          bytes: count
        })
      }
    }
    start = end + 1
  }
}

const isZero = (table: Buffer, from: number): boolean => {
  for (let i = from; i < from + 8; i++) if (table[i] !== zero) return false
  return true
}

/** As `ClientAddress.normalize` writes it. */
const readAddress = (hex: string, littleEndian: boolean): string => {
  const bytes = Buffer.from(hex, "hex")
  if (littleEndian) bytes.swap32()
  return bytes.length === 4 ? bytes.join(".") : ipaddr.process(ipaddr.fromByteArray([...bytes]).toString()).toString()
}
