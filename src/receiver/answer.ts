/** Answers the requests to an endpoint: takes bytes and headers, returns status, headers and body. */
import type { EventDocument } from '../core/documents.ts'
import type { SeenIds } from './seen.ts'
import { bytesOf, headerOf, type RawWebhook, type Verify, type Webhook, WebhookVerificationError } from './verify.ts'

/** A request with its raw body. `method` is in upper case. */
export interface RawRequest extends RawWebhook {
  readonly method: string
}

/** A response, for any server to send. */
export interface Reply {
  readonly status: number
  readonly headers: Readonly<Record<string, string>>
  readonly body: string
}

/** Every webhook except challenges, which the receiver answers itself. */
export type HandledWebhook = Exclude<Webhook, { readonly type: 'endpoint.verification' }>

/** Resolve once the event is stored; do work of more than a few seconds later. When it throws, the webhook is sent again. */
export type WebhookHandler = (webhook: HandledWebhook) => unknown

export interface AnswererOptions {
  /** The id of the endpoint: a challenge for another one is refused. Without it, everybody who registers your URL passes verification. */
  readonly endpointId?: string | undefined
  /** Stores the ids of handled events. Without it the handler gets every repetition. */
  readonly seen?: SeenIds
  /** Maximum body in bytes. Default: 1 MiB. */
  readonly maxBodyBytes?: number
  /** The `WebHook-Request-Origin` that the CloudEvents handshake (OPTIONS) allows, or `*`. Without it OPTIONS is answered 405. */
  readonly allowOrigin?: string
  /** Webhooks a minute that the handshake allows. Default: `*`, no limit. */
  readonly allowRate?: number
  /**
   * Called with the error and the status of every response except 2xx and 405: 401 with a {@link WebhookVerificationError}, 500 with the error of the
   * handler. Also with 204, when `seen` failed after the handler had resolved. Default: errors of 5xx and 204 go to `console.error`.
   */
  readonly onError?: (error: unknown, status: number) => void
}

/** How long a running handler blocks other calls for the event. The server times out far earlier. */
const CLAIM_SECONDS = 60
/** How late a webhook may be sent again: the longest time that redelivery is possible. */
const SEEN_SECONDS = 30 * 86_400
const DEFAULT_MAX_BYTES = 1_048_576

/** A request that is refused with this status. */
class RejectedRequest extends Error {
  readonly status: number

  constructor(status: number, message: string) {
    super(message)
    this.status = status
  }
}

export interface Answerer {
  readonly maxBodyBytes: number
  answer(request: RawRequest, handler: WebhookHandler): Promise<Reply>
  /** For a body over the limit. */
  tooLarge(): Reply
  /** For a wrong setup, such as a parsed body: `sentence` says how to fix it. */
  misused(sentence: string): Reply
}

