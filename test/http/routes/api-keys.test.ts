import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import type { Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { serve } from '@hono/node-server'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { openPlatform } from '../../support/platform.ts'
import { type Client, type Kit, openKit } from '../kit.ts'

let kit: Kit
beforeAll(async () => {
  kit = await openKit()
})
afterAll(() => kit.close())

const works = async (key: string, path = '/v1/tasks'): Promise<boolean> => (await kit.as(key)('GET', path)).status === 200

describe('A key', () => {
  test('is rotated: the new one works at once, the old one goes on for the overlap, or ends at once', async () => {
    const client = await kit.newClient({ scopes: ['tasks:read'] })
    const path = `/v1/clients/${client.id}/keys`
    const [old] = (await kit.admin.call('GET', path)).json.data
    const made = await kit.admin.call('POST', `${path}/${old.id}/rotate`)
    expect(made.status).toBe(201)
    expect(made.json).toMatchObject({ clientId: client.id, name: old.name, scopes: ['tasks:read'], expiresAt: null, revokedAt: null })
    expect([await works(client.key), await works(made.json.key)]).toEqual([true, true])
    const ends = async () => (await kit.admin.call('GET', path)).json.data.find(({ id }: { id: string }) => id === old.id).expiresAt
    expect(Math.abs(Date.parse(await ends()) - kit.clock.now() - 86_400_000)).toBeLessThan(60_000)
    await kit.admin.call('POST', `${path}/${old.id}/rotate`, { overlapSeconds: 0 })
    expect([await works(client.key), await works(made.json.key)]).toEqual([false, true])
    const ended = await kit.admin.call('POST', `${path}/${old.id}/rotate`, {})
    expect([ended.status, ended.json.errors?.[0].pointer]).toEqual([422, '#/keyId'])
    const other = await kit.newClient()
    const foreign = await kit.admin.call('POST', `/v1/clients/${other.id}/keys/${made.json.id}/rotate`)
    expect(foreign.status).toBe(404)
    expect((await kit.admin.call('POST', `${path}/${made.json.id}/rotate`, { overlapSeconds: -1 })).status).toBe(422)
  })

  test('that lives to the last moment there is has a successor that does too', async () => {
    const expiresAt = '9999-12-31T23:59:59.999Z'
    const { json: old } = await kit.admin.call('POST', '/v1/operator-keys', { name: 'eternal', scopes: ['admin'], expiresAt })
    expect((await kit.admin.call('POST', `/v1/operator-keys/${old.id}/rotate`)).json).toMatchObject({ name: 'eternal', expiresAt })
  })

  test('cannot be given an end that RFC 3339 cannot write in UTC', async () => {
    const path = `/v1/clients/${(await kit.newClient()).id}/keys`
    for (const expiresAt of ['9999-12-31T23:59:59-23:59', '0000-01-01T00:00:00+00:01']) {
      const answer = await kit.admin.call('POST', path, { expiresAt })
      expect([expiresAt, answer.status, answer.json.errors?.[0].pointer]).toEqual([expiresAt, 422, '#/expiresAt'])
    }
  })

  test('of an operator is rotated just so, and a client’s key is none of those', async () => {
    const { json: old } = await kit.admin.call('POST', '/v1/operator-keys', { name: 'night shift', scopes: ['admin'] })
    const { json: made } = await kit.admin.call('POST', `/v1/operator-keys/${old.id}/rotate`, { overlapSeconds: 0 })
    expect([await works(old.key, '/v1/clients'), await works(made.key, '/v1/clients')]).toEqual([false, true])
    expect((await kit.admin.call('POST', `/v1/operator-keys/${old.id}/rotate`)).json.errors[0].pointer).toBe('#/id')
    const client = await kit.newClient()
    const [{ id }] = (await kit.admin.call('GET', `/v1/clients/${client.id}/keys`)).json.data
    expect((await kit.admin.call('POST', `/v1/operator-keys/${id}/rotate`)).status).toBe(404)
    expect((await kit.admin.call('DELETE', `/v1/clients/${client.id}/keys/${made.id}`)).status).toBe(404)
  })

  test('of a client holds no scope of the operator’s; one of a worker may be narrowed to task types, one of an operator may not', async () => {
    const client = await kit.newClient()
    for (const scope of ['worker', 'admin'])
      expect((await kit.admin.call('POST', `/v1/clients/${client.id}/keys`, { scopes: [scope] })).status).toBe(422)
    const make = (body: object) => kit.admin.call('POST', '/v1/operator-keys', { name: 'w', ...body })
    expect((await make({ scopes: ['worker'], taskTypes: ['image.resize', 'image.resize'] })).json.taskTypes).toEqual(['image.resize'])
    expect((await make({ scopes: ['worker'] })).json.taskTypes).toBeNull()
    expect((await make({ scopes: ['tasks:read'] })).status).toBe(422)
    expect((await make({ scopes: ['worker'], taskTypes: ['No Such'] })).json.errors[0].pointer).toBe('#/taskTypes/0')
    expect((await make({ scopes: ['worker', 'admin'], taskTypes: ['image.resize'] })).json.errors[0].pointer).toBe('#/taskTypes')
  })

  test('shows when it was last used, and never itself', async () => {
    const client = await kit.newClient()
    const listed = () => kit.admin.call('GET', `/v1/clients/${client.id}/keys`)
    expect((await listed()).json.data[0].lastUsedAt).toBeNull()
    await client.call('GET', '/v1/tasks')
    await expect.poll(async () => (await listed()).json.data[0].lastUsedAt).toEqual(expect.any(String))
    expect((await listed()).text).not.toContain(client.key.slice(0, 12))
    const onDisk = [kit.file, `${kit.file}-wal`].map((file) => readFileSync(file))
    expect(onDisk.some((bytes) => bytes.includes(client.id))).toBe(true)
    expect(onDisk.some((bytes) => bytes.includes(client.key.slice(0, 12)))).toBe(false)
  })
})

describe('The audit log', () => {
  const entries = async (query = ''): Promise<{ [member: string]: unknown }[]> =>
    (await kit.admin.call('GET', `/v1/audit-log${query}`)).json.data
  const key = async (scope: string): Promise<{ id: string; key: string }> =>
    (await kit.admin.call('POST', '/v1/operator-keys', { name: scope, scopes: [scope] })).json

  test('says which key did it, to what, by which request, and from where', async () => {
    const server = serve({ fetch: kit.app.fetch, port: 0, hostname: '127.0.0.1' }) as Server
    await once(server, 'listening')
    const operator = await key('admin')
    const client = await kit.newClient()
    const { port } = server.address() as AddressInfo
    const headers = { authorization: `Bearer ${operator.key}`, 'x-request-id': 'shift-7', 'x-forwarded-for': '203.0.113.9' }
    await fetch(`http://127.0.0.1:${port}/v1/clients/${client.id}/suspend`, { method: 'POST', headers })
    server.closeAllConnections()
    server.close()
    expect((await entries(`?clientId=${client.id}`))[0]).toEqual({
      id: expect.stringMatching(/^audit_/),
      at: expect.any(String),
      actor: operator.id,
      action: 'client.suspend',
      target: client.id,
      clientId: client.id,
      details: { name: 'A client' },
      requestId: 'shift-7',
      remoteAddress: '127.0.0.1',
    })
    expect((await entries(`?clientId=${client.id}&action=client.create`))[0]).toMatchObject({ actor: 'admin-token', remoteAddress: null })
  })

  test('holds everything that was done since before there were computers', async () => {
    await kit.newClient()
    expect(await entries('?limit=1&since=1901-01-01T00:00:00Z')).toHaveLength(1)
    expect(await entries('?limit=1&until=1901-01-01T00:00:00Z')).toEqual([])
  })

  test('keeps what a client does to its endpoints under the client’s own key', async () => {
    const client = await kit.newClient()
    const [{ id: actor }] = (await kit.admin.call('GET', `/v1/clients/${client.id}/keys`)).json.data
    const { json: endpoint } = await client.call('POST', '/v1/endpoints', {
      url: 'https://app.example.net/a?token=1',
      headers: { 'X-Key': 'secret-value' },
    })
    await client.call('PATCH', `/v1/endpoints/${endpoint.id}`, { url: 'https://other.example.net/b' })
    const { json: rotated } = await client.call('POST', `/v1/endpoints/${endpoint.id}/rotate-secret`)
    await client.call('DELETE', `/v1/endpoints/${endpoint.id}`)
    const kept = await entries(`?actor=${actor}`)
    expect(kept.map(({ action, details }) => [action, details])).toEqual([
      ['endpoint.delete', {}],
      ['endpoint.rotateSecret', { origin: 'https://other.example.net' }],
      ['endpoint.change', { origin: 'https://other.example.net', members: ['url'] }],
      ['endpoint.create', { origin: 'https://app.example.net' }],
    ])
    for (const secret of [endpoint.secret, rotated.secret, 'secret-value', 'token=1']) expect(JSON.stringify(kept)).not.toContain(secret)
  })

  test('is read page by page under filters; a cursor is good for its own list alone', async () => {
    const client: Client = await kit.newClient()
    for (const verb of ['suspend', 'resume', 'suspend', 'resume']) await kit.admin.call('POST', `/v1/clients/${client.id}/${verb}`)
    const query = `?clientId=${client.id}&limit=4`
    const first = await kit.admin.call('GET', `/v1/audit-log${query}`)
    expect(first.json).toMatchObject({ hasMore: true, nextCursor: expect.any(String) })
    expect(first.headers.get('link')).toContain('rel="next"')
    const cursor = encodeURIComponent(first.json.nextCursor)
    const second = await kit.admin.call('GET', `/v1/audit-log${query}&cursor=${cursor}`)
    const actions = [...first.json.data, ...second.json.data].map(({ action }) => action)
    expect(actions).toEqual(['client.resume', 'client.suspend', 'client.resume', 'client.suspend', 'key.create', 'client.create'])
    expect(second.json.hasMore).toBe(false)
    expect((await kit.admin.call('GET', `/v1/audit-log?limit=4&cursor=${cursor}`)).json.code).toBe('invalid_cursor')
    const at = first.json.data[0].at
    expect((await entries(`?clientId=${client.id}&since=${new Date(Date.parse(at) + 1).toISOString()}`)).length).toBe(0)
    expect((await entries(`?clientId=${client.id}&until=${new Date(Date.parse(at) + 1).toISOString()}`)).length).toBe(6)
    expect((await kit.admin.call('GET', '/v1/audit-log?action=no.such')).status).toBe(422)
  })
})

test('A deleted client is erased behind the answer, while everything runs', async () => {
  const platform = await openPlatform()
  const client = await platform.operate('POST', '/v1/clients', { name: 'leaves' })
  await platform.operate('DELETE', `/v1/clients/${client.id}`)
  const log = async () => (await platform.operate('GET', `/v1/audit-log?clientId=${client.id}`)).data
  expect(await log()).toHaveLength(2)
  // Some minutes, of which each takes as many turns as the machine lets it.
  for (let minutes = 0; minutes < 120 && (await log()).length < 3; minutes++) await platform.pass(60_000, 30_000)
  expect((await log())[0]).toMatchObject({ action: 'client.erase', actor: 'system' })
})
