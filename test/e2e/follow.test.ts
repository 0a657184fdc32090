/** Following tasks on real servers: one on SQLite, two on PostgreSQL, where one node runs the task that the other follows. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { type Reader, readFrames } from '../support/frames.ts'
import { openReceiver, type Receiver } from '../support/receiver.ts'
import { type Call, calling, databases, type Home, newClient, ok, openHome, type Server } from '../support/server.ts'

/** Links are the same on every node. */
const PUBLIC = { RINGBACK_PUBLIC_URL: 'http://tasks.example.com' }

describe.each(databases)('on %s', (name) => {
  let home: Home
  let receiver: Receiver
  /** Where tasks run. */
  let runner: { server: Server; base: string; call: Call }
  /** Where tasks are followed. */
  let node: { server: Server; base: string; call: Call }
  let key: string
  const folder = mkdtempSync(join(tmpdir(), 'ringback-follow-'))

  beforeAll(async () => {
    home = await openHome(name)
    receiver = await openReceiver()
    const server = await home.start(PUBLIC)
    const base = await server.listening
    const made = await newClient(base)
    key = made.key
    runner = { server, base, call: made.call }
    node = runner
    if (name === 'PostgreSQL') {
      const index = new URL('../../src/index.ts', import.meta.url).href
      const config = join(folder, 'config.ts')
      writeFileSync(
        config,
        `import { defineTask } from ${JSON.stringify(index)}\nexport default { tasks: [defineTask({ type: 'nobody.asks', run: () => 1 })] }\n`,
      )
      const other = await home.start({ ...PUBLIC, RINGBACK_CONFIG: config })
      const otherBase = await other.listening
      node = { server: other, base: otherBase, call: calling(otherBase, key) }
    }
    await ok(runner.call('POST', '/v1/endpoints', { url: `${receiver.url}/all` }))
  })
  afterAll(async () => {
    await home?.close()
    await receiver?.close()
    rmSync(folder, { recursive: true, force: true })
  })

  const submit = async (body: object): Promise<string> => (await ok(runner.call('POST', '/v1/tasks', body))).json.id
  const follow = async (id: string): Promise<Reader> =>
    readFrames(
      await fetch(`${node.base}/v1/tasks/${id}/events`, { headers: { authorization: `Bearer ${key}`, accept: 'text/event-stream' } }),
    )

  test('stream, feed, GET and webhook agree on the revision and the body of every ending', async () => {
    const ends = [
      [{ type: 'work.steps', input: { count: 3, ms: 100 } }, 'task.completed'],
      [{ type: 'work.refuse', input: null }, 'task.failed'],
      [{ type: 'work.nap', input: { ms: 60_000 } }, 'task.canceled'],
    ] as const
    for (const [body, event] of ends) {
      const id = await submit(body)
      const reader = await follow(id)
      const waiting = node.call('GET', `/v1/tasks/${id}?wait=20`)
      if (event === 'task.canceled') await ok(node.call('POST', `/v1/tasks/${id}/cancel`))
      const frames = await reader.rest()
      const last = frames.at(-1)!
      expect([frames[0]!.event, last.event]).toEqual(['task.snapshot', event])
      const revisions = frames.map((frame) => Number(frame.id))
      expect(revisions).toEqual([...revisions].sort((a, b) => a - b))

      const sent = await arrivalOf(id)
      expect(last.text).toBe(sent.body.toString())
      const feed = (await ok(node.call('GET', '/v1/events?limit=200'))).text
      expect(feed).toContain(last.text)
      const { json: got, headers } = await ok(node.call('GET', `/v1/tasks/${id}`))
      expect({ ...got, callback: { ...got.callback, status: null } }).toEqual(last.json.data)
      expect(headers.get('etag')).toBe(`W/"${last.id}"`)
      expect((await waiting).json).toMatchObject({ status: got.status, revision: Number(last.id) })
    }
  })
  const arrivalOf = async (id: string) => {
    for (let count = 1; ; count++) {
      const found = (await receiver.receives(count)).find((arrival) => arrival.event.data.id === id)
      if (found) return found
    }
  }

  test('streams and long-polls report a start and progress within about a second', async () => {
    const id = await submit({ type: 'work.steps', input: { count: 2, ms: 1_500 }, delaySeconds: 2 })
    const reader = await follow(id)
    expect((await reader.next())?.json.data).toMatchObject({ status: 'pending', revision: 1 })
    const polled = await ok(node.call('GET', `/v1/tasks/${id}?wait=20`, undefined, { 'if-none-match': 'W/"1"' }))
    expect(polled.json).toMatchObject({ status: 'running', progress: 0 })
    const started = await reader.next()
    expect([started?.event, started?.json.data.progress]).toEqual(['task.started', 0])
    const progress = await reader.next()
    expect([progress?.event, progress?.json.data.progress]).toEqual(['task.progress', 50])
    expect((await reader.rest()).at(-1)?.event).toBe('task.completed')
  })

  test('a node that stops closes its streams and exits', async () => {
    const id = await submit({ type: 'work.instant', input: null, delaySeconds: 600 })
    const readers = await Promise.all([follow(id), follow(id)])
    for (const reader of readers) await reader.next()
    node.server.kill('SIGTERM')
    for (const reader of readers) expect(await reader.next()).toBeNull()
    expect((await node.server.ended).code).toBe(0)
  })
})
