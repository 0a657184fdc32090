/** Parsers of settings. Each turns text into a value, or throws a StartupError whose sentence begins with `label`, the name of the setting. */
import { isIP } from 'node:net'
import { fileURLToPath } from 'node:url'
import ipaddr from 'ipaddr.js'
import { parseMasterKey } from '../core/encryption.ts'
import { StartupError } from '../core/errors.ts'

export type Parser<T> = (text: string, label: string) => T

/** Where the data is stored. `path` is as given: a relative one starts at the working folder. */
export type Database = { readonly kind: 'sqlite'; readonly path: string } | { readonly kind: 'postgres'; readonly url: string }

/** `limit` requests in `windowSeconds`. */
export interface RateLimit {
  readonly limit: number
  readonly windowSeconds: number
}
/** Null: that kind of request is not limited. */
export type RateLimits = Readonly<Record<'write' | 'read', RateLimit | null>>

/** The proxy for webhooks. Address rules do not apply to the proxy's own address. */
export interface EgressProxy {
  /** Whether the connection to the proxy uses TLS. */
  readonly secure: boolean
  /** A name or an address, without brackets. */
  readonly host: string
  readonly port: number
  /** The value of `Proxy-Authorization`; null: none is sent. */
  readonly authorization: string | null
}

/** The value as an error may quote it: passwords masked, control characters escaped, at most 120 characters. */
export function quoteInput(text: string): string {
  const masked = text.replace(/\/\/[^/?#]*@/, '//***@')
  return JSON.stringify(masked.length > 120 ? `${masked.slice(0, 119)}…` : masked)
}

function refusal(label: string, text: string, must: string): StartupError {
  return new StartupError(`${label} is ${quoteInput(text)}, but it must be ${must}.`)
}

export function oneOf<const T extends string>(...values: readonly T[]): Parser<T> {
  return (text, label) => {
    const value = values.find((it) => it === text)
    if (value === undefined) throw refusal(label, text, `${values.slice(0, -1).join(', ')} or ${values.at(-1)}`)
    return value
  }
}

export const parseBoolean: Parser<boolean> = (text, label) => oneOf('true', 'false')(text, label) === 'true'

const isWithin = (text: string, min: number, max: number): boolean => /^\d{1,15}$/.test(text) && Number(text) >= min && Number(text) <= max

export function wholeNumber(min: number, max: number): Parser<number> {
  return (text, label) => {
    if (!isWithin(text, min, max))
      throw refusal(label, text, `a whole number from ${min.toLocaleString('en-US')} to ${max.toLocaleString('en-US')}`)
    return Number(text)
  }
}

const splitList = (text: string): readonly string[] => text.split(',').map((item) => item.trim())

export function list<T>(parse: Parser<T>): Parser<readonly T[]> {
  return (text, label) => splitList(text).map((item) => parse(item, label))
}

export const parseHost: Parser<string> = (text, label) => {
  if (isIP(text) === 0 && !/^[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?$/.test(text))
    throw refusal(label, text, 'an IP address or a host name, without scheme, port or brackets')
  return text
}

export const parseDatabase: Parser<Database> = (text, label) => {
  if (/^postgres(ql)?:\/\//i.test(text)) {
    // An unreadable URL is not quoted: it may hold the password anywhere.
    if (!URL.canParse(text))
      throw new StartupError(
        `${label} begins like a PostgreSQL URL but is not a valid one: write postgres://user:password@host:5432/database, with "@ : / ? #" in the password percent-encoded.`,
      )
    return { kind: 'postgres', url: text }
  }
  if (text.startsWith('file:')) return { kind: 'sqlite', path: parseFile(text, label) }
  const scheme = /^([^:/]*):/.exec(text)?.[1]
  const start = scheme === undefined ? `is ${quoteInput(text)}` : `begins with ${quoteInput(`${scheme}:`)}`
  throw new StartupError(`${label} ${start}, but it must be file:… for SQLite (file:./data/ringback.db) or postgres://… for PostgreSQL.`)
}

const parseFile: Parser<string> = (text, label) => {
  const must = 'file: and the path of a file on this machine, such as file:./data/ringback.db or file:/var/lib/ringback/ringback.db'
  if (/[?#]/.test(text)) throw refusal(label, text, `${must}, without "?" or "#"`)
  if (!text.startsWith('file://')) {
    const path = text.slice('file:'.length)
    if (path === '' || path.endsWith('/') || path.startsWith(':memory:')) throw refusal(label, text, must)
    return path
  }
  try {
    const url = new URL(text)
    if (url.host === '' && !url.pathname.endsWith('/')) return fileURLToPath(url)
  } catch {
    // Not a URL, or one with escapes that no path can hold: refused below.
  }
  throw refusal(label, text, must)
}

export const parsePublicUrl: Parser<string> = (text, label) => {
  const must = 'an absolute http or https URL without query, fragment or user, such as https://tasks.example.com'
  const url = URL.parse(text)
  if (!url || !/^https?:$/.test(url.protocol) || /[?#]/.test(text) || url.username !== '' || url.password !== '')
    throw refusal(label, text, must)
  // Receivers compare `iss` as text, so only one spelling is accepted.
  if (text.endsWith('/')) throw refusal(label, text, `without the slash at its end: ${quoteInput(text.replace(/\/+$/, ''))}`)
  return url.origin + (url.pathname === '/' ? '' : url.pathname)
}

export const parseToken: Parser<string> = (text, label) => {
  const fix = 'make one with: openssl rand -hex 24'
  if (text.length < 16) throw new StartupError(`${label} has ${text.length} characters, but it must have 16 or more: ${fix}`)
  // RFC 6750 §2.1, `b64token`.
  if (!/^[A-Za-z0-9._~+/-]+=*$/.test(text))
    throw new StartupError(`${label} holds characters that a bearer token cannot have (letters, digits and "-._~+/" are allowed): ${fix}`)
  return text
}

export const parseKey: Parser<string> = (text, label) => {
  parseMasterKey(text, label)
  return text
}

export const parseSchedule: Parser<readonly number[]> = (text, label) => {
  const delays = splitList(text)
  if (delays.length > 20 || !delays.every((delay) => isWithin(delay, 0, 86_400)))
    throw refusal(label, text, '1 to 20 delays in seconds, each a whole number from 0 to 86,400, separated by commas')
  return delays.map(Number)
}

export const parseCidr: Parser<string> = (text, label) => {
  const must = 'networks in CIDR form, separated by commas, such as 10.0.0.0/8,fd00::/8'
  const bad = (why: string): StartupError => new StartupError(`${label} holds ${quoteInput(text)}, ${why}. It must be ${must}.`)
  const [address = '', bits] = text.split('/')
  const v4 = ipaddr.IPv4.isValidFourPartDecimal(address)
  if (!v4 && !(ipaddr.IPv6.isValid(address) && !address.includes('%'))) throw bad('which is no address')
  const length = v4 ? 32 : 128
  if (bits === undefined) throw bad(`which has no prefix length; for that one address write ${address}/${length}`)
  if (!isWithin(bits, 0, length) || text.split('/').length > 2) throw bad(`whose prefix length is not a whole number from 0 to ${length}`)
  if (!v4 && ipaddr.IPv6.parse(address).isIPv4MappedAddress()) throw bad('an IPv4 network mapped to IPv6; write it as IPv4')
  if (Number(bits) === 0) throw bad('which is every address there is; name the networks that callbacks may reach')
  const network = (v4 ? ipaddr.IPv4 : ipaddr.IPv6).networkAddressFromCIDR(`${address}/${bits}`).toString()
  if (network !== ipaddr.parse(address).toString()) throw bad(`which has bits set beyond its prefix; write ${network}/${bits}`)
  return `${network}/${bits}`
}

export const parseProxy: Parser<EgressProxy> = (text, label) => {
  const url = URL.parse(text)
  const secure = url?.protocol === 'https:'
  try {
    if (!url || !/^https?:$/.test(url.protocol) || url.hostname === '' || url.pathname !== '/' || url.search !== '' || url.hash !== '')
      throw url
    const credentials = [url.username, url.password].map(decodeURIComponent).join(':')
    return {
      secure,
      host: url.hostname.replace(/^\[|\]$/g, ''),
      port: url.port === '' ? (secure ? 443 : 80) : Number(url.port),
      authorization: credentials === ':' ? null : `Basic ${Buffer.from(credentials).toString('base64')}`,
    }
  } catch {
    // An unreadable URL is not quoted: it may hold the password anywhere.
    throw new StartupError(
      `${label} is not the URL of a proxy: write http://host:port or http://user:password@host:port, with "@ : / ? # %" in the password percent-encoded.`,
    )
  }
}

export const parseRateLimits: Parser<RateLimits | null> = (text, label) => {
  if (text === 'off') return null
  const limits: { write: RateLimit | null; read: RateLimit | null } = { write: null, read: null }
  for (const item of splitList(text)) {
    const [, kind, limit, windowSeconds] = /^(write|read)=(\d+)\/(\d+)$/.exec(item) ?? []
    if ((kind !== 'write' && kind !== 'read') || limits[kind] || !isWithin(limit!, 1, 1_000_000) || !isWithin(windowSeconds!, 1, 86_400))
      throw refusal(label, text, 'off, or requests per seconds for "write", "read" or both, such as write=600/60,read=3000/60')
    limits[kind] = { limit: Number(limit), windowSeconds: Number(windowSeconds) }
  }
  return limits
}

export const parseOrigins: Parser<readonly string[]> = (text, label) => {
  if (text === '*') return ['*']
  return splitList(text).map((item) => {
    const origin = URL.canParse(item) ? new URL(item).origin : 'null'
    if (origin === 'null' || item !== origin)
      throw new StartupError(
        `${label} holds ${quoteInput(item)}, but it must be origins separated by commas, such as https://app.example.com, or * alone.`,
      )
    return origin
  })
}
