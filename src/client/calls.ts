/** Requests of the client: sending, retries and errors. */
import type { ErrorCode, Fault } from '../core/documents.ts'
import { RingbackClientError } from './errors.ts'
import type { ClientClock, ClientOptions } from './types.ts'

/** Tries of one call. Retries wait about 0.25, 0.5, 1 and 2 s, or as long as `Retry-After` says. */
const MAX_TRIES = 5
const FIRST_BACKOFF_MS = 250
const MAX_PAUSE_MS = 30_000
export const RESPONSE_TIMEOUT_MS = 20_000
/** The longest delay of a timer. */
const MAX_TIMER_MS = 2_147_483_647

export interface ApiRequest {
  readonly method: 'GET' | 'POST' | 'DELETE'
  readonly path: string
  readonly body?: unknown
  readonly headers?: Readonly<Record<string, string>>
  readonly signal?: AbortSignal | undefined
  /** Whether it may be sent again when its outcome is unknown. */
  readonly repeatable: boolean
  readonly timeoutMs?: number
}

export interface ApiResponse {
  readonly status: number
  readonly headers: Headers
  readonly body: unknown
}

export interface Calls {
  readonly clock: ClientClock
  /** Sends once. */
  send(request: ApiRequest): Promise<ApiResponse>
  /** Sends, and retries while that is safe and may help. */
  request(request: ApiRequest): Promise<ApiResponse>
  /** Opens a stream: resolves with the headers. The signal ends it at any time. */
  open(path: string, headers: Readonly<Record<string, string>>, signal: AbortSignal): Promise<Response>
  pause(ms: number, signal: AbortSignal | undefined): Promise<void>
}

export function createCalls({ url, key, userAgent, clock = platformClock, ...options }: ClientOptions): Calls {
  const base = baseUrlOf(url)
  if (!/^[\x21-\x7e]+$/.test(key)) throw new TypeError('createClient needs key: an API key such as "rb_…", without blanks.')
  const common = {
    Accept: 'application/json, application/problem+json',
    Authorization: `Bearer ${key}`,
    ...(userAgent !== undefined && { 'User-Agent': userAgent }),
  }
  const fetchUrl = options.fetch ?? ((target: string, init: RequestInit) => fetch(target, init))
  const pause = (ms: number, signal: AbortSignal | undefined): Promise<void> =>
    new Promise((resolve, reject) => {
      const abort = (): void => {
        disarm()
        reject(signal?.reason)
      }
      const disarm = clock.after(Math.max(0, Math.min(ms, MAX_TIMER_MS)), () => {
        signal?.removeEventListener('abort', abort)
        resolve()
      })
      if (signal?.aborted) abort()
      else signal?.addEventListener('abort', abort, { once: true })
    })

  async function send({ method, path, body, headers, signal, timeoutMs = RESPONSE_TIMEOUT_MS }: ApiRequest): Promise<ApiResponse> {
    signal?.throwIfAborted()
    const timeout = new AbortController()
    const disarm = clock.after(Math.min(timeoutMs, MAX_TIMER_MS), () =>
      timeout.abort(new Error(`no answer within ${Math.round(timeoutMs)} ms`)),
    )
    const target = `${base}${path}`
    try {
      const response = await fetchUrl(target, {
        method,
        headers: {
          ...common,
          ...(body !== undefined && { 'Content-Type': 'application/json' }),
          ...headers,
        },
        ...(body !== undefined && { body: JSON.stringify(body) }),
        redirect: 'manual',
        signal: signal ? AbortSignal.any([signal, timeout.signal]) : timeout.signal,
      })
      return parseResponse(response, await response.text(), `${method} ${target}`)
    } catch (cause) {
      if (cause instanceof RingbackClientError) throw cause
      signal?.throwIfAborted()
      throw noAnswer(`${method} ${target}`, cause, timeout.signal.aborted ? timeout.signal.reason : cause)
    } finally {
      disarm()
    }
  }

  async function sendWithRetry(request: ApiRequest): Promise<ApiResponse> {
    for (let tries = 1; ; tries++) {
      try {
        return await send(request)
      } catch (error) {
        if (!(error instanceof RingbackClientError) || tries >= MAX_TRIES || !isRetryable(error, request.repeatable)) throw error
        await pause(error.retryAfterSeconds === null ? backoffMs(tries, clock) : error.retryAfterSeconds * 1000, request.signal)
      }
    }
  }
  async function open(path: string, headers: ApiRequest['headers'], signal: AbortSignal): Promise<Response> {
    signal.throwIfAborted()
    const target = `${base}${path}`
    try {
      return await fetchUrl(target, { method: 'GET', headers: { ...common, ...headers }, redirect: 'manual', signal })
    } catch (cause) {
      signal.throwIfAborted()
      throw noAnswer(`GET ${target}`, cause, cause)
    }
  }
  return { clock, send, request: sendWithRetry, open, pause }
}

