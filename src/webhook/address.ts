/**
 * Which URLs and addresses a webhook may be sent to. Pure: nothing here resolves a name or opens a socket.
 *
 * Forbidden ranges: the IANA special-purpose registries (RFC 6890, RFC 8190), multicast and reserved space. IPv6 addresses that embed an IPv4
 * address are judged by it (RFC 4291 §2.5.5.2, RFC 6052, RFC 3056).
 */
import { isIPv4 } from 'node:net'
import { networkInterfaces } from 'node:os'
import ipaddr from 'ipaddr.js'
import { RingbackError, StartupError } from '../core/errors.ts'

type Ip = ipaddr.IPv4 | ipaddr.IPv6
type Cidr = readonly [Ip, number]

export type AddressVerdict = 'allowed' | 'forbidden'

/** A socket of this server. `0.0.0.0` and `::` mean every address of the machine. */
export interface Listener {
  readonly address: string
  readonly port: number
}

/** The rules of one installation, made by {@link parseAddressRules}. */
export interface AddressRules {
  /** Networks that the operator allows. */
  readonly allow: readonly Cidr[]
  readonly allowHttp: boolean
  /** For development: allows 127.0.0.0/8, ::1 and `localhost`. */
  readonly allowLoopback: boolean
  /** Null: 80, 443 and every port from 1024 up. The other ports belong to services such as SMTP, DNS and SSH. */
  readonly ports: readonly number[] | null
  /** Never allowed. Code that opens a listener adds it here. */
  readonly listeners: Listener[]
  /** The addresses of this machine, for listeners that are bound to all of them. */
  readonly localAddresses: () => readonly string[]
  /** Ranges forbidden unless `allow` covers them. */
  readonly forbidden: readonly Cidr[]
  /** Addresses that hand out cloud credentials: `allow` opens them only one by one. */
  readonly metadata: readonly Cidr[]
}

export interface AddressRulesInput {
  /** CIDRs: `10.20.0.0/16`, `fd12:3456::/32`, `169.254.169.254/32`. */
  readonly allow?: readonly string[]
  readonly allowHttp?: boolean
  readonly allowLoopback?: boolean
  readonly ports?: readonly number[] | null
  /** Kept by reference: listeners pushed later count from then on. */
  readonly listeners?: Listener[]
  readonly localAddresses?: () => readonly string[]
}

const MAX_URL_LENGTH = 2048

// The last three cover every IPv6 address outside 2000::/3, the only block of global unicast addresses.
const forbiddenRanges =
  '0.0.0.0/8 10.0.0.0/8 100.64.0.0/10 127.0.0.0/8 169.254.0.0/16 172.16.0.0/12 192.0.0.0/24 192.0.2.0/24 192.88.99.0/24 192.168.0.0/16 ' +
  '198.18.0.0/15 198.51.100.0/24 203.0.113.0/24 224.0.0.0/4 240.0.0.0/4 ' +
  '2001::/23 2001:db8::/32 3fff::/20 ::/3 4000::/2 8000::/1'

const metadataRanges = '169.254.0.0/16 fd00:ec2::/32 168.63.129.16/32 100.100.100.200/32 192.0.0.192/32'

/** @throws StartupError that quotes the invalid CIDR or port. */
export function parseAddressRules(input: AddressRulesInput = {}): AddressRules {
  const ports = input.ports ?? null
  for (const port of ports ?? []) {
    if (!Number.isInteger(port) || port < 1 || port > 65_535)
      throw new StartupError(`The callback port ${port} must be a whole number from 1 to 65535.`)
  }
  return {
    allow: (input.allow ?? []).map(parseCidr),
    allowHttp: input.allowHttp ?? false,
    allowLoopback: input.allowLoopback ?? false,
    ports,
    listeners: input.listeners ?? [],
    localAddresses: input.localAddresses ?? localAddresses,
    forbidden: forbiddenRanges.split(' ').map((range) => ipaddr.parseCIDR(range)),
    metadata: metadataRanges.split(' ').map((range) => ipaddr.parseCIDR(range)),
  }
}

