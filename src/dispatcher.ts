/** The delivery side: signs, posts, judges the answer, settles with the attempt. */
import type { KeyObject } from 'node:crypto'
import type { Clock } from './clock.ts'
import { decide, judgeAnswer, parseRetryAfter, scheduled } from './lifecycle.ts'
import type { Attempt, Endpoint, Millis } from './model.ts'
import { Interrupted, lender, Pump, type Source, settleSurely } from './pump.ts'
import type { Sealer } from './seal.ts'
import type { DeliverySettlement, Owed, Store } from './store/store.ts'
import { isUnder } from './webhook/address.ts'
import type { KeyRing } from './webhook/keys.ts'
import { secretKey, signWebhook } from './webhook/signer.ts'
import type { Sent, Transport } from './webhook/transport.ts'

/** One line per attempt: everything about it. */
export interface AttemptRecord {
  readonly delivery: Owed
  readonly sent: Sent
  readonly outcome: string
  readonly nextDelayMs: Millis | null
}

export interface DispatcherOptions {
  readonly store: Store
  readonly transport: Transport
  readonly keys: Pick<KeyRing, 'active'>
  readonly sealer: Sealer
  readonly clock: Clock
  readonly boot: string
  readonly publicUrl: () => string
  readonly retrySchedule: readonly number[]
  readonly concurrency: number
  readonly leaseMs: Millis
  readonly onAttempt: (record: AttemptRecord) => void
  readonly onError: (error: unknown) => void
}

export function createDispatcher(options: DispatcherOptions): Pump<Owed> {
  const { store, boot, leaseMs, clock } = options
  const attempt = attempts(options)
  const source: Source<Owed> = {
    claim: (limit) => store.claimDeliveries({ limit, leaseMs, by: boot }),
    renew: (held) => store.renew('delivery', held, leaseMs),
    async work(delivery, signal) {
      const { sent, keyId } = await attempt(delivery, signal).catch((error: unknown) => {
        // A secret that does not open, a key that cannot be read: an attempt that failed, on its schedule like any other.
        options.onError(error)
        return { sent: unsent('connect', 'the webhook could not be signed; the log of the server says why'), keyId: null }
      })
      const settlement = judge(delivery, sent, keyId, options)
      await settleSurely(() => store.settleDelivery(settlement), signal, clock, options.onError)
      const { outcome } = settlement
      options.onAttempt({ delivery, sent, outcome: outcome.kind, nextDelayMs: 'delayMs' in outcome ? outcome.delayMs : null })
    },
  }
  const pump = new Pump(source, { concurrency: options.concurrency, leaseMs, clock, onError: options.onError })
  store.startDeliveries(lender(pump, boot, leaseMs))
  return pump
}

/** The attempt and what it means, ready to be settled. */
function judge(delivery: Owed, sent: Sent, keyId: string | null, { clock, retrySchedule }: DispatcherOptions): DeliverySettlement {
  const retryAfterMs = parseRetryAfter(sent.responseHeaders['retry-after'], clock.wall())
  const verdict = judgeAnswer(sent, retryAfterMs)
  const schedule = delivery.retrySchedule ?? delivery.endpoint.retrySchedule
  const delays = scheduled(schedule ? (JSON.parse(schedule) as number[]) : retrySchedule)
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
    // What a receiver answers may hold its users' data: kept only where the operator asks for it.
    responseExcerpt: null,
    remoteAddress: sent.remoteAddress,
  }
  return {
    id: delivery.id,
    fence: delivery.fence,
    outcome: decide(delivery, verdict.ended, delays, clock),
    attempt,
    endpoint: { id: delivery.endpointId, succeeded: verdict.succeeded, disable: verdict.disable, holdMs: verdict.holdMs },
  }
}

/** What signing for an endpoint takes, opened once and kept while its settings stay. */
interface Prepared {
  readonly secrets: readonly { readonly key: KeyObject; readonly until: Millis | null }[]
  readonly headers: Readonly<Record<string, string>>
}
const MOST_PREPARED = 10_000

function attempts({ keys, sealer, transport, clock, publicUrl }: DispatcherOptions) {
  const prepared = new Map<string, Prepared>()
  const prepare = (endpoint: Endpoint): Prepared => {
    const settings = `${endpoint.secret} ${endpoint.previousSecret} ${endpoint.headers}`
    const known = prepared.get(settings)
    if (known) return known
    const place = (column: string) => ({ table: 'endpoints', id: endpoint.id, column })
    const newest = { key: secretKey(sealer.open(endpoint.secret, place('secret'))), until: null }
    const made: Prepared = {
      secrets:
        endpoint.previousSecret === null
          ? [newest]
          : [
              { key: secretKey(sealer.open(endpoint.previousSecret, place('previous_secret'))), until: endpoint.previousSecretUntil },
              newest,
            ],
      headers: endpoint.headers === null ? {} : JSON.parse(sealer.open(endpoint.headers, place('headers'))),
    }
    if (prepared.size >= MOST_PREPARED) prepared.delete(prepared.keys().next().value!)
    prepared.set(settings, made)
    return made
  }

  return async (delivery: Owed, signal: AbortSignal): Promise<{ sent: Sent; keyId: string | null }> => {
    const { endpoint } = delivery
    const url = delivery.url ?? endpoint.url
    if (delivery.url !== null && !isUnder(delivery.url, endpoint.url))
      return { sent: unsent('blocked', 'the callback URL of the task is no longer under its endpoint'), keyId: null }
    const body = delivery.body ?? delivery.eventBody
    const key = await keys.active()
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
    const sent = await transport.post(
      {
        url,
        headers: {
          ...headers,
          'content-type': isCloudEvent(body) ? 'application/cloudevents+json' : 'application/json',
          'user-agent': `Ringback/1 (+${publicUrl()})`,
          ...signed,
          'webhook-attempt': String(delivery.tries),
          ...(delivery.traceparent === null ? {} : { traceparent: delivery.traceparent }),
        },
        body,
      },
      signal,
    )
    // A cancel of ours is an interruption; anything else the transport calls aborted was the other side.
    if (sent.outcome === 'aborted' && !(signal.reason instanceof Interrupted))
      return { sent: { ...sent, outcome: 'connect' }, keyId: key.kid }
    return { sent, keyId: key.kid }
  }
}

/** The bytes say what they are: the endpoint's format may have changed since they were rendered. */
const isCloudEvent = (body: string): boolean => body.startsWith('{"specversion":')

function unsent(outcome: 'blocked' | 'connect', error: string): Sent {
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
