/** Verifies that a webhook is from the expected Ringback, for this endpoint, unchanged and fresh. Stores nothing. */
import {
  base64url,
  type CryptoKey,
  createLocalJWKSet,
  createRemoteJWKSet,
  type FlattenedJWSInput,
  type FlattenedVerifyGetKey,
  flattenedVerify,
  type JSONWebKeySet,
  type JWSHeaderParameters,
} from 'jose'
import type { EventDocument } from '../core/documents.ts'

/** A verified webhook. */
export type Webhook = EventDocument & {
  /** The number of the attempt, from 1. Informational: its header is not signed. */
  readonly attempt: number | null
  /** The key that signed it. */
  readonly keyId: string
  /** When this attempt was signed, RFC 3339. */
  readonly issuedAt: string
}

/** Why a webhook failed verification. */
export type WebhookVerificationCode =
  | 'missing_header'
  | 'malformed'
  | 'unknown_key'
  | 'bad_signature'
  | 'wrong_type'
  | 'wrong_issuer'
  | 'wrong_audience'
  | 'stale'

/** A webhook failed verification: answer 401. Any other error: it could not be verified, so answer 503, and it is sent again. */
export class WebhookVerificationError extends Error {
  override readonly name = 'WebhookVerificationError'
  readonly code: WebhookVerificationCode

  constructor(code: WebhookVerificationCode, message: string, options?: ErrorOptions) {
    super(message, options)
    this.code = code
  }
}

/** Headers of the Fetch standard, of node:http, or any record of them. */
export type WebhookHeaders = { get(name: string): string | null } | Readonly<Record<string, string | readonly string[] | undefined>>

/** A request of any framework. `body` holds the raw bytes, before any parser. */
export interface RawWebhook {
  readonly headers: WebhookHeaders
  readonly body: Uint8Array | string
}

/** Epoch milliseconds, as the wall clock has them. */
export interface WallClock {
  wall(): number
}

export interface VerifierOptions {
  /** The public URL of Ringback, from your configuration. */
  readonly issuer: string
  /** The URL of your endpoint as registered, from your configuration: never rebuilt from `Host` or `X-Forwarded-*`. */
  readonly audience: string
  /**
   * URL of the keys. Default: `<issuer>/.well-known/jwks.json`. They are cached for 10 minutes, never longer, even when they cannot be fetched: a revoked
   * key must become invalid. An unknown key fetches them again, at most every 30 s.
   */
  readonly jwksUrl?: string | URL
  /** The keys themselves: nothing is fetched. */
  readonly jwks?: JSONWebKeySet
  /** Maximum difference between the signer's clock and this one. Default: 300. */
  readonly toleranceSeconds?: number
  readonly clock?: WallClock
}

/** Returns the webhook or throws a {@link WebhookVerificationError}. Any other error: it could not be verified. */
export type Verify = (webhook: RawWebhook) => Promise<Webhook>

/** No HMAC, which would accept the public key as a secret, and no RSA: Ringback sends neither. */
const ALGORITHMS = ['ES256', 'EdDSA']
/** Members by which a sender could choose the key or the encoding of the payload (RFC 8725 §3.10, RFC 7797). Ringback sends none of them. */
const REFUSED = ['crit', 'b64', 'jwk', 'jku', 'x5u', 'x5c'] as const
const TOLERANCE_SECONDS = 300
/** More tokens than any rotation of secrets makes. */
const MAX_TOKENS = 16

/** Throws a TypeError when issuer, audience or tolerance is missing or invalid. */
export function createVerifier(options: VerifierOptions): Verify {
  const { issuer, audience, jwks } = options
  if (typeof issuer !== 'string' || issuer === '')
    throw new TypeError('createReceiver needs issuer: the public URL of the Ringback that calls you.')
  if (typeof audience !== 'string' || audience === '')
    throw new TypeError('createReceiver needs audience: the URL you registered as endpoint.')
  if (jwks !== undefined && options.jwksUrl !== undefined) throw new TypeError('createReceiver takes jwks or jwksUrl, not both.')
  const wall = wallOf(options)
  const tolerance = toleranceOf(options)
  const url = new URL(options.jwksUrl ?? `${issuer.replace(/\/$/, '')}/.well-known/jwks.json`)
  const keys = jwks === undefined ? createRemoteJWKSet(url, { cacheMaxAge: 600_000, cooldownDuration: 30_000 }) : createLocalJWKSet(jwks)

  return async ({ headers, body }) => {
    const [protectedHeader, signature] = split(required(headers, 'webhook-jws'))
    const jws = { protected: protectedHeader, payload: base64url.encode(bytesOf(body)), signature }
    const { header, payload } = await verifySignature(jws, keys, url.href)
    const { typ, iss, aud, iat, jti, kid } = header
    if (typ !== 'webhook+jws') throw refusal('wrong_type', `The signed typ is ${quote(typ)}, not "webhook+jws": this is no webhook.`)
    if (iss !== issuer) throw refusal('wrong_issuer', `The webhook is from ${quote(iss)}, not from ${quote(issuer)}.`)
    if (aud !== audience)
      throw refusal('wrong_audience', `The webhook is for ${quote(aud)}, not for ${quote(audience)}: give the URL exactly as registered.`)
    checkFresh(iat, wall() / 1000, tolerance)
    const event = parseEvent(payload, jti)
    const attempt = Number(headerOf(headers, 'webhook-attempt') ?? Number.NaN)
    return {
      ...event,
      attempt: Number.isSafeInteger(attempt) && attempt > 0 ? attempt : null,
      keyId: String(kid),
      issuedAt: new Date(Number(iat) * 1000).toISOString(),
    }
  }
}

