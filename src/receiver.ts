/**
 * `ringback/receiver`: is this webhook from the Ringback I know, meant for me, unchanged and fresh?
 *
 * Give it the raw bytes of the request, before any JSON middleware. `docs/how-to/verify-a-webhook.md` tells the rest.
 */
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
import { type Clock, systemClock } from './clock.ts'
import type { EventType } from './model.ts'

/** A task as webhooks carry it: the same document as `GET /v1/tasks/{id}` answers. With `payload: "thin"`, input, result and metadata are null. */
export interface TaskData {
  readonly id: string
  readonly type: string
  readonly status: 'pending' | 'running' | 'completed' | 'failed' | 'canceled'
  /** 0 to 100. */
  readonly progress: number
  readonly progressMessage: string | null
  readonly input: unknown
  /** Where the input is, when it is too large to be here. */
  readonly inputUrl: string | null
  readonly result: unknown
  /** Where the result is, when it is too large to be here. */
  readonly resultUrl: string | null
  readonly error: { readonly code: string; readonly message: string; readonly details: unknown } | null
  readonly lastError: { readonly code: string; readonly message: string; readonly try: number; readonly at: string } | null
  readonly metadata: Readonly<Record<string, string>> | null
  readonly priority: number
  readonly concurrencyKey: string | null
  readonly tries: number
  readonly maxTries: number
  /** Which life of the task: one more for every retry of a task that had ended. */
  readonly generation: number
  /** Grows with every change. Order is not promised: keep the highest. */
  readonly revision: number
  readonly batchId: string | null
  readonly scheduleId: string | null
  readonly createdAt: string
  readonly runAt: string
  readonly startedAt: string | null
  readonly updatedAt: string
  readonly finishedAt: string | null
  readonly startBy: string | null
  readonly deadlineAt: string | null
  readonly timeoutSeconds: number
  readonly cancelRequestedAt: string | null
  readonly expiresAt: string | null
  readonly links: Readonly<Record<string, string>>
}

/** Answer 200 with `{"challenge": data.challenge}` to prove that the endpoint is yours. */
export interface ChallengeData {
  readonly endpointId: string
  readonly challenge: string
  readonly expiresAt: string
}

type DataOf<T extends EventType> = T extends 'task.completed'
  ? TaskData & { readonly status: 'completed' }
  : T extends 'task.failed'
    ? TaskData & { readonly status: 'failed' }
    : T extends 'task.canceled'
      ? TaskData & { readonly status: 'canceled' }
      : T extends `task.${string}`
        ? TaskData
        : T extends 'endpoint.verification'
          ? ChallengeData
          : Readonly<Record<string, unknown>>

/** The event a webhook carries. `type` tells what `data` is; ignore types you do not know, later versions have more. */
export type WebhookEvent = {
  [T in EventType]: {
    /** The event's id, the same on every attempt and redelivery. */
    readonly id: string
    readonly type: T
    /** When it happened, RFC 3339. */
    readonly timestamp: string
    readonly data: DataOf<T>
  }
}[EventType]

/** A webhook whose signature holds. */
export type Webhook = WebhookEvent & {
  /** Which attempt this is, from 1. Informational: the header it comes from is not signed. */
  readonly attempt: number | null
  /** The key that signed it. */
  readonly keyId: string
  /** When this attempt was signed, RFC 3339. */
  readonly issuedAt: string
  /** `seen` knows the id already: answer 2xx and do nothing. */
  readonly duplicate: boolean
}

/** Why a webhook is not to be believed. */
export type WebhookVerificationCode =
  | 'missing_header'
  | 'malformed'
  | 'unknown_key'
  | 'bad_signature'
  | 'wrong_type'
  | 'wrong_issuer'
  | 'wrong_audience'
  | 'stale'

/** A webhook that is not to be believed: answer 401. Any other error means that it could not be judged: answer 503, and it comes again. */
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

/** A request as other frameworks hand it over. `body` is what came over the wire, before anything parsed it. */
export interface RawWebhook {
  readonly headers: WebhookHeaders
  readonly body: Uint8Array | string
}

export interface ReceiverOptions {
  /** The server's public URL, a constant of your configuration. */
  readonly issuer: string
  /** Your endpoint's URL as registered, a constant of your configuration: never rebuilt from `Host` or `X-Forwarded-*`. */
  readonly audience: string
  /** Where the keys are. Default: `<issuer>/.well-known/jwks.json`. Cached for 10 minutes; an unknown key fetches anew, at most every 30 s. */
  readonly jwksUrl?: string | URL
  /** The keys themselves, instead of fetching them. */
  readonly jwks?: JSONWebKeySet
  /** How far the signer's clock and this one may be apart. Default: 300. */
  readonly toleranceSeconds?: number
  readonly clock?: Pick<Clock, 'wall'>
  /** Remembers ids; see {@link SeenIds}. */
  readonly seen?: SeenIds
}

