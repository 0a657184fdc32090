/** Sends deliveries: signs and posts each one, evaluates the response, settles the delivery with its attempt. */
import type { KeyObject } from 'node:crypto'
import { LRUCache } from 'lru-cache'
import { isUnder } from '../core/callback-url.ts'
import type { Clock } from '../core/clock.ts'
import type { Encryptor } from '../core/encryption.ts'
import { SlotShares } from '../core/fair-share.ts'
import { backoffFromSchedule, decideOutcome, evaluateResponse, evaluateVerification, parseRetryAfter } from '../core/lifecycle.ts'
import type { Attempt, Endpoint, Millis } from '../core/model.ts'
import { parseStored } from '../core/stored-json.ts'
import { challengeOf } from '../core/wire.ts'
import type { EventSink } from '../observe/events.ts'
import type { DeliverySettlement, OwedDelivery, Store } from '../store/interfaces.ts'
import type { SendResult } from '../webhook/attempt.ts'
import type { KeyRing } from '../webhook/keys.ts'
import {
  consentHeaders,
  evaluateChallengeResponse,
  evaluateConsentResponse,
  type OwnershipProof,
  VERIFICATION_TIMEOUT_MS,
} from '../webhook/ownership.ts'
import { secretKey, signWebhook } from '../webhook/signer.ts'
import type { Transport } from '../webhook/transport.ts'
import { Interrupted, Pump, settleWithRetry, toSlotLender, type WorkSource } from './pump.ts'

export interface DispatcherOptions {
  readonly store: Store
  readonly transport: Transport
  readonly keyRing: Pick<KeyRing, 'active'>
  readonly encryptor: Encryptor
  readonly clock: Clock
  readonly bootId: string
  readonly publicUrl: () => string
  readonly retrySchedule: readonly number[]
  /** Whether attempts store the start of the response body. */
  readonly storeExcerpts: boolean
  readonly concurrency: number
  readonly leaseMs: Millis
  readonly events: EventSink
}

export function createDispatcher(options: DispatcherOptions): Pump<OwedDelivery> {
  const { store, bootId, leaseMs, clock, events } = options
  const attempt = createAttempt(options)
  const source: WorkSource<OwedDelivery> = {
    claim: (limit, allot) => store.deliveries.claim({ limit, leaseMs, leasedBy: bootId, allot }),
    renew: (held) => store.maintenance.renew({ kind: 'delivery', leases: held, leaseMs }),
    async process(delivery, signal) {
      const attempted = await attempt(delivery, signal).catch((error: unknown): AttemptResult => {
        // A secret cannot be decrypted or a key cannot be read: a failed attempt, which is retried.
        events.emit('trouble', { error })
        return { sent: unsent('connect', 'the webhook could not be signed; the log of the server says why'), keyId: null, localFault: true }
      })
      const settlement = toSettlement(delivery, attempted, options)
      await settleWithRetry(() => store.deliveries.settle(settlement), signal, clock, events)
      const { outcome } = settlement
      const { sent } = attempted
      events.emit('delivery.attempted', {
        deliveryId: delivery.id,
        eventId: delivery.eventId,
        eventType: delivery.eventType,
        endpointId: delivery.endpointId,
        try: delivery.tries,
        outcome: sent.outcome,
        httpStatus: sent.httpStatus,
        durationMs: sent.durationMs,
        nextDelayMs: 'delayMs' in outcome ? outcome.delayMs : null,
      })
    },
  }
  const pump = new Pump(source, {
    kind: 'delivery',
    concurrency: options.concurrency,
    slotShares: new SlotShares(),
    leaseMs,
    clock,
    events,
  })
  store.notifications.lendDeliverySlots(toSlotLender(pump, bootId, leaseMs))
  return pump
}

interface AttemptResult {
  /** Of a verification, a success only with proof. */
  readonly sent: SendResult
  readonly keyId: string | null
  readonly allowedRate?: number | null
  /** Not sent, for a reason that says nothing about the health of the endpoint. Default: that of `sent`. */
  readonly localFault?: boolean
}

