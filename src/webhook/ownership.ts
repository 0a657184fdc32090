/** Whether the response to a verification proves that the client owns the endpoint. Pure. */
import type { Millis } from '../core/model.ts'
import type { SendResult } from './attempt.ts'

export type OwnershipProof =
  /** `allowedRate`: requests per minute that the receiver allows; null: unlimited. */
  | { readonly kind: 'proved'; readonly allowedRate: number | null }
  /** `error`: why, and how to repair it. */
  | { readonly kind: 'unproved'; readonly error: string }

export const VERIFICATION_TIMEOUT_MS: Millis = 10_000

const unproved = (error: string): OwnershipProof => ({ kind: 'unproved', error })
/** Bounds the stored value. No lane reaches it. */
const MAX_ALLOWED_RATE = 1_000_000

/** A failure, or a status other than `wanted`. */
const unanswered = (sent: SendResult, wanted: string): OwnershipProof =>
  unproved(
    sent.outcome === 'success' ? `The endpoint answered ${sent.httpStatus} instead of ${wanted}.` : (sent.error ?? 'No answer came.'),
  )

/**
 * Proof is a 200 that returns the challenge: as the top-level JSON member `challenge`, or alone as text/plain. An echo of the request proves
 * nothing: there the challenge is under `data`.
 */
export function evaluateChallengeResponse(sent: SendResult, challenge: string): OwnershipProof {
  if (sent.outcome !== 'success' || sent.httpStatus !== 200) return unanswered(sent, '200')
  const encoding = sent.responseHeaders['content-encoding']?.trim().toLowerCase() ?? 'identity'
  if (encoding !== 'identity')
    return unproved('The endpoint encoded its answer, though only "identity" was asked for: answer the challenge without Content-Encoding.')
  const text = sent.responseExcerpt?.trim() ?? ''
  const isText = /^text\/plain\s*(;|$)/i.test(sent.responseHeaders['content-type'] ?? '')
  if ((isText && text === challenge) || topLevelChallenge(text) === challenge) return { kind: 'proved', allowedRate: null }
  return unproved('The endpoint answered 200 without the challenge: answer {"challenge": "…"} with the value that came in data.challenge.')
}

function topLevelChallenge(text: string): unknown {
  try {
    const value: unknown = JSON.parse(text)
    return typeof value === 'object' && value !== null && Object.hasOwn(value, 'challenge')
      ? (value as { challenge: unknown }).challenge
      : null
  } catch {
    return null
  }
}

/** The request of the handshake: the sending host and the desired rate (HTTP 1.1 Web Hooks for CloudEvents 1.0.2, §4.1). */
export function consentHeaders(origin: string, requestRate: number | null): Readonly<Record<string, string>> {
  return { 'webhook-request-origin': origin, ...(requestRate !== null && { 'webhook-request-rate': String(requestRate) }) }
}

/** Consent is a 2xx that names `origin` or `*`; a 2xx without the header is not (§4.2). */
export function evaluateConsentResponse(sent: SendResult, origin: string): OwnershipProof {
  if (sent.outcome !== 'success') return unanswered(sent, '2xx')
  const allowed = sent.responseHeaders['webhook-allowed-origin']?.trim()
  if (allowed === undefined || allowed === '')
    return unproved(
      `The endpoint answered ${sent.httpStatus} without WebHook-Allowed-Origin: answer OPTIONS with that header set to "${origin}".`,
    )
  if (allowed !== '*' && allowed.toLowerCase() !== origin.toLowerCase())
    return unproved(`The endpoint's WebHook-Allowed-Origin names another origin than "${origin}".`)
  const rate = sent.responseHeaders['webhook-allowed-rate']?.trim()
  if (rate === undefined || rate === '*') return { kind: 'proved', allowedRate: null }
  if (!/^0*[1-9]\d*$/.test(rate)) return unproved("The endpoint's WebHook-Allowed-Rate is neither a positive whole number nor *.")
  return { kind: 'proved', allowedRate: Math.min(Number(rate), MAX_ALLOWED_RATE) }
}