/** The ids of webhooks that were taken. A webhook may arrive again for as long as 30 days. */
export interface SeenIds {
  /**
   * Keeps `id` at least until `untilSeconds` since the epoch. True when it was not there before: `insert … on conflict do nothing` affected one row.
   * Forget it again when your handler fails, or the repeated webhook counts as a duplicate.
   */
  add(id: string, untilSeconds: number): boolean | Promise<boolean>
}

export interface Receiver {
  /** The webhook, or a {@link WebhookVerificationError}. Reads the request's body. */
  verify(webhook: Request | RawWebhook): Promise<Webhook>
}

/** RSA would let a confused library in, HMAC would let the public key in as a secret: neither is ever sent. */
const ALGORITHMS = ['ES256', 'EdDSA']
/** Members that would let the sender choose the key or the reading of the payload (RFC 8725 §3.10, RFC 7797). Ringback sends none of them. */
const REFUSED = ['crit', 'b64', 'jwk', 'jku', 'x5u', 'x5c'] as const
const TOLERANCE_SECONDS = 300
/** How late a webhook may come again: the longest retention of a redelivery. */
const SEEN_SECONDS = 30 * 86_400
/** More `v1,` tokens than any rotation makes. */
const MOST_TOKENS = 16

/** Throws a TypeError when issuer, audience or tolerance could not refuse anything. */
export function createReceiver(options: ReceiverOptions): Receiver {
  const { issuer, audience, jwks, seen } = options
  if (typeof issuer !== 'string' || issuer === '')
    throw new TypeError('createReceiver needs issuer: the public URL of the Ringback that calls you.')
  if (typeof audience !== 'string' || audience === '')
    throw new TypeError('createReceiver needs audience: the URL you registered as endpoint.')
  if (jwks !== undefined && options.jwksUrl !== undefined) throw new TypeError('createReceiver takes jwks or jwksUrl, not both.')
  const wall = wallOf(options)
  const tolerance = toleranceOf(options)
  const url = new URL(options.jwksUrl ?? `${issuer.replace(/\/$/, '')}/.well-known/jwks.json`)
  const keys = jwks === undefined ? createRemoteJWKSet(url, { cacheMaxAge: 600_000, cooldownDuration: 30_000 }) : createLocalJWKSet(jwks)

  return {
    async verify(input) {
      const { headers, body } = 'arrayBuffer' in input ? await taken(input) : { headers: input.headers, body: bytesOf(input.body) }
      const [protectedHeader, signature] = split(required(headers, 'webhook-jws'))
      const { header, payload } = await check({ protected: protectedHeader, payload: base64url.encode(body), signature }, keys, url.href)
      const now = wall() / 1000
      const { typ, iss, aud, iat, jti, kid } = header
      if (typ !== 'webhook+jws') throw refusal('wrong_type', `The signed typ is ${quote(typ)}, not "webhook+jws": this is no webhook.`)
      if (iss !== issuer) throw refusal('wrong_issuer', `The webhook is from ${quote(iss)}, not from ${quote(issuer)}.`)
      if (aud !== audience)
        throw refusal('wrong_audience', `The webhook is for ${quote(aud)}, not for ${quote(audience)}: give the URL exactly as registered.`)
      fresh(iat, now, tolerance)
      const event = eventIn(payload, jti)
      const attempt = Number(read(headers, 'webhook-attempt') ?? Number.NaN)
      return {
        ...event,
        attempt: Number.isSafeInteger(attempt) && attempt > 0 ? attempt : null,
        keyId: String(kid),
        issuedAt: new Date(Number(iat) * 1000).toISOString(),
        duplicate: seen !== undefined && !(await seen.add(event.id, Math.floor(now) + SEEN_SECONDS)),
      }
    },
  }
}

/**
 * Verifies the symmetric `webhook-signature` (Standard Webhooks 1.0) with the endpoint's own secret, or with several while they rotate.
 * One matching pair of secret and token is enough; they are compared in constant time. Throws a {@link WebhookVerificationError}.
 */
