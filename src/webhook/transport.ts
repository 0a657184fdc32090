/**
 * One POST to a host nobody here has reason to trust: names and addresses are judged at every connect, everything read is bounded, and one
 * deadline covers it all. The only file that imports undici.
 */
import type { Socket } from 'node:net'
import { Client, type Dispatcher, errors } from 'undici'
import type { Clock } from '../clock.ts'
import { RingbackError } from '../errors.ts'
import type { AttemptOutcome, Millis, Timings } from '../model.ts'
import { type AddressRules, judgeUrl } from './address.ts'
import { codeOf, type Destination, Dialer, Failure, type Resolver, type Step, sentences, systemResolver, type Waiting } from './resolver.ts'

export interface Limits {
  /** From the start of the attempt over name, TCP and TLS. */
  readonly connectMs: Millis
  /** What one address of several gets before the next is tried; the last one has all the time left. At least 10. */
  readonly addressMs: Millis
  /** From the connection to the last response header. */
  readonly headersMs: Millis
  /** From the start of the attempt over everything, the body too. */
  readonly totalMs: Millis
  /** Of body read; then the connection is destroyed. */
  readonly bodyBytes: number
  /** Of body kept. */
  readonly excerptBytes: number
  /** Of response header names and values. */
  readonly headerBytes: number
  /** Response headers kept, and characters kept of each. */
  readonly headerCount: number
  readonly headerValueChars: number
  /** 1xx answers before the real one (RFC 9110 §15.2). */
  readonly interimAnswers: number
  /** How long a connection is kept without a request, unless the receiver's `Keep-Alive` says less. */
  readonly idleMs: Millis
  /** Connections kept without a request, over all receivers. */
  readonly idleConnections: number
}

export const defaultLimits: Limits = {
  connectMs: 5000,
  addressMs: 1500,
  headersMs: 15_000,
  totalMs: 20_000,
  bodyBytes: 65_536,
  excerptBytes: 4096,
  headerBytes: 16_384,
  headerCount: 64,
  headerValueChars: 1024,
  interimAnswers: 8,
  idleMs: 4000,
  idleConnections: 1024,
}

export interface Call {
  readonly url: string
  /** Sent as they are, but for those the transport owns (framing, `host`, hop-by-hop), which are left out. */
  readonly headers: Readonly<Record<string, string>>
  readonly body: string
}

/** What came of one POST. */
export interface Sent {
  /** `success` is a 2xx, whatever became of its body. */
  readonly outcome: AttemptOutcome
  readonly httpStatus: number | null
  /** A sentence that names the class and never an address; null on success. */
  readonly error: string | null
  readonly durationMs: Millis
  readonly timings: Timings
  /** Lower-case names; repeated ones joined by ", "; `set-cookie` left out. */
  readonly responseHeaders: Record<string, string>
  /** The start of the body as lossy UTF-8; null when there is none or it is encoded. */
  readonly responseExcerpt: string | null
  readonly remoteAddress: string | null
}

export interface Transport {
  /** At most one request on the wire. Never rejects: what went wrong is in the answer. An aborted `signal` is noticed within 50 ms. */
  post(call: Call, signal?: AbortSignal): Promise<Sent>
  /** Ends what is in flight as `aborted` and closes every connection. */
  close(): Promise<void>
}

export interface TransportOptions {
  readonly rules: AddressRules
  readonly clock: Clock
  readonly limits?: Partial<Limits>
  /** Default: {@link systemResolver}. Closed with the transport. */
  readonly resolver?: Resolver
  /** PEM certificates to trust instead of the system's: a private authority. */
  readonly ca?: string | readonly string[]
}

/** How late a deadline or an abort may be noticed. One timer serves all attempts. */
const tickMs = 50
/** Of anything at all, framing included, in one answer: what counting header and body bytes does not see. */
const wireBytes = 1_048_576
/** The most a receiver's `Keep-Alive` hint may stretch `idleMs`. */
const longestIdleMs = 30_000
const rememberedUrls = 1024

// Framing, routing and hop-by-hop fields (RFC 9110 §7.6.1) are the transport's own; "identity" keeps a small answer from inflating.
const ownHeaders =
  /^(?:accept-encoding|connection|content-length|expect|host|keep-alive|proxy-authorization|proxy-connection|te|trailer|transfer-encoding|upgrade)$/i

