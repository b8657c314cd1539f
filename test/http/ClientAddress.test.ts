import { assert, describe, it } from "@effect/vitest"
import { HttpServerRequest } from "@effect/platform"
import * as ClientAddress from "effect-sse/http/ClientAddress"

const addressOf = (
  options: ClientAddress.ClientAddressOptions,
  peer: string,
  headers: Record<string, string> = {}
): string => {
  const request = HttpServerRequest.fromWeb(new Request("http://localhost/", { headers }))
  return ClientAddress.make(options)(request.modify({ remoteAddress: peer }))
}
const xff = (value: string) => ({ "x-forwarded-for": value })

describe("ClientAddress", () => {
  it("is the peer's, whatever headers an untrusted peer sends", () => {
    const spoofed = { ...xff("1.1.1.1"), forwarded: "for=1.1.1.1", "x-real-ip": "1.1.1.1" }
    assert.strictEqual(addressOf({}, "192.0.2.9", spoofed), "192.0.2.9")
    assert.strictEqual(addressOf({ trustedProxies: 0 }, "192.0.2.9", spoofed), "192.0.2.9")
    assert.strictEqual(addressOf({ trustedProxies: ["10.0.0.0/8"] }, "192.0.2.9", spoofed), "192.0.2.9")
    assert.strictEqual(addressOf({ trustedProxies: [] }, "192.0.2.9", spoofed), "192.0.2.9")
  })

  it("counts hops from the right, where the nearest proxy wrote", () => {
    const chain = xff("6.6.6.6, 1.1.1.1, 2.2.2.2")
    assert.strictEqual(addressOf({ trustedProxies: 1 }, "10.0.0.1", chain), "2.2.2.2")
    assert.strictEqual(addressOf({ trustedProxies: 2 }, "10.0.0.1", chain), "1.1.1.1")
    assert.strictEqual(addressOf({ trustedProxies: 9 }, "10.0.0.1", chain), "6.6.6.6")
    assert.strictEqual(addressOf({ trustedProxies: 1 }, "10.0.0.1"), "10.0.0.1")
  })

  it("walks through trusted ranges", () => {
    const options = { trustedProxies: ["10.0.0.0/8", "192.168.1.1", "fd00::/8"] }
    assert.strictEqual(addressOf(options, "10.0.0.1", xff("6.6.6.6, 1.1.1.1, 10.2.3.4")), "1.1.1.1")
    assert.strictEqual(addressOf(options, "192.168.1.1", xff("1.1.1.1")), "1.1.1.1")
    assert.strictEqual(addressOf(options, "fd00::1", xff("2001:db8::1")), "2001:db8::1")
    assert.strictEqual(addressOf(options, "::ffff:10.0.0.1", xff("1.1.1.1")), "1.1.1.1")
    assert.strictEqual(addressOf(options, "192.168.1.2", xff("1.1.1.1")), "192.168.1.2")
    const mapped = { trustedProxies: ["::ffff:10.0.0.0/104"] }
    assert.strictEqual(addressOf(mapped, "10.9.9.9", xff("1.1.1.1")), "1.1.1.1")
  })

  it("stops at what is no address", () => {
    const options = { trustedProxies: 3 }
    assert.strictEqual(addressOf(options, "10.0.0.1", xff("1.1.1.1, unknown, 2.2.2.2")), "2.2.2.2")
    for (const junk of ["", "evil<script>", "1.2.3", "0x7f.1", "999.1.1.1", ",,,"]) {
      assert.strictEqual(addressOf(options, "10.0.0.1", xff(junk)), "10.0.0.1", junk)
    }
  })

  it("reads ports, brackets and the Forwarded header", () => {
    assert.strictEqual(addressOf({ trustedProxies: 1 }, "10.0.0.1", xff("1.1.1.1:4711")), "1.1.1.1")
    assert.strictEqual(addressOf({ trustedProxies: 1 }, "10.0.0.1", xff("[2001:DB8::1]:80")), "2001:db8::1")
    const forwarded = (value: string, trustedProxies = 1) =>
      addressOf({ trustedProxies, header: "forwarded" }, "10.0.0.1", { forwarded: value })
    assert.strictEqual(forwarded('for=6.6.6.6, proto=https;For="[2001:db8::1]:47"'), "2001:db8::1")
    assert.strictEqual(forwarded("for=1.1.1.1;by=x, for=2.2.2.2", 2), "1.1.1.1")
    assert.strictEqual(forwarded('for="a,b;for=9.9.9.9", for=2.2.2.2', 2), "2.2.2.2", "a quoted comma is no separator")
    assert.strictEqual(forwarded("for=_hidden"), "10.0.0.1")
    assert.strictEqual(
      addressOf({ trustedProxies: 1, header: "x-real-ip" }, "10.0.0.1", { "x-real-ip": "1.1.1.1", ...xff("6.6.6.6") }),
      "1.1.1.1"
    )
  })

  it("reads only the header it was told to", () => {
    const sent = { forwarded: "for=6.6.6.6", "x-real-ip": "6.6.6.6" }
    assert.strictEqual(addressOf({ trustedProxies: 1 }, "10.0.0.1", sent), "10.0.0.1")
  })

  it("refuses options that make no sense", () => {
    for (const trustedProxies of [-1, 1.5, ["10.0.0.0/33"], ["proxy.example"], [""]]) {
      assert.throws(() => ClientAddress.make({ trustedProxies }), /trustedProxies/)
    }
  })
})
