import { expect, test } from 'vitest'
import { generateApiKey } from '../../../src/core/api-key.ts'
import { systemClock } from '../../../src/core/clock.ts'
import type { ApiKey, Author } from '../../../src/core/model.ts'
import { createAuthenticator } from '../../../src/http/request/auth.ts'
import type { AddKeyResult, KeyRotation, NewKey, Store } from '../../../src/store/interfaces.ts'
import { manualClock } from '../../support/manual-clock.ts'
import { addClient, addEndpoint, added, addTask, addTasks, claimOne, idOf, MANY, newEndpoint } from '../../support/work.ts'
import type { Current } from './suite.ts'

const clock = systemClock()
const by: Author = { actor: 'key_operator', requestId: 'request_1', remoteAddress: '192.0.2.7' }
const MINUTE = 60_000
const DAY = 86_400_000

/** The new key; null: none was added. */
const keyIn = (result: AddKeyResult): ApiKey | null => (result.kind === 'added' ? result.value : null)
const storeKey = async (store: Store, key: NewKey) => keyIn(await store.access.addKey({ key, max: 1_000 }))
const rotateKey = async (store: Store, rotation: Omit<KeyRotation, 'max'> & { by?: Author }) =>
  keyIn(await store.access.rotateKey({ max: 1_000, ...rotation }))

async function addKey(store: Store, clientId: string | null, given: Partial<NewKey> = {}) {
  const { key, hash, hint } = generateApiKey(clock)
  const wanted: NewKey = {
    id: idOf('key'),
    clientId,
    name: 'ci',
    hash,
    hint,
    scopes: '["tasks:read"]',
    taskTypes: null,
    expiresAt: null,
    ...given,
  }
  return { key, row: (await storeKey(store, wanted))! }
}
async function addSchedule(store: Store, clientId: string) {
  const template = JSON.stringify({
    input: '{}',
    metadata: '{}',
    callback: '{}',
    timeoutSeconds: null,
    maxTries: null,
    priority: 0,
    concurrencyKey: null,
  })
  const id = idOf('schedule')
  const rest = {
    type: 'report.build',
    cron: '@daily',
    timezone: 'UTC',
    catchUp: 'one',
    template,
    nextAt: 9_000_000_000_000,
    paused: false,
  } as const
  return added(await store.schedules.add({ schedule: { id, clientId, ...rest }, max: MANY }))
}

/** A client with one of everything. */
async function addOwner(store: Store) {
  const clientId = await addClient(store)
  const endpointId = await addEndpoint(store, { clientId })
  const running = await addTask(store, { clientId })
  await claimOne(store)
  const pending = await addTask(store, { clientId, metadata: '{"order":"A-1"}' })
  const canceled = await addTask(store, { clientId })
  await store.tasks.cancel({ id: canceled.id, clientId })
  const delivery = (await store.deliveries.list({ clientId, limit: 1, after: null })).items[0]!
  const { row: key } = await addKey(store, clientId)
  const schedule = await addSchedule(store, clientId)
  return { clientId, endpointId, running, pending, canceled, delivery, key, schedule }
}

