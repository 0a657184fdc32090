/**
 * One request to a host nobody here has reason to trust: names and addresses are judged at every connect, everything read is bounded, and one
 * deadline covers it all.
 */
import type { Socket } from 'node:net'
import { Client } from 'undici'
import type { EgressProxy } from '../config/parsers.ts'
import type { Clock } from '../core/clock.ts'
import { RingbackError } from '../core/errors.ts'
import type { Millis } from '../core/model.ts'
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
  /** POST when left out. */
  readonly method?: 'POST' | 'OPTIONS'
  readonly url: string
  /** Sent as they are, but for those the transport owns (framing, `host`, hop-by-hop), which are left out. */
  readonly headers: Readonly<Record<string, string>>
  /** Null: there is none. */
  readonly body: string | null
  /** Less than {@link TransportLimits.totalMs} over everything, the body too. */
  readonly withinMs?: Millis
}

export interface Transport {
  /** At most one request on the wire. Never rejects: what went wrong is in the answer. An aborted `signal` is noticed within 50 ms. */
  send(call: WebhookRequest, signal?: AbortSignal): Promise<SendResult>
  /** Ends what is in flight as `aborted` and closes every connection. */
  close(): Promise<void>
}

export interface TransportOptions {
  readonly rules: AddressRules
  readonly clock: Clock
  readonly limits?: Partial<TransportLimits>
  /** Default: {@link systemResolver}. Closed with the transport. */
  readonly resolver?: Resolver
  /** PEM certificates to trust instead of the system's: a private authority. */
  readonly ca?: string | readonly string[]
  /** Every connection goes through it; null: none does. */
  readonly proxy?: EgressProxy | null
}

/** How late a deadline or an abort may be noticed. One timer serves all attempts. */
const tickMs = 50
/** The most a receiver's `Keep-Alive` hint may stretch `idleMs`. */
const maxIdleMs = 30_000
const maxCachedUrls = 1024

// Framing, routing and hop-by-hop fields (RFC 9110 §7.6.1) are the transport's own; "identity" keeps a small answer from inflating.
const transportHeaders =
  /^(?:accept-encoding|connection|content-length|expect|host|keep-alive|proxy-authorization|proxy-connection|te|trailer|transfer-encoding|upgrade)$/i

export function createTransport(options: TransportOptions): Transport {
  return new PooledTransport(options)
}

/** A judged URL. */
interface WebhookTarget extends Destination {
  readonly origin: string
  readonly path: string
}

class PooledTransport implements Transport, ConnectionPool {
  readonly limits: TransportLimits
  readonly clock: Clock
  readonly rules: AddressRules
  readonly dialer: Dialer
  readonly #resolver: Resolver
  readonly #targets = new Map<string, WebhookTarget>()
  #listenersJudged = 0
  readonly #lines = new Set<PooledConnection>()
  /** The last used comes first, so that the rest may grow old. */
  readonly #idle = new Map<string, PooledConnection[]>()
  #idleCount = 0
  readonly #attempts = new Set<RequestInFlight>()
  #stopTicking: (() => void) | null = null
  #closed = false

