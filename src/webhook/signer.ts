/** Signs webhooks twice: a detached JWS that anybody can verify, and a Standard Webhooks HMAC with the endpoint's secret. */
import { createHmac, createSecretKey, type KeyObject } from 'node:crypto'
import { type CryptoKey, FlattenedSign } from 'jose'
import type { Clock } from '../core/clock.ts'

/** A P-256 key. jose converts a KeyObject on its first use. */
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
  /** The event's id, the same on every attempt. */
  readonly id: string
  /** Of this attempt, by the wall clock: whole seconds since the epoch. */
  readonly atSeconds: number
  /** Sent as UTF-8. */
  readonly body: string
  /** The endpoint's secrets, oldest first. Prefer {@link secretKey}: bytes cost 15 µs more per signature. */
  readonly secrets: readonly (KeyObject | Uint8Array)[]
}

/**
 * The four headers of one attempt:
 * - `webhook-id`, `webhook-timestamp`, `webhook-signature` (Standard Webhooks 1.0): one `v1,<base64>` per secret, the newest last.
 * - `webhook-jws`: a JWS with detached content (RFC 7515 Appendix F, ES256). Its protected header binds id, time, sender and receiver.
 * @throws RangeError without a secret, or when `atSeconds` is not a whole number.
 */
export async function signWebhook(key: SignerKey, message: WebhookMessage): Promise<Record<string, string>> {
  const { issuer, audience, id, atSeconds, secrets } = message
  if (secrets.length === 0) throw new RangeError(`Webhook "${id}" has no secret to sign with: an endpoint needs at least one.`)
  if (!Number.isSafeInteger(atSeconds))
    throw new RangeError(`Webhook "${id}" cannot be signed at ${atSeconds}: give whole seconds since the epoch.`)
  const body = Buffer.from(message.body)
  const jws = await new FlattenedSign(body)
    // The order of members is part of the wire format, see the published test vectors.
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

/** Standard Webhooks allows 24 to 64. */
const SECRET_BYTES = 32

/** A new secret: `whsec_` and 32 random bytes in base64. */
export function generateSecret(clock: Pick<Clock, 'bytes'>): string {
  return `whsec_${Buffer.from(clock.bytes(SECRET_BYTES)).toString('base64')}`
}

/** The bytes of a `whsec_…` secret. @throws Error, without quoting the secret, unless it is 24 to 64 bytes in base64. */
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

/** A `whsec_…` secret as a key for {@link signWebhook}. @throws as {@link secretBytes}. */
export const secretKey = (secret: string): KeyObject => createSecretKey(secretBytes(secret))

/** The last four characters, which are not secret. */
export const secretHint = (secret: string): string => `…${secret.slice(-4)}`