export function access(current: Current): void {
  test('every operation with an object and a client treats another client’s object as one that does not exist', async () => {
    const { store, sql } = current()
    const { endpointId, pending, canceled, delivery, key, schedule } = await addOwner(store)
    const other = await addClient(store)
    const tables = ['tasks', 'endpoints', 'deliveries', 'schedules', 'keys', 'events', 'audit_log']
    const everything = async () => {
      const rows: unknown[] = []
      for (const table of tables) rows.push(...(await sql(`select * from ${table} order by id`)))
      return rows
    }
    const before = await everything()
    const missing = { kind: 'missing' }
    expect(await store.tasks.find(pending.id, other)).toEqual(missing)
    expect(await store.tasks.cancel({ id: pending.id, clientId: other, by })).toEqual(missing)
    expect(await store.tasks.redo({ id: canceled.id, clientId: other, by })).toEqual(missing)
    expect(await store.tasks.erase({ id: canceled.id, clientId: other, by })).toEqual(missing)
    expect(await store.deliveries.find(delivery.id, other)).toBeNull()
    expect(await store.deliveries.redeliver({ id: delivery.id, newId: idOf('delivery'), clientId: other, by })).toBeNull()
    expect(await store.endpoints.find(endpointId, other)).toBeNull()
    expect(await store.endpoints.change({ id: endpointId, clientId: other, patch: { paused: true }, revision: null, by })).toEqual(missing)
    expect(await store.endpoints.remove({ id: endpointId, clientId: other, by })).toBe(false)
    expect(
      await store.endpoints.addPing({ ping: { endpointId, clientId: other, eventId: idOf('event'), deliveryId: idOf('delivery') }, by }),
    ).toBeNull()
    expect(await store.schedules.find(schedule.id, other)).toBeNull()
    expect(await store.schedules.change({ id: schedule.id, clientId: other, patch: { paused: true }, seen: schedule, by })).toEqual(missing)
    expect(await store.schedules.remove({ id: schedule.id, clientId: other, by })).toBe(false)
    expect(await store.events.findSeq(delivery.eventId, other)).toBeNull()
    for (const owner of [other, null]) {
      expect(await store.access.revokeKey({ id: key.id, clientId: owner, by })).toBeNull()
      expect(
        await rotateKey(store, { id: key.id, clientId: owner, fresh: { id: idOf('key'), hash: 'h', hint: '' }, overlapMs: 0, by }),
      ).toBeNull()
    }
    for (const page of [
      await store.tasks.list({ clientId: other, order: 'asc', limit: 9, after: null }),
      await store.deliveries.list({ clientId: other, endpointId, limit: 9, after: null }),
      await store.deliveries.list({ clientId: other, taskId: canceled.id, limit: 9, after: null }),
      await store.endpoints.list(other, 9, null),
      await store.schedules.list(other, 9, null),
    ])
      expect(page.items).toEqual([])
    expect(await store.events.list({ clientId: other, taskId: canceled.id, after: 0, limit: 9 })).toEqual([])
    expect(await store.access.listKeys(other)).toEqual([])
    expect(await everything()).toEqual(before)
  })

  test('an operation and its audit log entry are one commit: neither exists without the other', async () => {
    const { store, sql } = current()
    const id = idOf('client')
    await sql('alter table audit_log rename to away')
    await expect(store.access.addClient({ client: { id, name: 'A' }, by })).rejects.toThrow()
    await sql('alter table away rename to audit_log')
    expect(await store.access.findClient(id)).toBeNull()
    await store.access.addClient({ client: { id, name: 'A' }, by })
    const { items } = await store.access.listAuditLog({ limit: 9, after: null })
    const at = items[0]!.at
    expect(Math.abs(at - (await store.now()))).toBeLessThan(MINUTE)
    const entry = {
      ...by,
      id: expect.stringMatching(/^audit_/),
      at,
      action: 'client.create',
      target: id,
      clientId: id,
      details: '{"name":"A"}',
    }
    expect(items).toEqual([entry])
    await store.access.changeClient({ id: 'client_unknown', status: 'suspended', by })
    await store.access.removeClient({ id: 'client_unknown', by })
    expect((await store.access.listAuditLog({ limit: 9, after: null })).items).toHaveLength(1)
  })

  test('the audit log records who changed what: tasks only by the operator, endpoints by everybody, and never a secret', async () => {
    const { store } = current()
    const { clientId, pending, canceled, delivery, key, schedule, endpointId } = await addOwner(store)
    await store.tasks.cancel({ id: pending.id, clientId, by })
    await store.tasks.redo({ id: pending.id, clientId, by })
    await store.schedules.remove({ id: (await addSchedule(store, clientId)).id, clientId, by })
    expect((await store.access.listAuditLog({ limit: 9, after: null })).items).toEqual([])
    await store.tasks.cancel({ id: pending.id, clientId: null, by })
    await store.tasks.cancel({ id: pending.id, clientId: null, by })
    await store.tasks.redo({ id: canceled.id, clientId: null, by })
    await store.deliveries.redeliver({ id: delivery.id, newId: idOf('delivery'), clientId: null, by })
    await store.schedules.change({ id: schedule.id, clientId: null, patch: { paused: true }, seen: schedule, by })
    const url = 'https://hooks.example/services/T0/token-in-the-path'
    const made = added(await store.endpoints.add({ endpoint: newEndpoint({ clientId, url, secret: 'sealed-secret' }), max: MANY, by }))
    await store.endpoints.add({ endpoint: newEndpoint({ clientId, url }), max: MANY, by })
    await store.endpoints.change({ id: endpointId, clientId, patch: { secret: 'sealed-secret', secretHint: 'x' }, revision: null, by })
    await store.endpoints.change({ id: endpointId, clientId, patch: { paused: true }, revision: null, by })
    await store.endpoints.change({ id: endpointId, clientId, patch: { paused: false }, revision: null, by })
    await store.endpoints.change({
      id: endpointId,
      clientId,
      patch: { url: 'https://elsewhere.example/x?token=1', headers: 'sealed-secret' },
      revision: null,
      by,
    })
    await store.endpoints.remove({ id: made.id, clientId, by })
    await store.access.revokeKey({ id: key.id, clientId, by })
    await store.schedules.pauseTaskType({ type: 'report.build', paused: true, by })
    await store.signing.requestRotation({ by })
    const { items } = await store.access.listAuditLog({ limit: 50, after: null })
    expect(items.toReversed().map(({ action, target, clientId }) => [action, target, clientId])).toEqual([
      ['task.cancel', pending.id, clientId],
      ['task.retry', canceled.id, clientId],
      ['delivery.redeliver', delivery.id, clientId],
      ['schedule.change', schedule.id, clientId],
      ['endpoint.create', made.id, clientId],
      ['endpoint.rotateSecret', endpointId, clientId],
      ['endpoint.pause', endpointId, clientId],
      ['endpoint.resume', endpointId, clientId],
      ['endpoint.change', endpointId, clientId],
      ['endpoint.delete', made.id, clientId],
      ['key.revoke', key.id, clientId],
      ['taskType.pause', 'report.build', null],
      ['signingKey.rotate', null, null],
    ])
    expect(JSON.stringify(items)).not.toMatch(/sealed|token|"h1"/)
    expect(items.find(({ action }) => action === 'endpoint.change')!.details).toBe(
      '{"origin":"https://elsewhere.example","members":["url","headers"]}',
    )
  })

  test('the audit log is read page by page, by client, actor, action and time, and old entries are pruned', async () => {
    const ground = current()
    const { store } = ground
    for (const name of ['a', 'b', 'c']) await store.access.addClient({ client: { id: idOf('client'), name }, by })
    await ground.pass(DAY)
    const middle = await store.now()
    const clientId = await addClient(store)
    await store.access.changeClient({ id: clientId, status: 'suspended', by: { ...by, actor: 'cli' } })
    await store.access.changeClient({ id: clientId, status: 'active', by })
    const names = async (query: Partial<Parameters<Store['access']['listAuditLog']>[0]>) =>
      (await store.access.listAuditLog({ limit: 50, after: null, ...query })).items.map(
        ({ action, details }) => `${action} ${JSON.parse(details).name}`,
      )
    expect(await names({ clientId })).toEqual(['client.resume Client', 'client.suspend Client'])
    expect(await names({ actor: 'cli' })).toEqual(['client.suspend Client'])
    expect(await names({ action: 'client.create' })).toEqual(['client.create c', 'client.create b', 'client.create a'])
    // On PostgreSQL the test shifts times in the rows. The ids, which contain their creation time, stay.
    if (ground.engine === 'sqlite') {
      expect(await names({ since: middle })).toEqual(['client.resume Client', 'client.suspend Client'])
      expect(await names({ until: middle, actor: by.actor })).toHaveLength(3)
    }
    const seen: string[] = []
    for (let after = null as Parameters<Store['access']['listAuditLog']>[0]['after'], pages = 0; pages < 9; pages++) {
      const page = await store.access.listAuditLog({ actor: by.actor, limit: 3, after })
      seen.push(...page.items.map(({ id }) => id))
      after = page.next
      if (after === null) break
    }
    expect(seen).toHaveLength(4)
    expect(seen).toEqual(seen.toSorted().reverse())
    expect(await store.maintenance.pruneAuditLog({ limit: 2, keptMs: 400 * DAY })).toBe(0)
    expect(
      await store.maintenance.pruneAuditLog({ limit: 4, keptMs: -MINUTE }),
      'everything is older than a moment that is still to come',
    ).toBe(4)
    expect(await store.maintenance.pruneAuditLog({ limit: 4, keptMs: -MINUTE })).toBe(1)
  })

  test('a rotated key works for the overlap beside a new key with the same permissions and lifetime; an ended key is not rotated', async () => {
    const ground = current()
    const { store } = ground
    const clientId = await addClient(store)
    const { row: old } = await addKey(store, clientId, {
      name: 'deploy',
      scopes: '["tasks:write"]',
      expiresAt: (await store.now()) + 30 * DAY,
    })
    const fresh = { id: idOf('key'), hash: 'fresh', hint: '…abcd' }
    const made = (await rotateKey(store, { id: old.id, clientId, fresh, overlapMs: 10 * MINUTE, by }))!
    expect(made).toMatchObject({ ...fresh, clientId, name: 'deploy', scopes: '["tasks:write"]', revokedAt: null })
    expect(made.expiresAt! - made.createdAt).toBe(old.expiresAt! - old.createdAt)
    const ends = (await store.access.findKey(old.hash))!.expiresAt!
    expect(Math.abs(ends - made.createdAt - 10 * MINUTE)).toBeLessThan(MINUTE)
    expect((await store.access.listAuditLog({ limit: 1, after: null })).items[0]).toMatchObject({
      action: 'key.rotate',
      target: made.id,
      clientId,
    })
    // A longer overlap does not extend the lifetime.
    await rotateKey(store, { id: old.id, clientId, fresh: { ...fresh, id: idOf('key'), hash: 'second' }, overlapMs: 60 * MINUTE })
    expect((await store.access.findKey(old.hash))!.expiresAt).toBe(ends)
    await ground.pass(11 * MINUTE)
    expect(
      await rotateKey(store, { id: old.id, clientId, fresh: { ...fresh, id: idOf('key'), hash: 'late' }, overlapMs: MINUTE }),
    ).toBeNull()
    await store.access.revokeKey({ id: made.id, clientId })
    expect(
      await rotateKey(store, { id: made.id, clientId, fresh: { ...fresh, id: idOf('key'), hash: 'late' }, overlapMs: MINUTE }),
    ).toBeNull()
    const { row: lasting } = await addKey(store, null, { scopes: '["worker"]', taskTypes: '["image.resize"]' })
    const next = (await rotateKey(store, {
      id: lasting.id,
      clientId: null,
      fresh: { ...fresh, id: idOf('key'), hash: 'third' },
      overlapMs: 0,
    }))!
    expect(next).toMatchObject({ expiresAt: null, taskTypes: '["image.resize"]' })
  })

  test('an ended key is listed for a while and then pruned; an active key is never pruned', async () => {
    const ground = current()
    const { store } = ground
    const clientId = await addClient(store)
    const lasting = await addKey(store, clientId)
    const revoked = await addKey(store, clientId)
    await addKey(store, clientId, { expiresAt: (await store.now()) + MINUTE })
    await store.access.revokeKey({ id: revoked.row.id, clientId })
    await ground.pass(DAY)
    expect(await store.maintenance.pruneKeys({ limit: 9, keptMs: 2 * DAY })).toBe(0)
    expect(await store.maintenance.pruneKeys({ limit: 9, keptMs: DAY / 2 })).toBe(2)
    expect((await store.access.listKeys(clientId)).map(({ id }) => id)).toEqual([lasting.row.id])
  })

  test('the last use of a key is written at most once a minute, for many keys in one commit', async () => {
    const ground = current()
    const { store } = ground
    const clientId = await addClient(store)
    const keys = await Promise.all([addKey(store, clientId), addKey(store, clientId), addKey(store, null)])
    await Promise.all([...keys, ...keys].map(({ row }) => store.access.touchKey({ id: row.id })))
    const used = async () => Promise.all(keys.map(async ({ row }) => (await store.access.findKey(row.hash))!.lastUsedAt))
    const first = await used()
    for (const at of first) expect(Math.abs(at! - (await store.now()))).toBeLessThan(MINUTE)
    await ground.pass(MINUTE / 2)
    const soon = await used()
    await store.access.touchKey({ id: keys[0]!.row.id })
    expect(await used()).toEqual(soon)
    await ground.pass(MINUTE)
    const before = await used()
    await store.access.touchKey({ id: keys[0]!.row.id })
    const after = await used()
    expect(after.slice(1)).toEqual(before.slice(1))
    expect(after[0]!).toBeGreaterThan(before[0]!)
  })

  test('concurrent additions and rotations of keys never exceed the client’s limit of active keys', async () => {
    const { store } = current()
    const clientId = await addClient(store)
    const wanted = () => ({
      id: idOf('key'),
      clientId,
      name: '',
      hash: idOf('key'),
      hint: '',
      scopes: '[]',
      taskTypes: null,
      expiresAt: null,
    })
    const made = await Promise.all(Array.from({ length: 20 }, () => store.access.addKey({ key: wanted(), max: 5 })))
    expect(made.filter(({ kind }) => kind === 'added')).toHaveLength(5)
    expect(made.filter(({ kind }) => kind !== 'added')).toEqual(Array(15).fill({ kind: 'full', active: 5 }))
    expect(await store.access.listKeys(clientId)).toHaveLength(5)
    const [first, ...rest] = made.flatMap((result) => (result.kind === 'added' ? [result.value] : []))
    const fresh = () => ({ id: idOf('key'), hash: idOf('key'), hint: '' })
    const rotate = (id: string, overlapMs: number) => store.access.rotateKey({ id, clientId, fresh: fresh(), overlapMs, max: 5 })
    expect(await rotate(first!.id, DAY), 'both keys would be active').toEqual({ kind: 'full', active: 5 })
    expect(await rotate(first!.id, 0), 'the old one ends at once').toMatchObject({ kind: 'added' })
    await store.access.revokeKey({ id: rest[0]!.id, clientId })
    const rotated = await Promise.all(rest.slice(1).map(({ id }) => rotate(id, DAY)))
    expect(rotated.map(({ kind }) => kind).sort()).toEqual(['added', 'full', 'full'])
  })

  test('a key revoked on one node stops on the other when notified, and within 5 s without the notification', async () => {
    const ground = current()
    const [here, there] = [ground.store, await ground.anotherNode()]
    const time = manualClock(await here.now())
    const unnotified = { access: there.access, notifications: { onAccess: () => () => {} } }
    const [notifiedGate, cachedGate] = [there, unnotified].map((store) =>
      createAuthenticator({ store, clock: time, adminToken: null }),
    ) as [Gate, Gate]
    type Gate = ReturnType<typeof createAuthenticator>
    const known = async (gate: Gate, key: string): Promise<string> => {
      try {
        return (await gate.authenticate({ header: () => `Bearer ${key}`, address: null }, time.now())).suspended ? 'suspended' : 'known'
      } catch {
        return 'unknown'
      }
    }
    const clientId = await addClient(here)
    const ends: [string, (id: string) => Promise<unknown>][] = [
      ['suspended', () => here.access.changeClient({ id: clientId, status: 'suspended' })],
      ['known', () => here.access.changeClient({ id: clientId, status: 'active' })],
      ['unknown', (id) => here.access.revokeKey({ id, clientId })],
      ['known', (id) => rotateKey(here, { id, clientId, fresh: { id: idOf('key'), hash: id, hint: '' }, overlapMs: DAY })],
      ['unknown', () => here.access.removeClient({ id: clientId })],
    ]
    for (const [then, end] of ends) {
      const { key, row } = await addKey(here, clientId)
      const before = await known(notifiedGate, key)
      expect(await known(cachedGate, key)).toBe(before)
      await end(row.id)
      await expect.poll(() => known(notifiedGate, key)).toBe(then)
      time.advance(4_999)
      expect(await known(cachedGate, key), 'cached').toBe(before)
      time.advance(1)
      expect(await known(cachedGate, key)).toBe(then)
    }
  })

  test('one commit stops a deleted client: its keys and schedules are removed, its deliveries and tasks canceled, each with its event', async () => {
    const { store, sql } = current()
    const { clientId, key, pending, running, delivery, schedule } = await addOwner(store)
    const other = await addOwner(store)
    const asked: string[] = []
    store.notifications.onCancelRequest((id) => void asked.push(id))
    expect(await store.access.removeClient({ id: clientId, by })).toMatchObject({ id: clientId })
    expect(await store.access.findKey(key.hash)).toBeNull()
    expect(await store.access.listKeys(clientId)).toEqual([])
    expect(await store.schedules.find(schedule.id, null)).toBeNull()
    expect(await store.deliveries.find(delivery.id, null)).toMatchObject({ state: 'canceled', canceledReason: 'endpointDeleted' })
    expect(await store.tasks.find(pending.id, null)).toMatchObject({ value: { state: 'canceled' } })
    expect(await store.tasks.find(running.id, null)).toMatchObject({ value: { state: 'running', cancelRequestedAt: expect.any(Number) } })
    await expect.poll(() => asked).toEqual([running.id])
    const ends = await sql<{ task_id: string }>(`select task_id from events where type = 'task.canceled' and client_id = '${clientId}'`)
    expect(ends.map(({ task_id }) => task_id)).toContain(pending.id)
    expect(await store.access.removeClient({ id: clientId, by }), 'once').toBeNull()
    expect(await storeKey(store, { ...other.key, id: idOf('key'), hash: 'late', clientId })).toBeNull()
    expect(await store.access.findKey(other.key.hash)).not.toBeNull()
    expect(await store.deliveries.find(other.delivery.id, null)).toMatchObject({ state: 'pending' })
  })

  test('ended rows of a deleted client are erased page by page, no rows of other clients, and the audit log keeps its deletion', async () => {
    const { store, sql } = current()
    const { clientId, running } = await addOwner(store)
    const other = await addOwner(store)
    await addTasks(store, 100, { clientId, metadata: '{"a":"b"}', dueAt: 9_000_000_000_000 })
    const tables = ['tasks', 'endpoints', 'deliveries', 'events', 'labels', 'schedules', 'keys', 'idempotency']
    const rows = async (id: string) => {
      const counts: number[] = []
      for (const table of tables) {
        const [row] = await sql<{ n: number }>(`select count(*) as n from ${table} where client_id = '${id}'`)
        counts.push(Number(row!.n))
      }
      return counts
    }
    const untouched = await rows(other.clientId)
    await store.access.removeClient({ id: clientId, by })
    expect(await store.maintenance.findDeletedClient('')).toBe(clientId)
    let rest = ''
    for (let pages = 0; pages < 20 && rest !== 'open'; pages++) rest = await store.maintenance.eraseClient({ id: clientId, last: true })
    expect(rest, 'a task of the client is running').toBe('open')
    const [leftTasks] = await rows(clientId)
    expect(leftTasks).toBe(1)
    await store.tasks.settle({
      id: running.id,
      fence: running.fence + 1,
      outcome: { kind: 'fail', error: { code: 'x', message: 'x', details: null } },
    })
    for (let pages = 0; pages < 20 && rest !== 'nothing'; pages++) rest = await store.maintenance.eraseClient({ id: clientId, last: false })
    expect(rest).toBe('nothing')
    expect(await store.maintenance.findDeletedClient(''), 'a late request may still have written').toBe(clientId)
    expect(await store.maintenance.eraseClient({ id: clientId, last: true })).toBe('nothing')
    expect(await store.maintenance.findDeletedClient('')).toBeNull()
    expect(await rows(clientId)).toEqual(tables.map(() => 0))
    const attempts = await sql('select 1 from attempts where delivery_id not in (select id from deliveries)')
    expect(attempts).toEqual([])
    expect(await rows(other.clientId)).toEqual(untouched)
    const kept = await store.access.listAuditLog({ clientId, limit: 9, after: null })
    expect(kept.items.map(({ action, actor }) => [action, actor])).toEqual([
      ['client.erase', 'system'],
      ['client.delete', by.actor],
    ])
    expect(await sql(`select name, status from clients where id = '${clientId}'`)).toEqual([{ name: '', status: 'erased' }])
  })
}
