/** Every code of the closed list is answered to somebody: each row is a request that is refused with it. */

import { readFileSync } from 'node:fs'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { type ErrorCode, errorStatuses } from '../../src/core/errors.ts'
import { createEventSink } from '../../src/observe/events.ts'
import { defineTask } from '../../src/tasks/define.ts'
import { createRegistry } from '../../src/tasks/registry.ts'
import { judgeBy } from '../support/document.ts'
import { type Answer, anything, type Client, type Kit, openKit, report } from './kit.ts'

const pulled = defineTask({ type: 'pulled.one', where: 'worker' })

let kit: Kit
let client: Client
beforeAll(async () => {
  kit = await openKit({
    registry: createRegistry([report, anything, pulled]),
    bodyLimitBytes: 4_096,
    streamLimits: { node: 1_000, client: 0 },
    events: createEventSink(),
  })
  client = await kit.newClient()
})
afterAll(() => kit.close())

const submit = async (body: object = {}): Promise<string> =>
  (await client.call('POST', '/v1/tasks', { type: 'anything', input: 1, ...body })).json.id
const endpoint = async (name: string, verification: 'challenge' | null = null): Promise<string> =>
  (await client.call('POST', '/v1/endpoints', { url: `https://app.example.net/${name}`, verification })).json.id

/** What each code takes. */
const provoked: Partial<Record<ErrorCode, () => Promise<Answer>>> = {
  malformed_json: () => client.call('POST', '/v1/tasks', '{"type":'),
  malformed_header: async () => client.call('PATCH', `/v1/endpoints/${await endpoint('header')}`, {}, { 'if-match': 'seven' }),
  idempotency_key_invalid: () => client.call('POST', '/v1/tasks', { type: 'anything', input: 1 }, { 'idempotency-key': 'a b' }),
  unauthenticated: () => kit.stranger.call('GET', '/v1/tasks'),
  insufficient_scope: () => client.call('GET', '/v1/clients'),
  not_found: () => client.call('GET', '/v1/tasks/task_01jd7z3m0q8y3t6w9k2v5n4r1b'),
  method_not_allowed: () => client.call('PUT', '/v1/tasks'),
  not_acceptable: () => client.call('GET', '/v1/tasks', undefined, { accept: 'text/html' }),
  task_not_cancelable: async () => {
    const id = await submit()
    await kit.finish(id)
    return client.call('POST', `/v1/tasks/${id}/cancel`)
  },
  task_not_completed: async () => client.call('GET', `/v1/tasks/${await submit()}/result`),
  task_not_terminal: async () => client.call('DELETE', `/v1/tasks/${await submit()}`),
  task_not_retryable: async () => client.call('POST', `/v1/tasks/${await submit()}/retry`),
  endpoint_exists: async () => {
    await endpoint('twice')
    return client.call('POST', '/v1/endpoints', { url: 'https://app.example.net/twice' })
  },
  endpoint_not_verified: async () => client.call('POST', `/v1/endpoints/${await endpoint('unproved', 'challenge')}/ping`),
  lease_lost: async () => {
    const id = await submit({ type: 'pulled.one' })
    const { key } = (await kit.admin.call('POST', '/v1/operator-keys', { name: 'worker', scopes: ['worker'] })).json
    const worker = kit.as(key)
    const { tasks } = (await worker('POST', '/v1/worker/claim', { types: ['pulled.one'] })).json
    await client.call('POST', `/v1/tasks/${id}/cancel`)
    await worker('POST', `/v1/worker/tasks/${id}/release`, { lease: tasks[0].lease.token })
    return worker('POST', `/v1/worker/tasks/${id}/heartbeat`, { lease: tasks[0].lease.token })
  },
  task_expired: async () => {
    const id = await submit()
    await client.call('POST', `/v1/tasks/${id}/cancel`)
    await client.call('DELETE', `/v1/tasks/${id}`)
    return client.call('GET', `/v1/tasks/${id}`)
  },
  precondition_failed: async () => client.call('PATCH', `/v1/endpoints/${await endpoint('changed')}`, {}, { 'if-match': '"7"' }),
  payload_too_large: () => client.call('POST', '/v1/tasks', { type: 'anything', input: 'x'.repeat(5_000) }),
  unsupported_media_type: () => client.call('POST', '/v1/tasks', '{}', { 'content-type': 'text/plain' }),
  validation_failed: () => client.call('POST', '/v1/tasks', { type: 'report.build', input: {} }),
  task_type_not_found: () => client.call('POST', '/v1/tasks', { type: 'no.such', input: 1 }),
  idempotency_key_reused: async () => {
    await client.call('POST', '/v1/tasks', { type: 'anything', input: 1 }, { 'idempotency-key': 'again' })
    return client.call('POST', '/v1/tasks', { type: 'anything', input: 2 }, { 'idempotency-key': 'again' })
  },
  invalid_cursor: () => client.call('GET', '/v1/tasks?cursor=x'),
  invalid_callback_url: () => client.call('POST', '/v1/endpoints', { url: 'ftp://app.example.net/' }),
  callback_url_forbidden: () => client.call('POST', '/v1/endpoints', { url: 'https://10.0.0.1/' }),
  callback_url_not_verified: () =>
    client.call('POST', '/v1/tasks', { type: 'anything', input: 1, callback: { url: 'https://elsewhere.example.net/' } }),
  challenge_mismatch: async () => client.call('POST', `/v1/endpoints/${await endpoint('asked', 'challenge')}/verify`, { challenge: 'x' }),
  quota_exceeded: async () => client.call('GET', `/v1/tasks/${await submit()}/events`, undefined, { accept: 'text/event-stream' }),
  // The node is not well: its check throws what it was not made for.
  internal: () => broken('/readyz', { health: () => Promise.reject(new TypeError('hunter2')) }),
  temporary_reduced_capacity: () => broken('/readyz', { health: async () => ({ store: 'does not answer' }) }),
}

