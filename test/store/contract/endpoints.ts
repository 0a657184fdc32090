/** Endpoints, clients and keys: changes by revision, and deletion with everything they own. */
import { expect, test } from 'vitest'
import {
  addClient,
  addEndpoint,
  addTask,
  addTasks,
  claimDeliveries,
  claimOne,
  claimTasks,
  completed,
  delivered,
  MANY,
  newEndpoint,
  undeliverable,
  undelivered,
} from '../../support/work.ts'
import type { Current } from './suite.ts'

export function endpoints(current: Current): void {
  const owe = async (clientId: string, count: number): Promise<void> => {
    const { store } = current()
    await addTasks(store, count, { clientId })
    const tasks = await claimTasks(store)
    await Promise.all(tasks.map((task) => store.tasks.settle(completed(task))))
  }

  test('an endpoint changes under the revision it was read at, and no other', async () => {
    const { store } = current()
    const clientId = await addClient(store)
    const id = await addEndpoint(store, { clientId, headers: 'sealed', maxPerMinute: 60 })
    expect(await store.endpoints.change({ id, clientId, patch: { description: 'one' }, revision: 1 })).toMatchObject({
      kind: 'changed',
      value: { description: 'one', revision: 2, headers: 'sealed', maxPerMinute: 60 },
    })
    expect(await store.endpoints.change({ id, clientId, patch: { description: 'two' }, revision: 1 })).toEqual({ kind: 'stale' })
    expect(await store.endpoints.change({ id, clientId, patch: { headers: null, maxPerMinute: null }, revision: null })).toMatchObject({
      kind: 'changed',
      value: { revision: 3, headers: null, maxPerMinute: null, description: 'one' },
    })
    expect(await store.endpoints.change({ id, clientId: await addClient(store), patch: { description: 'x' }, revision: null })).toEqual({
      kind: 'missing',
    })
    const rivals = await Promise.all(
      [3, 3, 3].map((revision) => store.endpoints.change({ id, clientId, patch: { description: 'three' }, revision })),
    )
    expect(rivals.filter(({ kind }) => kind === 'changed')).toHaveLength(1)
  })

  test('a client has one endpoint for each URL until that endpoint is deleted', async () => {
    const { store } = current()
    const clientId = await addClient(store)
    const url = 'https://receiver.example/hook'
    const id = await addEndpoint(store, { clientId, url })
    expect(await store.endpoints.add({ endpoint: newEndpoint({ clientId, url }), max: MANY })).toEqual({ kind: 'duplicate' })
    expect(
      (await store.endpoints.add({ endpoint: newEndpoint({ clientId: await addClient(store), url }), max: MANY })).kind,
      'of another client',
    ).toBe('added')
    const other = await addEndpoint(store, { clientId })
    expect(await store.endpoints.change({ id: other, clientId, patch: { url }, revision: null })).toEqual({ kind: 'duplicate' })
    await store.endpoints.remove({ id, clientId })
    expect(await store.endpoints.change({ id: other, clientId, patch: { url }, revision: null })).toMatchObject({
      kind: 'changed',
      value: { url },
    })
  })

  test('concurrent additions of endpoints on two nodes stop at the limit of the client, and each deletion allows one more', async () => {
    const { store, anotherNode } = current()
    const nodes = [store, await anotherNode()]
    const clientId = await addClient(store)
    const add = (i: number) => nodes[i % 2]!.endpoints.add({ endpoint: newEndpoint({ clientId }), max: 5 })
    const answers = await Promise.all(Array.from({ length: 16 }, (_, i) => add(i)))
    expect(answers.filter(({ kind }) => kind === 'added')).toHaveLength(5)
    expect(answers.filter(({ kind }) => kind === 'full')).toHaveLength(11)
    const { items } = await store.endpoints.list(clientId, 100, null)
    expect(items).toHaveLength(5)
    await store.endpoints.remove({ id: items[0]!.id, clientId })
    expect([(await add(0)).kind, (await add(1)).kind]).toEqual(['added', 'full'])
    await addEndpoint(store, { clientId: await addClient(store) })
  })

  test('different spellings of a URL are one URL, also for two concurrent registrations', async () => {
    const { store } = current()
    const clientId = await addClient(store)
    const id = await addEndpoint(store, { clientId, url: 'https://receiver.example/hook' })
    const spellings = ['HTTPS://Receiver.EXAMPLE:443/hook', 'https://receiver.example./hook', 'https://receiver.example/a/../%68ook']
    for (const url of spellings)
      expect(await store.endpoints.add({ endpoint: newEndpoint({ clientId, url }), max: MANY }), url).toEqual({ kind: 'duplicate' })
    expect(await store.endpoints.change({ id, clientId, patch: { url: spellings[0]! }, revision: null }), 'its own').toMatchObject({
      kind: 'changed',
    })
    const other = await addEndpoint(store, { clientId })
    expect(await store.endpoints.change({ id: other, clientId, patch: { url: spellings[1]! }, revision: null })).toEqual({
      kind: 'duplicate',
    })
    const rivals = ['https://b.example', 'https://b.example/', 'https://b.example:443', 'https://B.example/./']
    const made = await Promise.all(rivals.map((url) => store.endpoints.add({ endpoint: newEndpoint({ clientId, url }), max: MANY })))
    expect(made.filter(({ kind }) => kind === 'added')).toHaveLength(1)
  })

  test('a delivery whose commit did not see that its endpoint was deleted or its event erased is canceled, not sent', async () => {
    const { store, sql } = current()
    const clientId = await addClient(store)
    const id = await addEndpoint(store, { clientId })
    await owe(clientId, 2)
    // As if the deletion had committed before the deliveries did.
    await sql(`update endpoints set deleted_at = 1 where id = '${id}'`)
    await sql(`delete from lanes where id = '${id}'`)
    expect(await claimDeliveries(store)).toEqual([])
    const gone = { state: 'canceled', canceledReason: 'endpointDeleted', tries: 0, leasedBy: null }
    expect((await store.deliveries.list({ clientId, limit: 10, after: null })).items).toMatchObject([gone, gone])

    const left = await addEndpoint(store, { clientId })
    await owe(clientId, 1)
    const [sending] = await claimDeliveries(store)
    await sql(`update endpoints set deleted_at = 1 where id = '${left}'`)
    const settled = await store.deliveries.settle(undelivered(sending!))
    expect(settled, 'a delivery in flight is not retried').toMatchObject({ kind: 'settled', value: { ...gone, tries: 1 } })
    expect(await store.deliveries.listAttempts([sending!.id])).toHaveLength(1)

    await addEndpoint(store, { clientId })
    await owe(clientId, 1)
    await sql(`update events set body = ''`)
    expect(await claimDeliveries(store)).toEqual([])
    expect((await store.deliveries.list({ clientId, limit: 1, after: null })).items).toMatchObject([
      { state: 'canceled', canceledReason: 'taskDeleted' },
    ])
  })

  test('deleting an endpoint cancels its open deliveries, also those in flight, with a reason', async () => {
    const { store, pass, sql } = current()
    const clientId = await addClient(store)
    const id = await addEndpoint(store, { clientId, maxInFlight: 1 })
    const other = await addEndpoint(store, { clientId })
    await owe(clientId, 3)
    const claimed = await claimDeliveries(store)
    const sending = claimed.find((delivery) => delivery.endpointId === id)!
    await store.deliveries.settle(delivered(sending))
    const [next] = (await claimDeliveries(store)).filter((delivery) => delivery.endpointId === id)
    expect(await store.endpoints.remove({ id, clientId: await addClient(store) })).toBe(false)
    expect(await store.endpoints.remove({ id, clientId })).toBe(true)
    expect(await store.endpoints.remove({ id, clientId })).toBe(false)
    expect(await store.endpoints.find(id, clientId)).toBeNull()

    const { items } = await store.deliveries.list({ clientId, endpointId: id, limit: 10, after: null })
    expect(items.map(({ state, canceledReason }) => [state, canceledReason]).sort()).toEqual([
      ['canceled', 'endpointDeleted'],
      ['canceled', 'endpointDeleted'],
      ['completed', null],
    ])
    expect(await store.deliveries.settle(undelivered(next!)), 'a late answer does not bring it back').toEqual({ kind: 'stale' })
    expect(await store.deliveries.listAttempts([next!.id]), 'the request did happen').toHaveLength(1)
    expect(await store.deliveries.redeliver({ id: next!.id, newId: 'delivery_again', clientId }), 'nothing is sent to it again').toBeNull()
    const ping = { endpointId: 'endpoint_unknown', clientId, eventId: 'event_ping', deliveryId: 'delivery_ping' }
    expect(await store.endpoints.addPing({ ping })).toBeNull()
    await pass(60_000)
    expect((await claimDeliveries(store)).every((delivery) => delivery.endpointId === other)).toBe(true)
    expect(await sql(`select 1 as one from turns where lane_id = '${id}'`)).toEqual([])
  })

  test('an erased task is gone for seven days; its event bodies are erased and its open deliveries canceled', async () => {
    const { store, pass } = current()
    const clientId = await addClient(store)
    const endpointId = await addEndpoint(store, { clientId, payload: 'thin', maxInFlight: 1 })
    const { id } = await addTask(store, { clientId, metadata: '{"order":"7"}' })
    expect((await store.tasks.erase({ id, clientId })).kind, 'not while it is open').toBe('refused')
    await store.tasks.settle(completed(await claimOne(store)))
    const [sending] = await claimDeliveries(store)
    expect((await store.tasks.erase({ id, clientId: await addClient(store) })).kind).toBe('missing')
    expect((await store.tasks.erase({ id, clientId })).kind).toBe('changed')

    expect(await store.tasks.find(id, clientId)).toEqual({ kind: 'gone' })
    expect(await store.tasks.find(id, await addClient(store)), 'to another client it never was').toEqual({ kind: 'missing' })
    expect((await store.tasks.erase({ id, clientId })).kind).toBe('gone')
    expect((await store.tasks.cancel({ id, clientId })).kind).toBe('gone')
    expect((await store.tasks.redo({ id, clientId })).kind).toBe('gone')
    expect(await store.events.list({ clientId, after: 0, limit: 10 })).toEqual([])
    expect(
      (await store.tasks.list({ clientId, order: 'asc', limit: 10, after: null, metadata: { key: 'order', value: '7' } })).items,
    ).toEqual([])
    expect(await store.deliveries.find(sending!.id, clientId)).toMatchObject({ state: 'canceled', canceledReason: 'taskDeleted', body: '' })
    expect(await store.deliveries.settle(undelivered(sending!))).toEqual({ kind: 'stale' })
    expect(await store.deliveries.redeliver({ id: sending!.id, newId: 'delivery_again', clientId }), 'its bytes are gone').toBeNull()

    await owe(clientId, 1)
    expect(
      (await claimDeliveries(store)).map((delivery) => delivery.endpointId),
      'its slot is free again',
    ).toEqual([endpointId])
    await pass(7 * 86_400_000 + 1)
    expect(await store.tasks.find(id, clientId)).toEqual({ kind: 'missing' })
  })

  test('an endpoint fails since its first failure, recovers at a success, and is disabled once with an event in the feed', async () => {
    const { store, pass } = current()
    const clientId = await addClient(store)
    const id = await addEndpoint(store, { clientId })
    const endpoint = async () => (await store.endpoints.find(id, clientId))!
    await owe(clientId, 4)
    const [first, second, third, fourth] = await claimDeliveries(store)
    await store.deliveries.settle(undelivered(first!, 60_000))
    const { failingSince } = await endpoint()
    expect(failingSince).not.toBeNull()
    await pass(5_000)
    await store.deliveries.settle(undelivered(second!, 60_000))
    expect((await endpoint()).failingSince, 'since the first').toBeLessThanOrEqual(failingSince!)
    await store.deliveries.settle(delivered(third!))
    expect(await endpoint()).toMatchObject({ failingSince: null, disabledAt: null, revision: 1 })
    expect((await endpoint()).lastSuccessAt).not.toBeNull()

    await store.deliveries.settle(undeliverable(fourth!, { disable: 'gone' }))
    expect(await endpoint()).toMatchObject({ disabledReason: 'gone', revision: 2 })
    await pass(60_000)
    expect(await claimDeliveries(store), 'held while disabled').toEqual([])
    const feed = await store.events.list({ clientId, types: ['endpoint.disabled'], after: 0, limit: 10 })
    expect(feed).toMatchObject([{ type: 'endpoint.disabled', endpointId: id, taskId: null }])
    expect(JSON.parse(feed[0]!.body).data).toMatchObject({ endpointId: id, reason: 'gone', failingSince: expect.any(String) })
    await store.endpoints.change({ id, clientId, patch: { disabled: false }, revision: null })
    expect(await claimDeliveries(store), 'sent when enabled again').toHaveLength(2)
  })

  test('keys are found by their hash with the status of their client, and stop working when revoked', async () => {
    const { store } = current()
    const clientId = await addClient(store)
    const key = { id: 'key_1', clientId, name: 'ci', hash: 'h1', hint: 'abcd', scopes: '["tasks:read"]', taskTypes: null, expiresAt: null }
    expect(await store.access.addKey({ key, max: 9 })).toMatchObject({ kind: 'added', value: key })
    expect(await store.access.addKey({ key: { ...key, id: 'key_2', hash: 'h2', clientId: 'client_unknown' }, max: 9 })).toEqual({
      kind: 'missing',
    })
    const operator = { ...key, id: 'key_3', hash: 'h3', clientId: null, scopes: '["admin"]' }
    await store.access.addKey({ key: operator, max: 9 })
    expect(await store.access.findKey('h1')).toMatchObject({ ...key, clientStatus: 'active', revokedAt: null })
    expect(await store.access.findKey('h3')).toMatchObject({ clientId: null, clientStatus: null })
    expect(await store.access.findKey('unknown')).toBeNull()
    expect(await store.access.listKeys(clientId)).toHaveLength(1)
    expect(await store.access.listKeys(null)).toMatchObject([{ id: 'key_3' }])
    await store.access.changeClient({ id: clientId, status: 'suspended' })
    expect(await store.access.findKey('h1')).toMatchObject({ clientStatus: 'suspended' })
    expect(await store.access.revokeKey({ id: 'key_1', clientId: null }), 'not the operator’s').toBeNull()
    const revoked = await store.access.revokeKey({ id: 'key_1', clientId })
    expect(revoked?.revokedAt).not.toBeNull()
    expect(await store.access.revokeKey({ id: 'key_1', clientId })).toEqual(revoked)
    await store.access.removeClient({ id: clientId })
    expect(await store.access.findClient(clientId)).toBeNull()
    expect(await store.access.changeClient({ id: clientId, status: 'active' })).toBeNull()
    expect((await store.access.listClients(10, null)).items).toEqual([])
  })

  test('nodes that start concurrently agree on one signing key of each kind and on one value of a setting', async () => {
    const ground = current()
    const nodes = [ground.store, await ground.anotherNode(), await ground.anotherNode()]
    const made = (node: number) =>
      (['active', 'next'] as const).map((state) => ({
        id: `${state}-${node}`,
        state,
        alg: 'ES256' as const,
        publicJwk: '{}',
        privateJwk: 'sealed',
        createdAt: node,
        publishedAt: node,
        activatedAt: null,
        retiredAt: null,
        wantedAt: null,
      }))
    const seen = await Promise.all(nodes.map((node, i) => node.signing.addKeys({ keys: made(i) })))
    expect(seen[0]!.map((key) => key.state).sort()).toEqual(['active', 'next'])
    for (const keys of seen) expect(keys).toEqual(await ground.store.signing.listKeys())
    const values = await Promise.all(nodes.map((node, i) => node.signing.putSettingIfAbsent({ name: 'canary', value: `value ${i}` })))
    expect(new Set(values).size).toBe(1)
  })
}
