import { assert, describe, it } from "@effect/vitest"
import { FastCheck as fc } from "effect"
import { parse, type Unacknowledged } from "../../src/internal/procNetTcp.js"

const names =
  "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode                                                     \n"
const rest = "00:00000000 00000000     0        0 2312 1 000000006d0fbd6d 20 4 30 10 -1"

const line = (n: number, local: string, remote: string, bytes: number, state = "01") =>
  `${String(n).padStart(4)}: ${local} ${remote} ${state} ${bytes.toString(16).toUpperCase().padStart(8, "0")}:0000000A ${rest}\n`

const read = (text: string, addressLength: 8 | 32 = 8, littleEndian = true) => {
  const found: Array<Unacknowledged> = []
  const taken = parse(Buffer.from(text), addressLength, littleEndian, (socket) => found.push(socket))
  return { found, taken }
}

describe("procNetTcp", () => {
  it("finds those that have bytes that are not acknowledged, and nothing else", () => {
    const table =
      names +
      line(0, "0100007F:1F41", "00000000:0000", 0, "0A") +
      line(1, "0100007F:1F41", "0100007F:C350", 0) +
      line(2, "0100007F:1F41", "0A0200C0:C351", 0xed5e7) +
      line(12345, "0100007F:1F41", "0100007F:0001", 1)
    const { found, taken } = read(table)
    assert.strictEqual(taken, table.length)
    assert.deepStrictEqual(found, [
      { localPort: 8001, remoteAddress: "192.0.2.10", remotePort: 50_001, bytes: 972_263 },
      { localPort: 8001, remoteAddress: "127.0.0.1", remotePort: 1, bytes: 1 }
    ])
  })

  it("reads addresses in either byte order, and IPv4 in IPv6 as IPv4", () => {
    assert.strictEqual(
      read(line(0, "7F000001:1F41", "C000020A:C351", 1), 8, false).found[0]?.remoteAddress,
      "192.0.2.10"
    )
    const six = (remote: string, littleEndian: boolean) =>
      read(line(0, `${"0".repeat(32)}:1F41`, `${remote}:C351`, 1), 32, littleEndian).found
    assert.deepStrictEqual(six("B80D0120000000000000000001000000", true), [
      { localPort: 8001, remoteAddress: "2001:db8::1", remotePort: 50_001, bytes: 1 }
    ])
    assert.strictEqual(six("20010DB8000000000000000000000001", false)[0]?.remoteAddress, "2001:db8::1")
    assert.strictEqual(six("0000000000000000FFFF00000A0200C0", true)[0]?.remoteAddress, "192.0.2.10")
  })

  it("gives the same however the table is cut", () => {
    const table =
      names +
      Array.from({ length: 30 }, (_, i) => line(i, "0100007F:1F41", `0100007F:${(i + 4096).toString(16)}`, i)).join("")
    const whole = read(table).found
    assert.strictEqual(whole.length, 29)
    fc.assert(
      fc.property(fc.array(fc.integer({ min: 1, max: 400 }), { minLength: 1 }), (sizes) => {
        const found: Array<Unacknowledged> = []
        let kept = ""
        for (let at = 0, i = 0; at < table.length; i++) {
          const size = sizes[i % sizes.length]!
          kept += table.slice(at, at + size)
          at += size
          kept = kept.slice(parse(Buffer.from(kept), 8, true, (socket) => found.push(socket)))
        }
        assert.deepStrictEqual(found, whole)
        assert.strictEqual(kept, "")
      }),
      { numRuns: 50 }
    )
  })

  it("takes any text without a word", () => {
    fc.assert(fc.property(fc.string({ unit: "binary" }), (text) => void read(text + "\n", 32)))
  })
})
