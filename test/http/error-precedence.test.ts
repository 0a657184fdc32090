import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { errorStatuses, RingbackError } from '../../src/core/errors.ts'
import { eventsWith } from '../support/events.ts'
import { anything, type Client, type Kit, openKit, PUBLIC_URL, REPORT, report } from './kit.ts'

let kit: Kit
let client: Client
beforeAll(async () => {
  kit = await openKit({ bodyLimitBytes: 2_000 })
  client = await kit.newClient()
})
afterAll(() => kit.close())

const LARGE = JSON.stringify({ type: 'anything', input: 'x'.repeat(3_000) })
const NOBODY = { authorization: 'Bearer rb_nobody' }
const TEXT = { 'content-type': 'text/plain' }

/** Each row holds two faults; the answer names the one that comes first in the contract's order. */
describe('Of two faults, the first in the order of the contract is answered:', () => {
  test.each<[string, string, string, string, string, string | undefined, Record<string, string>]>([
    ['an unknown path before a missing key', 'not_found', 'stranger', 'POST', '/v1/nothing', undefined, {}],
    ['a wrong method before a missing key', 'method_not_allowed', 'stranger', 'PUT', '/v1/tasks', '{', {}],
    ['a missing key before a wrong media type', 'unauthenticated', 'stranger', 'POST', '/v1/tasks', 'x', TEXT],
    ['a bad key before a body too large', 'unauthenticated', 'stranger', 'POST', '/v1/tasks', LARGE, NOBODY],
    ['a missing scope before a wrong media type', 'insufficient_scope', 'reader', 'POST', '/v1/tasks', 'x', TEXT],
    ['a missing scope before an unknown object', 'insufficient_scope', 'reader', 'DELETE', '/v1/tasks/task_x', undefined, {}],
    ['a wrong media type before a body too large', 'unsupported_media_type', 'client', 'POST', '/v1/tasks', LARGE, TEXT],
    ['a body too large before its syntax', 'payload_too_large', 'client', 'POST', '/v1/tasks', `{${LARGE}`, {}],
    [
      'a body too large before the idempotency key',
      'payload_too_large',
      'client',
      'POST',
      '/v1/tasks',
      LARGE,
      { 'idempotency-key': 'a b' },
    ],
    ['the syntax of the body before its schema', 'malformed_json', 'client', 'POST', '/v1/tasks', '{"type":1', {}],
    ['the idempotency key before the schema', 'idempotency_key_invalid', 'client', 'POST', '/v1/tasks', '{}', { 'idempotency-key': '' }],
    ['the syntax of the body before an unknown object', 'malformed_json', 'client', 'PATCH', '/v1/endpoints/endpoint_x', '{', {}],
    [
      'the syntax of If-Match before an unknown object',
      'malformed_header',
      'client',
      'PATCH',
      '/v1/endpoints/endpoint_x',
      '{}',
      { 'if-match': '7' },
    ],
    ['an unknown object before the schema of the body', 'not_found', 'client', 'PATCH', '/v1/endpoints/endpoint_x', '{"no":1}', {}],
    ['an unknown object before its query', 'not_found', 'client', 'GET', '/v1/tasks/task_x?no=1', undefined, {}],
    ['a missing scope before an unknown schedule', 'insufficient_scope', 'reader', 'GET', '/v1/schedules/schedule_x', undefined, {}],
    ['a wrong media type before an unknown schedule', 'unsupported_media_type', 'client', 'PATCH', '/v1/schedules/schedule_x', '{', TEXT],
    [
      'the syntax of If-Match before an unknown schedule',
      'malformed_header',
      'client',
      'DELETE',
      '/v1/schedules/schedule_x',
      undefined,
      { 'if-match': '7' },
    ],
    ['an unknown schedule before the schema of the body', 'not_found', 'client', 'PATCH', '/v1/schedules/schedule_x', '{"no":1}', {}],
    [
      'the schema of a schedule before its task type',
      'validation_failed',
      'client',
      'POST',
      '/v1/schedules',
      '{"cron":"@daily","type":"no.such","input":1,"no":1}',
      {},
    ],
    ['the schema before the task type', 'validation_failed', 'client', 'POST', '/v1/tasks', '{"type":"no.such","input":1,"no":1}', {}],
  ])('%s', async (_, code, who, method, path, body, headers) => {
    const caller = who === 'client' ? client : who === 'reader' ? await kit.newClient({ scopes: ['endpoints:read'] }) : kit.stranger
    const answer = await caller.call(method, path, body, headers)
    expect(answer.json).toMatchObject({ code, status: errorStatuses[code as keyof typeof errorStatuses] })
  })

  test('an endpoint that has changed before the schema of the change', async () => {
    const { json } = await client.call('POST', '/v1/endpoints', { url: 'https://app.example.net/precedence' })
    const answer = await client.call('PATCH', `/v1/endpoints/${json.id}`, { no: 1 }, { 'if-match': '"99"' })
    expect(answer.json.code).toBe('precondition_failed')
  })

  test('a schedule that has changed before the schema of the change', async () => {
    const { json } = await client.call('POST', '/v1/schedules', { ...REPORT, cron: '@yearly' })
    const answer = await client.call('PATCH', `/v1/schedules/${json.id}`, { no: 1 }, { 'if-match': '"99"' })
    expect(answer.json.code).toBe('precondition_failed')
  })

  test('the schema of an endpoint before its duplicate URL', async () => {
    const url = 'https://app.example.net/twice'
    await client.call('POST', '/v1/endpoints', { url })
    expect((await client.call('POST', '/v1/endpoints', { url, maxInFlight: 0 })).json.code).toBe('validation_failed')
    expect((await client.call('POST', '/v1/endpoints', { url })).json.code).toBe('endpoint_exists')
  })

  test('an unknown query parameter before a state that refuses', async () => {
    const { json } = await client.call('POST', '/v1/tasks', { ...REPORT, delaySeconds: 600 })
    expect((await client.call('DELETE', `/v1/tasks/${json.id}?no=1`)).json.code).toBe('validation_failed')
    expect((await client.call('DELETE', `/v1/tasks/${json.id}`)).json.code).toBe('task_not_terminal')
  })

  test('a used-up quota after the scope and before the media type', async () => {
    const limited = await openKit({
      rateLimiter: (caller) => {
        if (caller.clientId === null) return Promise.resolve(() => ({ RateLimit: '"write";r=9;t=60' }))
        throw new RingbackError('quota_exceeded', 'Too many requests.', { headers: { 'Retry-After': '7' } })
      },
    })
    const [one, reader] = [await limited.newClient(), await limited.newClient({ scopes: ['tasks:read'] })]
    const answer = await one.call('POST', '/v1/tasks', 'x', TEXT)
    expect(answer.json.code).toBe('quota_exceeded')
    expect(answer.headers.get('retry-after')).toBe('7')
    expect((await reader.call('POST', '/v1/tasks', 'x', TEXT)).json.code).toBe('insufficient_scope')
    expect((await limited.admin.call('GET', '/v1/clients')).headers.get('ratelimit')).toBe('"write";r=9;t=60')
    await limited.close()
  })
})