/**
 * Verifies the symmetric `webhook-signature` (Standard Webhooks 1.0) with the endpoint's secret, or with several during a rotation.
 * One matching pair of secret and token is enough; the comparison takes constant time. Throws a {@link WebhookVerificationError}.
 */
export async function verifyStandardWebhook(
  secret: string | readonly string[],
  webhook: RawWebhook,
  options: Pick<VerifierOptions, 'toleranceSeconds' | 'clock'> = {},
): Promise<EventDocument> {
  const body = bytesOf(webhook.body)
  const id = required(webhook.headers, 'webhook-id')
  const timestamp = required(webhook.headers, 'webhook-timestamp')
  const tokens = required(webhook.headers, 'webhook-signature').split(' ')
  if (!/^\d{1,15}$/.test(timestamp)) throw refusal('malformed', `webhook-timestamp must be whole seconds, but it is ${quote(timestamp)}.`)
  if (tokens.length > MAX_TOKENS)
    throw refusal('malformed', `webhook-signature has ${tokens.length} tokens; at most ${MAX_TOKENS} are read.`)
  const preamble = new TextEncoder().encode(`${id}.${timestamp}.`)
  const signed = new Uint8Array(preamble.length + body.length)
  signed.set(preamble)
  signed.set(body, preamble.length)
  const signatures = tokens.filter((token) => token.startsWith('v1,')).map((token) => fromBase64(token.slice(3)))
  let matches = false
  for (const text of typeof secret === 'string' ? [secret] : secret) {
    const key = await hmacKeyOf(text)
    for (const signature of signatures) {
      if (signature !== null && (await crypto.subtle.verify('HMAC', key, signature, signed))) matches = true
    }
  }
  if (!matches) throw refusal('bad_signature', `No v1 token in webhook-signature fits the body and the secret. ${RAW}`)
  checkFresh(Number(timestamp), wallOf(options)() / 1000, toleranceOf(options))
  return parseEvent(signed.subarray(preamble.length), id)
}

/** The fix of the most common mistake. */
export const RAW = 'Verify the raw bytes of the request, before anything parses them.'

/** Verifies the signature. Returns the verified bytes, not a buffer that may be reused. */
async function verifySignature(
  jws: FlattenedJWSInput,
  keys: FlattenedVerifyGetKey,
  source: string,
): Promise<{ header: JWSHeaderParameters & Record<string, unknown>; payload: Uint8Array }> {
  try {
    const { protectedHeader, payload } = await flattenedVerify(
      jws,
      async (header, token) => {
        const refused = REFUSED.find((member) => header?.[member] !== undefined)
        if (refused !== undefined) throw refusal('malformed', `The signed header holds ${quote(refused)}, which Ringback never sends.`)
        if (typeof header?.kid !== 'string')
          throw refusal('malformed', `The signed header must name its key, but kid is ${quote(header?.kid)}.`)
        return keys(header, token)
      },
      { algorithms: ALGORITHMS },
    )
    return { header: protectedHeader!, payload }
  } catch (cause) {
    if (cause instanceof WebhookVerificationError) throw cause
    switch ((cause as { code?: unknown }).code) {
      case 'ERR_JWKS_NO_MATCHING_KEY':
      case 'ERR_JWKS_MULTIPLE_MATCHING_KEYS':
        throw refusal('unknown_key', 'The key set does not hold exactly one key with the id that signed the webhook.', {
          cause,
        })
      case 'ERR_JOSE_ALG_NOT_ALLOWED':
        throw refusal('bad_signature', `The webhook is not signed with ${ALGORITHMS.join(' or ')}.`, { cause })
      case 'ERR_JWS_SIGNATURE_VERIFICATION_FAILED':
        throw refusal('bad_signature', `The signature does not fit the body. ${RAW}`, { cause })
      case 'ERR_JWS_INVALID':
      case 'ERR_JOSE_NOT_SUPPORTED':
        throw refusal('malformed', `webhook-jws cannot be read: ${(cause as Error).message}.`, { cause })
      default:
        throw new Error(
          `The webhook could not be verified, because the keys at ${source} could not be read: answer 503, and it is sent again.`,
          { cause },
        )
    }
  }
}

