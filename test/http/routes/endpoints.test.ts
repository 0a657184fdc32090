import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import type { DeliverySettlement, OwedDelivery } from '../../../src/store/interfaces.ts'
import { type Client, type Kit, openKit, PUBLIC_URL, REPORT } from '../kit.ts'

let kit: Kit
let client: Client
beforeAll(async () => {
  kit = await openKit()
  client = await kit.newClient()
})
afterAll(() => kit.close())

let count = 0
const newUrl = (): string => `https://app.example.net/hooks/${++count}`
const create = async (more: object = {}, who = client) => (await who.call('POST', '/v1/endpoints', { url: newUrl(), ...more })).json

/** Claims what is owed to an endpoint. */
async function owedTo(endpointId: string): Promise<OwedDelivery[]> {
  const { items } = await kit.store.deliveries.claim({ limit: 500, leaseMs: 60_000, leasedBy: 'boot_test' })
  return items.filter((item) => item.endpointId === endpointId)
}
const settlement = (
  owed: OwedDelivery,
  more: Partial<DeliverySettlement['attempt'] & object> = {},
  succeeded = true,
): DeliverySettlement => ({
  id: owed.id,
  fence: owed.fence,
  outcome: succeeded ? { kind: 'complete', result: null } : { kind: 'retry', delayMs: 5_000, error: null },
  attempt: {
    startedAt: kit.clock.now(),
    durationMs: 12,
    outcome: succeeded ? 'success' : 'http_error',
    httpStatus: succeeded ? 204 : 500,
    error: null,
    timings: JSON.stringify({ dnsMs: 1, connectMs: 2, tlsMs: null, firstByteMs: 9 }),
    keyId: 'kid',
    retryAfterSeconds: null,
    responseHeaders: JSON.stringify({ 'content-type': 'text/plain', server: 'nginx' }),
    responseExcerpt: 'ok',
    remoteAddress: '203.0.113.7',
    ...more,
  },
  endpoint: { id: owed.endpointId, url: null, signal: succeeded ? 'success' : 'failure', succeeded, disable: null, holdMs: null },
})

