/**
 * Ownership of endpoints. A verification is a delivery in a lane of its own, so it is durable, paced, retried and logged. Its answer counts while
 * the endpoint names it. The challenge is only in the body of the delivery: readers of the feed must not learn what only the receiver may know.
 */
import type { Delivery, Endpoint, Json, Millis } from '../../core/model.ts'
import { cloudEventJson, envelopeJson } from '../../core/wire.ts'
import { endpointColumns } from '../columns.ts'
import type { DeliverySettlement } from '../interfaces.ts'
import { addLanes, changeLane, paceOf } from '../queue/lane.ts'
import { bind, execute, first, type Script, sql, statement } from '../script.ts'
import { updateProbing } from './health.ts'
import { addDeliveries, addEvents, deliveryLaneOf, deliveryOf, endpointEvent, type RenderContext } from './outbox.ts'
import { DELIVERY_QUEUE } from './shared.ts'

const TYPE = 'endpoint.verification'
/** An endpoint is challenged at most this often. */
const PACE_MS: Millis = 60_000
/** Seconds before the second and the third try. */
const SCHEDULE = [60, 600]
const VALID_MS: Millis = 86_400_000

const cancelOpen = statement(
  (d) => sql`update deliveries set fence = fence + 1, state = 'canceled', canceled_reason = 'superseded',
      finished_at = ${d.now}, updated_at = ${d.now}, leased_until = null, leased_by = null
    where id = ${bind('id')} and coalesce(state, '') in ('pending', 'running')`,
)
const nameVerification = statement(
  () => sql`update endpoints set verification_delivery_id = ${bind('deliveryId')}, verification_error = null, verification_expires_at = ${bind('expiresAt')}
    where id = ${bind('id')} returning ${endpointColumns}`,
)

/** Starts a verification in the caller's transaction. An earlier one no longer counts. `endpoint` is the row as just written. */
export function* startVerification(endpoint: Endpoint, view: RenderContext): Script<Endpoint> {
  yield* endVerification(endpoint)
  const { id: endpointId, updatedAt: at } = endpoint
  const expiresAt = at + VALID_MS
  const challenge = endpoint.verification === 'challenge' ? view.newChallenge() : null
  const event = { id: view.newId('event'), type: TYPE, at } as const
  const data = (challenge: string | null): Json => JSON.stringify({ endpointId, challenge, expiresAt: new Date(expiresAt).toISOString() })
  const envelope = { ...event, source: view.publicUrl(), subject: endpointId, sequence: null }
  const bytes = endpoint.format === 'cloudevents' ? cloudEventJson(envelope, data(challenge)) : envelopeJson(event, data(challenge))
  const sent = endpointEvent(endpoint, event, data(null))
  const made = deliveryOf(sent, {
    id: view.newId('delivery'),
    endpointId,
    // The handshake of CloudEvents has no body.
    body: challenge === null ? null : bytes,
    retrySchedule: JSON.stringify(SCHEDULE),
    trigger: 'event',
    maxTries: SCHEDULE.length + 1,
  })
  yield* execute(addLanes([{ id: deliveryLaneOf(endpointId, TYPE), cap: 1, paceMs: PACE_MS }]))
  yield* addEvents([sent], addDeliveries([made]))
  return (yield* first<Endpoint>(nameVerification({ id: endpointId, deliveryId: made.id, expiresAt })))!
}

/** Cancels the open delivery of the endpoint's verification. An answer that still arrives is too late. */
export function* endVerification({ id, clientId, verificationDeliveryId, updatedAt }: Endpoint): Script<void> {
  if (verificationDeliveryId === null) return
  yield* execute([cancelOpen({ id: verificationDeliveryId })])
  // Frees its slot.
  yield* changeLane({ queue: DELIVERY_QUEUE, clientId, laneId: deliveryLaneOf(id, TYPE) }, (rule) => rule, updatedAt)
}

const markVerified = statement(
  (d) => sql`update endpoints
    set verified_at = ${d.now}, first_verified_at = coalesce(first_verified_at, ${d.now}), allowed_rate = ${bind('allowedRate')},
      verification_delivery_id = null, verification_error = null, verification_expires_at = null, revision = revision + 1, updated_at = ${d.now}
    where verification_delivery_id = ${bind('deliveryId')} and id = ${bind('id')} and deleted_at is null returning ${endpointColumns}`,
)
const markUnverified = statement(
  () => sql`update endpoints set verification_error = ${bind('error')}
    where verification_delivery_id = ${bind('deliveryId')} and id = ${bind('id')} and deleted_at is null`,
)

/**
 * Applies attempted verifications to their endpoints. With a proof the endpoint is verified, and its held deliveries go out at the rate its
 * receiver allows. `won` are the deliveries whose settlement counted.
 */
export function* settleVerifications(settlements: readonly DeliverySettlement[], won: readonly Delivery[]): Script<void> {
  for (const delivery of won) {
    if (delivery.eventType !== TYPE) continue
    const { id: deliveryId, endpointId: id, fence } = delivery
    const { outcome, attempt, endpoint } = settlements.find((each) => each.id === deliveryId && each.fence === fence)!
    if (outcome.kind === 'complete') {
      const verified = yield* first<Endpoint>(markVerified({ id, deliveryId, allowedRate: endpoint.allowedRate ?? null }))
      if (!verified) continue
      const place = { queue: DELIVERY_QUEUE, clientId: verified.clientId, laneId: id }
      yield* changeLane(place, (rule) => ({ ...rule, paceMs: paceOf(verified) }), verified.updatedAt)
      yield* updateProbing(verified, verified.updatedAt)
    } else if (attempt !== null && outcome.kind !== 'release') yield* execute([markUnverified({ id, deliveryId, error: attempt.error })])
  }
}
