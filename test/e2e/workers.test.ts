/** Workers over HTTP against whole platforms that listen: who runs what, callers that hang up, and several nodes. */

import { once } from 'node:events'
import { createServer } from 'node:http'
import { type AddressInfo, connect, type Socket } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import { getRequestListener } from '@hono/node-server'
import { describe, expect, onTestFinished, test } from 'vitest'
import { createWorkerClaims } from '../../src/http/live/claims.ts'
import { createRingback, defineTask } from '../../src/index.ts'
import { openStore } from '../../src/store/open.ts'
import { freshPostgres, freshSqlite } from '../support/databases.ts'
import { turn } from '../support/engine.ts'
import { printTrouble } from '../support/events.ts'
import { manualClock } from '../support/manual-clock.ts'
import { type Call, calling, databases, eventually, ok } from '../support/server.ts'
import { addClient, addTask } from '../support/work.ts'

const ADMIN = 'operator-of-the-tests-0123456789'
const pulled = defineTask({ type: 'pulled.one', where: 'worker' })
const local = defineTask({ type: 'local.one', run: () => 'here' })

interface Node {
  readonly url: string
  readonly operator: Call
  stop(): Promise<void>
}
async function startNode(databaseUrl: string): Promise<Node> {
  const masterKey = Buffer.alloc(32, 7).toString('base64')
  const ringback = await createRingback({ tasks: [pulled, local], databaseUrl, adminToken: ADMIN, masterKey, logLevel: 'silent' })
  const server = createServer(getRequestListener(ringback.app.fetch)).listen(0, '127.0.0.1')
  await once(server, 'listening')
  await ringback.start()
  let stopped: Promise<void> | null = null
  const stop = async (): Promise<void> => {
    server.close()
    await ringback.stop()
    server.closeAllConnections()
  }
  const node = {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    stop: () => {
      stopped ??= stop()
      return stopped
    },
  }
  onTestFinished(node.stop)
  return { ...node, operator: calling(node.url, ADMIN) }
}
async function openDatabase(name: (typeof databases)[number]): Promise<string> {
  if (name === 'SQLite') {
    const { url, remove } = freshSqlite()
    onTestFinished(remove)
    return url
  }
  const { url, drop } = await freshPostgres()
  onTestFinished(drop)
  return url
}
async function keysOf({ operator, url }: Node) {
  const { id } = (await ok(operator('POST', '/v1/clients', { name: 'test' }))).json
  const { key } = (await ok(operator('POST', `/v1/clients/${id}/keys`, {}))).json
  const worker = (await ok(operator('POST', '/v1/operator-keys', { name: 'w', scopes: ['worker'] }))).json.key
  return { client: calling(url, key), key, worker }
}
const CLAIM = { types: ['pulled.one'], limit: 10, waitSeconds: 30 }

/** Asks for work on a connection of its own, of which nothing is read. */
async function ask(url: string, key: string): Promise<Socket> {
  const { hostname, port } = new URL(url)
  const socket = connect({ host: hostname, port: Number(port) })
  socket.on('error', () => {}).pause()
  await once(socket, 'connect')
  const body = JSON.stringify(CLAIM)
  socket.write(
    `POST /v1/worker/claim HTTP/1.1\r\nHost: ${hostname}\r\nAuthorization: Bearer ${key}\r\nContent-Type: application/json\r\nContent-Length: ${body.length}\r\n\r\n${body}`,
  )
  return socket
}