function noAnswer(what: string, cause: unknown, reason: unknown): RingbackClientError {
  const why = (reason as Error).cause ?? reason
  return new RingbackClientError('no_answer', `${what} was not answered: ${(why as Error).message || why}.`, { cause })
}

/** 429 and 503 had no effect, so any request may be repeated. Without an answer, or with that of a proxy, the effect is unknown. */
export function isRetryable({ status }: RingbackClientError, repeatable: boolean): boolean {
  if (status === 429 || status === 503) return true
  return repeatable && (status === null || status === 408 || status === 502 || status === 504)
}

/** Before the n-th retry, from 1. */
export function backoffMs(n: number, clock: ClientClock): number {
  return Math.min(MAX_PAUSE_MS, FIRST_BACKOFF_MS * 2 ** (n - 1)) * (0.75 + clock.random() / 4)
}

/** `Retry-After` in milliseconds, at most {@link MAX_PAUSE_MS}; a date is relative to the server's `Date`. */
export function retryAfterMsOf(headers: Headers): number | null {
  const text = headers.get('retry-after')
  if (text === null) return null
  const ms = /^\d+$/.test(text.trim()) ? Number(text) * 1000 : Date.parse(text) - Date.parse(headers.get('date') ?? '')
  return Number.isNaN(ms) ? null : Math.max(0, Math.min(ms, MAX_PAUSE_MS))
}

export function parseResponse(response: Response, text: string, what: string): ApiResponse {
  const { status, headers } = response
  const requestId = headers.get('x-request-id')
  let body: unknown
  try {
    body = text === '' ? undefined : JSON.parse(text)
  } catch {
    body = undefined
  }
  if (status === 304 || (response.ok && (body !== undefined || status === 204))) return { status, headers, body }
  const retryAfterMs = retryAfterMsOf(headers)
  const about = { status, requestId, retryAfterSeconds: retryAfterMs === null ? null : retryAfterMs / 1000 }
  const { code, detail, errors } = (body ?? {}) as { code?: unknown; detail?: unknown; errors?: unknown }
  if (!response.ok && typeof code === 'string' && typeof detail === 'string') {
    const faults = Array.isArray(errors) ? (errors as readonly Fault[]) : []
    const list = faults.map((fault) => `\n  ${fault.pointer} ${fault.detail}`).join('')
    throw new RingbackClientError(code as ErrorCode, `${detail}${faults.length > 1 ? list : ''}`, { ...about, errors: faults })
  }
  const redirect = headers.get('location')
  const fix = redirect === null ? '' : ` It was redirected to ${redirect}: give the client the URL at which Ringback itself answers.`
  throw new RingbackClientError('unexpected_answer', `${what} was answered ${status}, but not by Ringback.${fix}`, about)
}

function baseUrlOf(url: string | URL): string {
  const { protocol, origin, pathname, search, hash, username } = URL.canParse(String(url)) ? new URL(url) : new URL('none:')
  if (!/^https?:$/.test(protocol) || search !== '' || hash !== '' || username !== '')
    throw new TypeError(
      `createClient needs url: the URL of Ringback, such as "https://tasks.example.com", but it is ${JSON.stringify(String(url))}.`,
    )
  return origin + pathname.replace(/\/+$/, '')
}

const platformClock: ClientClock = {
  now: () => performance.now(),
  random: () => (crypto.getRandomValues(new Uint32Array(1))[0] ?? 0) / 2 ** 32,
  after(ms, wake) {
    const timer = setTimeout(wake, ms)
    return () => clearTimeout(timer)
  },
}
