import { createHash } from 'node:crypto'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { generateApiKey, looksLikeApiKey } from '../../src/core/api-key.ts'
import { clientScopes } from '../../src/core/model.ts'
import { createAuthenticator } from '../../src/http/request/auth.ts'
import { type Client, type Kit, openKit, REPORT, routesOf } from './kit.ts'

let kit: Kit
beforeAll(async () => {
  kit = await openKit()
})
afterAll(() => kit.close())

const LATER = { ...REPORT, delaySeconds: 600 }

describe('Another client’s object', () => {
  test('is 404 on every route that names one, for reading and for writing', async () => {
    const [owner, other] = [await kit.newClient(), await kit.newClient()]
    const { json: endpoint } = await owner.call('POST', '/v1/endpoints', { url: 'https://app.example.net/mine' })
    const { json: task } = await owner.call('POST', '/v1/tasks', LATER)
    const { json: ended } = await owner.call('POST', '/v1/tasks', LATER)
    await owner.call('POST', `/v1/tasks/${ended.id}/cancel`)
    const [delivery] = (await owner.call('GET', '/v1/deliveries')).json.data
    const { json: schedule } = await owner.call('POST', '/v1/schedules', { ...REPORT, cron: '@yearly' })
    const ids: Record<string, string[]> = {
      tasks: [task.id, ended.id],
      endpoints: [endpoint.id],
      deliveries: [delivery.id],
      schedules: [schedule.id],
    }
    let walked = 0
    for (const route of routesOf(kit.options)) {
      const kind = /^\/v1\/(\w+)\/\{id\}/.exec(route.path)?.[1] ?? ''
      if (route.scope === 'admin') continue
      for (const id of ids[kind] ?? []) {
        const body = route.body ? {} : undefined
        const answer = await other.call(route.method.toUpperCase(), route.path.replace('{id}', id), body)
        expect([route.name, answer.status, answer.json.code]).toEqual([route.name, 404, 'not_found'])
        walked++
      }
    }
    expect(walked).toBeGreaterThan(23)
    expect((await owner.call('GET', `/v1/schedules/${schedule.id}`)).json).toEqual(schedule)
    for (const id of ids.tasks ?? []) expect((await owner.call('GET', `/v1/tasks/${id}`)).json.revision).toBeLessThan(3)
    for (const list of ['tasks', 'endpoints', 'deliveries', 'events', 'schedules'])
      expect((await other.call('GET', `/v1/${list}`)).json.data).toEqual([])
    // An id that exists is told from one that does not by nothing.
    const told = async (id: string) => ({ ...(await other.call('GET', `/v1/tasks/${id}`)).json, instance: '', requestId: '' })
    expect(await told(task.id)).toEqual(await told('task_x'))
  })

  test('cannot be named by an id that is none', async () => {
    const client = await kit.newClient()
    for (const id of ['x', 'task_', 'endpoint_01jd7z3m0q8y3t6w9k2v5n4r1b', 'task_%00', '%ff', 'TASK_01JD7Z3M0Q8Y3T6W9K2V5N4R1B', '..%2f'])
      expect([id, (await client.call('GET', `/v1/tasks/${id}`)).status]).toEqual([id, 404])
  })
})

test('Every route but the public ones asks for a key, and every one for its scope', async () => {
  const bare = await kit.newClient({ scopes: ['tasks:read'] })
  const worker = (await kit.admin.call('POST', '/v1/operator-keys', { name: 'w', scopes: ['worker'] })).json.key
  for (const route of routesOf(kit.options)) {
    const path = route.path
      .replace('{type}', 'task.completed')
      .replace('{file}', 'start.js')
      .replaceAll(/\{\w+\}/g, 'x')
    const method = route.method.toUpperCase()
    const status = async (call: Client['call']) => (await call(method, path, route.body ? {} : undefined)).status
    expect([route.name, await status(kit.stranger.call)]).toEqual([route.name, route.scope === 'public' ? 200 : 401])
    if (route.scope === 'public') continue
    const refused = await status(bare.call)
    expect([route.name, refused === 403]).toEqual([route.name, route.scope !== 'tasks:read'])
    // What it may call is judged further: no body fits, and nothing is called x.
    expect([route.name, (await status(kit.as(worker))) === 403]).toEqual([route.name, route.scope !== 'worker'])
  }
})