test('A problem document has every member, and says where the fault is', async () => {
  const answer = await client.call('POST', '/v1/tasks', { ...REPORT, input: { month: 'x', width: 0 } }, { 'x-request-id': 'mine-1' })
  expect(answer.status).toBe(422)
  expect(answer.json).toEqual({
    type: 'urn:ringback:problem:validation_failed',
    title: expect.any(String),
    status: 422,
    detail: expect.any(String),
    instance: '/v1/tasks',
    code: 'validation_failed',
    requestId: 'mine-1',
    errors: [{ pointer: '#/input/width', detail: expect.stringContaining('>=1') }],
  })
})

test('X-Request-Id is echoed when it is sane, else made; each made one is new', async () => {
  const echoed = await client.call('GET', '/v1/tasks', undefined, { 'x-request-id': 'a.b:c-1' })
  expect(echoed.headers.get('x-request-id')).toBe('a.b:c-1')
  const made = await Promise.all(
    ['<script>', 'x'.repeat(129), undefined].map((id) =>
      client.call('GET', '/v1/tasks', undefined, id === undefined ? {} : { 'x-request-id': id }),
    ),
  )
  const ids = made.map((answer) => answer.headers.get('x-request-id'))
  expect(new Set(ids).size).toBe(3)
  for (const id of ids) expect(id).toMatch(/^request_[\w-]+$/)
})