export async function verifyStandardWebhook(
  secret: string | readonly string[],
  webhook: RawWebhook,
  options: Pick<ReceiverOptions, 'toleranceSeconds' | 'clock'> = {},
): Promise<WebhookEvent> {
  const body = bytesOf(webhook.body)
  const id = required(webhook.headers, 'webhook-id')
  const timestamp = required(webhook.headers, 'webhook-timestamp')
  const tokens = required(webhook.headers, 'webhook-signature').split(' ')
  if (!/^\d{1,15}$/.test(timestamp)) throw refusal('malformed', `webhook-timestamp must be whole seconds, but it is ${quote(timestamp)}.`)
  if (tokens.length > MOST_TOKENS)
    throw refusal('malformed', `webhook-signature has ${tokens.length} tokens; at most ${MOST_TOKENS} are read.`)
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
  fresh(Number(timestamp), wallOf(options)() / 1000, toleranceOf(options))
  return eventIn(signed.subarray(preamble.length), id)
}

const RAW = 'Verify the raw bytes of the request, before anything parses them.'

/** The protected header and the payload, once the signature holds: the bytes that were verified, not a buffer that may be in use again. */
async function check(
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
        throw refusal('unknown_key', 'The webhook is signed with a key that is not (or not alone) under that name in the key set.', {
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
          `The webhook could not be judged, because the keys at ${source} could not be read: answer 503, and it comes again.`,
          { cause },
        )
    }
  }
}

/** Both ends of a JWS with detached content: `<protected>..<signature>`. */
function split(jws: string): [string, string] {
  const [head, middle, signature, ...rest] = jws.split('.')
  if (!head || middle !== '' || !signature || rest.length > 0) {
    throw refusal('malformed', 'webhook-jws must be detached: two parts in base64url with ".." between them, and nothing else.')
  }
  return [head, signature]
}

function fresh(atSeconds: unknown, now: number, tolerance: number): void {
  const apart = typeof atSeconds === 'number' ? Math.abs(now - atSeconds) : Number.NaN
  // Not `apart > tolerance`: a time that is missing is NaN, and must fail.
  if (!(apart <= tolerance)) {
    throw refusal(
      'stale',
      `The webhook was signed at ${quote(atSeconds)}, and it is ${Math.floor(now)}: more than ${tolerance} s apart. Is this clock right?`,
    )
  }
}

/** The event in the body: our own envelope, or a CloudEvents 1.0 one. */
function eventIn(body: Uint8Array, id: unknown): WebhookEvent {
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
  return { id: bodyId, type, timestamp: at, data } as WebhookEvent
}

async function taken(request: Request): Promise<{ headers: Headers; body: Uint8Array }> {
  if (request.bodyUsed) throw new TypeError(`The body of the request has been read already. ${RAW}`)
  return { headers: request.headers, body: new Uint8Array(await request.arrayBuffer()) }
}

function bytesOf(body: unknown): Uint8Array {
  if (typeof body === 'string') return new TextEncoder().encode(body)
  if (body instanceof Uint8Array) return body
  throw new TypeError(`The body must be bytes or text, but it is ${body === null ? 'null' : typeof body}. ${RAW}`)
}

function read(headers: WebhookHeaders, name: string): string | null {
  if (typeof headers.get === 'function') return headers.get(name)
  for (const [key, value] of Object.entries(headers)) if (key.toLowerCase() === name && value !== undefined) return String(value)
  return null
}

function required(headers: WebhookHeaders, name: string): string {
  const value = read(headers, name)
  if (value === null || value === '')
    throw refusal('missing_header', `The request has no ${name} header: it is no webhook of Ringback, or a proxy dropped it.`)
  return value
}

async function hmacKeyOf(secret: string): Promise<CryptoKey> {
  const bytes = fromBase64(secret.replace(/^whsec_/, ''))
  // An empty key would be known to everybody.
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

function wallOf({ clock }: { readonly clock?: Pick<Clock, 'wall'> }): () => number {
  const it = clock ?? systemClock()
  return () => it.wall()
}

function toleranceOf({ toleranceSeconds = TOLERANCE_SECONDS }: { readonly toleranceSeconds?: number }): number {
  if (Number.isFinite(toleranceSeconds) && toleranceSeconds >= 0) return toleranceSeconds
  throw new TypeError(`toleranceSeconds must be a number of 0 or more, but it is ${toleranceSeconds}.`)
}

function refusal(code: WebhookVerificationCode, message: string, options?: ErrorOptions): WebhookVerificationError {
  return new WebhookVerificationError(code, message, options)
}

/** What was given, shortened: it came from outside. */
function quote(value: unknown): string {
  return (JSON.stringify(value) ?? 'absent').slice(0, 200)
}
