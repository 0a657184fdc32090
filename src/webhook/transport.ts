/** Sends webhooks to untrusted hosts: checks URL and addresses at every connect, bounds everything it reads, and keeps connections for reuse. */
import type { Socket } from 'node:net'
import { Client } from 'undici'
import type { EgressProxy } from '../config/parsers.ts'
import type { Clock } from '../core/clock.ts'
import { RingbackError } from '../core/errors.ts'
import type { Millis } from '../core/model.ts'
import type { EventSink } from '../observe/events.ts'
import { type AddressRules, parseCallbackUrl } from './address.ts'
import {
  type ConnectionPool,
  defaultTransportLimits,
  type RequestConnection,
  RequestInFlight,
  type SendResult,
  type TransportLimits,
} from './attempt.ts'
import {
  type ConnectionWaiter,
  type ConnectStep,
  type Destination,
  Dialer,
  failureMessages,
  type Resolver,
  systemResolver,
  TransportFailure,
} from './resolver.ts'

export interface WebhookRequest {
  /** Default: POST. */
  readonly method?: 'POST' | 'OPTIONS'
  readonly url: string
  /** Sent unchanged, without those that belong to the transport (framing, `host`, hop-by-hop). */
  readonly headers: Readonly<Record<string, string>>
  readonly body: string | null
  /** For the whole attempt, if less than {@link TransportLimits.totalMs}. */
  readonly timeoutMs?: Millis
}

export interface Transport {
  /** Sends at most one request. Never rejects: failures are results. Notices an aborted `signal` within 50 ms. */
  send(request: WebhookRequest, signal?: AbortSignal): Promise<SendResult>
  /** Ends requests in flight as `aborted` and closes every connection. */
  close(): Promise<void>
}

export interface TransportOptions {
  readonly rules: AddressRules
  readonly clock: Clock
  readonly events: EventSink
  readonly limits?: Partial<TransportLimits>
  /** Default: {@link systemResolver}. Closed with the transport. */
  readonly resolver?: Resolver
  /** PEM certificates to trust instead of the system's: a private authority. */
  readonly ca?: string | readonly string[]
  /** Carries every connection. Default: none. */
  readonly proxy?: EgressProxy | null
}

/** How late a deadline or an abort may be noticed. One timer serves all attempts. */
const TICK_MS = 50
/** How far a receiver's `Keep-Alive` header may extend `idleMs`. */
const MAX_IDLE_MS = 30_000
const MAX_CACHED_URLS = 1024

/** Framing, routing and hop-by-hop fields (RFC 9110 §7.6.1). `accept-encoding` is always "identity": a small response must not inflate. */
const TRANSPORT_HEADERS =
  /^(?:accept-encoding|connection|content-length|expect|host|keep-alive|proxy-authorization|proxy-connection|te|trailer|transfer-encoding|upgrade)$/i

export function createTransport(options: TransportOptions): Transport {
  return new PooledTransport(options)
}

/** A callback URL that passed the rules. */
interface WebhookTarget extends Destination {
  readonly origin: string
  readonly path: string
}

class PooledTransport implements Transport, ConnectionPool {
  readonly limits: TransportLimits
  readonly clock: Clock
  readonly dialer: Dialer
  readonly #rules: AddressRules
  readonly #resolver: Resolver
  readonly #events: EventSink
  readonly #targets = new Map<string, WebhookTarget>()
  /** How many listeners the rules had when `#targets` was filled. */
  #knownListeners = 0
  readonly #connections = new Set<PooledConnection>()
  /** By origin; the last used connection is taken first, so that the others time out. */
  readonly #idle = new Map<string, PooledConnection[]>()
  #idleCount = 0
  readonly #attempts = new Set<RequestInFlight>()
  #cancelTick: (() => void) | null = null
  #closed = false

