/** What `ringback/client` asks, and what it is answered, is what the document says: every call is made against the API and held against it. */
import { afterAll, beforeAll, expect, test } from 'vitest'
import { createClient } from '../../src/client/index.ts'
import { type Kit, openKit } from '../http/kit.ts'
import { type Judge, judgeBy } from '../support/document.ts'

let kit: Kit
let judge: Judge
beforeAll(async () => {
  kit = await openKit()
  judge = judgeBy((await kit.stranger.call('GET', '/openapi.json')).json)
})
afterAll(() => kit.close())

/** Operations that were asked for, with the answers that came. */
const asked = new Map<string, Set<number>>()

/** Sends to the app in place of the network, and judges both ways. */
async function send(target: string, init: RequestInit): Promise<Response> {
  const url = new URL(target)
  const method = init.method ?? 'GET'
  const found = judge.operation(method, url.pathname)
  if (!found) throw new Error(`${method} ${url.pathname} is not documented`)
  const { path, operation } = found
  const at = ['paths', path, method.toLowerCase()]
  const known = (operation.parameters ?? [])
    .filter((each: { in: string }) => each.in === 'query')
    .map((each: { name: string }) => each.name)
  for (const name of url.searchParams.keys())
    expect([operation.operationId, known]).toEqual([operation.operationId, expect.arrayContaining([name.replace(/\[.*/, '')])])
  if (init.body !== undefined)
    expect([
      operation.operationId,
      judge.faults(JSON.parse(init.body as string), ...at, 'requestBody', 'content', 'application/json', 'schema'),
    ]).toEqual([operation.operationId, []])
  else expect([operation.operationId, operation.requestBody?.required ?? false]).toEqual([operation.operationId, false])
  const response = await kit.app.request(url.pathname + url.search, init)
  const { status } = response
  expect(Object.keys(operation.responses)).toContain(String(status))
  const type = response.headers.get('content-type')
  if (type?.includes('json')) {
    const answer = await response.clone().json()
    expect([operation.operationId, status, judge.faults(answer, ...at, 'responses', String(status), 'content', type, 'schema')]).toEqual([
      operation.operationId,
      status,
      [],
    ])
  }
  asked.set(operation.operationId, (asked.get(operation.operationId) ?? new Set()).add(status))
  return response
}

test('Every method of the client calls documented operations and gets documented responses', async () => {
  const { key } = await kit.newClient()
  const client = createClient({ url: 'http://ringback', key, fetch: send })
  const all = async <T>(pages: AsyncIterable<T>): Promise<T[]> => {
    const items: T[] = []
    for await (const item of pages) items.push(item)
    return items
  }
  const task = await client.submit(
    'anything',
    { n: 1 },
    { metadata: { order: 'A-17' }, maxTries: 2, startBy: new Date(Date.now() + 600_000), callback: null },
  )
  const batch = await client.submitBatch([
    { type: 'anything', input: 1 },
    { type: 'anything', input: 2, priority: 5 },
  ])
  expect(await client.get(task.id)).toMatchObject({ id: task.id, status: 'pending' })
  expect((await all(client.list({ status: ['pending', 'running'], pageSize: 2, metadata: { order: 'A-17' }, order: 'asc' }))).length).toBe(
    1,
  )
  expect((await all(client.list({ batchId: batch.id, type: 'anything', createdAfter: new Date(0), pageSize: 1 }))).length).toBe(2)
  await kit.finish(task.id, { rows: 1 })
  const ended = await client.wait(task.id)
  expect(ended.status).toBe('completed')
  expect(await client.result(ended)).toEqual({ rows: 1 })
  expect((await all(client.follow(task.id))).at(-1)).toMatchObject({ id: task.id, status: 'completed' })
  const unwanted = await client.submit('anything', 3)
  await client.cancel(unwanted.id)
  await client.retry(unwanted.id)
  await client.delete(task.id)
  await expect(client.get(task.id)).rejects.toMatchObject({ code: 'task_expired', status: 410 })
  await expect(client.submit('no.such', 1)).rejects.toMatchObject({ code: 'task_type_not_found', status: 422 })
  const endpoint = await client.endpoints.create({ url: 'https://app.example.net/hooks', headers: { 'X-Any': 'value' }, maxInFlight: 3 })
  expect(await client.endpoints.get(endpoint.id)).toMatchObject({ id: endpoint.id, secret: null })
  expect((await all(client.endpoints.list())).length).toBe(1)
  await client.endpoints.delete(endpoint.id)
  // Nothing of it was left out.
  expect(new Set(Object.keys(client))).toEqual(
    new Set([...'submit submitBatch get follow wait result run cancel retry delete list'.split(' '), 'endpoints']),
  )
  expect([...asked.keys()].sort()).toEqual(
    expect.arrayContaining([
      'createTask',
      'createTasks',
      'getTask',
      'listTasks',
      'cancelTask',
      'retryTask',
      'deleteTask',
      'createEndpoint',
      'getEndpoint',
      'listEndpoints',
      'deleteEndpoint',
    ]),
  )
})