test('405 lists the methods, HEAD among them; a path of no route is 404 for every method', async () => {
  const wrong = await kit.stranger.call('PUT', '/v1/tasks')
  expect(wrong.status).toBe(405)
  expect(wrong.headers.get('allow')).toBe('GET, HEAD, OPTIONS, POST')
  expect((await kit.stranger.call('HEAD', '/v1/tasks/batch')).headers.get('allow')).toBe('OPTIONS, POST')
  expect((await kit.stranger.call('PUT', '/v1/tasks/batch')).headers.get('allow')).toBe('OPTIONS, POST')
  for (const [method, path] of [
    ['GET', '/v1/tasks/batch'],
    ['DELETE', '/v1/tasks/cancel'],
    ['GET', '/v1/deliveries/replay'],
  ] as const)
    expect((await kit.stranger.call(method, path)).status, `${method} ${path} names no object`).toBe(405)
  expect((await kit.stranger.call('DELETE', '/v1/tasks/task_x/cancel')).headers.get('allow')).toBe('OPTIONS, POST')
  for (const path of ['/', '/v1', '/v1/tasks/', '/v2/tasks', '/v1/tasks/task_x/no'])
    for (const method of ['GET', 'POST', 'DELETE', 'OPTIONS']) expect((await kit.stranger.call(method, path)).status).toBe(404)
})

test('A path that only ends like a route is 404, not 405', async () => {
  for (const path of ['/other/v1/tasks', '//healthz', '/v1/v1/endpoints']) {
    const { json } = await client.call('GET', path)
    expect([path, json.code]).toEqual([path, 'not_found'])
  }
})

test('OPTIONS answers what a path offers', async () => {
  const answer = await kit.stranger.call('OPTIONS', '/v1/endpoints/endpoint_x')
  expect(answer.status).toBe(204)
  expect(answer.headers.get('allow')).toBe('DELETE, GET, HEAD, OPTIONS, PATCH')
  expect(answer.headers.get('access-control-allow-origin')).toBeNull()
})

test('HEAD answers the headers of GET without its body', async () => {
  const { json } = await client.call('POST', '/v1/tasks', { ...REPORT, delaySeconds: 600 })
  const path = `/v1/tasks/${json.id}`
  const [got, head] = [await client.call('GET', path), await client.call('HEAD', path)]
  expect(head.status).toBe(200)
  expect(head.text).toBe('')
  for (const name of ['etag', 'content-type', 'cache-control', 'vary', 'retry-after'])
    expect(head.headers.get(name)).toBe(got.headers.get(name))
  expect((await client.call('HEAD', '/v1/tasks/task_x')).status).toBe(404)
})

test('Accept is refused only when it admits neither JSON nor problem documents', async () => {
  const status = async (accept: string) => (await client.call('GET', '/v1/tasks', undefined, { accept })).status
  for (const accept of [
    '*/*',
    'application/*',
    'application/json',
    'application/problem+json',
    'text/html, */*;q=0.1',
    'application/json;q=0, */*',
    '',
  ])
    expect([accept, await status(accept)]).toEqual([accept, 200])
  for (const accept of [
    'text/html',
    'text/event-stream',
    'application/json;q=0',
    '*/*;q=0',
    'application/json;q=0, application/problem+json;q=0, */*',
  ])
    expect([accept, await status(accept)]).toEqual([accept, 406])
})

test('A wrong media type is answered with the accepted types', async () => {
  const answer = await client.call('POST', '/v1/tasks', 'type=x', { 'content-type': 'application/x-www-form-urlencoded' })
  expect(answer.status).toBe(415)
  expect(answer.headers.get('accept')).toBe('application/json')
  const patch = await client.call('PATCH', '/v1/endpoints/endpoint_x', '{}', TEXT)
  expect(patch.headers.get('accept-patch')).toBe('application/merge-patch+json, application/json')
  const zipped = await client.call('POST', '/v1/tasks', REPORT, { 'content-encoding': 'gzip' })
  expect(zipped.status).toBe(415)
  expect(zipped.headers.get('accept-encoding')).toBe('identity')
  expect((await client.call('POST', '/v1/tasks', REPORT, { 'content-type': 'Application/JSON; charset=utf-8' })).status).toBe(202)
})