/**
 * The parsed URL, if webhooks may be sent to it. Names are not resolved: their addresses are checked at every connect.
 * @throws RingbackError `invalid_callback_url` when the URL is invalid, `callback_url_forbidden` when this installation does not allow it.
 */
export function parseCallbackUrl(text: string, rules: AddressRules): URL {
  const url = parseUrl(text)
  const http = url.protocol === 'http:'
  if (http && !rules.allowHttp) throw forbidden(text, 'is plain http: use https')
  const port = url.port === '' ? (http ? 80 : 443) : Number(url.port)
  if (rules.ports === null ? port < 1024 && port !== 80 && port !== 443 : !rules.ports.includes(port)) {
    throw forbidden(text, `names port ${port}: ports allowed here are ${rules.ports?.join(', ') ?? '80, 443 and those from 1024 up'}`)
  }
  const host = url.hostname
  const literal = addressWithoutDns(host)
  if (literal !== null && classifyAddress(literal, rules, port) === 'forbidden') {
    throw forbidden(text, 'points to an address that may not be called from here: use a host on the public internet')
  }
  return url
}

/**
 * Whether a connection may be made to `address`, in any spelling of inet_aton(3) or RFC 4291. Text that is not an address is forbidden.
 * With `port`, the listeners of this server are forbidden too.
 */
export function classifyAddress(address: string, rules: AddressRules, port?: number): AddressVerdict {
  return ipaddr.isValid(address) && mayConnect(ipaddr.parse(address), rules, port) ? 'allowed' : 'forbidden'
}

/**
 * The address of a host that needs no name server: an IP literal, or the loopback for `localhost` and names below it (RFC 6761 §6.3). Null for
 * other names. `hostname` comes from a WHATWG `URL`, which normalizes spellings such as `0x7f.1` and `２１３０７０６４３３`.
 */
export function addressWithoutDns(hostname: string): string | null {
  if (hostname.startsWith('[')) return hostname.slice(1, -1)
  const name = hostname.endsWith('.') ? hostname.slice(0, -1) : hostname
  if (name === 'localhost' || name.endsWith('.localhost')) return '127.0.0.1'
  return isIPv4(name) ? name : null
}

function parseUrl(text: string): URL {
  if (text.length > MAX_URL_LENGTH) throw invalid(text, `has ${text.length} characters: the limit is ${MAX_URL_LENGTH}`)
  // A URL parser drops or changes these silently: the URL called would differ from the URL registered.
  // biome-ignore lint/suspicious/noControlCharactersInRegex: refuses control characters
  if (/[\u0000-\u0020\u007f\\]/.test(text)) throw invalid(text, 'contains a space, a control character or a backslash: percent-encode it')
  const url = URL.parse(text)
  if (url === null) throw invalid(text, 'is not an absolute URL: give one such as https://app.example.net/hooks')
  if (url.protocol !== 'https:' && url.protocol !== 'http:') throw invalid(text, `has the scheme "${url.protocol.slice(0, -1)}": use https`)
  if (url.username !== '' || url.password !== '')
    throw invalid(text, 'carries a user name or password: send credentials in a header of the endpoint')
  if (text.includes('#')) throw invalid(text, 'has a fragment, which is never sent: leave out the "#" and what follows')
  if (url.port === '0') throw invalid(text, 'names port 0: ports start at 1')
  if (/^\.|\.\./.test(url.hostname) || url.hostname === '.')
    throw invalid(text, 'has an empty label in its host: write single dots between labels')
  return url
}

function mayConnect(ip: Ip, rules: AddressRules, port: number | undefined): boolean {
  const embedded = embeddedIPv4(ip)
  if (embedded !== null) return mayConnect(embedded, rules, port)
  if (port !== undefined && isOwnListener(ip, port, rules)) return false
  if (rules.metadata.some((range) => contains(range, ip))) return rules.allow.some((range) => contains(range, ip) && isSingle(range))
  if (rules.allow.some((range) => contains(range, ip))) return true
  if (rules.allowLoopback && isLoopback(ip)) return true
  return !rules.forbidden.some((range) => contains(range, ip))
}

