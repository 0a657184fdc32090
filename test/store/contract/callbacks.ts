/** Which endpoints are owed which events: fan-out, filters, and the bytes for each endpoint. */
import { expect, test } from 'vitest'
import type { Callback, Delivery } from '../../../src/core/model.ts'
import { RETRY_SCHEDULE } from '../../support/stores.ts'
import {
  addClient,
  addEndpoint,
  addTask,
  claimDeliveries,
  claimOne,
  claimTasks,
  completed,
  delivered,
  failed,
  undeliverable,
} from '../../support/work.ts'
import type { Current } from './suite.ts'

export function callbacks(current: Current): void {
  const owedFor = async (clientId: string): Promise<readonly Delivery[]> =>
    (await current().store.deliveries.list({ clientId, limit: 100, after: null })).items
  const complete = async (clientId: string, callback: Callback | null, type = 'report.build'): Promise<string> => {
    const { store } = current()
    const { id } = await addTask(store, { clientId, callback, type, metadata: '{"order":"7"}' })
    await store.tasks.settle(completed(await claimOne(store, {}, [type])))
    return id
  }

  test('a terminal event is owed to every subscribed endpoint in any status, and to no deleted one', async () => {
    const { store } = current()
    const clientId = await addClient(store)
    const active = await addEndpoint(store, { clientId })
    const paused = await addEndpoint(store, { clientId })
    const disabled = await addEndpoint(store, { clientId })
    const unverified = await addEndpoint(store, { clientId, verified: false })
    const deleted = await addEndpoint(store, { clientId })
    await addEndpoint(store, { clientId, events: '["task.failed"]' })
    await addEndpoint(store, { clientId: await addClient(store, 'Another') })
    await store.endpoints.change({ id: paused, clientId, patch: { paused: true }, revision: null })
    await store.endpoints.change({ id: disabled, clientId, patch: { disabled: 'failing' }, revision: null })
    await store.endpoints.remove({ id: deleted, clientId })
    await complete(clientId, {})
    const owed = await owedFor(clientId)
    expect(owed.map((delivery) => delivery.endpointId).sort()).toEqual([active, paused, disabled, unverified].sort())
    expect(new Set(owed.map((delivery) => delivery.eventId)).size).toBe(1)
    expect((await claimDeliveries(store)).map((delivery) => delivery.endpointId)).toEqual([active])
  })

  test('a task without callbacks owes no delivery and is in the feed', async () => {
    const { store } = current()
    const clientId = await addClient(store)
    await addEndpoint(store, { clientId })
    const id = await complete(clientId, null)
    expect(await owedFor(clientId)).toEqual([])
    expect(await store.events.list({ clientId, after: 0, limit: 10 })).toMatchObject([{ taskId: id, type: 'task.completed' }])
  })

  test('a callback may name its endpoint, a URL below it, its events and its retry schedule', async () => {
    const { store } = current()
    const clientId = await addClient(store)
    const named = await addEndpoint(store, { clientId, retrySchedule: '[1,2]', taskTypes: '["mail.send"]' })
    await addEndpoint(store, { clientId })
    await complete(clientId, { endpointId: named })
    expect(await owedFor(clientId), 'the task types of a named endpoint do not matter').toMatchObject([
      { endpointId: named, url: null, retrySchedule: '[1,2]', maxTries: 3 },
    ])

    const url = 'https://receiver.example/orders?id=7'
    await complete(clientId, { endpointId: named, url, retrySchedule: [9] })
    expect(await owedFor(clientId)).toContainEqual(expect.objectContaining({ endpointId: named, url, retrySchedule: '[9]', maxTries: 2 }))

    await complete(clientId, { events: ['task.failed'] })
    expect(await owedFor(clientId), 'narrowed to failures').toHaveLength(2)
    await addTask(store, { clientId, callback: { events: ['task.failed'] } })
    await store.tasks.settle(failed(await claimOne(store)))
    expect(await owedFor(clientId)).toHaveLength(3)
  })

  test('the delays before retries come from the task, otherwise the endpoint, otherwise the installation', async () => {
    const { store } = current()
    const clientId = await addClient(store)
    await addEndpoint(store, { clientId })
    await complete(clientId, {})
    expect(await owedFor(clientId)).toMatchObject([{ retrySchedule: null, maxTries: RETRY_SCHEDULE.length + 1 }])
  })

  test('an endpoint receives the task types it names; "*" excludes system types', async () => {
    const { store } = current()
    const clientId = await addClient(store)
    const every = await addEndpoint(store, { clientId, taskTypes: '["*"]' })
    const mails = await addEndpoint(store, { clientId, taskTypes: '["mail.send"]' })
    const system = await addEndpoint(store, { clientId, taskTypes: '["*","system.export"]' })
    const receivers = async (type: string): Promise<string[]> => {
      const id = await complete(clientId, {}, type)
      return (await owedFor(clientId))
        .filter((delivery) => delivery.taskId === id)
        .map((delivery) => delivery.endpointId)
        .sort()
    }
    expect(await receivers('mail.send')).toEqual([every, mails, system].sort())
    expect(await receivers('report.build')).toEqual([every, system].sort())
    expect(await receivers('system.export')).toEqual([system])
    expect(await receivers('system.other')).toEqual([])
  })

  test('a thin endpoint receives no input, result or metadata; CloudEvents have their own envelope; all share one id', async () => {
    const { store } = current()
    const clientId = await addClient(store)
    const full = await addEndpoint(store, { clientId })
    const thin = await addEndpoint(store, { clientId, payload: 'thin' })
    const cloud = await addEndpoint(store, { clientId, format: 'cloudevents' })
    const thinCloud = await addEndpoint(store, { clientId, format: 'cloudevents', payload: 'thin' })
    const id = await complete(clientId, {})
    const [event] = await store.events.list({ clientId, after: 0, limit: 1 })
    const sent = new Map((await claimDeliveries(store)).map((owed) => [owed.endpoint.id, owed]))
    const bytes = (endpointId: string) => sent.get(endpointId)!.body ?? sent.get(endpointId)!.eventBody
    const held = { input: { month: '2026-11' }, result: { rows: 1 }, metadata: { order: '7' } }
    const bare = { input: null, result: null, metadata: null }

    expect(bytes(full)).toBe(event!.body)
    expect(Object.keys(JSON.parse(bytes(full)))).toEqual(['type', 'timestamp', 'id', 'data'])
    expect(JSON.parse(bytes(full)).data).toMatchObject({ id, ...held })
    expect(JSON.parse(bytes(thin))).toMatchObject({ id: event!.id, data: { id, status: 'completed', ...bare } })
    const cloudEvent = { specversion: '1.0', id: event!.id, source: 'https://tasks.example', subject: id, type: 'task.completed' }
    expect(JSON.parse(bytes(cloud))).toMatchObject({ ...cloudEvent, data: { id, ...held } })
    expect(Object.keys(JSON.parse(bytes(cloud)))).toEqual([
      'specversion',
      'id',
      'source',
      'type',
      'subject',
      'time',
      'datacontenttype',
      'sequence',
      'data',
    ])
    const { sequence, data, time } = JSON.parse(bytes(cloud))
    expect([sequence, time]).toEqual([String(data.revision), data.finishedAt])
    expect(JSON.parse(bytes(thinCloud))).toMatchObject({ ...cloudEvent, data: { id, ...bare } })
  })

  test('created, started and progress events go only to subscribed endpoints; a progress event gets one attempt', async () => {
    const { store } = current()
    const clientId = await addClient(store)
    const curious = await addEndpoint(store, { clientId, events: '["task.created","task.started","task.progress","task.completed"]' })
    await addEndpoint(store, { clientId })
    await addTask(store, { clientId })
    const task = await claimOne(store)
    await store.tasks.reportProgress({ ...task, progress: 42, message: 'page 3 of 7', notify: true })
    const [sending] = (await claimDeliveries(store)).filter(({ eventType }) => eventType === 'task.progress')
    await store.tasks.settle(completed(task))
    const events = await store.events.list({ clientId, after: 0, limit: 10 })
    expect(events.map(({ type, seq }) => [type, seq])).toEqual([
      ['task.created', 1],
      ['task.started', 2],
      ['task.progress', 3],
      ['task.completed', 4],
    ])
    const revisions = events.map(({ revision }) => revision)
    expect(revisions).toEqual([...revisions].sort((a, b) => a - b))
    expect(JSON.parse(events[2]!.body).data).toMatchObject({ progress: 42, progressMessage: 'page 3 of 7' })
    expect(sending).toMatchObject({ endpointId: curious, maxTries: 1 })
    const { items: all } = await store.deliveries.list({ clientId, limit: 100, after: null })
    const owed = all.filter((delivery) => delivery.endpointId === curious)
    expect(owed.map(({ eventType, maxTries }) => [eventType, maxTries]).sort()).toEqual([
      ['task.completed', 4],
      ['task.created', 4],
      ['task.progress', 1],
      ['task.started', 4],
    ])
    expect(all).toHaveLength(5)
  })

  test('progress is sent at most once a second, and a waiting progress delivery is superseded by a newer event for the same endpoint', async () => {
    const { store, pass } = current()
    const clientId = await addClient(store)
    const both = await addEndpoint(store, { clientId, events: '["task.progress","task.completed"]' })
    const only = await addEndpoint(store, { clientId, events: '["task.progress"]' })
    for (const id of [both, only]) await store.endpoints.change({ id, clientId, patch: { paused: true }, revision: null })
    await addTask(store, { clientId })
    const task = await claimOne(store)
    const report = (progress: number, notify = true) => store.tasks.reportProgress({ ...task, progress, message: null, notify })
    const waiting = async () => {
      const { items } = await store.deliveries.list({ clientId, limit: 100, after: null })
      const of = (endpointId: string, state: string) =>
        items
          .filter((item) => item.endpointId === endpointId && item.state === state)
          .map(({ eventType, canceledReason }) => canceledReason ?? eventType)
      return { both: of(both, 'pending'), only: of(only, 'pending'), canceled: of(both, 'canceled') }
    }
    await report(10)
    for (const progress of [20, 30, 40]) await report(progress)
    await report(50, false)
    expect(
      (await store.events.list({ clientId, after: 0, limit: 10 })).map(({ body }) => JSON.parse(body).data.progress),
      'one a second',
    ).toEqual([10])
    await pass(1_000)
    await report(60)
    expect(await waiting()).toEqual({ both: ['task.progress'], only: ['task.progress'], canceled: ['superseded'] })
    await pass(1_000)
    await store.tasks.settle(completed(task))
    expect(await waiting(), 'the terminal event goes to its subscribers').toEqual({
      both: ['task.completed'],
      only: ['task.progress'],
      canceled: ['superseded', 'superseded'],
    })
  })

  test('a resumed endpoint receives only the newest progress and then the terminal event', async () => {
    const { store, pass } = current()
    const clientId = await addClient(store)
    const endpointId = await addEndpoint(store, { clientId, events: '["task.started","task.progress","task.completed"]' })
    await store.endpoints.change({ id: endpointId, clientId, patch: { paused: true }, revision: null })
    await addTask(store, { clientId })
    const task = await claimOne(store)
    for (const progress of [10, 20, 30]) {
      await store.tasks.reportProgress({ ...task, progress, message: null, notify: true })
      await pass(1_000)
    }
    expect(await claimDeliveries(store)).toEqual([])
    await store.endpoints.change({ id: endpointId, clientId, patch: { paused: false }, revision: null })
    const received: [string, number][] = []
    const drain = async (): Promise<void> => {
      for (let owed = await claimDeliveries(store); owed.length > 0; owed = await claimDeliveries(store))
        for (const one of owed) {
          received.push([one.eventType, JSON.parse(one.eventBody).data.progress])
          await store.deliveries.settle(delivered(one))
        }
    }
    await drain()
    await store.tasks.settle(completed(task))
    await drain()
    expect(received.slice(0, 2).sort()).toEqual([
      ['task.progress', 30],
      ['task.started', 0],
    ])
    expect(received.slice(2)).toEqual([['task.completed', 100]])
  })

  test('a progress delivery in flight is not superseded by a newer one; redelivered by hand, it gets one attempt', async () => {
    const { store, pass } = current()
    const clientId = await addClient(store)
    await addEndpoint(store, { clientId, events: '["task.progress","task.completed"]' })
    await addTask(store, { clientId })
    const task = await claimOne(store)
    const report = (progress: number) => store.tasks.reportProgress({ ...task, progress, message: null, notify: true })
    const states = async () => (await owedFor(clientId)).map(({ state, canceledReason }) => canceledReason ?? state).sort()
    expect(await report(10)).toMatchObject({ kind: 'settled', notified: 'sent' })
    const [sending] = await claimDeliveries(store)
    expect(await report(20)).toMatchObject({ kind: 'settled', notified: 'early' })
    await pass(1_000)
    await report(30)
    expect(await states()).toEqual(['pending', 'running'])
    await store.tasks.settle(completed(task))
    expect(await states()).toEqual(['pending', 'running', 'superseded'])
    expect(await store.deliveries.settle(delivered(sending!))).toMatchObject({ kind: 'settled', value: { state: 'completed' } })
    expect(await store.deliveries.redeliver({ id: sending!.id, newId: 'delivery_progress', clientId })).toMatchObject({
      eventType: 'task.progress',
      maxTries: 1,
    })
  })

  test('progress without a subscriber is not sent, and the reporter is told so', async () => {
    const { store } = current()
    const clientId = await addClient(store)
    await addEndpoint(store, { clientId })
    const another = await addClient(store, 'Another')
    await addEndpoint(store, { clientId: another, events: '["task.progress"]' })
    await addTask(store, { clientId })
    await addTask(store, { clientId: another })
    await addTask(store, { clientId: another, callback: null })
    const tasks = await claimTasks(store)
    // One batch: each report gets its own answer.
    const answers = await Promise.all(
      tasks.map((task) => store.tasks.reportProgress({ ...task, progress: 10, message: null, notify: true })),
    )
    const outcomes = tasks.map((task, i) => [task.clientId, task.callback, (answers[i] as { notified: string }).notified])
    expect(outcomes.sort()).toEqual(
      [
        [clientId, '{}', 'nobody'],
        [another, '{}', 'sent'],
        [another, null, 'nobody'],
      ].sort(),
    )
    expect(await owedFor(clientId)).toEqual([])
    expect(await owedFor(another)).toHaveLength(1)
  })

  test('the status of a callback is none, pending while a delivery is open, otherwise failed if one failed, otherwise delivered', async () => {
    const { store } = current()
    const clientId = await addClient(store)
    await addEndpoint(store, { clientId })
    await addEndpoint(store, { clientId })
    const silent = await complete(clientId, null)
    const id = await complete(clientId, {})
    const statusOf = async (taskId: string) =>
      (await store.deliveries.findCallbackStatuses(await store.tasks.findMany([taskId]))).get(taskId)
    expect(await statusOf(silent)).toBe('none')
    expect(await statusOf(id)).toBe('pending')
    const [one, other] = await claimDeliveries(store)
    await store.deliveries.settle(delivered(one!))
    expect(await statusOf(id)).toBe('pending')
    await store.deliveries.settle(delivered(other!))
    expect(await statusOf(id)).toBe('delivered')
    const second = await complete(clientId, {})
    const [good, bad] = await claimDeliveries(store)
    await store.deliveries.settle(delivered(good!))
    await store.deliveries.settle(undeliverable(bad!))
    expect(await statusOf(second)).toBe('failed')
  })

  test('redelivering an ended delivery creates a new one with the same event and bytes; an open one becomes due now', async () => {
    const { store, pass } = current()
    const clientId = await addClient(store)
    const endpointId = await addEndpoint(store, { clientId, payload: 'thin' })
    await complete(clientId, {})
    const [first] = await claimDeliveries(store)
    await store.deliveries.settle(undeliverable(first!))
    const made = await store.deliveries.redeliver({ id: first!.id, newId: 'delivery_again', clientId })
    expect(made).toMatchObject({
      id: 'delivery_again',
      eventId: first!.eventId,
      trigger: 'redelivery',
      state: 'pending',
      tries: 0,
      maxTries: 4,
    })
    const [again] = await claimDeliveries(store)
    expect(again).toMatchObject({ id: 'delivery_again', body: first!.body, endpointId })

    await store.deliveries.settle({
      ...undeliverable(again!),
      outcome: { kind: 'retry', delayMs: 3_600_000, error: null },
    })
    await pass(1)
    expect(await claimDeliveries(store)).toEqual([])
    expect(await store.deliveries.redeliver({ id: 'delivery_again', newId: 'delivery_unused', clientId })).toMatchObject({
      id: 'delivery_again',
      state: 'pending',
    })
    expect((await claimDeliveries(store)).map(({ id }) => id)).toEqual(['delivery_again'])
    expect(
      await store.deliveries.redeliver({ id: 'delivery_again', newId: 'delivery_unused', clientId }),
      'running: as it is',
    ).toMatchObject({ state: 'running' })
    expect(
      await store.deliveries.redeliver({ id: first!.id, newId: 'delivery_other', clientId: await addClient(store) }),
      'of another client',
    ).toBeNull()
    expect(await store.deliveries.redeliver({ id: 'delivery_unknown', newId: 'delivery_other', clientId: null })).toBeNull()
  })

  test('a ping is one attempt to one endpoint', async () => {
    const { store } = current()
    const clientId = await addClient(store)
    const endpointId = await addEndpoint(store, { clientId, events: '[]' })
    await addEndpoint(store, { clientId })
    const ping = { endpointId, clientId, eventId: 'event_ping', deliveryId: 'delivery_ping' }
    expect(await store.endpoints.addPing({ ping })).toMatchObject({
      id: 'delivery_ping',
      maxTries: 1,
      trigger: 'ping',
      endpointId,
      taskId: null,
    })
    expect(await owedFor(clientId)).toHaveLength(1)
    const [sent] = await claimDeliveries(store)
    expect(JSON.parse(sent!.eventBody)).toMatchObject({ type: 'endpoint.ping', id: 'event_ping', data: { endpointId } })
  })
}