test('The body limit counts bytes, and holds whether or not a length is declared', async () => {
  const body = (bytes: number): string => {
    const frame = JSON.stringify({ type: 'anything', input: '' })
    return JSON.stringify({ type: 'anything', input: 'x'.repeat(bytes - frame.length) })
  }
  expect((await client.call('POST', '/v1/tasks', body(2_000))).status).toBe(202)
  expect((await client.call('POST', '/v1/tasks', body(2_001))).status).toBe(413)
  expect((await client.call('POST', '/v1/tasks', '{}', { 'content-length': '5000' })).status).toBe(413)
})

test('A body that is not UTF-8 is refused, and what is UTF-8 comes back as it was', async () => {
  const send = async (bytes: Uint8Array<ArrayBuffer>) =>
    kit.app.request('/v1/tasks', {
      method: 'POST',
      headers: { authorization: `Bearer ${client.key}`, 'content-type': 'application/json' },
      body: bytes,
    })
  const bad = await send(
    new Uint8Array(Buffer.concat([Buffer.from('{"type":"anything","input":"'), Buffer.from([0xc3, 0x28]), Buffer.from('"}')])),
  )
  expect(bad.status).toBe(400)
  const good = await send(new Uint8Array(Buffer.from('{"type":"anything","input":"\ufffd é 🎉"}')))
  expect(await good.json()).toMatchObject({ input: '\ufffd é 🎉' })
})

test('401 carries a challenge, names the error only when a key was given, and takes no key from the URL', async () => {
  const bare = await kit.stranger.call('GET', '/v1/tasks')
  expect(bare.headers.get('www-authenticate')).toBe('Bearer realm="ringback"')
  const wrong = await kit.stranger.call('GET', '/v1/tasks', undefined, { authorization: `Bearer ${client.key}x` })
  expect(wrong.headers.get('www-authenticate')).toBe('Bearer realm="ringback", error="invalid_token"')
  for (const authorization of [`Basic ${client.key}`, client.key, 'Bearer', 'Bearer '])
    expect((await kit.stranger.call('GET', '/v1/tasks', undefined, { authorization })).status).toBe(401)
  expect((await kit.stranger.call('GET', `/v1/tasks?access_token=${client.key}`)).status).toBe(401)
  expect((await kit.stranger.call('GET', '/v1/tasks', undefined, { authorization: `bearer ${client.key}` })).status).toBe(200)
})

test('403 names the scope that is missing', async () => {
  const reader = await kit.newClient({ scopes: ['tasks:read'] })
  const answer = await reader.call('POST', '/v1/tasks', REPORT)
  expect(answer.headers.get('www-authenticate')).toBe('Bearer realm="ringback", error="insufficient_scope", scope="tasks:write"')
})

test('An unexpected failure is 500 without its message; a store that is down or full is 503 with Retry-After', async () => {
  const seen: object[] = []
  let failure: Error = new Error('secret: postgres://user:password@10.0.0.7')
  const broken = await openKit({ events: eventsWith({ 'http.failed': ({ code, fields }) => code === 'internal' && seen.push(fields) }) })
  const one = await broken.newClient()
  const store = { ...broken.options.store, tasks: { ...broken.options.store.tasks, add: () => Promise.reject(failure) } }
  const { createApp } = await import('../../src/http/app.ts')
  const app = createApp({ ...broken.options, store })
  const post = () =>
    app.request('/v1/tasks', {
      method: 'POST',
      headers: { authorization: `Bearer ${one.key}`, 'content-type': 'application/json' },
      body: JSON.stringify(REPORT),
    })
  const internal = await post()
  expect(internal.status).toBe(500)
  expect(await internal.text()).not.toContain('secret')
  expect(seen).toHaveLength(1)
  failure = Object.assign(new Error('database or disk is full'), { code: 'SQLITE_FULL' })
  const full = await post()
  expect(full.status).toBe(503)
  expect(Number(full.headers.get('retry-after'))).toBeGreaterThan(0)
  await broken.close()
})

