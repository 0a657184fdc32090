/**
 * Connects to a host name and checks every address first. Does not use `dns.lookup`: while a name server is silent, that would occupy libuv's
 * thread pool, which signing needs.
 */
import { Resolver as NameServers } from 'node:dns/promises'
import { readFile, stat } from 'node:fs/promises'
import { connect as connectTcp, isIP, type Socket } from 'node:net'
import { win32 } from 'node:path'
import { connect as connectTls, createSecureContext, type SecureContext, type TLSSocket } from 'node:tls'
import type { EgressProxy } from '../config/parsers.ts'
import type { Clock } from '../core/clock.ts'
import type { AttemptOutcome, Millis } from '../core/model.ts'
import { type AddressRules, classifyAddress } from './address.ts'
import { openTunnel, ProxyRefusal } from './proxy.ts'

export interface Resolver {
  /** All IPv4 and IPv6 addresses. Rejects when the name has none or no server answers. */
  resolve(name: string): Promise<readonly string[]>
  close?(): void
}

export interface ResolverOptions {
  /** Default: the system's hosts file. */
  readonly hostsFile?: string
  /** `address` or `address:port`, `[address]:port`. Default: the system's name servers. */
  readonly servers?: readonly string[]
  /** For one query to one server. Each server is queried at most twice. */
  readonly timeoutMs?: number
}

/** Looks in the hosts file first, then queries A and AAAA. Tries no search domains and caches nothing. */
export function systemResolver(options: ResolverOptions = {}): Resolver {
  const timeout = options.timeoutMs ?? 2000
  const servers = new NameServers({ timeout, tries: 2, maxTimeout: timeout })
  if (options.servers !== undefined) servers.setServers(options.servers)
  const hosts = hostsFile(options.hostsFile ?? systemHostsFile())
  return {
    async resolve(name) {
      const listed = (await hosts(name)) ?? loopbackOf(name)
      if (listed !== null) return listed
      const answers = await Promise.allSettled([servers.resolve4(name), servers.resolve6(name)])
      const addresses = answers.flatMap((answer) => (answer.status === 'fulfilled' ? answer.value : []))
      if (addresses.length === 0)
        throw answers.find((answer) => answer.status === 'rejected')?.reason ?? new Error('The name has no address.')
      return addresses
    },
    close: () => servers.cancel(),
  }
}

export interface Destination {
  /** A name or an IP literal, without brackets and trailing dot. */
  readonly host: string
  readonly port: number
  readonly secure: boolean
}

export type ConnectStep = 'dns' | 'connect' | 'tls'

/** Waits for a connection and follows its steps. An abandoned waiter has destroyed the socket tracked last. */
export interface ConnectionWaiter {
  readonly isAbandoned: boolean
  beginStep(step: ConnectStep): void
  finishStep(step: ConnectStep, tookMs: Millis): void
  trackSocket(socket: Socket): void
  setRemoteAddress(address: string): void
}

/** Why there is no response. Clients may read `message`: it contains no address. */
export class TransportFailure extends Error {
  override readonly name = 'TransportFailure'
  readonly outcome: AttemptOutcome
  /** See `SendResult`. */
  readonly localFault: boolean

  constructor(outcome: AttemptOutcome, message: string, localFault = false) {
    super(message)
    this.outcome = outcome
    this.localFault = localFault
  }
}

export const failureMessages = {
  aborted: 'The attempt was cut short by this server.',
  blocked: 'The callback URL, or an address of its host, may not be called from here.',
} as const

/** This machine ran out of file descriptors, ports or memory (errno(3)). */
const LOCAL_RESOURCE_ERROR = /\((?:EMFILE|ENFILE|ENOBUFS|ENOMEM|EADDRNOTAVAIL)\)/

/** Addresses of one name to try, in order. All of them are checked. */
const MAX_ADDRESSES = 16

export interface DialerOptions {
  readonly rules: AddressRules
  readonly clock: Clock
  readonly resolver: Resolver
  /** For each of several addresses; the last one may use all the time left. */
  readonly addressMs: Millis
  /** PEM certificates to trust instead of the system's. */
  readonly ca: string | readonly string[] | undefined
  readonly proxy: EgressProxy | null
}

/** Opens connections, to checked addresses only. */
export class Dialer {
  readonly #options: DialerOptions
  readonly #secureContext: () => SecureContext
  readonly #lookups = new Map<string, Promise<readonly string[]>>()

  constructor(options: DialerOptions) {
    this.#options = options
    this.#secureContext = createTrustContext(options.ca)
  }

