import { afterAll, beforeAll, expect, test } from 'vitest'
import { type Answer, type Client, type Kit, openKit, REPORT } from '../kit.ts'

let kit: Kit
let client: Client
beforeAll(async () => {
  kit = await openKit()
  client = await kit.newClient()
})
afterAll(() => kit.close())

const LATER = { ...REPORT, delaySeconds: 600 }
const send = (key: string, body: string | object = LATER, who: Client = client): Promise<Answer> =>
  who.call('POST', '/v1/tasks', body, { 'idempotency-key': key })
const isReplay = (answer: Answer): boolean => answer.headers.get('idempotent-replayed') === 'true'

test('The same key and body answer the same task, as it is now, at the same place', async () => {
  const first = await send('same')
  await client.call('POST', `/v1/tasks/${first.json.id}/cancel`)
  const second = await send('same')
  expect([first.status, isReplay(first)]).toEqual([202, false])
  expect([second.status, isReplay(second)]).toEqual([202, true])
  expect(second.json).toMatchObject({ id: first.json.id, status: 'canceled' })
  expect(second.headers.get('location')).toBe(first.headers.get('location'))
  expect((await client.call('POST', '/v1/tasks', LATER, { 'idempotency-key': 'same', prefer: 'wait=5' })).status).toBe(200)
})

test('A replay waits when the query asks for it, as the first submission would', async () => {
  const repeat = (query: string): Promise<Answer> => client.call('POST', `/v1/tasks${query}`, LATER, { 'idempotency-key': 'waits' })
  const first = await repeat('')
  const waited = repeat('?wait=60')
  await client.call('POST', `/v1/tasks/${first.json.id}/cancel`)
  expect(await waited).toMatchObject({ status: 200, json: { id: first.json.id, status: 'canceled' } })
  expect([(await repeat('?wait=5')).status, (await repeat('?wait=0')).status, (await repeat('')).status]).toEqual([200, 202, 202])
})

test('The same key with another body is refused, whatever is wrong with that body', async () => {
  await send('other')
  for (const body of [
    { ...LATER, priority: 1 },
    { no: 1 },
    { ...LATER, type: 'no.such' },
    '[]',
    `{"input":${'['.repeat(5_000)}${']'.repeat(5_000)}}`,
  ])
    expect((await send('other', body)).json.code).toBe('idempotency_key_reused')
})

test('Member order, white space, spelling of numbers and escapes do not make another body', async () => {
  const first = await send('canon', '{"type":"anything","input":{"a":1,"b":[1e1,"é"]},"delaySeconds":600}')
  const same = await send('canon', '{ "delaySeconds":6e2, "input":{"b":[10.0,"\\u00e9"],"a":1},\n"type":"anything" }')
  expect([same.json.id, isReplay(same)]).toEqual([first.json.id, true])
  expect((await send('canon', '{"type":"anything","input":{"a":1,"b":["é",10]},"delaySeconds":600}')).json.code).toBe(
    'idempotency_key_reused',
  )
})

test('A key is the same bare and in quotes', async () => {
  const bare = await send('8e03978e-40d5')
  const quoted = await send('"8e03978e-40d5"')
  expect([quoted.json.id, isReplay(quoted)]).toEqual([bare.json.id, true])
})

test.each(['', '""', 'a b', 'é', 'a"b', 'a\\b', '"a', 'a, b', 'k'.repeat(256), `"${'k'.repeat(256)}"`])(
  'The key %j is malformed',
  async (key) => {
    const encoded = Buffer.from(key).toString('latin1')
    const answer = await send(encoded)
    expect([answer.status, answer.json.code]).toEqual([400, 'idempotency_key_invalid'])
  },
)

test('A key may have 255 characters, quoted or not', async () => {
  const key = '~!k'.repeat(85)
  const first = await send(key)
  expect(first.status).toBe(202)
  expect(isReplay(await send(`"${key}"`))).toBe(true)
})

test('Nothing is kept of a request that was refused', async () => {
  expect((await send('fresh', { ...LATER, maxTries: 0 })).status).toBe(422)
  const corrected = await send('fresh')
  expect([corrected.status, isReplay(corrected)]).toEqual([202, false])
})

test('Fifty at once make one task: one is new, the others replay it', async () => {
  const answers = await Promise.all(Array.from({ length: 50 }, () => send('at-once')))
  expect(new Set(answers.map(({ status }) => status))).toEqual(new Set([202]))
  expect(new Set(answers.map(({ json }) => json.id)).size).toBe(1)
  expect(answers.filter((answer) => !isReplay(answer))).toHaveLength(1)
})

test('A key belongs to its client, and to its route', async () => {
  const other = await kit.newClient()
  const [mine, theirs] = [await send('shared'), await send('shared', LATER, other)]
  expect(theirs.json.id).not.toBe(mine.json.id)
  const batch = await client.call('POST', '/v1/tasks/batch', { tasks: [LATER] }, { 'idempotency-key': 'shared' })
  expect([batch.status, isReplay(batch)]).toEqual([202, false])
})

test('A batch replays whole, with its id', async () => {
  const submit = (tasks: object[]) => client.call('POST', '/v1/tasks/batch', { tasks }, { 'idempotency-key': 'batch' })
  const first = await submit([LATER, LATER])
  const second = await submit([LATER, LATER])
  expect([second.status, isReplay(second), second.json.id]).toEqual([202, true, first.json.id])
  expect(second.json.data.map((task: { id: string }) => task.id)).toEqual(first.json.data.map((task: { id: string }) => task.id))
  expect((await submit([LATER])).json.code).toBe('idempotency_key_reused')
})

test('A key whose task was erased answers 410', async () => {
  const { json } = await send('erased')
  await client.call('POST', `/v1/tasks/${json.id}/cancel`)
  await client.call('DELETE', `/v1/tasks/${json.id}`)
  expect((await send('erased')).json.code).toBe('task_expired')
})

test('A body without a canonical form is refused only where one is needed', async () => {
  const surrogate = '{"type":"anything","input":"\\ud800","delaySeconds":600}'
  expect((await client.call('POST', '/v1/tasks', surrogate)).status).toBe(202)
  expect((await send('surrogate', surrogate)).json.code).toBe('validation_failed')
})

test('The header is ignored elsewhere', async () => {
  const { json } = await client.call('POST', '/v1/tasks', LATER)
  expect((await client.call('POST', `/v1/tasks/${json.id}/cancel`, undefined, { 'idempotency-key': 'a b' })).status).toBe(200)
})