describe('An endpoint', () => {
  test('is made with defaults, shows its secret once and its headers never', async () => {
    const url = newUrl()
    const { status, headers, json } = await client.call('POST', '/v1/endpoints', { url, headers: { Authorization: 'Bearer x' } })
    expect(status).toBe(201)
    expect(headers.get('location')).toBe(`${PUBLIC_URL}/v1/endpoints/${json.id}`)
    expect(headers.get('etag')).toBe('"1"')
    expect(headers.get('cache-control')).toBe('no-store')
    expect(json).toMatchObject({
      url,
      audience: url,
      status: 'active',
      events: ['task.completed', 'task.failed', 'task.canceled'],
      taskTypes: ['*'],
      headers: { Authorization: '***' },
      format: 'standard',
      payload: 'full',
      maxPerMinute: null,
      maxInFlight: 20,
      jwksUrl: `${PUBLIC_URL}/.well-known/jwks.json`,
      verification: { method: 'none', lastError: null },
    })
    expect(json.secret).toMatch(/^whsec_[\w+/]{43}=$/)
    expect(json.secretHint).toBe(`…${json.secret.slice(-4)}`)
    const again = await client.call('GET', `/v1/endpoints/${json.id}`)
    expect(again.json).toEqual({ ...json, secret: null })
  })

  test('keeps its secret and header values sealed', async () => {
    const { id, secret } = await create({ headers: { 'X-Token': 'open-sesame' } })
    const row = await kit.store.endpoints.find(id, null)
    expect(JSON.stringify(row)).not.toContain('open-sesame')
    expect(JSON.stringify(row)).not.toContain(secret)
    const { encryptor } = kit.options
    expect(encryptor.decrypt(row!.secret, { table: 'endpoints', id, column: 'secret' })).toBe(secret)
    expect(JSON.parse(encryptor.decrypt(row!.headers!, { table: 'endpoints', id, column: 'headers' }))).toEqual({
      'X-Token': 'open-sesame',
    })
  })

  test('waits for its verification where the installation or the client asks for one', async () => {
    expect((await create({ verification: 'cloudevents' })).status).toBe('pendingVerification')
    const strict = await openKit({ verificationDefault: 'challenge' })
    const one = await strict.newClient()
    const { json } = await one.call('POST', '/v1/endpoints', { url: newUrl() })
    expect(json).toMatchObject({ status: 'pendingVerification', verification: { method: 'challenge' } })
    expect((await one.call('POST', `/v1/endpoints/${json.id}/ping`)).json.code).toBe('endpoint_not_verified')
    const verify = (who: Client, body?: object, headers = {}) => who.call('POST', `/v1/endpoints/${json.id}/verify`, body, headers)
    expect(await verify(one, {})).toMatchObject({ status: 422, json: { code: 'validation_failed' } })
    expect(await verify(one, { challenge: 'x' })).toMatchObject({ status: 422, json: { code: 'challenge_mismatch' } })
    expect((await verify(one, undefined, { 'if-match': '"7"' })).json.code).toBe('precondition_failed')
    expect((await verify(await strict.newClient({ scopes: ['endpoints:read'] }))).status).toBe(403)
    expect(await verify(one)).toMatchObject({
      status: 202,
      json: { status: 'pendingVerification', verification: { expiresAt: expect.any(String) } },
    })
    expect(await verify(strict.admin, { challenge: 'x' })).toMatchObject({ status: 422, json: { code: 'challenge_mismatch' } })
    expect(await verify(strict.admin)).toMatchObject({ status: 200, json: { status: 'active', verification: { expiresAt: null } } })
    expect(await verify(one)).toMatchObject({ status: 200, json: { status: 'active', revision: 3 } })
    await strict.close()
  })

  test.each<[string, string, object]>([
    ['no URL', '#/url', { url: undefined }],
    ['an unknown event', '#/events/0', { events: ['task.lost'] }],
    ['a ping to subscribe to', '#/events/0', { events: ['endpoint.ping'] }],
    ['no events', '#/events', { events: [] }],
    ['a task type that cannot be', '#/taskTypes/0', { taskTypes: ['Report Build'] }],
    ['too many in flight', '#/maxInFlight', { maxInFlight: 1_001 }],
    ['none in flight', '#/maxInFlight', { maxInFlight: 0 }],
    ['an unknown format', '#/format', { format: 'xml' }],
    ['twenty-one delays', '#/retrySchedule', { retrySchedule: Array(21).fill(1) }],
    ['U+0000 in the description', '#/description', { description: '\0' }],
    ['a hop-by-hop header', '#/headers/Connection', { headers: { Connection: 'close' } }],
    ['a framing header', '#/headers/content-length', { headers: { 'content-length': '1' } }],
    ['a header that the transport sets', '#/headers/Accept-Encoding', { headers: { 'Accept-Encoding': 'gzip' } }],
    ['Host', '#/headers/Host', { headers: { Host: 'x' } }],
    ['a webhook header', '#/headers/Webhook-Id', { headers: { 'Webhook-Id': 'x' } }],
    ['a header with a line break', '#/headers/X-A', { headers: { 'X-A': 'a\r\nb' } }],
    ['a header name with a space', '#/headers/X A', { headers: { 'X A': 'a' } }],
    ['a header twice', '#/headers', { headers: { 'X-A': 'a', 'x-a': 'b' } }],
    ['the placeholder', '#/headers/X-A', { headers: { 'X-A': '***' } }],
  ])('refuses %s, and points to it', async (_, pointer, fault) => {
    const { status, json } = await client.call('POST', '/v1/endpoints', { url: newUrl(), ...fault })
    expect([status, json.code, json.errors[0]?.pointer]).toEqual([422, 'validation_failed', pointer])
  })

  test.each([
    ['invalid_callback_url', 'not a url'],
    ['invalid_callback_url', ''],
    ['invalid_callback_url', `https://app.example.net/${'x'.repeat(2_048)}`],
    ['invalid_callback_url', 'ftp://app.example.net/'],
    ['invalid_callback_url', 'https://user:pass@app.example.net/'],
    ['invalid_callback_url', 'https://app.example.net/#here'],
    ['invalid_callback_url', 'https://app.example.net/a b'],
    ['invalid_callback_url', 'https://app.example.net/\n'],
    ['callback_url_forbidden', 'https://169.254.169.254/'],
  ])('answers %s for %j', async (code, url) => {
    const { json } = await client.call('POST', '/v1/endpoints', { url })
    expect([json.code, json.errors[0].pointer]).toEqual([code, '#/url'])
  })

  test('exists once for a URL and a client; the refusal names rotate-secret', async () => {
    const { url, id } = await create()
    const again = await client.call('POST', '/v1/endpoints', { url })
    expect([again.status, again.json.code]).toEqual([409, 'endpoint_exists'])
    expect(again.json.detail).toContain(`/v1/endpoints/${id}/rotate-secret`)
    const spelled = await client.call('POST', '/v1/endpoints', { url: url.replace('https://', 'HTTPS://') })
    expect([spelled.status, spelled.json.detail]).toEqual([409, again.json.detail])
    expect((await (await kit.newClient()).call('POST', '/v1/endpoints', { url })).status).toBe(201)
    await client.call('DELETE', `/v1/endpoints/${id}`)
    expect((await client.call('POST', '/v1/endpoints', { url })).status).toBe(201)
  })

  test('is listed page by page', async () => {
    const one = await kit.newClient()
    const made: string[] = []
    for (let n = 0; n < 7; n++) made.push((await create({}, one)).id)
    const seen: string[] = []
    for (let query = '?limit=3'; query !== ''; ) {
      const { json } = await one.call('GET', `/v1/endpoints${query}`)
      seen.push(...json.data.map((item: { id: string }) => item.id))
      query = json.nextCursor === null ? '' : `?limit=3&cursor=${json.nextCursor}`
    }
    expect([...seen].sort()).toEqual([...made].sort())
  })

  test('answers 304 to the tag it has', async () => {
    const { id } = await create()
    expect((await client.call('GET', `/v1/endpoints/${id}`, undefined, { 'if-none-match': '"1"' })).status).toBe(304)
    expect((await client.call('GET', `/v1/endpoints/${id}`, undefined, { 'if-none-match': '"2"' })).status).toBe(200)
  })
})