  /** Connects, with TLS if the destination is secure. Rejects with a {@link TransportFailure}. */
  async open(destination: Destination, waiter: ConnectionWaiter): Promise<Socket> {
    const { proxy } = this.#options
    const addresses = this.#check(await this.#addresses(destination.host, waiter), destination)
    const tcp =
      proxy === null ? await this.#direct(destination, addresses, waiter) : await this.#tunnel(proxy, destination, addresses, waiter)
    if (!destination.secure) return tcp
    const tls = this.#overTls(destination.host, tcp)
    await this.#step('tls', waiter, tls, connected(tls, 'secureConnect'), 'The TLS handshake failed')
    return tls
  }

  async #direct(destination: Destination, addresses: readonly string[], waiter: ConnectionWaiter): Promise<Socket> {
    const tcp = dial(destination, addresses, this.#options.addressMs)
    await this.#step('connect', waiter, tcp, connected(tcp, 'connect'), 'No connection could be made')
    // A connection that was reset at once has no remote address any more.
    if (tcp.remoteAddress === undefined) throw new TransportFailure('connect', 'The connection was lost at once.')
    this.#check([tcp.remoteAddress], destination)
    waiter.setRemoteAddress(tcp.remoteAddress)
    return tcp
  }

  /** A tunnel to the first address that the proxy reaches. */
  async #tunnel(proxy: EgressProxy, { port }: Destination, addresses: readonly string[], waiter: ConnectionWaiter): Promise<Socket> {
    const tried = addresses.slice(0, MAX_ADDRESSES)
    for (const [i, address] of tried.entries()) {
      const isLast = i === tried.length - 1
      let socket: Socket | null = null
      const track = (opened: Socket): void => {
        socket = opened
        waiter.trackSocket(opened)
      }
      const cancel = isLast ? () => {} : this.#options.clock.after(this.#options.addressMs, () => socket?.destroy())
      try {
        const opening = this.#throughProxy(proxy, address, port, waiter, track)
        const tunnel = await this.#step('connect', waiter, null, opening, 'No connection could be made')
        waiter.setRemoteAddress(address)
        return tunnel
      } catch (error) {
        if (waiter.isAbandoned || isLast) throw error
      } finally {
        cancel()
      }
    }
    throw new TransportFailure('dns', 'The host name has no address.')
  }

  async #throughProxy(
    proxy: EgressProxy,
    address: string,
    port: number,
    waiter: ConnectionWaiter,
    track: (socket: Socket) => void,
  ): Promise<Socket> {
    const socket = await this.#connectToProxy(proxy, waiter, track).catch((error: unknown) => {
      throw new TransportFailure('connect', `The egress proxy could not be reached${errorCodeSuffix(error)}.`, true)
    })
    return openTunnel(socket, address, port, proxy).catch((error: unknown) => {
      throw error instanceof ProxyRefusal && error.status === 407 ? new TransportFailure('connect', error.message, true) : error
    })
  }

  async #connectToProxy(proxy: EgressProxy, waiter: ConnectionWaiter, track: (socket: Socket) => void): Promise<Socket> {
    const addresses = isIP(proxy.host) === 0 ? await this.#resolve(proxy.host) : [proxy.host]
    assertWanted(waiter)
    const tcp = dial({ ...proxy, secure: false }, addresses, this.#options.addressMs)
    track(tcp)
    await connected(tcp, 'connect')
    if (!proxy.secure) return tcp
    const tls = this.#overTls(proxy.host, tcp)
    track(tls)
    await connected(tls, 'secureConnect')
    return tls
  }

  async #addresses(host: string, waiter: ConnectionWaiter): Promise<readonly string[]> {
    if (isIP(host) !== 0) return [host]
    const addresses = await this.#step('dns', waiter, null, this.#resolve(host), 'The host name could not be resolved')
    assertWanted(waiter)
    if (addresses.length === 0) throw new TransportFailure('dns', 'The host name has no address.')
    return addresses
  }

  /** Concurrent lookups of one name share one query. Nothing is cached after it. */
  #resolve(name: string): Promise<readonly string[]> {
    let lookup = this.#lookups.get(name)
    if (lookup === undefined) {
      lookup = this.#options.resolver.resolve(name).finally(() => this.#lookups.delete(name))
      this.#lookups.set(name, lookup)
    }
    return lookup
  }

  /** One forbidden address forbids all: otherwise the owner of the name could choose which one is used. */
  #check(addresses: readonly string[], { port }: Destination): readonly string[] {
    if (addresses.some((address) => isIP(address) === 0 || classifyAddress(address, this.#options.rules, port) === 'forbidden'))
      throw new TransportFailure('blocked', failureMessages.blocked)
    return addresses
  }

  #overTls(host: string, tcp: Socket): TLSSocket {
    return connectTls({
      socket: tcp,
      host,
      // RFC 6066 §3: no IP literals in SNI.
      servername: isIP(host) === 0 ? host : '',
      secureContext: this.#secureContext(),
      ALPNProtocols: ['http/1.1'],
      // Explicit, because an environment variable can turn the default off.
      rejectUnauthorized: true,
    })
  }

  async #step<T>(step: ConnectStep, waiter: ConnectionWaiter, socket: Socket | null, work: Promise<T>, message: string): Promise<T> {
    const { clock } = this.#options
    const startedAt = clock.now()
    waiter.beginStep(step)
    if (socket !== null) waiter.trackSocket(socket)
    try {
      return await work
    } catch (error) {
      if (error instanceof TransportFailure) throw error
      const code = errorCodeSuffix(error)
      const sentence = error instanceof ProxyRefusal ? error.message : `${message}${code}.`
      throw new TransportFailure(step, sentence, LOCAL_RESOURCE_ERROR.test(code))
    } finally {
      if (!waiter.isAbandoned) waiter.finishStep(step, clock.now() - startedAt)
    }
  }
}

