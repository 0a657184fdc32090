/**
 * From a name to a connected socket, with every address judged on the way. Names are resolved without `dns.lookup`, which would occupy libuv's pool
 * and with it signing while a name server is silent.
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

/** Every address of a name, IPv4 and IPv6. Rejects when the name has none or nobody answers. */
export interface Resolver {
  resolve(name: string): Promise<readonly string[]>
  close?(): void
}

export interface ResolverOptions {
  /** Default: the system's hosts file. */
  readonly hostsFile?: string
  /** `address` or `address:port`, `[address]:port`. Default: the system's name servers. */
  readonly servers?: readonly string[]
  /** For one question to one server; each is asked at most twice. */
  readonly timeoutMs?: number
}

/**
 * The resolver of a real process: the hosts file first, read again when it changes, then A and AAAA from the name servers. Names are complete as
 * they stand: search domains are not tried. Nothing is remembered.
 */
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

/** Where a connection goes. */
export interface Destination {
  /** A name or an IP literal, without brackets and without a trailing dot. */
  readonly host: string
  readonly port: number
  readonly secure: boolean
}

export type ConnectStep = 'dns' | 'connect' | 'tls'

/** Who waits for a connection. Whoever gives up destroys the socket held last and answers `gaveUp` with true. */
export interface ConnectionWaiter {
  readonly isAbandoned: boolean
  beginStep(step: ConnectStep): void
  finishStep(step: ConnectStep, tookMs: Millis): void
  trackSocket(socket: Socket): void
  /** The vetted address that the connection leads to. */
  setRemoteAddress(address: string): void
}

/** Why no answer came: `message` is a sentence clients may read, without any address. */
export class TransportFailure extends Error {
  override readonly name = 'Failure'
  readonly outcome: AttemptOutcome
  /** The egress proxy failed, or this machine lacked something, and not the endpoint. */
  readonly localFault: boolean

  constructor(outcome: AttemptOutcome, sentence: string, ours = false) {
    super(sentence)
    this.outcome = outcome
    this.localFault = ours
  }
}

export const failureMessages = {
  aborted: 'The attempt was cut short by this server.',
  blocked: 'The callback URL, or an address of its host, may not be called from here.',
} as const

/** What this machine has run out of: file descriptors, ports, memory (errno(3)). */
const LOCAL_RESOURCE_ERROR = /\((?:EMFILE|ENFILE|ENOBUFS|ENOMEM|EADDRNOTAVAIL)\)/

/** Addresses of a name that are tried, in the order given. All of them are judged. */
const maxAddresses = 16
export interface DialerOptions {
  readonly rules: AddressRules
  readonly clock: Clock
  readonly resolver: Resolver
  /** What one address of several gets before the next is tried; the last one has all the time left. */
  readonly addressMs: Millis
  /** PEM certificates to trust instead of the system's. */
  readonly ca: string | readonly string[] | undefined
  readonly proxy: EgressProxy | null
}

/** Opens connections to vetted addresses only. */
export class Dialer {
  readonly #rules: AddressRules
  readonly #clock: Clock
  readonly #resolver: Resolver
  readonly #addressMs: Millis
  readonly #secureContext: () => SecureContext
  readonly #proxy: EgressProxy | null
  readonly #lookups = new Map<string, Promise<readonly string[]>>()

  constructor({ rules, clock, resolver, addressMs, ca, proxy }: DialerOptions) {
    this.#rules = rules
    this.#clock = clock
    this.#resolver = resolver
    this.#addressMs = addressMs
    this.#secureContext = createTrustContext(ca)
    this.#proxy = proxy
  }

  /** A connection, over TLS if the destination is secure. Rejects with a {@link TransportFailure}. */
  async open(destination: Destination, waiting: ConnectionWaiter): Promise<Socket> {
    const addresses = this.#vet(await this.#addresses(destination.host, waiting), destination)
    const tcp =
      this.#proxy === null
        ? await this.#direct(destination, addresses, waiting)
        : await this.#tunnel(this.#proxy, destination, addresses, waiting)
    return destination.secure ? await this.#secure(destination.host, tcp, waiting) : tcp
  }