describe('A change', () => {
  const patch = (id: string, body: object, headers: Record<string, string> = {}) =>
    client.call('PATCH', `/v1/endpoints/${id}`, body, { 'content-type': 'application/merge-patch+json', ...headers })

  test('touches what it names; null puts back the default', async () => {
    const { id } = await create({
      description: 'x',
      maxPerMinute: 60,
      retrySchedule: [1],
      events: ['task.failed'],
      taskTypes: ['report.build'],
    })
    const { json, headers } = await patch(id, { description: null, maxPerMinute: null, retrySchedule: null, events: null, maxInFlight: 7 })
    expect(json).toMatchObject({
      description: '',
      maxPerMinute: null,
      retrySchedule: null,
      maxInFlight: 7,
      taskTypes: ['report.build'],
      revision: 2,
    })
    expect(json.events).toHaveLength(3)
    expect(headers.get('etag')).toBe('"2"')
    expect((await patch(id, {})).json.revision).toBe(2)
  })

  test('merges headers by name, whatever their case, and never shows or takes the placeholder', async () => {
    const { id } = await create({ headers: { 'X-A': '1', 'X-B': '2', 'X-C': '3' } })
    const { json } = await patch(id, { headers: { 'x-a': null, 'X-b': '20', 'X-D': '4' } })
    expect(json.headers).toEqual({ 'X-b': '***', 'X-C': '***', 'X-D': '***' })
    const row = await kit.store.endpoints.find(id, null)
    expect(JSON.parse(kit.options.encryptor.decrypt(row!.headers!, { table: 'endpoints', id, column: 'headers' }))).toEqual({
      'X-b': '20',
      'X-C': '3',
      'X-D': '4',
    })
    expect((await patch(id, { headers: { 'X-C': '***' } })).status).toBe(422)
    expect((await patch(id, { headers: null })).json.headers).toEqual({})
  })

  test('under If-Match goes through only on the revision the caller saw', async () => {
    const { id } = await create()
    expect((await patch(id, { description: 'a' }, { 'if-match': '"1"' })).status).toBe(200)
    const late = await patch(id, { description: 'b' }, { 'if-match': '"1"' })
    expect([late.status, late.json.code]).toEqual([412, 'precondition_failed'])
    for (const tag of ['*', '"3", "9"']) expect((await patch(id, { description: tag }, { 'if-match': tag })).status).toBe(200)
    expect((await patch(id, {}, { 'if-match': 'W/"4"' })).status).toBe(412)
    for (const tag of ['4', '"4', '"4" "5"']) expect((await patch(id, {}, { 'if-match': tag })).json.code).toBe('malformed_header')
    expect((await client.call('DELETE', `/v1/endpoints/${id}`, undefined, { 'if-match': '"1"' })).status).toBe(412)
  })

  test('of many at once loses none', async () => {
    const { id } = await create()
    const names = Array.from({ length: 5 }, (_, n) => `X-${n}`)
    const answers = await Promise.all(names.map((name) => patch(id, { headers: { [name]: 'v' } })))
    expect(answers.map(({ status }) => status)).toEqual(names.map(() => 200))
    expect(Object.keys((await client.call('GET', `/v1/endpoints/${id}`)).json.headers).sort()).toEqual(names)
  })

  test('of the URL is judged, must be unique, and is verified anew where verification is asked for', async () => {
    const [one, two] = [await create(), await create({ verification: 'challenge' })]
    expect((await patch(one.id, { url: two.url })).json.code).toBe('endpoint_exists')
    expect((await patch(one.id, { url: 'https://169.254.169.254/' })).json.code).toBe('callback_url_forbidden')
    const moved = await patch(one.id, { url: newUrl() })
    expect(moved.json).toMatchObject({ status: 'active', audience: moved.json.url })
    await kit.admin.call('POST', `/v1/endpoints/${two.id}/verify`)
    expect((await patch(two.id, { url: two.url })).json.status).toBe('active')
    expect((await patch(two.id, { url: newUrl() })).json.status).toBe('pendingVerification')
    expect((await patch(two.id, { url: null })).json.errors[0].pointer).toBe('#/url')
  })
})