/** The IPv4 address that packets to this IPv6 address reach: mapped, NAT64 64:ff9b::/96, 6to4 2002::/16. Otherwise null. */
function embeddedIPv4(ip: Ip): ipaddr.IPv4 | null {
  if (!isV6(ip)) return null
  const [p0, p1, p2, p3, p4, p5, p6, p7] = ip.parts as [number, number, number, number, number, number, number, number]
  if (p0 === 0x2002) return joinIPv4(p1, p2)
  const middle = p2 | p3 | p4
  if (middle === 0 && ((p0 === 0 && p1 === 0 && p5 === 0xffff) || (p0 === 0x64 && p1 === 0xff9b && p5 === 0))) return joinIPv4(p6, p7)
  return null
}

const joinIPv4 = (high: number, low: number): ipaddr.IPv4 => new ipaddr.IPv4([high >> 8, high & 0xff, low >> 8, low & 0xff])

function isOwnListener(ip: Ip, port: number, rules: AddressRules): boolean {
  return rules.listeners.some((listener) => listener.port === port && reaches(ip, listener.address, rules))
}

/** Whether a connection to `ip` reaches a socket bound to `address`. Most systems treat the unspecified address as the loopback. */
function reaches(ip: Ip, address: string, rules: AddressRules): boolean {
  const bound = normalize(address)
  if (bound === null || isUnspecified(bound)) {
    return isLoopback(ip) || isUnspecified(ip) || rules.localAddresses().some((local) => isSame(ip, normalize(local)))
  }
  return isSame(ip, bound) || (isUnspecified(ip) && isLoopback(bound))
}

function normalize(address: string): Ip | null {
  if (!ipaddr.isValid(address)) return null
  const ip = ipaddr.parse(address)
  return isV6(ip) && ip.isIPv4MappedAddress() ? ip.toIPv4Address() : ip
}

const isV6 = (ip: Ip): ip is ipaddr.IPv6 => ip.kind() === 'ipv6'
const isSingle = ([ip, prefix]: Cidr): boolean => prefix === (isV6(ip) ? 128 : 32)
const contains = ([base, prefix]: Cidr, ip: Ip): boolean => base.kind() === ip.kind() && ip.match(base, prefix)
const isSame = (ip: Ip, other: Ip | null): boolean => other !== null && contains([other, isV6(other) ? 128 : 32], ip)
const isUnspecified = (ip: Ip): boolean => ip.toByteArray().every((byte) => byte === 0)
const isLoopback = (ip: Ip): boolean => ip.range() === 'loopback'

const localAddresses = (): readonly string[] =>
  Object.values(networkInterfaces()).flatMap((addresses) => (addresses ?? []).map(({ address }) => address))

function parseCidr(text: string): Cidr {
  const refuse = (why: string): StartupError => new StartupError(`The allowed callback network "${text}" ${why}.`)
  const v4 = ipaddr.IPv4.isValidCIDRFourPartDecimal(text)
  if (!v4 && !ipaddr.IPv6.isValidCIDR(text))
    throw refuse('is not a CIDR: write an address, a slash and a prefix length, such as 10.20.0.0/16')
  const [ip, prefix] = ipaddr.parseCIDR(text)
  if (prefix === 0) throw refuse('would allow every address: name the networks of your receivers')
  const network = v4 ? ipaddr.IPv4.networkAddressFromCIDR(text) : ipaddr.IPv6.networkAddressFromCIDR(text)
  if (!isSame(ip, network))
    throw refuse(`has bits set after its prefix: write ${network.toString()}/${prefix}, or ${ip.toString()}/${v4 ? 32 : 128}`)
  if (embeddedIPv4(ip) !== null) throw refuse('embeds an IPv4 address, which decides: write that IPv4 network')
  return [ip, prefix]
}

const invalid = (text: string, why: string): RingbackError => new RingbackError('invalid_callback_url', sentence(text, why))
const forbidden = (text: string, why: string): RingbackError => new RingbackError('callback_url_forbidden', sentence(text, why))

/** Quotes the URL without its credentials, because the sentence may be logged. */
function sentence(text: string, why: string): string {
  const quoted = text.replace(/\/\/[^/?#]*@/, '//***@')
  return `The callback URL "${quoted.length > 200 ? `${quoted.slice(0, 200)}…` : quoted}" ${why}.`
}