  constructor(options: TransportOptions) {
    this.limits = { ...defaultTransportLimits, ...options.limits }
    this.clock = options.clock
    this.rules = options.rules
    this.#resolver = options.resolver ?? systemResolver()
    const { rules, clock, ca, proxy = null } = options
    this.dialer = new Dialer({ rules, clock, resolver: this.#resolver, addressMs: this.limits.addressMs, ca, proxy })
  }

  send(call: WebhookRequest, signal?: AbortSignal): Promise<SendResult> {
    return new Promise((resolve) => this.#start(call, new RequestInFlight(this, call.withinMs, signal, resolve), signal))
  }

  #start(call: WebhookRequest, attempt: RequestInFlight, signal: AbortSignal | undefined): void {
    if (this.#closed || signal?.aborted) {
      attempt.end('aborted', failureMessages.aborted)
      return
    }
    const target = this.#judge(call.url)
    if (target === null) {
      attempt.end('blocked', failureMessages.blocked)
      return
    }
    this.#attempts.add(attempt)
    this.#stopTicking ??= this.clock.after(tickMs, this.#tick)
    const line = this.#takeIdle(target.origin) ?? this.#addLine(target)
    attempt.start(line)
    line.client.dispatch(
      { method: call.method ?? 'POST', path: target.path, headers: requestHeaders(call.headers), body: call.body, blocking: false },
      attempt,
    )
  }

  async close(): Promise<void> {
    this.#closed = true
    for (const attempt of this.#attempts) attempt.end('aborted', failureMessages.aborted)
    this.#stopTicking?.()
    this.#resolver.close?.()
    await Promise.all([...this.#lines].map((line) => this.discard(line)))
  }

  untrack(attempt: RequestInFlight): void {
    this.#attempts.delete(attempt)
  }

  /** Keeps a line whose answer was read to the end. */
  release(line: PooledConnection): void {
    line.attempt = null
    if (this.#idleCount >= this.limits.idleConnections) {
      void this.discard(line)
      return
    }
    const idle = this.#idle.get(line.target.origin)
    if (idle === undefined) this.#idle.set(line.target.origin, [line])
    else idle.push(line)
    this.#idleCount++
  }

  /** Destroys a line and whatever is under way on it. */
  async discard(line: PooledConnection): Promise<void> {
    if (!this.#lines.delete(line)) return
    const idle = this.#idle.get(line.target.origin)
    const place = idle?.indexOf(line) ?? -1
    if (idle !== undefined && place >= 0) {
      idle.splice(place, 1)
      this.#idleCount--
      if (idle.length === 0) this.#idle.delete(line.target.origin)
    }
    line.attempt = null
    line.discarded = true
    line.socket?.destroy()
    await line.client.destroy(new TransportFailure('aborted', failureMessages.aborted))
  }

  /** Null: refused. The verdict on a URL depends on the rules alone, and of these only the listeners grow. */
  #judge(url: string): WebhookTarget | null {
    if (this.rules.listeners.length !== this.#listenersJudged || this.#targets.size >= maxCachedUrls) {
      this.#targets.clear()
      this.#listenersJudged = this.rules.listeners.length
    }
    const known = this.#targets.get(url)
    if (known !== undefined) return known
    try {
      const target = targetOf(parseCallbackUrl(url, this.rules))
      this.#targets.set(url, target)
      return target
    } catch (error) {
      if (error instanceof RingbackError) return null
      throw error
    }
  }

  #takeIdle(origin: string): PooledConnection | undefined {
    const line = this.#idle.get(origin)?.pop()
    if (line !== undefined) this.#idleCount--
    return line
  }

  #addLine(target: WebhookTarget): PooledConnection {
    const line = new PooledConnection(this, target)
    this.#lines.add(line)
    return line
  }

  readonly #tick = (): void => {
    const now = this.clock.now()
    for (const attempt of this.#attempts) attempt.enforceLimits(now)
    this.#stopTicking = this.#attempts.size > 0 && !this.#closed ? this.clock.after(tickMs, this.#tick) : null
  }
}

/** One connection to one origin, carrying one attempt at a time. */
class PooledConnection implements ConnectionWaiter, RequestConnection {
  readonly target: WebhookTarget
  readonly client: Client
  attempt: RequestInFlight | null = null
  socket: Socket | null = null
  remoteAddress: string | null = null
  connected = false
  discarded = false
  readonly #all: PooledTransport

  constructor(all: PooledTransport, target: WebhookTarget) {
    this.#all = all
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
      maxHeaderSize: all.limits.headerBytes,
      // The attempt watches these, all of them with one timer.
      headersTimeout: 0,
      bodyTimeout: 0,
      keepAliveTimeout: all.limits.idleMs,
      keepAliveMaxTimeout: maxIdleMs,
    })
    this.client.on('disconnect', () => {
      this.connected = false
      // A request that had not been written when the receiver closed an idle connection is not lost: undici connects anew, through #open.
      if (this.attempt === null) void all.discard(this)
    })
  }

  get isAbandoned(): boolean {
    return this.discarded
  }

  beginStep(step: ConnectStep): void {
    this.attempt?.setPhase(step)
  }

  finishStep(step: ConnectStep, tookMs: Millis): void {
    if (this.attempt === null) return
    this.attempt.timings[`${step}Ms`] = tookMs
  }

  setRemoteAddress(address: string): void {
    this.remoteAddress = address
    if (this.attempt !== null) this.attempt.remoteAddress = address
  }

  trackSocket(socket: Socket): void {
    this.socket = socket
  }

  async #open(): Promise<Socket> {
    this.attempt?.setPhaseTimeout(this.#all.limits.connectMs)
    const socket = await this.#all.dialer.open(this.target, this)
    tolerateContinue(socket, () => this.attempt?.awaitsAnswer ?? false)
    this.connected = true
    this.attempt?.setPhase('wait')
    this.attempt?.setPhaseTimeout(this.#all.limits.headersMs)
    return socket
  }
}

/**
 * A 100 that nobody asked for is discarded (RFC 9110 §15.2.1), but undici ends the connection over it. Written as another 1xx it passes, and is
 * counted and dropped like all of them. It is looked for where an answer begins, so never in a body.
 */
function tolerateContinue(socket: Socket, awaitsAnswer: () => boolean): void {
  const read = socket.read.bind(socket)
  socket.read = (size?: number) => {
    const chunk: unknown = read(size)
    if (!Buffer.isBuffer(chunk) || !awaitsAnswer()) return chunk
    for (let at = 0; /^HTTP\/1\.[01] 1\d\d/.test(chunk.toString('latin1', at, at + 12)); ) {
      if (chunk.toString('latin1', at + 9, at + 12) === '100') chunk.write('102', at + 9, 'latin1')
      const end = chunk.indexOf('\r\n\r\n', at)
      if (end < 0) break
      at = end + 4
    }
    return chunk
  }
}

function targetOf(url: URL): WebhookTarget {
  const secure = url.protocol === 'https:'
  return {
    origin: url.origin,
    host: url.hostname.replace(/^\[|\]$|\.$/g, ''),
    port: url.port === '' ? (secure ? 443 : 80) : Number(url.port),
    secure,
    path: url.pathname + url.search,
  }
}

/** Names and values by turns, as undici takes them with the least work. */
function requestHeaders(headers: Readonly<Record<string, string>>): string[] {
  const list = ['accept-encoding', 'identity']
  for (const name of Object.keys(headers)) {
    if (!transportHeaders.test(name)) list.push(name, headers[name] as string)
  }
  return list
}
