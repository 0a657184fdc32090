import { readFileSync } from 'node:fs'
import { describe, expect, test } from 'vitest'
import { RingbackError } from '../../src/core/errors.ts'
import { type AddressRulesInput, classifyAddress, type Listener, parseAddressRules, parseCallbackUrl } from '../../src/webhook/address.ts'
import { fc } from '../support/chance.ts'

interface AddressVector {
  readonly address: string
  readonly verdict: 'allowed' | 'forbidden'
  readonly why?: string
}
interface UrlVector {
  readonly url: string
  readonly verdict: 'allowed' | 'invalid_callback_url' | 'callback_url_forbidden'
  readonly why?: string
}
interface RulesVector {
  readonly title: string
  readonly rules: Omit<AddressRulesInput, 'localAddresses'> & { readonly localAddresses?: readonly string[] }
  readonly addresses: readonly AddressVector[]
  readonly urls: readonly UrlVector[]
}
const vectors = JSON.parse(readFileSync(new URL('../vectors/addresses.json', import.meta.url), 'utf8')) as {
  readonly addresses: readonly AddressVector[]
  readonly urls: readonly UrlVector[]
  readonly rules: readonly RulesVector[]
}

const strict = parseAddressRules()

function verdictOn(url: string, rules = strict): string {
  try {
    parseCallbackUrl(url, rules)
    return 'allowed'
  } catch (error) {
    if (error instanceof RingbackError) return error.code
    throw error
  }
}

const octet = fc.integer({ min: 0, max: 255 })
const anyIPv4 = fc.tuple(octet, octet, octet, octet)
/** Half of them near the ranges that matter, so that both verdicts occur often. */
const ipv4 = fc.oneof(anyIPv4, fc.tuple(fc.constantFrom(0, 10, 100, 127, 169, 172, 192, 198, 203, 223, 224, 240, 255), octet, octet, octet))
const dotted = (bytes: readonly number[]): string => bytes.join('.')
const asNumber = (bytes: readonly number[]): number => bytes.reduce((sum, byte) => sum * 256 + byte, 0)
const hextets = ([a, b, c, d]: readonly [number, number, number, number]): string =>
  `${((a << 8) | b).toString(16)}:${((c << 8) | d).toString(16)}`

describe('published vectors', () => {
  test('every address has its published verdict', () => {
    const wrong = vectors.addresses.filter(({ address, verdict }) => classifyAddress(address, strict) !== verdict)
    expect(wrong).toEqual([])
    expect(vectors.addresses.length).toBeGreaterThan(120)
  })

  test('every URL has its published verdict', () => {
    const wrong = vectors.urls.map((vector) => ({ ...vector, got: verdictOn(vector.url) })).filter(({ verdict, got }) => verdict !== got)
    expect(wrong).toEqual([])
    expect(vectors.urls.length).toBeGreaterThan(90)
  })

  for (const { title, rules: input, addresses, urls } of vectors.rules) {
    test(title, () => {
      const { localAddresses, ...rest } = input
      const rules = parseAddressRules({ ...rest, ...(localAddresses === undefined ? {} : { localAddresses: () => localAddresses }) })
      expect(addresses.map(({ address }) => [address, classifyAddress(address, rules)])).toEqual(
        addresses.map(({ address, verdict }) => [address, verdict]),
      )
      expect(urls.map(({ url }) => [url, verdictOn(url, rules)])).toEqual(urls.map(({ url, verdict }) => [url, verdict]))
    })
  }
})

