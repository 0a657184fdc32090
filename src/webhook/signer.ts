/** Signatures of webhooks: a detached JWS for everybody, and the endpoint's own Standard Webhooks HMAC beside it. */
import { createHmac, createSecretKey, type KeyObject } from 'node:crypto'
import { type CryptoKey, FlattenedSign } from 'jose'
import type { Clock } from '../core/clock.ts'

/** The P-256 key that signs. A CryptoKey is used as it is; a KeyObject is converted on its first use. */
export interface SignerKey {
  /** RFC 7638 thumbprint. */
  readonly kid: string
  readonly privateKey: CryptoKey | KeyObject
}

export interface WebhookMessage {
  /** `RINGBACK_PUBLIC_URL`. */
  readonly issuer: string
  /** The endpoint's URL, byte for byte as registered. */
  readonly audience: string
  /** The event's id: the same on every attempt. */
  readonly id: string
  /** Whole seconds since the epoch, by the wall clock, at this attempt. */
  readonly atSeconds: number
  /** The bytes to be sent, as text in UTF-8. */
  readonly body: string
  /** The endpoint's secrets, oldest first. Keep them as {@link secretKey} gives them: bare bytes cost some 15 µs more per signature. */
  readonly secrets: readonly (KeyObject | Uint8Array)[]
}

/**
 * The four headers that authenticate one attempt:
 *
 * - `webhook-id`, `webhook-timestamp` and `webhook-signature` (Standard Webhooks 1.0): one `v1,<base64>` per secret, the newest last.
 * - `webhook-jws`: a JWS with detached content (RFC 7515 Appendix F, ES256), whose protected header binds id, time, sender and receiver.
 *
 * Throws a RangeError when there is no secret or `atSeconds` is not a whole number of seconds.
 */
export async function signWebhook(key: SignerKey, message: WebhookMessage): Promise<Record<string, string>> {
  const { issuer, audience, id, atSeconds, secrets } = message
  if (secrets.length === 0) throw new RangeError(`Webhook "${id}" has no secret to be signed with: every endpoint has at least one.`)
  if (!Number.isSafeInteger(atSeconds))
    throw new RangeError(`Webhook "${id}" cannot be signed at ${atSeconds}: give whole seconds since the epoch.`)
  const body = Buffer.from(message.body)
  const jws = await new FlattenedSign(body)
    // The order of members is part of the wire format: it is what the published vectors hold.
    .setProtectedHeader({ alg: 'ES256', kid: key.kid, typ: 'webhook+jws', iss: issuer, aud: audience, iat: atSeconds, jti: id })
    .sign(key.privateKey)
  const preamble = `${id}.${atSeconds}.`
  return {
    'webhook-id': id,
    'webhook-timestamp': String(atSeconds),
    'webhook-signature': secrets
      .map((secret) => `v1,${createHmac('sha256', secret).update(preamble).update(body).digest('base64')}`)
      .join(' '),
    'webhook-jws': `${jws.protected}..${jws.signature}`,
  }
}

/** Standard Webhooks allows 24 to 64 bytes. */
const SECRET_BYTES = 32

/** A new secret: `whsec_` and 32 unpredictable bytes in base64. */
export function generateSecret(clock: Pick<Clock, 'bytes'>): string {
  return `whsec_${Buffer.from(clock.bytes(SECRET_BYTES)).toString('base64')}`
}

/** The bytes in a `whsec_…` secret. Throws an Error that does not quote it when it is anything else than 24 to 64 bytes in base64. */
export function secretBytes(secret: string): Uint8Array {
  const encoded = /^whsec_([A-Za-z0-9+/]+={0,2})$/.exec(secret)?.[1]
  if (encoded === undefined)
    throw new Error('The webhook secret must be "whsec_" followed by base64, but it is not: rotate the secret of its endpoint.')
  const bytes = Buffer.from(encoded, 'base64')
  if (bytes.length < 24 || bytes.length > 64) {
    throw new Error(`The webhook secret must be 24 to 64 bytes, but it has ${bytes.length}: rotate the secret of its endpoint.`)
  }
  return bytes
}

/** A `whsec_…` secret made ready for {@link signWebhook}. Throws as {@link secretBytes} does. */
export function secretKey(secret: string): KeyObject {
  return createSecretKey(secretBytes(secret))
}

/** What may be shown of a secret: its last four characters. */
export function secretHint(secret: string): string {
  return `…${secret.slice(-4)}`
}
