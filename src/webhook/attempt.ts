/** One HTTP request of a webhook: reads a bounded part of the response, enforces the time limits, and reports one result. */
import type { Socket } from 'node:net'
import { type Dispatcher, errors } from 'undici'
import type { Clock } from '../core/clock.ts'
import type { AttemptOutcome, Millis, Timings } from '../core/model.ts'
import { errorCodeSuffix, failureMessages, TransportFailure } from './resolver.ts'

export interface TransportLimits {
  /** From the start of the attempt to the end of the TLS handshake. */
  readonly connectMs: Millis
  /** For each of several addresses, at least 10; the last one may use all the time left. */
  readonly addressMs: Millis
  /** From the connection to the last response header. */
  readonly headersMs: Millis
  /** From the start of the attempt to the end of the body. */
  readonly totalMs: Millis
  /** Of the body to read; at the limit the connection is destroyed. */
  readonly bodyBytes: number
  /** Of the body to return. */
  readonly excerptBytes: number
  /** Of response header names and values. */
  readonly headerBytes: number
  /** Response headers to return. */
  readonly headerCount: number
  readonly headerValueChars: number
  /** 1xx responses before the final one (RFC 9110 §15.2). */
  readonly interimResponses: number
  /** How long an unused connection stays open, unless the receiver's `Keep-Alive` asks for less. */
  readonly idleMs: Millis
  /** Unused connections, over all receivers. */
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

export interface SendResult {
  /** `success`: a 2xx, even if its body failed. */
  readonly outcome: AttemptOutcome
  readonly httpStatus: number | null
  /** A sentence without any address; null on success. */
  readonly error: string | null
  readonly durationMs: Millis
  readonly timings: Timings
  /** Lower-case names; repeated headers joined by ", "; without `set-cookie`. */
  readonly responseHeaders: Record<string, string>
  /** The start of the body as lossy UTF-8; null without a body or when it is encoded. */
  readonly responseExcerpt: string | null
  readonly remoteAddress: string | null
  /** The egress proxy failed, or this machine ran out of a resource: the endpoint is not at fault. Default: false. */
  readonly localFault?: boolean
}

/** Bytes of one response on the wire. Also bounds chunk framing, which the header and body limits do not count. */
const MAX_WIRE_BYTES = 1_048_576

/** The connection that carries an attempt. */
export interface RequestConnection {
  attempt: RequestInFlight | null
  readonly connected: boolean
  readonly remoteAddress: string | null
  readonly socket: Socket | null
}
/** The owner of attempts and connections. */
export interface ConnectionPool {
  readonly clock: Clock
  readonly limits: TransportLimits
  /** An attempt has ended. */
  untrack(attempt: RequestInFlight, result: SendResult): void
  /** Keeps a connection whose response was read to the end. */
  release(connection: RequestConnection): void
  /** Destroys a connection and the request on it. */
  discard(connection: RequestConnection): Promise<void>
}

type Phase = 'dns' | 'connect' | 'tls' | 'wait' | 'body' | 'ended'

/** The handler that undici calls. The transport's shared timer calls {@link enforceLimits}. */
export class RequestInFlight implements Dispatcher.DispatchHandler {
  readonly timings: { -readonly [name in keyof Timings]: Timings[name] } = { dnsMs: null, connectMs: null, tlsMs: null, firstByteMs: null }
  readonly deadline: Millis
  remoteAddress: string | null = null
  /** Whether a kept connection carries it. */
  reused = false
  readonly #pool: ConnectionPool
  readonly #resolve: (result: SendResult) => void
  readonly #signal: AbortSignal | undefined
  readonly #startedAt: Millis
  #connection: RequestConnection | null = null
  #phase: Phase = 'wait'
  #dueAt: Millis
  #bytesReadBefore: number | null = null
  #status: number | null = null
  #headers: Record<string, string> = {}
  #interimResponses = 0
  #bodyBytes = 0
  #excerptBytes: Buffer | null = null

  constructor(pool: ConnectionPool, timeoutMs: Millis | undefined, signal: AbortSignal | undefined, resolve: (result: SendResult) => void) {
    this.#pool = pool
    this.#resolve = resolve
    this.#signal = signal
    this.#startedAt = pool.clock.now()
    this.deadline = this.#startedAt + Math.min(pool.limits.totalMs, timeoutMs ?? Infinity)
    this.#dueAt = this.deadline
  }

  get awaitsResponse(): boolean {
    return this.#phase !== 'ended' && this.#status === null
  }

  start(connection: RequestConnection): void {
    this.#connection = connection
    connection.attempt = this
    if (connection.connected) {
      this.reused = true
      this.remoteAddress = connection.remoteAddress
      this.#dueAt = Math.min(this.#startedAt + this.#pool.limits.headersMs, this.deadline)
    }
  }