const isVerification = ({ eventType }: OwedDelivery): boolean => eventType === 'endpoint.verification'

function toSettlement(
  delivery: OwedDelivery,
  { sent, keyId, allowedRate, localFault = sent.localFault }: AttemptResult,
  { clock, retrySchedule, storeExcerpts }: DispatcherOptions,
): DeliverySettlement {
  const retryAfterMs = parseRetryAfter(sent.responseHeaders['retry-after'], clock.wall())
  const verifies = isVerification(delivery)
  const verdict = verifies ? evaluateVerification(sent, retryAfterMs) : evaluateResponse(sent, retryAfterMs)
  // A verification is not retried after it expires.
  const work = verifies ? { ...delivery, deadlineAt: delivery.endpoint.verificationExpiresAt } : delivery
  const schedule = delivery.retrySchedule ?? delivery.endpoint.retrySchedule
  const delays = backoffFromSchedule(parseStored(schedule, retrySchedule))
  const attempt: Omit<Attempt, 'deliveryId' | 'fence'> = {
    startedAt: clock.now() - sent.durationMs,
    durationMs: sent.durationMs,
    outcome: sent.outcome,
    httpStatus: sent.httpStatus,
    error: sent.error,
    timings: JSON.stringify(sent.timings),
    keyId,
    retryAfterSeconds: retryAfterMs === null ? null : Math.ceil(retryAfterMs / 1000),
    responseHeaders: JSON.stringify(sent.responseHeaders),
    // A response may contain personal data, so storing it is an option. Never of a verification: an endpoint that echoes its request would show
    // the challenge to the client.
    responseExcerpt: storeExcerpts && !verifies ? (sent.responseExcerpt?.replaceAll('\0', '\ufffd') ?? null) : null,
    remoteAddress: sent.remoteAddress,
  }
  return {
    id: delivery.id,
    fence: delivery.fence,
    outcome: decideOutcome(work, verdict.tryResult, delays, clock),
    attempt,
    endpoint: {
      id: delivery.endpointId,
      url: delivery.endpoint.url,
      signal: localFault ? null : verdict.signal,
      succeeded: localFault ? null : verdict.succeeded,
      disable: verdict.disable,
      holdMs: verdict.holdMs,
      ...(allowedRate !== undefined && { allowedRate }),
    },
  }
}

/** Decrypted secrets and headers of an endpoint, cached until its settings change. */
interface SigningMaterial {
  readonly secrets: readonly { readonly key: KeyObject; readonly until: Millis | null }[]
  readonly headers: Readonly<Record<string, string>>
}
const MAX_PREPARED = 10_000