  async #direct(destination: Destination, addresses: readonly string[], waiting: ConnectionWaiter): Promise<Socket> {
    const tcp = dial(destination, addresses, this.#addressMs)
    await this.#step('connect', waiting, tcp, connected(tcp, 'connect'), 'No connection could be made')
    // A connection reset at once has no peer any more.
    if (tcp.remoteAddress === undefined) throw new TransportFailure('connect', 'The connection was lost at once.')
    this.#vet([tcp.remoteAddress], destination)
    waiting.setRemoteAddress(tcp.remoteAddress)
    return tcp
  }

  /** A tunnel to the first vetted address that the proxy reaches. */
  async #tunnel(proxy: EgressProxy, { port }: Destination, addresses: readonly string[], waiting: ConnectionWaiter): Promise<Socket> {
    const tried = addresses.slice(0, maxAddresses)
    for (const [i, address] of tried.entries()) {
      const isLast = i === tried.length - 1
      let socket: Socket | null = null
      const hold = (held: Socket): void => {
        socket = held
        waiting.trackSocket(held)
      }
      const cancel = isLast ? () => {} : this.#clock.after(this.#addressMs, () => socket?.destroy())
      try {
        const tunnel = await this.#step(
          'connect',
          waiting,
          null,
          this.#through(proxy, address, port, waiting, hold),
          'No connection could be made',
        )
        waiting.setRemoteAddress(address)
        return tunnel
      } catch (error) {
        if (waiting.isAbandoned || isLast) throw error
      } finally {
        cancel()
      }
    }
    throw new TransportFailure('dns', 'The host name has no address.')
  }

  async #through(
    proxy: EgressProxy,
    address: string,
    port: number,
    waiting: ConnectionWaiter,
    hold: (socket: Socket) => void,
  ): Promise<Socket> {
    const socket = await this.#reach(proxy, waiting, hold).catch((error: unknown) => {
      throw new TransportFailure('connect', `The egress proxy could not be reached${errorCodeSuffix(error)}.`, true)
    })
    return openTunnel(socket, address, port, proxy).catch((error: unknown) => {
      throw error instanceof ProxyRefusal && error.status === 407 ? new TransportFailure('connect', error.message, true) : error
    })
  }

  async #reach(proxy: EgressProxy, waiting: ConnectionWaiter, hold: (socket: Socket) => void): Promise<Socket> {
    const servers = isIP(proxy.host) === 0 ? await this.#resolve(proxy.host) : [proxy.host]
    // No connection is begun for whoever gave up meanwhile.
    if (waiting.isAbandoned) throw new TransportFailure('aborted', failureMessages.aborted)
    const tcp = dial({ ...proxy, secure: false }, servers, this.#addressMs)
    hold(tcp)
    await connected(tcp, 'connect')
    if (!proxy.secure) return tcp
    const tls = this.#overTls(proxy.host, tcp)
    hold(tls)
    await connected(tls, 'secureConnect')
    return tls
  }

  async #addresses(host: string, waiting: ConnectionWaiter): Promise<readonly string[]> {
    if (isIP(host) !== 0) return [host]
    const addresses = await this.#step('dns', waiting, null, this.#resolve(host), 'The host name could not be resolved')
    // No connection is begun for whoever gave up meanwhile.
    if (waiting.isAbandoned) throw new TransportFailure('aborted', failureMessages.aborted)
    if (addresses.length === 0) throw new TransportFailure('dns', 'The host name has no address.')
    return addresses
  }

  /** Whoever asks while an answer is awaited waits for the same one; nothing is remembered after it. */
  #resolve(name: string): Promise<readonly string[]> {
    let lookup = this.#lookups.get(name)
    if (lookup === undefined) {
      lookup = this.#resolver.resolve(name).finally(() => this.#lookups.delete(name))
      this.#lookups.set(name, lookup)
    }
    return lookup
  }

  /** One forbidden address refuses all: the name's owner would choose which of them is taken. */
  #vet(addresses: readonly string[], { port }: Destination): readonly string[] {
    if (addresses.some((address) => isIP(address) === 0 || classifyAddress(address, this.#rules, port) === 'forbidden')) {
      throw new TransportFailure('blocked', failureMessages.blocked)
    }
    return addresses
  }

  async #secure(host: string, tcp: Socket, waiting: ConnectionWaiter): Promise<Socket> {
    const tls = this.#overTls(host, tcp)
    await this.#step('tls', waiting, tls, connected(tls, 'secureConnect'), 'The TLS handshake failed')
    return tls
  }

  #overTls(host: string, tcp: Socket): TLSSocket {
    return connectTls({
      socket: tcp,
      host,
      // RFC 6066 §3: no IP literals in SNI.
      servername: isIP(host) === 0 ? host : '',
      secureContext: this.#secureContext(),
      ALPNProtocols: ['http/1.1'],
      // Said outright, since an environment variable may turn the default off.
      rejectUnauthorized: true,
    })
  }

  async #step<T>(step: ConnectStep, waiting: ConnectionWaiter, socket: Socket | null, work: Promise<T>, trouble: string): Promise<T> {
    const began = this.#clock.now()
    waiting.beginStep(step)
    if (socket !== null) waiting.trackSocket(socket)
    try {
      return await work
    } catch (error) {
      if (error instanceof TransportFailure) throw error
      const code = errorCodeSuffix(error)
      throw new TransportFailure(
        step,
        error instanceof ProxyRefusal ? error.message : `${trouble}${code}.`,
        LOCAL_RESOURCE_ERROR.test(code),
      )
    } finally {
      if (!waiting.isAbandoned) waiting.finishStep(step, this.#clock.now() - began)
    }
  }
}