test('A clientId that no store could hold is refused, and one of nobody narrows to nothing', async () => {
  for (const list of ['tasks', 'endpoints', 'deliveries', 'events', 'schedules']) {
    const answer = await kit.admin.call('GET', `/v1/${list}?clientId=%00`)
    expect([list, answer.status, answer.json.errors?.[0].pointer]).toEqual([list, 422, '#/query/clientId'])
  }
  expect((await kit.admin.call('GET', '/v1/tasks?clientId=client_01jd7z3m0q8y3t6w9k2v5n4r1b')).json.data).toEqual([])
})

test('The operator reads and acts on every client’s objects, and owns none', async () => {
  const [one, two] = [await kit.newClient(), await kit.newClient()]
  const { json: task } = await one.call('POST', '/v1/tasks', LATER)
  await two.call('POST', '/v1/tasks', LATER)
  expect((await kit.admin.call('GET', `/v1/tasks/${task.id}`)).status).toBe(200)
  const narrowed = await kit.admin.call('GET', `/v1/tasks?clientId=${one.id}`)
  expect(narrowed.json.data.map((item: { id: string }) => item.id)).toEqual([task.id])
  expect((await kit.admin.call('GET', '/v1/tasks')).json.data.length).toBeGreaterThan(1)
  expect((await kit.admin.call('POST', `/v1/tasks/${task.id}/cancel`)).json.status).toBe('canceled')
  for (const path of ['/v1/tasks', '/v1/tasks/batch', '/v1/endpoints', '/v1/schedules']) {
    const answer = await kit.admin.call('POST', path, LATER)
    expect([answer.status, answer.json.code]).toEqual([403, 'insufficient_scope'])
  }
})