/** Throws a TypeError unless `maxBodyBytes` and `allowRate` are whole numbers of 1 or more. */
export function createAnswerer(verify: Verify, wall: () => number, options: AnswererOptions): Answerer {
  const { endpointId, seen, allowOrigin, allowRate, maxBodyBytes = DEFAULT_MAX_BYTES, onError = logError } = options
  positive('maxBodyBytes', maxBodyBytes)
  if (allowRate !== undefined) positive('allowRate', allowRate)
  const nowSeconds = (): number => Math.floor(wall() / 1000)
  const failed = (error: unknown, status: number, title: string, detail?: string): Reply => {
    onError(error, status)
    return problem(status, title, detail)
  }

  return {
    maxBodyBytes,
    async answer(request, handler) {
      if (request.method === 'OPTIONS' && allowOrigin !== undefined) return handshake(request, allowOrigin, allowRate)
      if (request.method !== 'POST') return problem(405, 'method_not_allowed', undefined, { allow: allowedMethods(allowOrigin) })
      let webhook: Webhook
      try {
        const body = bytesOf(request.body)
        if (body.length > maxBodyBytes) return this.tooLarge()
        webhook = await verify({ headers: request.headers, body })
      } catch (error) {
        // Only the code: the sentence quotes expected values, which the sender must not learn.
        if (error instanceof WebhookVerificationError) return failed(error, 401, error.code)
        if (error instanceof TypeError) return this.misused(error.message)
        return failed(error, 503, 'not_judged', 'The keys could not be read: send it again.')
      }
      if (isChallenge(webhook)) {
        if (endpointId === undefined || webhook.data.endpointId === endpointId)
          return json(200, 'application/json', { challenge: webhook.data.challenge })
        const error = new RejectedRequest(
          403,
          `The challenge is for ${JSON.stringify(webhook.data.endpointId)}, not for ${JSON.stringify(endpointId)}.`,
        )
        return failed(error, 403, 'wrong_endpoint')
      }
      if (seen === undefined) return handle(webhook as HandledWebhook)
      const now = nowSeconds()
      const until = now + CLAIM_SECONDS
      try {
        const claim = await seen.claim(webhook.id, now, until)
        if (claim === 'handled') return { status: 200, headers: {}, body: '' }
        // Not 2xx: the running call may still fail, and then the webhook must be sent again.
        if (claim === 'busy') return problem(409, 'busy', 'This event is being handled right now.')
      } catch (error) {
        return failed(error, 503, 'not_judged', 'The ids of handled events could not be read: send it again.')
      }
      const reply = await handle(webhook as HandledWebhook)
      try {
        await (reply.status === 204 ? seen.commit(webhook.id, nowSeconds() + SEEN_SECONDS) : seen.release(webhook.id, until))
      } catch (error) {
        // The handler has ended, so its reply stands; a claim that was not released expires.
        onError(error, reply.status)
      }
      return reply

      async function handle(event: HandledWebhook): Promise<Reply> {
        try {
          await handler(event)
          return { status: 204, headers: {}, body: '' }
        } catch (error) {
          return failed(error, 500, 'handler_failed')
        }
      }
    },
    tooLarge() {
      const sentence = `The body is larger than ${maxBodyBytes} bytes.`
      return failed(
        new RejectedRequest(413, `${sentence} Raise maxBodyBytes, or have the endpoint send thin payloads.`),
        413,
        'too_large',
        sentence,
      )
    },
    misused: (sentence) => failed(new TypeError(sentence), 500, 'receiver_misused', sentence),
  }
}

/** The handshake of CloudEvents (HTTP 1.1 Web Hooks for Event Delivery, §4): whether the origin may send, and how much. */
function handshake({ headers }: RawRequest, allowed: string, rate: number | undefined): Reply {
  const origin = headerOf(headers, 'webhook-request-origin')
  if (origin === null || origin === '') return problem(400, 'no_origin', 'The handshake must name its WebHook-Request-Origin.')
  if (allowed !== '*' && origin.toLowerCase() !== allowed.toLowerCase()) return problem(403, 'wrong_origin')
  return {
    status: 200,
    headers: {
      allow: allowedMethods(allowed),
      'webhook-allowed-origin': allowed === '*' ? '*' : origin,
      'webhook-allowed-rate': rate === undefined ? '*' : String(rate),
    },
    body: '',
  }
}

const allowedMethods = (allowOrigin: string | undefined): string => (allowOrigin === undefined ? 'POST' : 'POST, OPTIONS')

const isChallenge = (webhook: Webhook): webhook is Extract<EventDocument, { readonly type: 'endpoint.verification' }> & Webhook =>
  webhook.type === 'endpoint.verification'

function problem(status: number, title: string, detail?: string, headers?: Readonly<Record<string, string>>): Reply {
  const reply = json(status, 'application/problem+json', { title, status, detail })
  return { ...reply, headers: { ...reply.headers, ...headers } }
}

function json(status: number, type: string, value: unknown): Reply {
  return { status, headers: { 'content-type': type }, body: JSON.stringify(value) }
}

function positive(name: string, value: number): void {
  if (!Number.isSafeInteger(value) || value < 1) throw new TypeError(`${name} must be a whole number of 1 or more, but it is ${value}.`)
}

/** Refusals are not logged: otherwise a forger could fill the log. */
function logError(error: unknown, status: number): void {
  if (status >= 500 || status < 300) console.error(error)
}