describe('whatever the address', () => {
  test('every spelling of an IPv4 host gets the verdict of its address', () => {
    const fullwidth = (text: string): string => text.replace(/\d/g, (digit) => String.fromCodePoint(0xff10 + Number(digit)))
    fc.assert(
      fc.property(ipv4, (bytes) => {
        const [a, b, c, d] = bytes
        const verdict = classifyAddress(dotted(bytes), strict) === 'allowed' ? 'allowed' : 'callback_url_forbidden'
        const hosts = [
          dotted(bytes),
          `${dotted(bytes)}.`,
          String(asNumber(bytes)),
          `0x${asNumber(bytes).toString(16)}`,
          `0${asNumber(bytes).toString(8)}`,
          `${a}.${asNumber([b, c, d])}`,
          `${a}.${b}.${asNumber([c, d])}`,
          bytes.map((byte) => `0x${byte.toString(16)}`).join('.'),
          bytes.map((byte) => `0${byte.toString(8)}`).join('.'),
          fullwidth(dotted(bytes)),
          bytes.join('\u3002'),
          `[::ffff:${dotted(bytes)}]`,
          `[0:0:0:0:0:FFFF:${hextets(bytes)}]`,
          `[64:ff9b::${dotted(bytes)}]`,
          `[2002:${hextets(bytes)}::1]`,
        ]
        expect(hosts.map((host) => [host, verdictOn(`https://${host}/`)])).toEqual(hosts.map((host) => [host, verdict]))
      }),
      { numRuns: 400 },
    )
  })

  test('addresses in inet_aton spelling are judged by their value', () => {
    fc.assert(
      fc.property(ipv4, (bytes) => {
        const verdict = classifyAddress(dotted(bytes), strict)
        for (const text of [
          String(asNumber(bytes)),
          `0x${asNumber(bytes).toString(16)}`,
          `::ffff:${dotted(bytes)}`,
          `64:ff9b::${hextets(bytes)}`,
        ]) {
          expect(classifyAddress(text, strict)).toBe(verdict)
        }
      }),
      { numRuns: 400 },
    )
  })

  test('no IPv6 address outside 2000::/3 is allowed, except NAT64 and mapped ones whose IPv4 address is', () => {
    const part = fc.integer({ min: 0, max: 0xffff })
    fc.assert(
      fc.property(fc.tuple(part, part, part, part, part, part, part, part), (parts) => {
        fc.pre(parts[0] >>> 13 !== 1)
        const address = parts.map((one) => one.toString(16)).join(':')
        expect(classifyAddress(address, strict)).toBe('forbidden')
      }),
      { numRuns: 400 },
    )
  })

  test('any text gets a verdict, and only a refusal is thrown', () => {
    fc.assert(
      fc.property(
        fc.oneof(
          fc.string(),
          fc.webUrl(),
          fc.string({ unit: 'binary' }).map((text) => `https://${text}`),
        ),
        (text) => {
          expect(['allowed', 'invalid_callback_url', 'callback_url_forbidden']).toContain(verdictOn(text))
          expect(['allowed', 'forbidden']).toContain(classifyAddress(text, strict))
        },
      ),
      { numRuns: 1000 },
    )
  })

  test('an allowed network of any size allows only its own addresses', () => {
    fc.assert(
      fc.property(ipv4, ipv4, fc.integer({ min: 1, max: 32 }), (base, other, prefix) => {
        const mask = (bytes: readonly number[]): number => Math.floor(asNumber(bytes) / 2 ** (32 - prefix))
        const network = mask(base) * 2 ** (32 - prefix)
        const cidr = `${[24, 16, 8, 0].map((shift) => Math.floor(network / 2 ** shift) % 256).join('.')}/${prefix}`
        const isGuarded = other[0] === 169 && other[1] === 254
        const inside = mask(other) === mask(base)
        const expected = inside && (!isGuarded || prefix === 32) ? 'allowed' : classifyAddress(dotted(other), strict)
        expect(classifyAddress(dotted(other), parseAddressRules({ allow: [cidr] }))).toBe(expected)
      }),
      { numRuns: 400 },
    )
  })
})

describe('rules', () => {
  test('a valid URL is returned parsed', () => {
    expect(parseCallbackUrl('https://App.Example.net:443/hooks?a=1', strict).href).toBe('https://app.example.net/hooks?a=1')
  })

  test('a listener opened later is refused from then on', () => {
    const listeners: Listener[] = []
    const rules = parseAddressRules({ allowLoopback: true, allowHttp: true, listeners })
    expect(verdictOn('http://127.0.0.1:4000/', rules)).toBe('allowed')
    listeners.push({ address: '0.0.0.0', port: 4000 })
    expect(verdictOn('http://127.0.0.1:4000/', rules)).toBe('callback_url_forbidden')
    expect(classifyAddress('127.0.0.1', rules, 4000)).toBe('forbidden')
    expect(classifyAddress('127.0.0.1', rules, 4001)).toBe('allowed')
  })

  test("a listener on every address covers the machine's own addresses", () => {
    const rules = parseAddressRules({ listeners: [{ address: '0.0.0.0', port: 443 }] })
    const own = rules.localAddresses()
    expect(own.length).toBeGreaterThan(0)
    expect(own.map((address) => classifyAddress(address, rules, 443))).toEqual(own.map(() => 'forbidden'))
  })

  test('a refusal quotes the URL, shortened if it is long, and says how to correct it', () => {
    expect(() => parseCallbackUrl('https://user:pw@app.example.net/', strict)).toThrow(
      'The callback URL "https://***@app.example.net/" carries a user name or password: send credentials in a header of the endpoint.',
    )
    expect(() => parseCallbackUrl('https://app.example.net:8080/', parseAddressRules({ ports: [443] }))).toThrow(
      'ports allowed here are 443',
    )
    expect(() => parseCallbackUrl(`https://app.example.net/${'a'.repeat(3000)}`, strict)).toThrow(/^.{200,400}$/)
  })

  test.each([
    ['10.0.0.0', 'is not a CIDR'],
    ['10/8', 'is not a CIDR'],
    ['10.0.0.0/33', 'is not a CIDR'],
    ['fd00::/129', 'is not a CIDR'],
    ['intranet', 'is not a CIDR'],
    ['', 'is not a CIDR'],
    ['10.1.2.3/8', 'write 10.0.0.0/8, or 10.1.2.3/32'],
    ['fd12::1/32', 'write fd12::/32, or fd12::1/128'],
    ['0.0.0.0/0', 'would allow every address'],
    ['::/0', 'would allow every address'],
    ['::ffff:10.0.0.0/104', 'write that IPv4 network'],
    ['64:ff9b::/96', 'write that IPv4 network'],
  ])('the network "%s" is refused with a sentence: %s', (cidr, why) => {
    expect(() => parseAddressRules({ allow: ['192.168.0.0/16', cidr] })).toThrow(why)
    expect(() => parseAddressRules({ allow: [cidr] })).toThrow(`"${cidr}"`)
  })

  test.each([0, 65_536, 1.5, Number.NaN])('port %s is refused', (port) => {
    expect(() => parseAddressRules({ ports: [port] })).toThrow('must be a whole number from 1 to 65535')
  })
})