describe('Keys', () => {
  test('have all scopes of a client by default, are shown once and listed without themselves', async () => {
    const { json: client } = await kit.admin.call('POST', '/v1/clients', { name: 'Keys & co' })
    const made = await kit.admin.call('POST', `/v1/clients/${client.id}/keys`)
    expect([made.status, made.json.scopes, made.headers.get('cache-control')]).toEqual([201, [...clientScopes], 'no-store'])
    const { key, ...rest } = made.json
    expect(looksLikeApiKey(key)).toBe(true)
    expect(rest.hint).toBe(`…${key.slice(-4)}`)
    const { json: list } = await kit.admin.call('GET', `/v1/clients/${client.id}/keys`)
    expect(list.data).toEqual([rest])
    expect((await kit.admin.call('POST', `/v1/clients/${client.id}/keys`, { scopes: ['admin'] })).status).toBe(422)
  })

  test('stop at once when they are revoked or expire, and their client is suspended or deleted', async () => {
    const client = await kit.newClient()
    const path = `/v1/clients/${client.id}`
    const [{ id }] = (await kit.admin.call('GET', `${path}/keys`)).json.data
    const status = async (call = client.call) => (await call('GET', '/v1/tasks')).status
    expect(await status()).toBe(200)
    expect((await kit.admin.call('POST', `${path}/suspend`)).json.status).toBe('suspended')
    expect(await status()).toBe(403)
    await kit.admin.call('POST', `${path}/resume`)
    expect(await status()).toBe(200)
    expect((await kit.admin.call('DELETE', `${path}/keys/${id}`)).status).toBe(204)
    expect(await status()).toBe(401)
    const expiresAt = new Date(kit.clock.now() + 2_000).toISOString()
    const brief = (await kit.admin.call('POST', `${path}/keys`, { expiresAt })).json.key
    expect(await status(kit.as(brief))).toBe(200)
    await expect.poll(() => status(kit.as(brief))).toBe(401)
    expect((await kit.admin.call('POST', `${path}/keys`, { expiresAt: '2020-01-01T00:00:00Z' })).json.errors[0].pointer).toBe('#/expiresAt')
    const last = (await kit.admin.call('POST', `${path}/keys`)).json.key
    expect(await status(kit.as(last))).toBe(200)
    expect((await kit.admin.call('DELETE', path)).status).toBe(204)
    expect(await status(kit.as(last))).toBe(401)
    expect((await kit.admin.call('GET', path)).status).toBe(404)
  })

  test('of an operator do what the admin token does; a worker’s key does nothing here', async () => {
    const made = await kit.admin.call('POST', '/v1/operator-keys', { name: 'night shift', scopes: ['admin'] })
    const operator = kit.as(made.json.key)
    expect((await operator('GET', '/v1/clients')).status).toBe(200)
    expect((await operator('GET', '/v1/operator-keys')).json.data).toContainEqual(
      expect.objectContaining({ id: made.json.id, clientId: null }),
    )
    expect((await kit.admin.call('DELETE', `/v1/operator-keys/${made.json.id}`)).status).toBe(204)
    expect((await operator('GET', '/v1/clients')).status).toBe(401)
    const client = await kit.newClient()
    const [{ id }] = (await kit.admin.call('GET', `/v1/clients/${client.id}/keys`)).json.data
    expect((await kit.admin.call('DELETE', `/v1/operator-keys/${id}`)).status).toBe(404)
  })

  test('are asked for once in five seconds, however many calls come; what is revoked during the question is not remembered', async () => {
    const { key, hash } = generateApiKey(kit.clock)
    let now = 0
    let asked = 0
    let release = (): void => {}
    let hold: Promise<void> | null = null
    const row = {
      id: 'key_1',
      clientId: 'client_1',
      name: '',
      hash,
      hint: '',
      scopes: '["tasks:read", "admin"]',
      taskTypes: null,
      createdAt: 0,
      expiresAt: null,
      revokedAt: null,
      lastUsedAt: null,
      clientStatus: 'active' as const,
    }
    const findKey = async () => {
      asked++
      await hold
      return row
    }
    const used: string[] = []
    let tell = (_: string | null): void => {}
    const store = {
      access: { findKey, touchKey: async ({ id }: { id: string }) => void used.push(id) },
      notifications: {
        onAccess(listener: typeof tell) {
          tell = listener
          return () => {}
        },
      },
    }
    const gate = createAuthenticator({ store, clock: { ...kit.clock, now: () => now }, adminToken: null })
    await Promise.all(Array.from({ length: 10 }, () => gate.authenticate({ header: () => `Bearer ${key}`, address: null }, now)))
    await gate.authenticate({ header: () => `Bearer ${key}`, address: null }, now)
    expect(asked).toBe(1)
    now = 5_000
    await gate.authenticate({ header: () => `Bearer ${key}`, address: null }, now)
    expect(asked).toBe(2)
    now = 10_000
    hold = new Promise((resolve) => {
      release = resolve
    })
    const late = gate.authenticate({ header: () => `Bearer ${key}`, address: null }, now)
    tell('key_1')
    const later = gate.authenticate({ header: () => `Bearer ${key}`, address: null }, now)
    expect(asked, 'whoever comes after the word is not told what was read before it').toBe(4)
    release()
    await late
    const caller = await later
    expect(await gate.authenticate({ header: () => `Bearer ${key}`, address: null }, now)).toBe(caller)
    expect(asked).toBe(4)
    expect(used, 'of a key whose last use is not known, each question').toEqual(Array(4).fill('key_1'))
    expect([...caller.scopes], 'a client’s key holds no scope of the operator’s, whatever its row says').toEqual(['tasks:read'])
    tell(null)
    await gate.authenticate({ header: () => `Bearer ${key}`, address: null }, now)
    expect(asked, 'when words may have been lost, everything is asked anew').toBe(5)
  })

  test('are told from mistyped ones without asking the store', async () => {
    const { key } = generateApiKey(kit.clock)
    expect(looksLikeApiKey(key)).toBe(true)
    // As docs/reference/http.md tells those who scan for keys.
    expect(key).toMatch(/^rb_[A-Za-z0-9_-]{49}$/)
    expect(key.slice(-6)).toBe(createHash('sha256').update(key.slice(3, 46)).digest('base64url').slice(0, 6))
    const other = key[10] === 'A' ? 'B' : 'A'
    for (const wrong of [key.slice(0, -1), `${key}A`, key.slice(0, 10) + other + key.slice(11), key.replace('rb_', 'rc_'), ''])
      expect(looksLikeApiKey(wrong)).toBe(false)
  })
})

test('Clients are listed page by page', async () => {
  const made: string[] = []
  for (let n = 0; n < 5; n++) made.push((await kit.admin.call('POST', '/v1/clients', { name: `n${n}` })).json.id)
  const seen: string[] = []
  for (let query = '?limit=2'; query !== ''; ) {
    const { json } = await kit.admin.call('GET', `/v1/clients${query}`)
    seen.push(...json.data.map((item: { id: string }) => item.id))
    query = json.nextCursor === null ? '' : `?limit=2&cursor=${json.nextCursor}`
  }
  expect(seen).toEqual(expect.arrayContaining(made))
  expect(new Set(seen).size).toBe(seen.length)
})