/** Opens no connection for an attempt that ended meanwhile. */
function assertWanted(waiter: ConnectionWaiter): void {
  if (waiter.isAbandoned) throw new TransportFailure('aborted', failureMessages.aborted)
}

/** Starts to connect to the checked addresses, one after the other. `lookup` is replaced, so no other address can come in. */
function dial({ host, port }: Destination, addresses: readonly string[], addressMs: Millis): Socket {
  const options = { port, noDelay: true, keepAlive: true, keepAliveInitialDelay: 60_000 }
  if (addresses.length === 1) return connectTcp({ ...options, host: addresses[0]! })
  const pinned = addresses.slice(0, MAX_ADDRESSES).map((address) => ({ address, family: isIP(address) }))
  return connectTcp({
    ...options,
    host,
    autoSelectFamily: true,
    autoSelectFamilyAttemptTimeout: addressMs,
    lookup: (_name, _options, answer) => answer(null, pinned),
  })
}

/** Waits for `event`, and rejects when the socket fails or is destroyed first. */
function connected(socket: Socket, event: 'connect' | 'secureConnect'): Promise<void> {
  return new Promise((resolve, reject) => {
    socket.once(event, resolve)
    // Stays on: an error before undici listens must not be uncaught.
    socket.on('error', reject)
    socket.once('close', () => reject(new Error('The socket was closed.')))
  })
}

/** TLS 1.2 or newer. The system's certificates load on first use; an unreadable `ca` throws here. */
function createTrustContext(ca: string | readonly string[] | undefined): () => SecureContext {
  const make = (): SecureContext => createSecureContext({ minVersion: 'TLSv1.2', ...(ca === undefined ? {} : { ca: [ca].flat() }) })
  let context = ca === undefined ? undefined : make()
  return () => (context ??= make())
}

/** " (ECONNREFUSED)": messages of system errors contain addresses, codes do not. */
export function errorCodeSuffix(error: unknown): string {
  const code = error instanceof Error ? (error as NodeJS.ErrnoException).code : undefined
  return typeof code === 'string' && /^[A-Z][A-Z0-9_]*$/.test(code) ? ` (${code})` : ''
}

/** RFC 6761 §6.3: `localhost` and names below it are the loopback. Null for other names. */
function loopbackOf(name: string): readonly string[] | null {
  return name === 'localhost' || name.endsWith('.localhost') ? ['127.0.0.1', '::1'] : null
}

function systemHostsFile(): string {
  return process.platform === 'win32' ? win32.join(process.env.SystemRoot ?? 'C:\\Windows', 'System32\\drivers\\etc\\hosts') : '/etc/hosts'
}

/** Finds names in a hosts file (hosts(5)). One `stat` per lookup; reads the file when it has changed. An unreadable file lists nothing. */
function hostsFile(path: string): (name: string) => Promise<readonly string[] | null> {
  let readVersion = ''
  let hosts: ReadonlyMap<string, readonly string[]> = new Map()
  return async (name) => {
    try {
      const { mtimeMs, size, ino } = await stat(path)
      const version = `${mtimeMs} ${size} ${ino}`
      if (version !== readVersion) {
        hosts = parseHosts(await readFile(path, 'utf8'))
        readVersion = version
      }
    } catch {
      return null
    }
    return hosts.get(name) ?? null
  }
}

function parseHosts(text: string): Map<string, string[]> {
  const hosts = new Map<string, string[]>()
  for (const line of text.split('\n')) {
    const [address, ...names] = line.replace(/#.*/, '').trim().toLowerCase().split(/\s+/)
    if (address === undefined || isIP(address) === 0) continue
    for (const name of names) {
      const addresses = hosts.get(name)
      if (addresses === undefined) hosts.set(name, [address])
      else if (!addresses.includes(address)) addresses.push(address)
    }
  }
  return hosts
}