export function createTransport(options: TransportOptions): Transport {
  return new Connections(options)
}

/** A judged URL. */
interface Target extends Destination {
  readonly origin: string
  readonly path: string
}

class Connections implements Transport {
  readonly limits: Limits
  readonly clock: Clock
  readonly rules: AddressRules
  readonly dialer: Dialer
  readonly #resolver: Resolver
  readonly #targets = new Map<string, Target>()
  #listenersJudged = 0
  readonly #lines = new Set<Line>()
  /** The last used comes first, so that the rest may grow old. */
  readonly #idle = new Map<string, Line[]>()
  #idleCount = 0
  readonly #attempts = new Set<Attempt>()
  #stopTicking: (() => void) | null = null
  #closed = false

  constructor(options: TransportOptions) {
    this.limits = { ...defaultLimits, ...options.limits }
    this.clock = options.clock
    this.rules = options.rules
    this.#resolver = options.resolver ?? systemResolver()
    const { rules, clock, ca } = options
    this.dialer = new Dialer({ rules, clock, resolver: this.#resolver, addressMs: this.limits.addressMs, ca })
  }

  post(call: Call, signal?: AbortSignal): Promise<Sent> {
    return new Promise((resolve) => this.#start(call, new Attempt(this, signal, resolve), signal))
  }

  #start(call: Call, attempt: Attempt, signal: AbortSignal | undefined): void {
    if (this.#closed || signal?.aborted) {
      attempt.end('aborted', sentences.aborted)
      return
    }
    const target = this.#judge(call.url)
    if (target === null) {
      attempt.end('blocked', sentences.blocked)
      return
    }
    this.#attempts.add(attempt)
    this.#stopTicking ??= this.clock.after(tickMs, this.#tick)
    const line = this.#takeIdle(target.origin) ?? this.#addLine(target)
    attempt.start(line)
    line.client.dispatch(
      { method: 'POST', path: target.path, headers: requestHeaders(call.headers), body: call.body, blocking: false },
      attempt,
    )
  }

  async close(): Promise<void> {
    this.#closed = true
    for (const attempt of this.#attempts) attempt.end('aborted', sentences.aborted)
    this.#stopTicking?.()
    this.#resolver.close?.()
    await Promise.all([...this.#lines].map((line) => this.discard(line)))
  }

  forget(attempt: Attempt): void {
    this.#attempts.delete(attempt)
  }

  /** Keeps a line whose answer was read to the end. */
  release(line: Line): void {
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
  async discard(line: Line): Promise<void> {
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
    await line.client.destroy(new Failure('aborted', sentences.aborted))
  }

  /** Null: refused. The verdict on a URL depends on the rules alone, and of these only the listeners grow. */
  #judge(url: string): Target | null {
    if (this.rules.listeners.length !== this.#listenersJudged || this.#targets.size >= rememberedUrls) {
      this.#targets.clear()
      this.#listenersJudged = this.rules.listeners.length
    }
    const known = this.#targets.get(url)
    if (known !== undefined) return known
    try {
      const target = targetOf(judgeUrl(url, this.rules))
      this.#targets.set(url, target)
      return target
    } catch (error) {
      if (error instanceof RingbackError) return null
      throw error
    }
  }

  #takeIdle(origin: string): Line | undefined {
    const line = this.#idle.get(origin)?.pop()
    if (line !== undefined) this.#idleCount--
    return line
  }

  #addLine(target: Target): Line {
    const line = new Line(this, target)
    this.#lines.add(line)
    return line
  }

  readonly #tick = (): void => {
    const now = this.clock.now()
    for (const attempt of this.#attempts) attempt.watch(now)
    this.#stopTicking = this.#attempts.size > 0 && !this.#closed ? this.clock.after(tickMs, this.#tick) : null
  }
}

/** One connection to one origin, carrying one attempt at a time. */
class Line implements Waiting {
  readonly target: Target
  readonly client: Client
  attempt: Attempt | null = null
  socket: Socket | null = null
  remoteAddress: string | null = null
  connected = false
  discarded = false
  readonly #all: Connections

  constructor(all: Connections, target: Target) {
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
      keepAliveMaxTimeout: longestIdleMs,
    })
    this.client.on('disconnect', () => {
      this.connected = false
      // A request that had not been written when the receiver closed an idle connection is not lost: undici connects anew, through #open.
      if (this.attempt === null) void all.discard(this)
    })
  }

  get gaveUp(): boolean {
    return this.discarded
  }

  begin(step: Step): void {
    this.attempt?.enter(step)
  }

  finish(step: Step, tookMs: Millis): void {
    if (this.attempt === null) return
    this.attempt.timings[`${step}Ms`] = tookMs
    if (step === 'connect') this.attempt.remoteAddress = this.remoteAddress = this.socket?.remoteAddress ?? null
  }

  hold(socket: Socket): void {
    this.socket = socket
  }

  async #open(): Promise<Socket> {
    this.attempt?.allow(this.#all.limits.connectMs)
    const socket = await this.#all.dialer.open(this.target, this)
    this.connected = true
    this.attempt?.enter('wait')
    this.attempt?.allow(this.#all.limits.headersMs)
    return socket
  }
}

type Phase = 'dns' | 'connect' | 'tls' | 'wait' | 'body' | 'ended'

/** One POST: the handler undici calls, and what the shared timer watches. */
class Attempt implements Dispatcher.DispatchHandler {
  readonly timings: { -readonly [name in keyof Timings]: Timings[name] } = { dnsMs: null, connectMs: null, tlsMs: null, firstByteMs: null }
  readonly deadline: Millis
  remoteAddress: string | null = null
  readonly #all: Connections
  readonly #resolve: (sent: Sent) => void
  readonly #signal: AbortSignal | undefined
  readonly #startedAt: Millis
  #line: Line | null = null
  #phase: Phase = 'wait'
  #dueAt: Millis
  #readBefore: number | null = null
  #status: number | null = null
  #headers: Record<string, string> = {}
  #interimAnswers = 0
  #bodyBytes = 0
  #kept: Buffer | null = null

  constructor(all: Connections, signal: AbortSignal | undefined, resolve: (sent: Sent) => void) {
    this.#all = all
    this.#resolve = resolve
    this.#signal = signal
    this.#startedAt = all.clock.now()
    this.deadline = this.#startedAt + all.limits.totalMs
    this.#dueAt = this.deadline
  }

  start(line: Line): void {
    this.#line = line
    line.attempt = this
    if (line.connected) {
      this.remoteAddress = line.remoteAddress
      this.#dueAt = Math.min(this.#startedAt + this.#all.limits.headersMs, this.deadline)
    }
  }

  enter(phase: Phase): void {
    if (this.#phase !== 'ended') this.#phase = phase
  }

  /** Gives what comes next `ms` from now, within the deadline over all. */
  allow(ms: Millis): void {
    this.#dueAt = Math.min(this.#all.clock.now() + ms, this.deadline)
  }

  /** Called every {@link tickMs}. */
  watch(now: Millis): void {
    if (this.#signal?.aborted) this.#cut('aborted', sentences.aborted)
    else if (now >= this.#dueAt) this.#cutLate()
    else if (this.#hasFlooded()) this.#status === null ? this.#cut('http_error', 'The answer was too long.') : this.#cutByStatus()
  }

  onRequestStart(): void {}

  onResponseStarted(): void {
    this.timings.firstByteMs ??= this.#all.clock.now() - this.#startedAt
  }

  onResponseStart(
    _controller: Dispatcher.DispatchController,
    status: number,
    headers: Record<string, string | string[] | undefined>,
  ): void {
    if (this.#phase === 'ended') return
    if (status < 200) {
      if (++this.#interimAnswers > this.#all.limits.interimAnswers) this.#cut('http_error', 'The endpoint sent too many 1xx answers.')
      return
    }
    this.#status = status
    this.#headers = keptHeaders(headers, this.#all.limits)
    this.enter('body')
    this.#dueAt = this.deadline
  }

  onResponseData(_controller: Dispatcher.DispatchController, chunk: Buffer): void {
    if (this.#phase === 'ended') return
    const { bodyBytes, excerptBytes } = this.#all.limits
    const room = excerptBytes - this.#bodyBytes
    if (room > 0) {
      const part = chunk.subarray(0, room)
      this.#kept = this.#kept === null ? part : Buffer.concat([this.#kept, part])
    }
    this.#bodyBytes += chunk.length
    if (this.#bodyBytes > bodyBytes) this.#cutByStatus()
  }

  onResponseEnd(): void {
    const line = this.#line
    if (this.#phase === 'ended' || line === null) return
    this.#endByStatus()
    this.#all.release(line)
  }

  onResponseError(_controller: Dispatcher.DispatchController | null, error: Error): void {
    if (this.#phase === 'ended') return
    if (error instanceof Failure) this.#cut(error.outcome, error.message)
    else if (this.#status !== null) this.#cutByStatus()
    else this.#cut(...classify(error))
  }

  end(outcome: AttemptOutcome, error: string | null): void {
    if (this.#phase === 'ended') return
    this.#phase = 'ended'
    this.#all.forget(this)
    this.#resolve({
      outcome,
      httpStatus: this.#status,
      error,
      durationMs: this.#all.clock.now() - this.#startedAt,
      timings: this.timings,
      responseHeaders: this.#headers,
      responseExcerpt: this.#excerpt(),
      remoteAddress: outcome === 'blocked' ? null : this.remoteAddress,
    })
  }

  /** An answer whose status is known is judged by it, however its body goes on. */
  #endByStatus(): void {
    const status = this.#status ?? 0
    if (status < 300) this.end('success', null)
    else if (status < 400) this.end('redirect', `The endpoint answered ${status}, and redirects are not followed.`)
    else this.end('http_error', `The endpoint answered ${status}.`)
  }

  #cut(outcome: AttemptOutcome, error: string): void {
    this.end(outcome, error)
    if (this.#line !== null) void this.#all.discard(this.#line)
  }

  #cutByStatus(): void {
    this.#endByStatus()
    if (this.#line !== null) void this.#all.discard(this.#line)
  }

  #cutLate(): void {
    if (this.#phase === 'body') this.#cutByStatus()
    else if (this.#phase === 'dns') this.#cut('dns', 'The name servers did not answer in time.')
    else if (this.#phase === 'wait') this.#cut('timeout', 'The endpoint did not answer in time.')
    else this.#cut('timeout', 'No connection could be made in time.')
  }

  /** The first look after the start sets the mark: reading the count on every attempt would cost more than it saves. */
  #hasFlooded(): boolean {
    if (this.#phase !== 'wait' && this.#phase !== 'body') return false
    const read = this.#line?.socket?.bytesRead ?? 0
    this.#readBefore ??= read
    return read - this.#readBefore > wireBytes
  }

  #excerpt(): string | null {
    const encoding = this.#headers['content-encoding']
    if (this.#kept === null || (encoding !== undefined && encoding !== 'identity')) return null
    const text = this.#kept.toString('utf8')
    // A character cut in two is left out.
    return this.#bodyBytes > this.#kept.length ? text.replace(/\uFFFD$/, '') : text
  }
}

function targetOf(url: URL): Target {
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
    if (!ownHeaders.test(name)) list.push(name, headers[name] as string)
  }
  return list
}

function keptHeaders(headers: Record<string, string | string[] | undefined>, limits: Limits): Record<string, string> {
  const kept: Record<string, string> = {}
  let left = limits.headerCount
  for (const name of Object.keys(headers)) {
    const value = headers[name]
    if (value === undefined || name === 'set-cookie' || name === '__proto__') continue
    if (left-- === 0) break
    const text = typeof value === 'string' ? value : value.join(', ')
    kept[name] = text.length > limits.headerValueChars ? text.slice(0, limits.headerValueChars) : text
  }
  return kept
}

/** Trouble after the connection was made, before a final status. */
function classify(error: Error): [AttemptOutcome, string] {
  const code = codeOf(error)
  if (/ERR_(SSL|TLS)/.test(code)) return ['tls', `The TLS connection failed${code}.`]
  if (error instanceof errors.HTTPParserError || /UND_ERR_(HEADERS_OVERFLOW|RES_)/.test(code))
    return ['http_error', `The answer was not acceptable HTTP${code}.`]
  if (/UND_ERR_INVALID_ARG/.test(code))
    return ['connect', 'The request could not be sent: the name or value of a header is not valid HTTP.']
  return ['connect', `The connection was lost before an answer came${code}.`]
}
