/** Ownership of endpoints: until a challenge is answered, an endpoint receives only challenges; then it receives all held deliveries. */
import { expect, test } from 'vitest'
import type { Endpoint } from '../../../src/core/model.ts'
import { challengeOf } from '../../../src/core/wire.ts'
import type { DeliverySettlement, OwedDelivery } from '../../../src/store/interfaces.ts'
import {
  addClient,
  addEndpoint,
  addTasks,
  claimDeliveries,
  claimTasks,
  completed,
  delivered,
  type newEndpoint,
  undeliverable,
  undelivered,
} from '../../support/work.ts'
import type { Current } from './suite.ts'

const MINUTE = 60_000
const TYPE = 'endpoint.verification'

export function verification(current: Current): void {
  const owe = async (clientId: string, count: number): Promise<void> => {
    const { store } = current()
    await addTasks(store, count, { clientId })
    const tasks = await claimTasks(store)
    await Promise.all(tasks.map((task) => store.tasks.settle(completed(task))))
  }
  const unproven = async (given: Partial<Parameters<typeof newEndpoint>[0]> = {}): Promise<{ id: string; clientId: string }> => {
    const clientId = await addClient(current().store)
    return { id: await addEndpoint(current().store, { clientId, verification: 'challenge', verified: false, ...given }), clientId }
  }
  const endpoint = async (id: string): Promise<Endpoint> => (await current().store.endpoints.find(id, null))!
  const claimOne = async (): Promise<OwedDelivery> => {
    const claimed = await claimDeliveries(current().store)
    expect(claimed).toHaveLength(1)
    return claimed[0]!
  }
  const listed = async (endpointId: string) =>
    (await current().store.deliveries.list({ clientId: null, endpointId, eventType: TYPE, limit: 100, after: null })).items
  const answer = async (settlement: DeliverySettlement) => (await current().store.deliveries.settle(settlement)).kind
  const health = { signal: null, succeeded: null }
  const proved = (owed: OwedDelivery, allowedRate: number | null = null): DeliverySettlement => {
    const settlement = delivered(owed)
    return { ...settlement, endpoint: { ...settlement.endpoint, ...health, allowedRate } }
  }

  test('an unverified endpoint receives only its challenge, and after verification all held deliveries, complete', async () => {
    const { id, clientId } = await unproven()
    await owe(clientId, 3)
    const asked = await claimOne()
    expect(asked).toMatchObject({ eventType: TYPE, endpointId: id, maxTries: 3, trigger: 'event', retrySchedule: '[60,600]' })
    const envelope = JSON.parse(asked.body!)
    expect(envelope).toMatchObject({ type: TYPE, id: asked.eventId, data: { endpointId: id } })
    expect(envelope.data.challenge).toMatch(/^[\w-]{43}$/)
    const before = await endpoint(id)
    expect(Date.parse(envelope.data.expiresAt)).toBe(before.verificationExpiresAt)
    expect(before).toMatchObject({ verifiedAt: null, verificationDeliveryId: asked.id, revision: 1 })
    const valid = before.verificationExpiresAt! - before.createdAt
    expect(valid).toBeGreaterThanOrEqual(86_400_000)
    expect(valid, 'the clock of the database may have advanced within the commit').toBeLessThan(86_460_000)
    await current().pass(MINUTE)
    expect(await claimDeliveries(current().store), 'held').toEqual([])

    expect(await answer(proved(asked))).toBe('settled')
    const after = await endpoint(id)
    expect(after).toMatchObject({ verificationDeliveryId: null, verificationError: null, verificationExpiresAt: null, revision: 2 })
    expect(after.verifiedAt).not.toBeNull()
    // PostgreSQL reads its clock for each of them.
    expect(Math.abs(after.firstVerifiedAt! - after.verifiedAt!)).toBeLessThan(1_000)
    expect((await claimDeliveries(current().store)).map(({ eventType }) => eventType)).toEqual(Array(3).fill('task.completed'))
  })

  test('the challenge is only in the body sent to the receiver, never in what an API key can read', async () => {
    const { store } = current()
    for (const format of ['standard', 'cloudevents'] as const) {
      const { id, clientId } = await unproven({ format })
      const challenge = challengeOf((await claimOne()).body!)!
      const [event] = await store.events.list({ clientId, after: 0, limit: 10 })
      expect(JSON.parse(event!.body)).toMatchObject({ type: TYPE, data: { endpointId: id, challenge: null } })
      expect(JSON.stringify([event, await endpoint(id)])).not.toContain(challenge)
    }
  })

  test('every challenge is unique, and a CloudEvents handshake has none', async () => {
    await unproven()
    await unproven()
    const [one, two] = await claimDeliveries(current().store)
    expect(challengeOf(one!.body!)).not.toBe(challengeOf(two!.body!))
    await unproven({ verification: 'cloudevents' })
    expect((await claimOne()).body).toBeNull()
  })

  test('a verification has three tries, each with its reason; then the endpoint stays unverified and healthy, and can be challenged again', async () => {
    const { store, pass } = current()
    const { id, clientId } = await unproven()
    await owe(clientId, 1)
    const unanswered = (owed: OwedDelivery, settlement: DeliverySettlement, error: string): DeliverySettlement => ({
      ...settlement,
      attempt: { ...settlement.attempt!, error },
      endpoint: { ...settlement.endpoint, id: owed.endpointId, ...health },
    })
    const first = await claimOne()
    await answer(unanswered(first, undelivered(first, MINUTE), 'one'))
    expect((await endpoint(id)).verificationError).toBe('one')
    await pass(MINUTE)
    const second = await claimOne()
    await answer(unanswered(second, undelivered(second, 10 * MINUTE), 'two'))
    await pass(10 * MINUTE)
    const third = await claimOne()
    expect([first.id, second.id, third.tries]).toEqual([third.id, third.id, 3])
    await answer(unanswered(third, undeliverable(third), 'three'))
    expect(await endpoint(id)).toMatchObject({
      verificationError: 'three',
      verificationDeliveryId: third.id,
      verifiedAt: null,
      failingSince: null,
      disabledAt: null,
      revision: 1,
    })
    await pass(3 * MINUTE)
    expect(await claimDeliveries(store)).toEqual([])
    expect(
      await store.deliveries.redeliver({ id: third.id, newId: 'delivery_again', clientId }),
      'the old bytes are not sent again',
    ).toBeNull()

    await store.endpoints.change({ id, clientId, patch: { verified: false }, revision: null })
    expect(await endpoint(id)).toMatchObject({ verificationError: null, revision: 2 })
    await answer(proved(await claimOne()))
    expect(await claimDeliveries(store)).toHaveLength(1)
  })

  test('an endpoint receives at most one challenge a minute, always the newest', async () => {
    const { store, pass, anotherNode } = current()
    const nodes = [store, await anotherNode(), await anotherNode()]
    const { id } = await unproven()
    const first = await claimOne()
    await Promise.all([
      ...nodes.map((node) => node.endpoints.change({ id, clientId: null, patch: { verified: false }, revision: null })),
      store.deliveries.settle(undelivered(first, MINUTE)),
    ])
    expect(await claimDeliveries(store)).toEqual([])
    await pass(MINUTE - 5_000)
    expect(await claimDeliveries(store)).toEqual([])
    await pass(5_000)
    const asked = await claimOne()
    expect(asked.id).toBe((await endpoint(id)).verificationDeliveryId)
    const all = await listed(id)
    expect(all.map(({ state, canceledReason }) => [state, canceledReason]).sort()).toEqual([
      ...Array(3).fill(['canceled', 'superseded']),
      ['running', null],
    ])
    await pass(2 * MINUTE)
    expect(await claimDeliveries(store)).toEqual([])
  })

  test('a late answer to an earlier challenge changes nothing, and a new URL is verified again while deliveries are held', async () => {
    const { store, pass } = current()
    const { id, clientId } = await unproven()
    const early = await claimOne()
    await store.endpoints.change({ id, clientId, patch: { verified: false }, revision: null })
    expect(await answer(proved(early))).toBe('stale')
    expect(await endpoint(id)).toMatchObject({ verifiedAt: null, revision: 2 })
    await pass(MINUTE)
    await answer(proved(await claimOne()))

    await pass(MINUTE)
    const first = (await endpoint(id)).firstVerifiedAt
    await store.endpoints.change({ id, clientId, patch: { url: 'https://elsewhere.example/hooks', verified: false }, revision: null })
    await owe(clientId, 2)
    const asked = await claimOne()
    expect(asked.endpoint.url).toBe('https://elsewhere.example/hooks')
    await answer(proved(asked))
    expect(await endpoint(id)).toMatchObject({ firstVerifiedAt: first })
    expect(first).not.toBeNull()
    expect(await claimDeliveries(store)).toHaveLength(2)
  })

  test('an answer to a delivery that is not the current verification changes nothing', async () => {
    const { sql } = current()
    const { id } = await unproven()
    const asked = await claimOne()
    await sql(`update endpoints set verification_delivery_id = 'delivery_other' where id = '${id}'`)
    expect(await answer(proved(asked))).toBe('settled')
    expect(await endpoint(id)).toMatchObject({ verifiedAt: null, verificationDeliveryId: 'delivery_other', revision: 1 })
  })

  test('a verification by the operator ends the open challenge', async () => {
    const { store, pass } = current()
    const { id, clientId } = await unproven()
    const asked = await claimOne()
    await store.endpoints.change({ id, clientId: null, patch: { verified: true }, revision: null })
    expect(await endpoint(id)).toMatchObject({ verificationDeliveryId: null, verificationExpiresAt: null })
    expect(await store.deliveries.find(asked.id, clientId)).toMatchObject({ state: 'canceled', canceledReason: 'superseded' })
    expect(await answer({ ...undelivered(asked) })).toBe('stale')
    expect((await endpoint(id)).verificationError).toBeNull()
    await pass(20 * MINUTE)
    expect(await claimDeliveries(store)).toEqual([])
  })

  test('the rate that a receiver allows is the pace of its lane, unless the owner set a slower one', async () => {
    const { store, pass, sql } = current()
    const { id, clientId } = await unproven({ verification: 'cloudevents', maxPerMinute: 600 })
    await owe(clientId, 3)
    await answer(proved(await claimOne(), 60))
    expect((await endpoint(id)).allowedRate).toBe(60)
    expect(await claimDeliveries(store)).toHaveLength(1)
    await pass(1_000)
    expect(await claimDeliveries(store)).toHaveLength(1)
    const pace = async () =>
      (await sql<{ pace_ms: number | string }>(`select pace_ms from lanes where id = '${id}'`)).map((row) => Number(row.pace_ms))
    expect(await pace()).toEqual([1_000])
    await store.endpoints.change({ id, clientId, patch: { maxPerMinute: 6 }, revision: null })
    expect(await pace()).toEqual([10_000])
  })

  test('a deleted endpoint is not challenged again, and an answer to its challenge is too late', async () => {
    const { store, pass, sql } = current()
    const { id, clientId } = await unproven()
    const asked = await claimOne()
    const other = await unproven()
    expect(await store.endpoints.remove({ id, clientId })).toBe(true)
    expect(await answer(proved(asked))).toBe('stale')
    expect(await listed(id)).toMatchObject([{ state: 'canceled', canceledReason: 'endpointDeleted' }])
    expect(await sql(`select id from lanes where id like '${id}%'`)).toEqual([])
    expect(await sql(`select seq from turns where lane_id like '${id}%'`)).toEqual([])
    await pass(20 * MINUTE)
    expect((await claimDeliveries(store)).map(({ endpointId }) => endpointId)).toEqual([other.id])
  })

  test('an endpoint with more open deliveries than one commit cancels is deleted at once, and receives nothing more', async () => {
    const { store, sql } = current()
    const clientId = await addClient(store)
    const id = await addEndpoint(store, { clientId })
    await owe(clientId, 1)
    const [{ columns }] = (await sql<{ columns: string }>(COLUMNS[current().engine])) as [{ columns: string }]
    await sql(`insert into deliveries (id, ${columns}) select 'delivery_' || n.n, ${columns} from deliveries,
      (with recursive n(n) as (select 1 union all select n + 1 from n where n < 10500) select n from n) n`)
    expect(await store.endpoints.remove({ id, clientId })).toBe(true)
    const states = async () =>
      Object.fromEntries(
        (await sql<{ state: string; n: number | string }>(`select state, count(*) as n from deliveries group by state`)).map((row) => [
          row.state,
          Number(row.n),
        ]),
      )
    expect(await states()).toEqual({ canceled: 10_000, pending: 501 })
    for (let claims = 0; claims < 6; claims++) expect(await claimDeliveries(store)).toEqual([])
    expect(await states()).toEqual({ canceled: 10_501 })
  })
}

const COLUMNS = {
  sqlite: `select group_concat(name, ', ') as columns from pragma_table_info('deliveries') where name <> 'id'`,
  postgres: `select string_agg(column_name, ', ') as columns from information_schema.columns where table_name = 'deliveries' and column_name <> 'id'`,
} as const