describe('Pausing, resuming, rotating', () => {
  test('pause and resume repeat without a change', async () => {
    const { id } = await create()
    const act = async (verb: string) => (await client.call('POST', `/v1/endpoints/${id}/${verb}`)).json
    expect(await act('pause')).toMatchObject({ status: 'paused', revision: 2 })
    expect(await act('pause')).toMatchObject({ status: 'paused', revision: 2 })
    expect(await act('resume')).toMatchObject({ status: 'active', revision: 3 })
    expect(await act('resume')).toMatchObject({ status: 'active', revision: 3 })
  })

  test('resume enables what was disabled, and verifies it anew where verification is asked for', async () => {
    const [plain, checked] = [await create(), await create({ verification: 'challenge' })]
    await kit.admin.call('POST', `/v1/endpoints/${checked.id}/verify`)
    for (const { id } of [plain, checked])
      await kit.store.endpoints.change({ id, clientId: null, patch: { disabled: 'gone' }, revision: null })
    expect((await client.call('GET', `/v1/endpoints/${plain.id}`)).json).toMatchObject({ status: 'disabled', disabledReason: 'gone' })
    expect((await client.call('POST', `/v1/endpoints/${plain.id}/resume`)).json).toMatchObject({ status: 'active', disabledReason: null })
    expect((await client.call('POST', `/v1/endpoints/${checked.id}/resume`)).json.status).toBe('pendingVerification')
  })

  test('a new secret is shown once; the old one signs beside it until the overlap ends', async () => {
    const { id, secret } = await create()
    const rotate = (body?: object) => client.call('POST', `/v1/endpoints/${id}/rotate-secret`, body)
    const { json, status } = await rotate({ overlapSeconds: 60 })
    expect(status).toBe(200)
    expect(json.secret).not.toBe(secret)
    const row = await kit.store.endpoints.find(id, null)
    const open = (sealed: string, column: string) => kit.options.encryptor.decrypt(sealed, { table: 'endpoints', id, column })
    expect(open(row!.secret, 'secret')).toBe(json.secret)
    expect(open(row!.previousSecret!, 'previous_secret')).toBe(secret)
    expect(row!.previousSecretUntil! - kit.clock.wall()).toBeGreaterThan(55_000)
    expect((await rotate()).status).toBe(200)
    await rotate({ overlapSeconds: 0 })
    expect((await kit.store.endpoints.find(id, null))!.previousSecret).toBeNull()
    expect((await rotate({ overlapSeconds: -1 })).json.errors[0].pointer).toBe('#/overlapSeconds')
  })
})