  setPhase(phase: Phase): void {
    if (this.#phase !== 'ended') this.#phase = phase
  }

  /** Allows the current phase `ms` from now, at most until the deadline. */
  setPhaseTimeout(ms: Millis): void {
    this.#dueAt = Math.min(this.#pool.clock.now() + ms, this.deadline)
  }

  enforceLimits(now: Millis): void {
    if (this.#signal?.aborted) this.#cut('aborted', failureMessages.aborted)
    else if (now >= this.#dueAt) this.#cutLate()
    else if (this.#exceedsWireLimit()) this.#status === null ? this.#cut('http_error', 'The answer was too long.') : this.#cutByStatus()
  }

  onRequestStart(): void {}

  onResponseStarted(): void {
    this.timings.firstByteMs ??= this.#pool.clock.now() - this.#startedAt
  }

  onResponseStart(
    _controller: Dispatcher.DispatchController,
    status: number,
    headers: Record<string, string | string[] | undefined>,
  ): void {
    if (this.#phase === 'ended') return
    const { limits } = this.#pool
    if (status < 200) {
      if (++this.#interimResponses > limits.interimResponses) this.#cut('http_error', 'The endpoint sent too many 1xx answers.')
      return
    }
    this.#status = status
    this.#headers = boundHeaders(headers, limits)
    this.setPhase('body')
    this.#dueAt = this.deadline
  }

  onResponseData(_controller: Dispatcher.DispatchController, chunk: Buffer): void {
    if (this.#phase === 'ended') return
    const { bodyBytes, excerptBytes } = this.#pool.limits
    const room = excerptBytes - this.#bodyBytes
    if (room > 0) {
      const part = chunk.subarray(0, room)
      this.#excerptBytes = this.#excerptBytes === null ? part : Buffer.concat([this.#excerptBytes, part])
    }
    this.#bodyBytes += chunk.length
    if (this.#bodyBytes > bodyBytes) this.#cutByStatus()
  }

  onResponseEnd(): void {
    const connection = this.#connection
    if (this.#phase === 'ended' || connection === null) return
    this.#endByStatus()
    this.#pool.release(connection)
  }

  onResponseError(_controller: Dispatcher.DispatchController | null, error: Error): void {
    if (this.#phase === 'ended') return
    if (error instanceof TransportFailure) this.#cut(error.outcome, error.message, error.localFault)
    else if (this.#status !== null) this.#cutByStatus()
    else this.#cut(...classifyError(error))
  }

  end(outcome: AttemptOutcome, error: string | null, localFault = false): void {
    if (this.#phase === 'ended') return
    this.#phase = 'ended'
    const result: SendResult = {
      outcome,
      httpStatus: this.#status,
      error,
      durationMs: this.#pool.clock.now() - this.#startedAt,
      timings: this.timings,
      responseHeaders: this.#headers,
      responseExcerpt: this.#excerpt(),
      remoteAddress: outcome === 'blocked' ? null : this.remoteAddress,
      ...(localFault && { localFault }),
    }
    this.#pool.untrack(this, result)
    this.#resolve(result)
  }

  /** Once the status is known, it alone decides: the body may fail. */
  #endByStatus(): void {
    const status = this.#status ?? 0
    if (status < 300) this.end('success', null)
    else if (status < 400) this.end('redirect', `The endpoint answered ${status}, and redirects are not followed.`)
    else this.end('http_error', `The endpoint answered ${status}.`)
  }

  #cut(outcome: AttemptOutcome, error: string, localFault = false): void {
    this.end(outcome, error, localFault)
    if (this.#connection !== null) void this.#pool.discard(this.#connection)
  }

  #cutByStatus(): void {
    this.#endByStatus()
    if (this.#connection !== null) void this.#pool.discard(this.#connection)
  }

  #cutLate(): void {
    if (this.#phase === 'body') this.#cutByStatus()
    else if (this.#phase === 'dns') this.#cut('dns', 'The name servers did not answer in time.')
    else if (this.#phase === 'wait') this.#cut('timeout', 'The endpoint did not answer in time.')
    else this.#cut('timeout', 'No connection could be made in time.')
  }

  /** Counts from the first tick: reading the socket's counter at every start would cost more than the check is worth. */
  #exceedsWireLimit(): boolean {
    if (this.#phase !== 'wait' && this.#phase !== 'body') return false
    const bytesRead = this.#connection?.socket?.bytesRead ?? 0
    this.#bytesReadBefore ??= bytesRead
    return bytesRead - this.#bytesReadBefore > MAX_WIRE_BYTES
  }

  #excerpt(): string | null {
    const encoding = this.#headers['content-encoding']
    if (this.#excerptBytes === null || (encoding !== undefined && encoding.trim().toLowerCase() !== 'identity')) return null
    const text = this.#excerptBytes.toString('utf8')
    // The limit may cut a character in two: leave it out.
    return this.#bodyBytes > this.#excerptBytes.length ? text.replace(/\uFFFD$/, '') : text
  }
}

function boundHeaders(headers: Record<string, string | string[] | undefined>, limits: TransportLimits): Record<string, string> {
  const bounded: Record<string, string> = {}
  let left = limits.headerCount
  for (const [name, value] of Object.entries(headers)) {
    if (value === undefined || name === 'set-cookie' || name === '__proto__') continue
    if (left-- === 0) break
    bounded[name] = (typeof value === 'string' ? value : value.join(', ')).slice(0, limits.headerValueChars)
  }
  return bounded
}

/** An error between the connection and the final status. */
function classifyError(error: Error): [AttemptOutcome, string] {
  const code = errorCodeSuffix(error)
  if (/ERR_(SSL|TLS)/.test(code)) return ['tls', `The TLS connection failed${code}.`]
  // The endpoint upgraded the connection although no upgrade was requested.
  if (error instanceof errors.SocketError && error.message === 'bad upgrade') return ['http_error', 'The answer was not acceptable HTTP.']
  if (error instanceof errors.HTTPParserError || /UND_ERR_(HEADERS_OVERFLOW|RES_)/.test(code))
    return ['http_error', `The answer was not acceptable HTTP${code}.`]
  if (/UND_ERR_INVALID_ARG/.test(code))
    return ['connect', 'The request could not be sent: the name or value of a header is not valid HTTP.']
  return ['connect', `The connection was lost before an answer came${code}.`]
}