/** The two parts of a detached JWS: `<protected>..<signature>`. */
function split(jws: string): [string, string] {
  const [head, middle, signature, ...rest] = jws.split('.')
  if (!head || middle !== '' || !signature || rest.length > 0) {
    throw refusal('malformed', 'webhook-jws must be detached: two parts in base64url with ".." between them, and nothing else.')
  }
  return [head, signature]
}

function checkFresh(atSeconds: unknown, now: number, tolerance: number): void {
  const apart = typeof atSeconds === 'number' ? Math.abs(now - atSeconds) : Number.NaN
  // Not `apart > tolerance`: a missing time is NaN and must fail.
  if (!(apart <= tolerance)) {
    throw refusal(
      'stale',
      `The webhook was signed at ${quote(atSeconds)}, and it is ${Math.floor(now)}: more than ${tolerance} s apart. Is this clock right?`,
    )
  }
}

/** The event in the body: Ringback's own envelope, or a CloudEvents 1.0 one. */
function parseEvent(body: Uint8Array, id: unknown): EventDocument {
  let event: unknown
  try {
    event = JSON.parse(new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(body))
  } catch (cause) {
    throw refusal('malformed', 'The body is signed, but it is not JSON in UTF-8.', { cause })
  }
  const { id: bodyId, type, timestamp, time, data } = (event ?? {}) as Record<string, unknown>
  const at = timestamp ?? time
  if (typeof bodyId !== 'string' || typeof type !== 'string' || typeof at !== 'string') {
    throw refusal('malformed', 'The body is signed, but it is no event: it must be an object with id, type and timestamp.')
  }
  if (bodyId !== id) throw refusal('malformed', `The signed id is ${quote(id)}, but the body says ${quote(bodyId)}.`)
  return { id: bodyId, type, timestamp: at, data } as EventDocument
}

/** Throws a TypeError for a parsed body. */
export function bytesOf(body: unknown): Uint8Array {
  if (typeof body === 'string') return new TextEncoder().encode(body)
  if (body instanceof Uint8Array) return body
  throw new TypeError(`The body must be bytes or text, but it is ${body === null ? 'null' : typeof body}. ${RAW}`)
}

/** The header with the lower-case name; null when it is missing. */
export function headerOf(headers: WebhookHeaders, name: string): string | null {
  if (typeof headers.get === 'function') return headers.get(name)
  for (const [key, value] of Object.entries(headers)) if (key.toLowerCase() === name && value !== undefined) return String(value)
  return null
}

function required(headers: WebhookHeaders, name: string): string {
  const value = headerOf(headers, name)
  if (value === null || value === '')
    throw refusal('missing_header', `The request has no ${name} header: it is no webhook of Ringback, or a proxy dropped it.`)
  return value
}

async function hmacKeyOf(secret: string): Promise<CryptoKey> {
  const bytes = fromBase64(secret.replace(/^whsec_/, ''))
  // Everybody knows the empty key.
  if (bytes === null || bytes.length === 0) throw new TypeError('The webhook secret must be "whsec_" followed by base64.')
  return crypto.subtle.importKey('raw', bytes, { name: 'HMAC', hash: 'SHA-256' }, false, ['verify'])
}

function fromBase64(text: string): Uint8Array<ArrayBuffer> | null {
  try {
    return Uint8Array.from(atob(text), (character) => character.charCodeAt(0))
  } catch {
    return null
  }
}

/** The receiver runs in another program than the platform: without a given clock it reads the system's. */
export const wallOf =
  ({ clock }: Pick<VerifierOptions, 'clock'>): (() => number) =>
  () =>
    clock ? clock.wall() : Date.now()

function toleranceOf({ toleranceSeconds = TOLERANCE_SECONDS }: { readonly toleranceSeconds?: number }): number {
  if (Number.isFinite(toleranceSeconds) && toleranceSeconds >= 0) return toleranceSeconds
  throw new TypeError(`toleranceSeconds must be a number of 0 or more, but it is ${toleranceSeconds}.`)
}

const refusal = (code: WebhookVerificationCode, message: string, options?: ErrorOptions): WebhookVerificationError =>
  new WebhookVerificationError(code, message, options)

/** The value as JSON, at most 200 characters: it comes from outside. */
const quote = (value: unknown): string => (JSON.stringify(value) ?? 'absent').slice(0, 200)
