/** Rate limits: what is admitted, what is answered over the limit, and what the headers say of it. */

import { setTimeout as sleep } from 'node:timers/promises'
import { type BareItem, parseList } from 'structured-headers'
import { afterEach, expect, onTestFinished, test } from 'vitest'
import type { RateLimits } from '../../../src/config/parsers.ts'
import { systemClock } from '../../../src/core/clock.ts'
import { createApp } from '../../../src/http/app.ts'
import { createRateLimiter, type RateLimiterOptions } from '../../../src/http/limits/rate-limit.ts'
import { openStore } from '../../../src/store/open.ts'
import { freshPostgres } from '../../support/databases.ts'
import { troubleInto } from '../../support/events.ts'
import { openPlatform } from '../../support/platform.ts'
import { type Answer, type Client, type Kit, openKit, REPORT } from '../kit.ts'

let kit: Kit
afterEach(() => kit?.close())
const limited = async (limits: RateLimits, more: Partial<RateLimiterOptions> = {}): Promise<Client> => {
  kit = await openKit({
    rateLimiter: createRateLimiter({ limits, sharedStore: null, clock: systemClock(), events: troubleInto(errors), ...more }),
  })
  return kit.newClient()
}
let errors: unknown[] = []
afterEach(() => {
  errors = []
})

/** A field as a Structured Field (RFC 9651): one String with parameters. */
function fieldOf(answer: Pick<Answer, 'headers'>, name: 'ratelimit' | 'ratelimit-policy'): { name: BareItem } & Record<string, BareItem> {
  const list = parseList(answer.headers.get(name)!)
  expect(list).toHaveLength(1)
  const [item, parameters] = list[0] as [BareItem, Map<string, BareItem>]
  return { name: item, ...Object.fromEntries(parameters) }
}

const FIVE = { limit: 5, windowSeconds: 60 }
const read = (client: Client, headers = {}): Promise<Answer> => client.call('GET', '/v1/tasks', undefined, headers)
const write = (client: Client): Promise<Answer> => client.call('POST', '/v1/tasks', REPORT)

test('Each limited answer says in structured fields how much is left, and for how long', async () => {
  const client = await limited({ read: FIVE, write: { limit: 3, windowSeconds: 7 } })
  for (const left of [2, 1, 0]) {
    const answer = await write(client)
    expect(answer.status).toBe(202)
    expect(fieldOf(answer, 'ratelimit-policy')).toEqual({ name: 'write', q: 3, w: 7 })
    const { name, r, t } = fieldOf(answer, 'ratelimit')
    expect({ name, r }).toEqual({ name: 'write', r: left })
    expect(t).toSatisfy((seconds) => Number.isInteger(seconds) && 1 <= seconds && seconds <= 7)
  }
  const answer = await read(client)
  expect(fieldOf(answer, 'ratelimit-policy')).toEqual({ name: 'read', q: 5, w: 60 })
  expect(fieldOf(answer, 'ratelimit')).toMatchObject({ name: 'read', r: 4 })
})

test('Over the limit, a request is answered 429 with Retry-After, unless its path, method, key or scope is refused first', async () => {
  const client = await limited({ read: null, write: { limit: 1, windowSeconds: 60 } })
  await write(client)
  const answer = await client.call('POST', '/v1/tasks', 'no JSON')
  expect(answer.json).toMatchObject({ status: 429, code: 'quota_exceeded', type: 'urn:ringback:problem:quota_exceeded' })
  const { name, r, t } = fieldOf(answer, 'ratelimit')
  expect({ name, r }).toEqual({ name: 'write', r: 0 })
  expect(answer.headers.get('retry-after'), 'never earlier than the fields say').toBe(String(t))
  expect((await kit.as('rb_wrong')('POST', '/v1/tasks', REPORT)).status).toBe(401)
  expect((await read(client)).headers.get('ratelimit'), 'what is not limited is not counted').toBeNull()
})

test('A request that is refused for its content costs its quota; one that is refused by the limit costs nothing', async () => {
  const client = await limited({ read: FIVE, write: null })
  const missing = await client.call('GET', '/v1/tasks/task_01jd7z3m0q8y3t6w9k2v5n4r1b')
  expect([missing.status, fieldOf(missing, 'ratelimit').r]).toEqual([404, 4])
  for (let i = 0; i < 4; i++) await read(client)
  for (let i = 0; i < 10; i++) expect((await read(client)).status).toBe(429)
})

test('A 304 costs nothing', async () => {
  const client = await limited({ read: FIVE, write: null })
  const { json } = await write(client)
  const ask = (tag: string) => client.call('GET', `/v1/tasks/${json.id}`, undefined, { 'if-none-match': tag })
  for (let i = 0; i < 20; i++) {
    const answer = await ask('W/"1"')
    expect([answer.status, fieldOf(answer, 'ratelimit').r]).toEqual([304, 5])
  }
  const changed = await ask('W/"9"')
  expect([changed.status, fieldOf(changed, 'ratelimit').r]).toEqual([200, 4])
})