test('CORS is off by default; a listed origin may call, read the useful headers and ask first', async () => {
  expect(
    (await client.call('GET', '/v1/tasks', undefined, { origin: 'https://app.example' })).headers.get('access-control-allow-origin'),
  ).toBeNull()
  const open = await openKit({ corsOrigins: ['https://app.example'] })
  const one = await open.newClient()
  const listed = await one.call('GET', '/v1/tasks', undefined, { origin: 'https://app.example' })
  expect(listed.headers.get('access-control-allow-origin')).toBe('https://app.example')
  expect(listed.headers.get('access-control-expose-headers')).toContain('Idempotent-Replayed')
  expect(listed.headers.get('vary')).toBe('Authorization, Accept, Prefer, Origin')
  const other = await one.call('GET', '/v1/tasks', undefined, { origin: 'https://evil.example' })
  expect(other.headers.get('access-control-allow-origin')).toBeNull()
  const asked = await open.stranger.call('OPTIONS', '/v1/tasks', undefined, {
    origin: 'https://app.example',
    'access-control-request-method': 'POST',
  })
  expect(asked.headers.get('access-control-allow-methods')).toContain('POST')
  expect(asked.headers.get('access-control-allow-headers')).toContain('Idempotency-Key')
  const refused = await open.stranger.call('GET', '/v1/tasks', undefined, { origin: 'https://app.example' })
  expect(refused.headers.get('access-control-allow-origin')).toBe('https://app.example')
  const keys = await open.stranger.call('GET', '/.well-known/jwks.json', undefined, { origin: 'https://app.example' })
  expect(keys.headers.get('access-control-allow-origin'), 'for every page, as caches keep it').toBe('*')
  await open.close()
})

test('Anyone may ask for health, keys and the document', async () => {
  expect((await kit.stranger.call('GET', '/healthz')).json).toEqual({ status: 'ok' })
  expect((await kit.stranger.call('GET', '/readyz')).json).toEqual({ status: 'ok', checks: { store: 'ok' } })
  const jwks = await kit.stranger.call('GET', '/.well-known/jwks.json', undefined, { accept: 'text/html', 'if-none-match': '"keys"' })
  for (const path of ['/.well-known/jwks.json?v=2', '/healthz?probe=1'])
    expect((await kit.stranger.call('GET', path)).status, path).toBe(200)
  expect(jwks.status).toBe(200)
  expect(Object.fromEntries(jwks.headers)).toMatchObject({
    'content-type': 'application/jwk-set+json',
    'cache-control': 'public, max-age=300, stale-if-error=600',
    'access-control-allow-origin': '*',
    etag: '"keys"',
  })
})

test('A node that is not ready says which part is not', async () => {
  const sick = await openKit({ health: async () => ({ store: 'ok', dispatcher: 'stale 41 s' }) })
  const answer = await sick.stranger.call('GET', '/readyz')
  expect(answer.status).toBe(503)
  expect(answer.json.checks).toEqual({ store: 'ok', dispatcher: 'stale 41 s' })
  await sick.close()
})

test('However many ask at once whether a node is ready, it looks once', async () => {
  const { promise, resolve } = Promise.withResolvers<Record<string, string>>()
  let looks = 0
  const busy = await openKit({
    health: () => {
      looks++
      return promise
    },
  })
  const asked = Array.from({ length: 20 }, () => busy.stranger.call('GET', '/readyz'))
  resolve({ store: 'ok' })
  expect(new Set((await Promise.all(asked)).map(({ status }) => status))).toEqual(new Set([200]))
  expect(looks).toBe(1)
  await busy.stranger.call('GET', '/readyz')
  expect(looks, 'nothing is remembered').toBe(2)
  await busy.close()
})

test('Task types show their schemas and limits, never the context’s own', async () => {
  const { json } = await client.call('GET', '/v1/task-types')
  expect(json.data.map((type: { name: string }) => type.name)).toEqual([anything.type, report.type])
  const one = await client.call('GET', '/v1/task-types/report.build')
  expect(one.json).toMatchObject({ inputSchema: { required: ['month'] }, timeoutSeconds: 3600, maxTries: 5 })
  expect((await client.call('GET', '/v1/task-types/no.such')).json.code).toBe('not_found')
})

test('Links begin with the public URL, whatever Host says', async () => {
  const { headers, json } = await client.call('POST', '/v1/tasks', REPORT, { host: 'evil.example' })
  expect(headers.get('location')).toBe(`${PUBLIC_URL}/v1/tasks/${json.id}`)
  expect(json.links.self).toBe(`${PUBLIC_URL}/v1/tasks/${json.id}`)
})