/** A connection under way to the vetted addresses in turn. No name is looked up: what was judged is what is dialled. */
function dial({ host, port }: Destination, addresses: readonly string[], addressMs: Millis): Socket {
  const options = { port, noDelay: true, keepAlive: true, keepAliveInitialDelay: 60_000 }
  if (addresses.length === 1) return connectTcp({ ...options, host: addresses[0]! })
  const pinned = addresses.slice(0, maxAddresses).map((address) => ({ address, family: isIP(address) }))
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
    // Stays on: an error before the next owner listens must not be an uncaught one.
    socket.on('error', reject)
    socket.once('close', () => reject(new Error('The socket was closed.')))
  })
}

/** TLS 1.2 or newer, made when first used. A certificate that cannot be read throws here and now. */
function createTrustContext(ca: string | readonly string[] | undefined): () => SecureContext {
  const make = (): SecureContext => createSecureContext({ minVersion: 'TLSv1.2', ...(ca === undefined ? {} : { ca: [ca].flat() }) })
  let context = ca === undefined ? undefined : make()
  return () => {
    context ??= make()
    return context
  }
}

/** " (ECONNREFUSED)". Messages of system errors hold addresses, codes do not. */
export function errorCodeSuffix(error: unknown): string {
  const code = error instanceof Error ? (error as NodeJS.ErrnoException).code : undefined
  return typeof code === 'string' && /^[A-Z][A-Z0-9_]*$/.test(code) ? ` (${code})` : ''
}

/** RFC 6761 §6.3: names below `localhost` are the loopback and are no name server's business. */
function loopbackOf(name: string): readonly string[] | null {
  return name === 'localhost' || name.endsWith('.localhost') ? ['127.0.0.1', '::1'] : null
}

function systemHostsFile(): string {
  return process.platform === 'win32' ? win32.join(process.env.SystemRoot ?? 'C:\\Windows', 'System32\\drivers\\etc\\hosts') : '/etc/hosts'
}

/** Looks names up in a hosts file (hosts(5)): one `stat` a question, one reading a change. A file that cannot be read lists nothing. */
function hostsFile(path: string): (name: string) => Promise<readonly string[] | null> {
  let seen = ''
  let listed: ReadonlyMap<string, readonly string[]> = new Map()
  return async (name) => {
    try {
      const { mtimeMs, size, ino } = await stat(path)
      const stamp = `${mtimeMs} ${size} ${ino}`
      if (stamp !== seen) {
        listed = parseHosts(await readFile(path, 'utf8'))
        seen = stamp
      }
    } catch {
      return null
    }
    return listed.get(name) ?? null
  }
}

function parseHosts(text: string): Map<string, string[]> {
  const listed = new Map<string, string[]>()
  for (const line of text.split('\n')) {
    const [address, ...names] = line.replace(/#.*/, '').trim().toLowerCase().split(/\s+/)
    if (address === undefined || isIP(address) === 0) continue
    for (const name of names) {
      const addresses = listed.get(name)
      if (addresses === undefined) listed.set(name, [address])
      else if (!addresses.includes(address)) addresses.push(address)
    }
  }
  return listed
}