describe('A delivery', () => {
  test('is shown with its attempts; addresses and most headers are the operator’s to see', async () => {
    const endpoint = await create({ events: ['task.canceled'], taskTypes: ['anything'] })
    const { json: task } = await client.call('POST', '/v1/tasks', { type: 'anything', input: 1, delaySeconds: 60 })
    await client.call('POST', `/v1/tasks/${task.id}/cancel`)
    const list = await client.call('GET', `/v1/deliveries?taskId=${task.id}&endpointId=${endpoint.id}`)
    const [pending] = list.json.data
    expect(pending).toMatchObject({ status: 'pending', tries: 0, url: endpoint.url, waitingFor: null, attempts: [], trigger: 'event' })
    const [owed] = await owedTo(endpoint.id)
    const read = async (who: Client) => (await who.call('GET', `/v1/deliveries/${pending.id}`)).json
    expect((await read(client)).status).toBe('sending')
    await kit.store.deliveries.settle(settlement(owed!, {}, false))
    expect(await read(client)).toMatchObject({ status: 'pending', waitingFor: 'retryBackoff' })
    expect((await read(client)).attempts).toEqual([
      expect.objectContaining({
        number: 1,
        outcome: 'http_error',
        httpStatus: 500,
        responseHeaders: { 'content-type': 'text/plain' },
        remoteAddress: null,
        timings: { dnsMs: 1, connectMs: 2, tlsMs: null, firstByteMs: 9 },
      }),
    ])
    const [seen] = (await read(kit.admin)).attempts
    expect([seen.remoteAddress, seen.responseHeaders.server]).toEqual(['203.0.113.7', 'nginx'])
  })

  test('says why it is held', async () => {
    const one = await kit.newClient()
    const endpoint = await create({}, one)
    const { json: task } = await one.call('POST', '/v1/tasks', { ...REPORT, delaySeconds: 60 })
    await one.call('POST', `/v1/tasks/${task.id}/cancel`)
    const held = async () => {
      const { nextAttemptAt, waitingFor } = (await one.call('GET', '/v1/deliveries')).json.data[0]
      return [nextAttemptAt, waitingFor]
    }
    expect((await held())[1]).toBeNull()
    await one.call('POST', `/v1/endpoints/${endpoint.id}/pause`)
    expect(await held()).toEqual([null, 'endpointPaused'])
    await kit.store.endpoints.change({ id: endpoint.id, clientId: null, patch: { verified: false }, revision: null })
    expect(await held()).toEqual([null, 'endpointUnverified'])
    await kit.store.endpoints.change({ id: endpoint.id, clientId: null, patch: { disabled: 'failing' }, revision: null })
    expect(await held()).toEqual([null, 'endpointDisabled'])
    await one.call('DELETE', `/v1/endpoints/${endpoint.id}`)
    expect((await one.call('GET', '/v1/deliveries')).json.data[0]).toMatchObject({ status: 'canceled', canceledReason: 'endpointDeleted' })
  })

  test('is sent again as a new delivery of the same event when it has ended, as itself when it is open', async () => {
    const one = await kit.newClient()
    const endpoint = await create({}, one)
    const { json: task } = await one.call('POST', '/v1/tasks', { ...REPORT, delaySeconds: 60 })
    await one.call('POST', `/v1/tasks/${task.id}/cancel`)
    const [first] = (await one.call('GET', '/v1/deliveries')).json.data
    const open = await one.call('POST', `/v1/deliveries/${first.id}/redeliver`)
    expect([open.status, open.json.id]).toEqual([202, first.id])
    const [owed] = await owedTo(endpoint.id)
    await kit.store.deliveries.settle(settlement(owed!))
    expect((await one.call('GET', `/v1/deliveries/${first.id}`)).json).toMatchObject({
      status: 'delivered',
      deliveredAt: expect.any(String),
    })
    const again = await one.call('POST', `/v1/deliveries/${first.id}/redeliver`)
    expect(again.json).toMatchObject({ eventId: first.eventId, trigger: 'redelivery', status: 'pending', tries: 0 })
    expect(again.json.id).not.toBe(first.id)
    expect(again.headers.get('location')).toBe(`${PUBLIC_URL}/v1/deliveries/${again.json.id}`)
    await one.call('DELETE', `/v1/tasks/${task.id}`)
    expect((await one.call('POST', `/v1/deliveries/${first.id}/redeliver`)).json.code).toBe('task_expired')
  })

  test('cannot be sent again to an endpoint that was deleted, and says that this is why', async () => {
    const one = await kit.newClient()
    const endpoint = await create({}, one)
    const { json: task } = await one.call('POST', '/v1/tasks', { ...REPORT, delaySeconds: 60 })
    await one.call('POST', `/v1/tasks/${task.id}/cancel`)
    await one.call('DELETE', `/v1/endpoints/${endpoint.id}`)
    const [held] = (await one.call('GET', '/v1/deliveries')).json.data
    expect(held, 'where it would have gone is still told').toMatchObject({ url: endpoint.url, waitingFor: null })
    const { json } = await one.call('POST', `/v1/deliveries/${held.id}/redeliver`)
    expect([json.status, json.code, json.detail]).toEqual([404, 'not_found', expect.stringContaining('endpoint was deleted')])
  })

  test('is found by its state, its event and its time', async () => {
    const one = await kit.newClient()
    await create({}, one)
    const { json: task } = await one.call('POST', '/v1/tasks', { ...REPORT, delaySeconds: 60 })
    await one.call('POST', `/v1/tasks/${task.id}/cancel`)
    const found = async (query: string) => (await one.call('GET', `/v1/deliveries?${query}`)).json.data.length
    expect(await found('status=pending,sending')).toBe(1)
    expect(await found('status=delivered')).toBe(0)
    expect(await found('eventType=task.canceled')).toBe(1)
    expect(await found('eventType=task.failed')).toBe(0)
    expect(await found('since=2020-01-01T00:00:00Z&until=2126-01-01T00:00:00Z')).toBe(1)
    expect(await found('until=2020-01-01T00:00:00Z')).toBe(0)
    expect((await one.call('GET', '/v1/deliveries?status=running')).json.errors[0].pointer).toMatch(/^#\/query\/status/)
  })

  test('refused with 401 by a receiver whose clock is off says so', async () => {
    const endpoint = await create({ events: ['task.canceled'], taskTypes: ['anything'] })
    const { json: task } = await client.call('POST', '/v1/tasks', { type: 'anything', input: 1, delaySeconds: 60 })
    await client.call('POST', `/v1/tasks/${task.id}/cancel`)
    const [owed] = await owedTo(endpoint.id)
    const date = new Date(kit.clock.wall() - 3_600_000).toUTCString()
    await kit.store.deliveries.settle(settlement(owed!, { httpStatus: 401, responseHeaders: JSON.stringify({ date }) }, false))
    const { json } = await client.call('GET', `/v1/deliveries/${owed!.id}`)
    expect(json.attempts[0].error).toMatch(/clock is \d+ s behind/)
  })

  test('of a ping is one attempt, and is answered with what came of it', async () => {
    const { id } = await create()
    const plain = await client.call('POST', `/v1/endpoints/${id}/ping`)
    expect([plain.status, plain.json.eventType, plain.json.trigger, plain.json.maxTries]).toEqual([202, 'endpoint.ping', 'ping', 1])
    const work = Promise.withResolvers<void>()
    const forget = kit.store.notifications.onWork((kind) => kind === 'delivery' && work.resolve())
    const waiting = client.call('POST', `/v1/endpoints/${id}/ping?wait=60`)
    await work.promise
    forget()
    for (const owed of await owedTo(id)) await kit.store.deliveries.settle(settlement(owed))
    const answer = await waiting
    expect([answer.status, answer.json.status, answer.json.attempts[0].outcome]).toEqual([200, 'delivered', 'success'])
  })
})

describe('The feed', () => {
  test('gives every event once, in order, from any event or cursor on', async () => {
    const one = await kit.newClient()
    const ids: string[] = []
    for (let n = 0; n < 5; n++) {
      const { json } = await one.call('POST', '/v1/tasks', { ...REPORT, delaySeconds: 60 })
      await one.call('POST', `/v1/tasks/${json.id}/cancel`)
      ids.push(json.id)
    }
    const first = await one.call('GET', '/v1/events?limit=2')
    expect(first.json.hasMore).toBe(true)
    expect(first.headers.get('link')).toContain('after=')
    const rest = await one.call('GET', `/v1/events?after=${first.json.nextCursor}`)
    expect([...first.json.data, ...rest.json.data].map((event) => event.data.id)).toEqual(ids)
    expect(rest.json.hasMore).toBe(false)
    const fromEvent = await one.call('GET', `/v1/events?after=${first.json.data[1].id}`)
    expect(fromEvent.json.data).toEqual(rest.json.data)
    const none = await one.call('GET', `/v1/events?after=${rest.json.nextCursor}`)
    expect([none.json.data, none.json.nextCursor !== null]).toEqual([[], true])
    expect((await one.call('GET', '/v1/events?types=task.failed')).json.data).toEqual([])
    const ofTask = await one.call('GET', `/v1/tasks/${ids[3]}/events`)
    expect(ofTask.json.data).toEqual([rest.json.data[1]])
    expect((await one.call('GET', '/v1/events?after=event_01jd7z3m0q8y3t6w9k2v5n4r1b')).json.code).toBe('invalid_cursor')
    const other = await kit.newClient()
    expect((await other.call('GET', `/v1/events?after=${first.json.data[1].id}`)).json.code).toBe('invalid_cursor')
    const foreign = await other.call('GET', `/v1/events?after=${first.json.nextCursor}`)
    expect(foreign.json).toMatchObject({ code: 'invalid_cursor', errors: [{ pointer: '#/query/after' }] })
    expect((await kit.admin.call('GET', '/v1/events')).json.errors[0].pointer).toBe('#/query/clientId')
    expect((await kit.admin.call('GET', `/v1/events?clientId=${one.id}`)).json.data).toHaveLength(5)
  })
})

test('A client that has as many endpoints or schedules as it may have is refused another, and told what to do', async () => {
  const small = await openKit({ maxPerClient: { openTasks: 1_000, endpoints: 2, schedules: 1, keys: 1_000 } })
  const one = await small.newClient()
  const add = (by: Client, name: string) => by.call('POST', '/v1/endpoints', { url: `https://app.example.net/${name}` })
  const { json } = await add(one, 'a')
  expect((await add(one, 'b')).status).toBe(201)
  const refused = await add(one, 'c')
  expect(refused.json).toMatchObject({
    status: 429,
    code: 'quota_exceeded',
    detail: expect.stringMatching(/^You have 2 endpoints.*delete some/),
  })
  expect(refused.headers.get('retry-after'), 'time alone helps nothing').toBeNull()
  expect((await add(await small.newClient(), 'c')).status).toBe(201)
  await one.call('DELETE', `/v1/endpoints/${json.id}`)
  expect((await add(one, 'c')).status).toBe(201)
  const recur = () => one.call('POST', '/v1/schedules', { ...REPORT, cron: '@daily' })
  const made = await recur()
  expect([made.status, (await recur()).json.code]).toEqual([201, 'quota_exceeded'])
  await one.call('DELETE', `/v1/schedules/${made.json.id}`)
  expect((await recur()).status).toBe(201)
  await small.close()
})

test('A client with its maximum of active keys gets another one after a key was revoked, and may rotate one without overlap', async () => {
  const small = await openKit({ maxPerClient: { openTasks: 1_000, endpoints: 1, schedules: 1, keys: 2 } })
  const { json: client } = await small.admin.call('POST', '/v1/clients', { name: 'Acme' })
  const keys = `/v1/clients/${client.id}/keys`
  const add = () => small.admin.call('POST', keys, {})
  const { json: first } = await add()
  const { json: second } = await add()
  const refused = await add()
  expect(refused.json).toMatchObject({
    status: 429,
    code: 'quota_exceeded',
    detail: expect.stringMatching(/has 2 active keys.*revoke some/),
  })
  expect(refused.headers.get('retry-after'), 'time alone helps nothing').toBeNull()
  expect((await small.admin.call('POST', `${keys}/${second.id}/rotate`, { overlapSeconds: 60 })).json.code).toBe('quota_exceeded')
  expect((await small.admin.call('POST', `${keys}/${second.id}/rotate`, { overlapSeconds: 0 })).status).toBe(201)
  await small.admin.call('DELETE', `${keys}/${first.id}`)
  expect([(await add()).status, (await add()).status]).toEqual([201, 429])
  const worker = { name: 'w', scopes: ['worker'] }
  for (let made = 0; made < 3; made++) expect((await small.admin.call('POST', '/v1/operator-keys', worker)).status).toBe(201)
  await small.close()
})
