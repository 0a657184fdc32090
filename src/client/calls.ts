/** One request and its answer: how it is sent, when it is sent again, and what its failures are called. */
import type { ErrorCode, Fault } from '../core/documents.ts'
import { RingbackClientError } from './errors.ts'
import type { ClientClock, ClientOptions } from './types.ts'

/** Tries of one call: the retries wait about 0.25, 0.5, 1 and 2 s, or as long as the server says. */
const MAX_TRIES = 5
const FIRST_PAUSE_MS = 250
const LONGEST_PAUSE_MS = 30_000
export const ANSWER_MS = 20_000
/** The longest delay a timer takes. */
const LONGEST_TIMER = 2_147_483_647

export interface Ask {
  readonly method: 'GET' | 'POST' | 'DELETE'
  readonly path: string
  readonly body?: unknown
  readonly headers?: Readonly<Record<string, string>>
  readonly signal?: AbortSignal | undefined
  /** Whether it may be sent again when nobody knows what became of it. */
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
  /** One request and its answer. */
  send(ask: Ask): Promise<ApiResponse>
  /** The same, sent again as long as that is safe and of use. */
  request(ask: Ask): Promise<ApiResponse>
  /** Opens a stream: answers as soon as the headers are there. Its signal ends it, whenever that is. */
  open(path: string, headers: Readonly<Record<string, string>>, signal: AbortSignal): Promise<Response>
  pause(ms: number, signal: AbortSignal | undefined): Promise<void>
}

export function createCalls({ url, key, userAgent, clock = platformClock, ...options }: ClientOptions): Calls {
  const base = baseOf(url)
  if (!/^[\x21-\x7e]+$/.test(key)) throw new TypeError('createClient needs key: an API key such as "rb_…", without blanks.')
  const common = {
    Accept: 'application/json, application/problem+json',
    Authorization: `Bearer ${key}`,
    ...(userAgent !== undefined && { 'User-Agent': userAgent }),
  }
  const take = options.fetch ?? ((target: string, init: RequestInit) => fetch(target, init))
  const pause = (ms: number, signal: AbortSignal | undefined): Promise<void> =>
    new Promise((resolve, reject) => {
      const abort = (): void => {
        disarm()
        reject(signal?.reason)
      }
      const disarm = clock.after(Math.max(0, Math.min(ms, LONGEST_TIMER)), () => {
        signal?.removeEventListener('abort', abort)
        resolve()
      })
      if (signal?.aborted) abort()
      else signal?.addEventListener('abort', abort, { once: true })
    })

  async function send({ method, path, body, headers, signal, timeoutMs = ANSWER_MS }: Ask): Promise<ApiResponse> {
    signal?.throwIfAborted()
    const late = new AbortController()
    const disarm = clock.after(Math.min(timeoutMs, LONGEST_TIMER), () =>
      late.abort(new Error(`no answer within ${Math.round(timeoutMs)} ms`)),
    )
    const target = `${base}${path}`
    try {
      const response = await take(target, {
        method,
        headers: {
          ...common,
          ...(body !== undefined && { 'Content-Type': 'application/json' }),
          ...headers,
        },
        ...(body !== undefined && { body: JSON.stringify(body) }),
        redirect: 'manual',
        signal: signal ? AbortSignal.any([signal, late.signal]) : late.signal,
      })
      return answerOf(response, await response.text(), `${method} ${target}`)
    } catch (cause) {
      if (cause instanceof RingbackClientError) throw cause
      signal?.throwIfAborted()
      throw unanswered(`${method} ${target}`, cause, late.signal.aborted ? late.signal.reason : cause)
    } finally {
      disarm()
    }
  }

  async function request(ask: Ask): Promise<ApiResponse> {
    for (let tries = 1; ; tries++) {
      try {
        return await send(ask)
      } catch (error) {
        if (!(error instanceof RingbackClientError) || tries >= MAX_TRIES || !isWorthRepeating(error, ask.repeatable)) throw error
        await pause(error.retryAfterSeconds === null ? backOff(tries, clock) : error.retryAfterSeconds * 1000, ask.signal)
      }
    }
  }
  async function open(path: string, headers: Ask['headers'], signal: AbortSignal): Promise<Response> {
    signal.throwIfAborted()
    const target = `${base}${path}`
    try {
      return await take(target, { method: 'GET', headers: { ...common, ...headers }, redirect: 'manual', signal })
    } catch (cause) {
      signal.throwIfAborted()
      throw unanswered(`GET ${target}`, cause, cause)
    }
  }
  return { clock, send, request, open, pause }
}

function unanswered(what: string, cause: unknown, reason: unknown): RingbackClientError {
  const why = (reason as Error).cause ?? reason
  return new RingbackClientError('no_answer', `${what} was not answered: ${(why as Error).message || why}.`, { cause })
}

/** A refusal for want of room or quota did nothing; after no answer, or a proxy's, nobody knows. */
export function isWorthRepeating({ status }: RingbackClientError, repeatable: boolean): boolean {
  if (status === 429 || status === 503) return true
  return repeatable && (status === null || status === 408 || status === 502 || status === 504)
}

/** Before the n-th retry, from 1. */
export function backOff(n: number, clock: ClientClock): number {
  return Math.min(LONGEST_PAUSE_MS, FIRST_PAUSE_MS * 2 ** (n - 1)) * (0.75 + clock.random() / 4)
}

/** `Retry-After` in milliseconds, at most {@link LONGEST_PAUSE_MS}; a date counts from the server's own `Date`. */
export function retryAfter(headers: Headers): number | null {
  const text = headers.get('retry-after')
  if (text === null) return null
  const ms = /^\d+$/.test(text.trim()) ? Number(text) * 1000 : Date.parse(text) - Date.parse(headers.get('date') ?? '')
  return Number.isNaN(ms) ? null : Math.max(0, Math.min(ms, LONGEST_PAUSE_MS))
}

export function answerOf(response: Response, text: string, what: string): ApiResponse {
  const { status, headers } = response
  const requestId = headers.get('x-request-id')
  let body: unknown
  try {
    body = text === '' ? undefined : JSON.parse(text)
  } catch {
    body = undefined
  }
  if (status === 304 || (response.ok && (body !== undefined || status === 204))) return { status, headers, body }
  const retryAfterMs = retryAfter(headers)
  const about = { status, requestId, retryAfterSeconds: retryAfterMs === null ? null : retryAfterMs / 1000 }
  const { code, detail, errors } = (body ?? {}) as { code?: unknown; detail?: unknown; errors?: unknown }
  if (!response.ok && typeof code === 'string' && typeof detail === 'string') {
    const faults = Array.isArray(errors) ? (errors as readonly Fault[]) : []
    const list = faults.map((fault) => `\n  ${fault.pointer} ${fault.detail}`).join('')
    throw new RingbackClientError(code as ErrorCode, `${detail}${faults.length > 1 ? list : ''}`, { ...about, errors: faults })
  }
  const redirect = headers.get('location')
  const mend = redirect === null ? '' : ` It was sent on to ${redirect}: give the client the URL where Ringback itself answers.`
  throw new RingbackClientError('unexpected_answer', `${what} was answered ${status}, and not by Ringback.${mend}`, about)
}

function baseOf(url: string | URL): string {
  const { protocol, origin, pathname, search, hash, username } = URL.canParse(String(url)) ? new URL(url) : new URL('none:')
  if (!/^https?:$/.test(protocol) || search !== '' || hash !== '' || username !== '')
    throw new TypeError(
      `createClient needs url: where Ringback is, such as "https://tasks.example.com", but it is ${JSON.stringify(String(url))}.`,
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