function createAttempt({ keyRing, encryptor, transport, clock, publicUrl }: DispatcherOptions) {
  const prepared = new LRUCache<string, SigningMaterial>({ max: MAX_PREPARED })
  const prepare = (endpoint: Endpoint): SigningMaterial => {
    const settings = `${endpoint.secret} ${endpoint.previousSecret} ${endpoint.headers}`
    const known = prepared.get(settings)
    if (known) return known
    const place = (column: string) => ({ table: 'endpoints', id: endpoint.id, column })
    const newest = { key: secretKey(encryptor.decrypt(endpoint.secret, place('secret'))), until: null }
    const material: SigningMaterial = {
      secrets:
        endpoint.previousSecret === null
          ? [newest]
          : [
              { key: secretKey(encryptor.decrypt(endpoint.previousSecret, place('previous_secret'))), until: endpoint.previousSecretUntil },
              newest,
            ],
      headers: endpoint.headers === null ? {} : lowerCase(JSON.parse(encryptor.decrypt(endpoint.headers, place('headers')))),
    }
    prepared.set(settings, material)
    return material
  }

  const post = async (delivery: OwedDelivery, signal: AbortSignal): Promise<AttemptResult> => {
    const { endpoint } = delivery
    const url = delivery.url ?? endpoint.url
    if (delivery.url !== null && !isUnder(delivery.url, endpoint.url))
      return { sent: unsent('blocked', 'the callback URL of the task is no longer under its endpoint'), keyId: null, localFault: true }
    const body = delivery.body ?? delivery.eventBody
    const key = await keyRing.active()
    const wall = clock.wall()
    const { secrets, headers } = prepare(endpoint)
    const signed = await signWebhook(key, {
      issuer: publicUrl(),
      audience: endpoint.url,
      id: delivery.eventId,
      atSeconds: Math.floor(wall / 1000),
      body,
      secrets: secrets.filter(({ until }) => until === null || until > wall).map((secret) => secret.key),
    })
    const sent = await transport.send(
      {
        url,
        headers: {
          'user-agent': `Ringback/1 (+${publicUrl()})`,
          ...headers,
          'content-type': isCloudEvent(body) ? 'application/cloudevents+json' : 'application/json',
          ...signed,
          'webhook-attempt': String(delivery.tries),
          ...(delivery.traceparent !== null && { traceparent: delivery.traceparent }),
          ...(delivery.tracestate !== null && { tracestate: delivery.tracestate }),
        },
        body,
        ...(isVerification(delivery) && { timeoutMs: VERIFICATION_TIMEOUT_MS }),
      },
      signal,
    )
    return { sent, keyId: key.kid }
  }

  const verify = async (delivery: OwedDelivery, signal: AbortSignal): Promise<AttemptResult> => {
    const { endpoint } = delivery
    if (endpoint.verificationExpiresAt !== null && endpoint.verificationExpiresAt <= clock.now())
      return { sent: unsent('expired', 'The verification expired before it could be sent.'), keyId: null }
    if (endpoint.verification === 'challenge') {
      const attempted = await post(delivery, signal)
      return applyOwnershipProof(attempted, evaluateChallengeResponse(attempted.sent, challengeOf(delivery.body!)!))
    }
    const origin = new URL(publicUrl()).hostname
    const headers = {
      'user-agent': `Ringback/1 (+${publicUrl()})`,
      ...prepare(endpoint).headers,
      ...consentHeaders(origin, endpoint.maxPerMinute),
    }
    const sent = await transport.send(
      { method: 'OPTIONS', url: endpoint.url, headers, body: null, timeoutMs: VERIFICATION_TIMEOUT_MS },
      signal,
    )
    return applyOwnershipProof({ sent, keyId: null }, evaluateConsentResponse(sent, origin))
  }

  return async (delivery: OwedDelivery, signal: AbortSignal): Promise<AttemptResult> => {
    const attempted = await (isVerification(delivery) ? verify : post)(delivery, signal)
    // Unless the pump interrupted it, the receiver aborted it: a failed attempt.
    if (attempted.sent.outcome === 'aborted' && !(signal.reason instanceof Interrupted))
      return { ...attempted, sent: { ...attempted.sent, outcome: 'connect' } }
    return attempted
  }
}

/** A response without proof is a failed attempt, even with a 2xx. */
function applyOwnershipProof(attempted: AttemptResult, proof: OwnershipProof): AttemptResult {
  if (proof.kind === 'proved') return { ...attempted, allowedRate: proof.allowedRate }
  const { sent } = attempted
  return { ...attempted, sent: { ...sent, outcome: sent.outcome === 'success' ? 'http_error' : sent.outcome, error: proof.error } }
}

/** So that the headers set here replace those of the endpoint in any spelling. */
const lowerCase = (headers: Readonly<Record<string, string>>): Record<string, string> =>
  Object.fromEntries(Object.entries(headers).map(([name, value]) => [name.toLowerCase(), value]))

/** Read from the body, because the endpoint's format may have changed since it was rendered. */
const isCloudEvent = (body: string): boolean => body.startsWith('{"specversion":')

function unsent(outcome: 'blocked' | 'connect' | 'expired', error: string): SendResult {
  return {
    outcome,
    httpStatus: null,
    error,
    durationMs: 0,
    timings: { dnsMs: null, connectMs: null, tlsMs: null, firstByteMs: null },
    responseHeaders: {},
    responseExcerpt: null,
    remoteAddress: null,
  }
}