  constructor({ rules, clock, events, limits, resolver = systemResolver(), ca, proxy = null }: TransportOptions) {
    this.limits = { ...defaultTransportLimits, ...limits }
    this.clock = clock
    this.#rules = rules
    this.#resolver = resolver
    this.#events = events
    this.dialer = new Dialer({ rules, clock, resolver, addressMs: this.limits.addressMs, ca, proxy })
  }

  send(request: WebhookRequest, signal?: AbortSignal): Promise<SendResult> {
    return new Promise((resolve) => this.#start(request, new RequestInFlight(this, request.timeoutMs, signal, resolve), signal))
  }

  #start({ method = 'POST', url, headers, body }: WebhookRequest, attempt: RequestInFlight, signal: AbortSignal | undefined): void {
    if (this.#closed || signal?.aborted) return void attempt.end('aborted', failureMessages.aborted)
    const target = this.#targetOf(url)
    if (target === null) return void attempt.end('blocked', failureMessages.blocked)
    this.#attempts.add(attempt)
    this.#cancelTick ??= this.clock.after(TICK_MS, this.#tick)
    const connection = this.#takeIdle(target.origin) ?? this.#addConnection(target)
    attempt.start(connection)
    connection.client.dispatch({ method, path: target.path, headers: requestHeaders(headers), body, blocking: false }, attempt)
  }

  async close(): Promise<void> {
    this.#closed = true
    for (const attempt of this.#attempts) attempt.end('aborted', failureMessages.aborted)
    this.#cancelTick?.()
    this.#resolver.close?.()
    await Promise.all([...this.#connections].map((connection) => this.discard(connection)))
  }

  untrack(attempt: RequestInFlight, { outcome, httpStatus, durationMs }: SendResult): void {
    if (this.#attempts.delete(attempt)) this.#events.emit('webhook.sent', { outcome, httpStatus, durationMs, reused: attempt.reused })
  }

  release(connection: PooledConnection): void {
    connection.attempt = null
    if (this.#idleCount >= this.limits.idleConnections) return void this.discard(connection)
    const { origin } = connection.target
    const idle = this.#idle.get(origin)
    if (idle === undefined) this.#idle.set(origin, [connection])
    else idle.push(connection)
    this.#idleCount++
  }

  async discard(connection: PooledConnection): Promise<void> {
    if (!this.#connections.delete(connection)) return
    const { origin } = connection.target
    const idle = this.#idle.get(origin)
    const index = idle?.indexOf(connection) ?? -1
    if (idle !== undefined && index >= 0) {
      idle.splice(index, 1)
      this.#idleCount--
      if (idle.length === 0) this.#idle.delete(origin)
    }
    connection.attempt = null
    connection.isAbandoned = true
    connection.socket?.destroy()
    await connection.client.destroy(new TransportFailure('aborted', failureMessages.aborted))
  }

  /** Null: forbidden. The answer depends on the rules alone, and of these only the listeners change. */
  #targetOf(url: string): WebhookTarget | null {
    const { listeners } = this.#rules
    if (listeners.length !== this.#knownListeners || this.#targets.size >= MAX_CACHED_URLS) {
      this.#targets.clear()
      this.#knownListeners = listeners.length
    }
    const known = this.#targets.get(url)
    if (known !== undefined) return known
    try {
      const target = toTarget(parseCallbackUrl(url, this.#rules))
      this.#targets.set(url, target)
      return target
    } catch (error) {
      if (error instanceof RingbackError) return null
      throw error
    }
  }

  #takeIdle(origin: string): PooledConnection | undefined {
    const connection = this.#idle.get(origin)?.pop()
    if (connection !== undefined) this.#idleCount--
    return connection
  }

  #addConnection(target: WebhookTarget): PooledConnection {
    const connection = new PooledConnection(this, target)
    this.#connections.add(connection)
    return connection
  }

  readonly #tick = (): void => {
    const now = this.clock.now()
    for (const attempt of this.#attempts) attempt.enforceLimits(now)
    this.#cancelTick = this.#attempts.size > 0 && !this.#closed ? this.clock.after(TICK_MS, this.#tick) : null
  }
}

/** A connection to one origin. It carries one attempt at a time. */
class PooledConnection implements ConnectionWaiter, RequestConnection {
  readonly target: WebhookTarget
  readonly client: Client
  attempt: RequestInFlight | null = null
  socket: Socket | null = null
  remoteAddress: string | null = null
  connected = false
  isAbandoned = false
  readonly #pool: PooledTransport

  constructor(pool: PooledTransport, target: WebhookTarget) {
    this.#pool = pool
    this.target = target
    this.client = new Client(target.origin, {
      connect: (_options, callback) => {
        this.#open().then(
          (socket) => callback(null, socket),
          (error: Error) => callback(error, null),
        )
      },
      allowH2: false,
      pipelining: 1,
      maxHeaderSize: pool.limits.headerBytes,
      // RequestInFlight enforces its limits with one timer for all attempts.
      headersTimeout: 0,
      bodyTimeout: 0,
      keepAliveTimeout: pool.limits.idleMs,
      keepAliveMaxTimeout: MAX_IDLE_MS,
    })
    this.client.on('disconnect', () => {
      this.connected = false
      // With an unwritten request when the receiver closes an idle connection, undici connects again through #open.
      if (this.attempt === null) void pool.discard(this)
    })
  }

  beginStep(step: ConnectStep): void {
    this.attempt?.setPhase(step)
  }

  finishStep(step: ConnectStep, tookMs: Millis): void {
    if (this.attempt !== null) this.attempt.timings[`${step}Ms`] = tookMs
  }

  setRemoteAddress(address: string): void {
    this.remoteAddress = address
    if (this.attempt !== null) this.attempt.remoteAddress = address
  }

  trackSocket(socket: Socket): void {
    this.socket = socket
  }

  async #open(): Promise<Socket> {
    const { limits, dialer } = this.#pool
    if (this.attempt !== null) this.attempt.reused = false
    this.attempt?.setPhaseTimeout(limits.connectMs)
    const socket = await dialer.open(this.target, this)
    tolerateContinue(socket, () => this.attempt?.awaitsResponse ?? false)
    this.connected = true
    this.attempt?.setPhase('wait')
    this.attempt?.setPhaseTimeout(limits.headersMs)
    return socket
  }
}

/**
 * A client must discard an unexpected 100 (RFC 9110 §15.2.1), but undici closes the connection. Rewritten as 102 it passes, and counts as an
 * interim response. Only the start of a response is searched, never a body.
 */
function tolerateContinue(socket: Socket, awaitsResponse: () => boolean): void {
  const read = socket.read.bind(socket)
  socket.read = (size?: number) => {
    const chunk: unknown = read(size)
    if (!Buffer.isBuffer(chunk) || !awaitsResponse()) return chunk
    for (let at = 0; /^HTTP\/1\.[01] 1\d\d/.test(chunk.toString('latin1', at, at + 12)); ) {
      if (chunk.toString('latin1', at + 9, at + 12) === '100') chunk.write('102', at + 9, 'latin1')
      const end = chunk.indexOf('\r\n\r\n', at)
      if (end < 0) break
      at = end + 4
    }
    return chunk
  }
}

function toTarget({ protocol, origin, hostname, port, pathname, search }: URL): WebhookTarget {
  const secure = protocol === 'https:'
  return {
    origin,
    host: hostname.replace(/^\[|\]$|\.$/g, ''),
    port: port === '' ? (secure ? 443 : 80) : Number(port),
    secure,
    path: pathname + search,
  }
}

/** A flat list of names and values: the form that costs undici least. */
const requestHeaders = (headers: Readonly<Record<string, string>>): string[] => [
  'accept-encoding',
  'identity',
  ...Object.entries(headers).flatMap((header) => (TRANSPORT_HEADERS.test(header[0]) ? [] : header)),
]
