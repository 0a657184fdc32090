/** One request under way: what of its answer is taken in, when it is cut, and what is said of it in the end. */
import type { Socket } from 'node:net'
import { type Dispatcher, errors } from 'undici'
import type { Clock } from '../core/clock.ts'
import type { AttemptOutcome, Millis, Timings } from '../core/model.ts'
import { errorCodeSuffix, failureMessages, TransportFailure } from './resolver.ts'

export interface TransportLimits {
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
  readonly interimResponses: number
  /** How long a connection is kept without a request, unless the receiver's `Keep-Alive` says less. */
  readonly idleMs: Millis
  /** Connections kept without a request, over all receivers. */
  readonly idleConnections: number
}

export const defaultTransportLimits: TransportLimits = {
  connectMs: 5000,
  addressMs: 1500,
  headersMs: 15_000,
  totalMs: 20_000,
  bodyBytes: 65_536,
  excerptBytes: 4096,
  headerBytes: 16_384,
  headerCount: 64,
  headerValueChars: 1024,
  interimResponses: 8,
  idleMs: 4000,
  idleConnections: 1024,
}

/** What came of one request. */
export interface SendResult {
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
  /** It failed at what is the operator's own: the egress proxy, or what this machine has run out of. Left out: it did not. */
  readonly localFault?: boolean
}

/** Of anything at all, framing included, in one answer: what counting header and body bytes does not see. */
const maxWireBytes = 1_048_576

/** The connection an attempt is carried by. */
export interface RequestConnection {
  attempt: RequestInFlight | null
  readonly connected: boolean
  readonly remoteAddress: string | null
  readonly socket: Socket | null
}
/** Who keeps attempts and connections. */
export interface ConnectionPool {
  readonly clock: Clock
  readonly limits: TransportLimits
  untrack(attempt: RequestInFlight): void
  /** Keeps a connection whose answer was read to the end. */
  release(line: RequestConnection): void
  /** Destroys a connection and whatever is under way on it. */
  discard(line: RequestConnection): Promise<void>
}

type Phase = 'dns' | 'connect' | 'tls' | 'wait' | 'body' | 'ended'

/** One request: the handler undici calls, and what the shared timer watches. */
export class RequestInFlight implements Dispatcher.DispatchHandler {
  readonly timings: { -readonly [name in keyof Timings]: Timings[name] } = { dnsMs: null, connectMs: null, tlsMs: null, firstByteMs: null }
  readonly deadline: Millis
  remoteAddress: string | null = null
  readonly #all: ConnectionPool
  readonly #resolve: (sent: SendResult) => void
  readonly #signal: AbortSignal | undefined
  readonly #startedAt: Millis
  #line: RequestConnection | null = null
  #phase: Phase = 'wait'
  #dueAt: Millis
  #readBefore: number | null = null
  #status: number | null = null
  #headers: Record<string, string> = {}
  #interimAnswers = 0
  #bodyBytes = 0
  #kept: Buffer | null = null

  constructor(all: ConnectionPool, withinMs: Millis | undefined, signal: AbortSignal | undefined, resolve: (sent: SendResult) => void) {
    this.#all = all
    this.#resolve = resolve
    this.#signal = signal
    this.#startedAt = all.clock.now()
    this.deadline = this.#startedAt + Math.min(all.limits.totalMs, withinMs ?? Infinity)
    this.#dueAt = this.deadline
  }

  /** Whether no final status has come yet. */
  get awaitsAnswer(): boolean {
    return this.#phase !== 'ended' && this.#status === null
  }

  start(line: RequestConnection): void {
    this.#line = line
    line.attempt = this
    if (line.connected) {
      this.remoteAddress = line.remoteAddress
      this.#dueAt = Math.min(this.#startedAt + this.#all.limits.headersMs, this.deadline)
    }
  }

  setPhase(phase: Phase): void {
    if (this.#phase !== 'ended') this.#phase = phase
  }

  /** Gives what comes next `ms` from now, within the deadline over all. */
  setPhaseTimeout(ms: Millis): void {
    this.#dueAt = Math.min(this.#all.clock.now() + ms, this.deadline)
  }

  /** Called every {@link tickMs}. */
  enforceLimits(now: Millis): void {
    if (this.#signal?.aborted) this.#cut('aborted', failureMessages.aborted)
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
      if (++this.#interimAnswers > this.#all.limits.interimResponses) this.#cut('http_error', 'The endpoint sent too many 1xx answers.')
      return
    }
    this.#status = status
    this.#headers = boundHeaders(headers, this.#all.limits)
    this.setPhase('body')
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
    if (error instanceof TransportFailure) this.#cut(error.outcome, error.message, error.localFault)
    else if (this.#status !== null) this.#cutByStatus()
    else this.#cut(...classify(error))
  }

  end(outcome: AttemptOutcome, error: string | null, ours = false): void {
    if (this.#phase === 'ended') return
    this.#phase = 'ended'
    this.#all.untrack(this)
    this.#resolve({
      outcome,
      httpStatus: this.#status,
      error,
      durationMs: this.#all.clock.now() - this.#startedAt,
      timings: this.timings,
      responseHeaders: this.#headers,
      responseExcerpt: this.#excerpt(),
      remoteAddress: outcome === 'blocked' ? null : this.remoteAddress,
      ...(ours && { localFault: ours }),
    })
  }

  /** An answer whose status is known is judged by it, however its body goes on. */
  #endByStatus(): void {
    const status = this.#status ?? 0
    if (status < 300) this.end('success', null)
    else if (status < 400) this.end('redirect', `The endpoint answered ${status}, and redirects are not followed.`)
    else this.end('http_error', `The endpoint answered ${status}.`)
  }

  #cut(outcome: AttemptOutcome, error: string, ours = false): void {
    this.end(outcome, error, ours)
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
    return read - this.#readBefore > maxWireBytes
  }

  #excerpt(): string | null {
    const encoding = this.#headers['content-encoding']
    if (this.#kept === null || (encoding !== undefined && encoding.trim().toLowerCase() !== 'identity')) return null
    const text = this.#kept.toString('utf8')
    // A character cut in two is left out.
    return this.#bodyBytes > this.#kept.length ? text.replace(/\uFFFD$/, '') : text
  }
}

function boundHeaders(headers: Record<string, string | string[] | undefined>, limits: TransportLimits): Record<string, string> {
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
  const code = errorCodeSuffix(error)
  if (/ERR_(SSL|TLS)/.test(code)) return ['tls', `The TLS connection failed${code}.`]
  // An upgrade that nobody asked for.
  if (error instanceof errors.SocketError && error.message === 'bad upgrade') return ['http_error', 'The answer was not acceptable HTTP.']
  if (error instanceof errors.HTTPParserError || /UND_ERR_(HEADERS_OVERFLOW|RES_)/.test(code))
    return ['http_error', `The answer was not acceptable HTTP${code}.`]
  if (/UND_ERR_INVALID_ARG/.test(code))
    return ['connect', 'The request could not be sent: the name or value of a header is not valid HTTP.']
  return ['connect', `The connection was lost before an answer came${code}.`]
}
