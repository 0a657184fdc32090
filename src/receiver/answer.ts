/** What is answered to whatever arrives at the address of an endpoint: bytes and headers in, status, headers and body out. */
import type { EventDocument } from '../core/documents.ts'
import type { SeenIds } from './seen.ts'
import { bytesOf, headerOf, type RawWebhook, type Verify, type Webhook, WebhookVerificationError } from './verify.ts'

/** A request with its raw body. `method` is in capitals. */
export interface RawRequest extends RawWebhook {
  readonly method: string
}

/** An answer, for whatever server has to send it. */
export interface Reply {
  readonly status: number
  readonly headers: Readonly<Record<string, string>>
  readonly body: string
}

/** What a handler is given: all but challenges, which are answered already. */
export type HandledWebhook = Exclude<Webhook, { readonly type: 'endpoint.verification' }>

/** Resolve when the event is safe; work that takes longer than some seconds belongs after the answer. Throw, and the webhook comes again. */
export type WebhookHandler = (webhook: HandledWebhook) => unknown

export interface AnswererOptions {
  /** The id the server gave the endpoint: a challenge for another one is refused. Without it, whoever registers your address is vouched for. */
  readonly endpointId?: string | undefined
  /** Remembers the ids of handled events. Without it the handler sees every repetition. */
  readonly seen?: SeenIds
  /** The largest body that is read, in bytes. Default: 1 MiB. */
  readonly maxBodyBytes?: number
  /** Who may ask by the handshake of CloudEvents (OPTIONS): the `WebHook-Request-Origin` to allow, or `*`. Without it OPTIONS is answered 405. */
  readonly allowOrigin?: string
  /** What the handshake grants: webhooks a minute. Default: `*`, as many as there are. */
  readonly allowRate?: number
  /**
   * Told of everything that is not answered 2xx or 405, with the status: a {@link WebhookVerificationError} is a 401, what the handler threw a 500.
   * Also of a memory that could not be written after the handler had resolved (204). Default: what is not a refusal goes to `console.error`.
   */
  readonly onError?: (error: unknown, status: number) => void
}

/** How long one call of a handler keeps an event from the next, unless it ends before. The server gives up waiting far earlier. */
const CLAIM_SECONDS = 60
/** How late a webhook may come again: the longest retention of a redelivery. */
const SEEN_SECONDS = 30 * 86_400
const MAX_BYTES = 1_048_576

/** A request that is answered with its status before anything is verified. */
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
  /** The answer to a request whose body is larger than allowed. */
  tooLarge(): Reply
  /** The answer to a request that was not given as it must be: `sentence` says how to mend it. */
  misused(sentence: string): Reply
}

/** Throws a TypeError when `maxBodyBytes` or `allowRate` bounds nothing. */
export function createAnswerer(verify: Verify, wall: () => number, options: AnswererOptions): Answerer {
  const { endpointId, seen, allowOrigin, allowRate, maxBodyBytes = MAX_BYTES, onError = complain } = options
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
        // The class alone: the sentence quotes what was expected, which is nobody else's business.
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
        // Not 2xx: the call that has it may fail yet, and then nobody would send it again.
        if (claim === 'busy') return problem(409, 'busy', 'This event is being handled right now.')
      } catch (error) {
        return failed(error, 503, 'not_judged', 'What was handled already could not be read: send it again.')
      }
      const reply = await handle(webhook as HandledWebhook)
      try {
        await (reply.status === 204 ? seen.commit(webhook.id, nowSeconds() + SEEN_SECONDS) : seen.release(webhook.id, until))
      } catch (error) {
        // What the handler did is done, or undone; a claim that stays ends by itself.
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

/** CloudEvents, HTTP 1.1 Web Hooks for Event Delivery, §4: may this origin send here, and how much? */
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

/** A forger must not be able to fill the log. */
function complain(error: unknown, status: number): void {
  if (status >= 500 || status < 300) console.error(error)
}