test('A client is limited over all its keys; others are not touched, and the operator is not limited', async () => {
  const client = await limited({ read: FIVE, write: null })
  const { json } = await kit.admin.call('POST', `/v1/clients/${client.id}/keys`, {})
  const again = { ...client, call: kit.as(json.key) }
  for (let i = 0; i < 5; i++) expect((await read(i % 2 ? client : again)).status).toBe(200)
  expect((await read(client)).status).toBe(429)
  expect((await read(again)).status).toBe(429)
  expect((await read(await kit.newClient())).status).toBe(200)
  for (let i = 0; i < 10; i++) expect((await kit.admin.call('GET', '/v1/tasks')).headers.get('ratelimit')).toBeNull()
})

test('A request after Retry-After is admitted', async () => {
  const client = await limited({ read: { limit: 1, windowSeconds: 1 }, write: null })
  await read(client)
  const refused = await read(client)
  expect(refused.status).toBe(429)
  await sleep(Number(refused.headers.get('retry-after')) * 1000)
  expect((await read(client)).status).toBe(200)
})

const Q = 50
const countAnswers = async (clients: readonly Client[], each: number) => {
  const answers = await Promise.all(clients.flatMap((client) => Array.from({ length: each }, () => read(client))))
  const admitted = answers.filter(({ status }) => status === 200)
  expect(answers.filter(({ status }) => status === 429)).toHaveLength(answers.length - admitted.length)
  return admitted.map((answer) => fieldOf(answer, 'ratelimit').r).sort((a, b) => Number(a) - Number(b))
}
const EXACTLY = Array.from({ length: Q }, (_, i) => i)

test('Of many requests at once exactly as many are admitted as may be, and each is told another number', async () => {
  const client = await limited({ read: { limit: Q, windowSeconds: 60 }, write: null })
  expect(await countAnswers([client], 3 * Q)).toEqual(EXACTLY)
})

test('Nodes on PostgreSQL count together: of many requests at once they admit exactly as many as may be', async () => {
  const { url, drop } = await freshPostgres()
  const common = { url, clock: systemClock(), publicUrl: () => '', retrySchedule: [] }
  const stores = [await openStore(common), await openStore(common)]
  onTestFinished(async () => {
    await Promise.all(stores.map((store) => store.close()))
    await drop()
  })
  const limits = { read: { limit: Q, windowSeconds: 60 }, write: null }
  const client = await limited(limits, { sharedStore: stores[0]! })
  const other = createApp({
    ...kit.options,
    rateLimiter: createRateLimiter({ limits, sharedStore: stores[1]!, clock: systemClock(), events: troubleInto(errors) }),
  })
  const elsewhere = {
    ...client,
    async call(method: string, path: string) {
      const response = await other.request(path, { method, headers: { authorization: `Bearer ${client.key}` } })
      return { status: response.status, headers: response.headers, text: await response.text(), json: undefined }
    },
  }
  expect(await countAnswers([client, elsewhere], 2 * Q)).toEqual(EXACTLY)
  expect((await read(elsewhere)).status).toBe(429)

  const { json } = await write(client)
  expect((await client.call('GET', `/v1/tasks/${json.id}`)).status, 'all are used up').toBe(429)
  expect(errors).toEqual([])
})

test('A 304 costs nothing on PostgreSQL either', async () => {
  const { url, drop } = await freshPostgres()
  const store = await openStore({ url, clock: systemClock(), publicUrl: () => '', retrySchedule: [] })
  onTestFinished(async () => {
    await store.close()
    await drop()
  })
  const client = await limited({ read: FIVE, write: null }, { sharedStore: store })
  const { json } = await write(client)
  const ask = (tag: string) => client.call('GET', `/v1/tasks/${json.id}`, undefined, { 'if-none-match': tag })
  for (let i = 0; i < 8; i++) expect((await ask('W/"1"')).status).toBe(304)
  for (let i = 0; i < 5; i++) expect((await ask('W/"9"')).status).toBe(200)
  expect((await ask('W/"9"')).status).toBe(429)
})

test('If counting fails, requests pass and the operator is notified', async () => {
  const down = new Error('the store is down')
  const client = await limited({ read: FIVE, write: null }, { sharedStore: { access: { useQuota: () => Promise.reject(down) } } })
  for (let i = 0; i < 8; i++) {
    const answer = await read(client)
    expect([answer.status, answer.headers.get('ratelimit')]).toEqual([200, null])
  }
  expect(errors).toEqual(Array(8).fill(down))
})

test('The setting is applied by the platform', async () => {
  const platform = await openPlatform({ rateLimits: 'write=2/60' })
  const submit = () => platform.call('POST', '/v1/tasks', { type: 'echo', input: 1, delaySeconds: 60 })
  await submit()
  await submit()
  await expect(submit()).rejects.toThrow('429')
})