describe.each(databases)('On %s', (database) => {
  test('nodes leave worker types to workers and run all other types', async () => {
    const node = await startNode(await openDatabase(database))
    const { client, worker } = await keysOf(node)
    const ids = []
    for (let n = 0; n < 20; n++) {
      ids.push((await ok(client('POST', '/v1/tasks', { type: 'pulled.one', input: n }))).json.id)
      expect((await client('POST', '/v1/tasks?wait=20', { type: 'local.one', input: n })).json).toMatchObject({ status: 'completed' })
    }
    expect((await client('GET', '/v1/tasks?type=pulled.one&status=pending')).json.data).toHaveLength(20)
    const call = calling(node.url, worker)
    const { tasks } = (await call('POST', '/v1/worker/claim', { ...CLAIM, limit: 100 })).json
    expect(tasks.map(({ id }: { id: string }) => id).sort()).toEqual([...ids].sort())
  })

  test('a task claimed for a caller that disconnects before its response goes to the next caller, and no try is lost', async () => {
    const node = await startNode(await openDatabase(database))
    const { client, worker } = await keysOf(node)
    const waiting = await ask(node.url, worker)
    await sleep(200)
    waiting.destroy()
    await sleep(50)
    // More than any socket takes without being read.
    const input = 'x'.repeat(1_000_000)
    const submit = async () => (await ok(client('POST', '/v1/tasks', { type: 'pulled.one', input }))).json.id
    const ids = await Promise.all(Array.from({ length: 7 }, submit))
    await sleep(100)
    expect((await client('GET', '/v1/tasks?status=pending')).json.data).toHaveLength(7)
    const deaf = await ask(node.url, worker)
    await eventually('all of them taken', async () => (await client('GET', '/v1/tasks?status=running')).json.data.length === 7)
    deaf.destroy()
    await eventually('all of them back', async () => (await client('GET', '/v1/tasks?status=pending')).json.data.length === 7)
    const { tasks } = (await calling(node.url, worker)('POST', '/v1/worker/claim', CLAIM)).json
    expect(tasks.map((task: { id: string; try: number; fence: number }) => [task.id, task.try, task.fence]).sort()).toEqual(
      ids.map((id) => [id, 1, 2]).sort(),
    )
  })

  test('a node that stops answers its waiting claims', async () => {
    const node = await startNode(await openDatabase(database))
    const { worker } = await keysOf(node)
    const claims = [1, 2, 3].map(() => calling(node.url, worker)('POST', '/v1/worker/claim', { ...CLAIM, waitSeconds: 60 }))
    // Long enough for the claims to arrive on a busy machine.
    await sleep(500)
    await node.stop()
    expect((await Promise.all(claims)).map(({ status, json }) => [status, json.tasks])).toEqual([1, 2, 3].map(() => [200, []]))
  })
})

test('A worker that waits at one node gets a task that arrives at another at once, and may complete it at a third', async () => {
  const url = await openDatabase('PostgreSQL')
  const nodes = [await startNode(url), await startNode(url), await startNode(url)] as const
  const { client, worker } = await keysOf(nodes[0])
  const claim = calling(nodes[1].url, worker)('POST', '/v1/worker/claim', CLAIM)
  await sleep(200)
  const { id } = (await ok(client('POST', '/v1/tasks', { type: 'pulled.one', input: 1 }))).json
  const submitted = performance.now()
  const [task] = (await claim).json.tasks
  // Polling would take up to 15 s.
  expect(performance.now() - submitted).toBeLessThan(10_000)
  expect(task.id).toBe(id)
  const call = calling(nodes[2].url, worker)
  const cancel = await client('POST', `/v1/tasks/${id}/cancel`)
  expect(cancel.status).toBe(202)
  const lease = task.lease.token
  expect((await call('POST', `/v1/worker/tasks/${id}/heartbeat`, { lease })).json.cancelRequested).toBe(true)
  const words = await Promise.all(
    nodes.map((node) => calling(node.url, worker)('POST', `/v1/worker/tasks/${id}/complete`, { lease, result: 'done' })),
  )
  expect(words.map(({ status, json }) => [status, json.status])).toEqual(nodes.map(() => [200, 'completed']))
  expect((await client('GET', `/v1/tasks/${id}/events`)).json.data).toHaveLength(1)
})

test('A hundred claims that wait for the same types cost one query in 15 seconds, and twenty a second on a busy node', async () => {
  const { url, remove } = freshSqlite()
  const clock = manualClock()
  const store = await openStore({ url, clock, publicUrl: () => 'https://tasks.example', retrySchedule: [] })
  onTestFinished(async () => {
    await store.close()
    remove()
  })
  let looks = 0
  const counting: typeof store = {
    ...store,
    tasks: {
      ...store.tasks,
      claim(claim) {
        looks++
        return store.tasks.claim(claim)
      },
    },
  }
  const claims = createWorkerClaims({ store: counting, clock, leaseMs: 30_000, events: printTrouble() })
  const rest = async (): Promise<void> => {
    for (let n = 0; n < 4; n++) {
      await turn()
      await store.signing.putSettingIfAbsent({ name: 'rest', value: '' })
    }
  }
  const asked = { types: [{ type: 'pulled.one', concurrency: null }], limit: 1, leasedBy: 'worker:1' }
  const hungUp = new AbortController().signal
  const waiting = Array.from({ length: 100 }, () => claims.claim(asked, 600_000, hungUp))
  await rest()
  // The first came alone; the others share the next, when it may be.
  clock.advance(50)
  await rest()
  expect(looks).toBe(2)
  for (let second = 0; second < 60; second++) {
    clock.advance(1_000)
    await rest()
  }
  expect(looks).toBe(6)
  looks = 0
  const clientId = await addClient(store)
  for (let ms = 0; ms < 1_000; ms += 10) {
    await addTask(store, { clientId, type: 'other.one' })
    clock.advance(10)
    await rest()
  }
  expect(looks).toBeGreaterThan(10)
  expect(looks).toBeLessThanOrEqual(21)
  await claims.stop()
  expect((await Promise.all(waiting)).flat()).toEqual([])
})