async function broken(path: string, overrides: Parameters<typeof openKit>[0]): Promise<Answer> {
  const other = await openKit({ events: createEventSink(), ...overrides })
  try {
    return await other.stranger.call('GET', path)
  } finally {
    await other.close()
  }
}

test.each(Object.keys(provoked) as ErrorCode[])('%s is answered, as the document says it', async (code) => {
  const { status, json, headers, text } = await provoked[code]!()
  expect([json.code, status, json.status, json.type]).toEqual([
    code,
    errorStatuses[code],
    errorStatuses[code],
    `urn:ringback:problem:${code}`,
  ])
  expect(headers.get('content-type')).toBe('application/problem+json')
  expect(json.detail).toMatch(/^\S.+[.!]$/)
  expect(json.requestId).toBe(headers.get('x-request-id'))
  expect(text).not.toContain('hunter2')
  if (status === 401 || status === 403) expect(headers.get('www-authenticate')).toMatch(/^Bearer realm="ringback"/)
  if (status === 429 || status === 503) expect(Number(headers.get('retry-after'))).toBeGreaterThan(0)
  if (status === 405) expect(headers.get('allow')).toContain('GET')
  const judge = judgeBy((await kit.stranger.call('GET', '/openapi.json')).json)
  expect(judge.faults(json, 'components', 'schemas', 'Problem')).toEqual([])
})

test('No code is left out but those that the reference calls reserved', () => {
  const reference = readFileSync(new URL('../../docs/reference/errors.md', import.meta.url), 'utf8')
  const reserved = [...reference.matchAll(/^\| \d{3} \| `(\w+)` \| Reserved/gm)].map(([, code]) => code!)
  const left = Object.keys(errorStatuses).filter((code) => !(code in provoked))
  expect(left.filter((code) => !reserved.includes(code))).toEqual([])
})
