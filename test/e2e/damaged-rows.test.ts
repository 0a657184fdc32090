/** A row that a disk or a stranger has damaged fails alone, or is held alone: the others go on, and every answer can be read. */
import Database from 'better-sqlite3'
import pg from 'pg'
import { beforeEach, describe, expect, onTestFinished, test } from 'vitest'
import { parseConfig, withPort } from '../../src/config/config.ts'
import { openRingback } from '../../src/platform.ts'
import { defineTask } from '../../src/tasks/define.ts'
import { freshPostgres, freshSqlite } from '../support/databases.ts'
import { openReceiver, type Receiver } from '../support/receiver.ts'
import { eventually } from '../support/server.ts'
import { engines } from '../support/stores.ts'

const adminToken = 'operator-of-the-tests-0123456789'

// biome-ignore lint/suspicious/noExplicitAny: tests read documents of many shapes without declaring each
type Call = (method: string, path: string, body?: object) => Promise<any>

describe.each(engines)('damage on %s', (engine) => {
  let receiver: Receiver
  let warnings: string[]
  let sql: (text: string) => Promise<void>
  let call: Call
  let operate: Call

  beforeEach(async () => {
    const database = engine === 'sqlite' ? freshSqlite() : await freshPostgres()
    receiver = await openReceiver()
    warnings = []
    const options = {
      databaseUrl: database.url,
      publicUrl: 'https://tasks.example',
      adminToken,
      masterKey: Buffer.alloc(32, 7).toString('base64'),
    }
    const config = withPort(parseConfig({ env: {}, options }), 0) as Parameters<typeof openRingback>[0]['config']
    const echo = defineTask({ type: 'echo', run: async (input: unknown) => input })
    const warn = (about: { err?: Error }) => void warnings.push(about.err?.message ?? '')
    const ringback = await openRingback({ config, tasks: [echo], log: { info() {}, debug() {}, error: warn, warn } as never })
    await ringback.start()
    onTestFinished(async () => {
      await ringback.stop()
      await receiver.close()
      if ('drop' in database) await database.drop()
      else database.remove()
    })
    sql = async (text) => {
      if (engine === 'sqlite') {
        const db = new Database(database.url.slice('file:'.length))
        db.exec(text)
        db.close()
        return
      }
      const client = new pg.Client({ connectionString: database.url })
      await client.connect()
      await client.query(text)
      await client.end()
    }
    const ask = (token: string) => async (method: string, path: string, body?: object) => {
      const headers = { authorization: `Bearer ${token}`, ...(body && { 'content-type': 'application/json' }) }
      const request = new Request(`http://ringback${path}`, { method, headers, ...(body && { body: JSON.stringify(body) }) })
      const response = await ringback.app.fetch(request)
      const text = await response.text()
      if (response.status >= 400) throw new Error(`${method} ${path} answered ${response.status}: ${text}`)
      return text === '' ? null : JSON.parse(text)
    }
    operate = ask(adminToken)
    const { id } = await operate('POST', '/v1/clients', { name: 'tests' })
    call = ask((await operate('POST', `/v1/clients/${id}/keys`, {})).key)
  })

  const EVERY = ['task.created', 'task.started', 'task.completed', 'task.failed', 'task.canceled']
  const addEndpoint = async (path: string, given: object = {}) =>
    (await call('POST', '/v1/endpoints', { url: `${receiver.url}${path}`, ...given })).id as string
  const submit = async (n: number): Promise<string[]> =>
    (
      await call('POST', '/v1/tasks/batch', {
        tasks: Array.from({ length: n }, (_, i) => ({ type: 'echo', input: { i }, metadata: { i: `${i}` } })),
      })
    ).data.map(({ id }: { id: string }) => id)
  /** As many tasks that wait, one of which is damaged before any starts. */
  const withOneDamaged = async (damage: string): Promise<{ bad: string; good: string[] }> => {
    await operate('POST', '/v1/task-types/echo/pause')
    const [bad, ...good] = await submit(100)
    await sql(`update tasks set ${damage} where id = '${bad}'`)
    await operate('POST', '/v1/task-types/echo/resume')
    return { bad: bad!, good }
  }
  const allEnded = (count: number) =>
    eventually('all ended', async () => {
      const { data } = await call('GET', '/v1/tasks?limit=200')
      expect(data).toHaveLength(count)
      return data.every(({ status }: { status: string }) => ['completed', 'failed'].includes(status)) && data
    })

  test.each([
    ['input', `input = '{"half'`],
    ['metadata', `metadata = 'none'`],
  ])('a task whose %s is no JSON fails beside 99 that complete, and whoever asks or listens can read it', async (what, damage) => {
    await addEndpoint('/all', { events: EVERY })
    const { bad, good } = await withOneDamaged(damage)
    await allEnded(100)
    for (const id of good) expect((await call('GET', `/v1/tasks/${id}`)).status).toBe('completed')
    expect(await call('GET', `/v1/tasks/${bad}`)).toMatchObject({
      status: 'failed',
      tries: 1,
      error: { code: 'input_rejected', message: `The ${what} in the store is not JSON.` },
    })
    expect(warnings).toContainEqual(expect.stringContaining(`Task ${bad} holds what is not JSON`))
    const arrivals = await receiver.receives(300)
    const told = arrivals.map(({ body }) => JSON.parse(body.toString())).filter(({ data }) => data.id === bad)
    expect(told.map(({ type }) => type).sort()).toEqual(['task.created', 'task.failed', 'task.started'])
    const feed = await call('GET', '/v1/events?limit=200&types=task.failed')
    expect(feed.data).toMatchObject([{ type: 'task.failed', data: { id: bad } }])
  })

  test('a task whose stored callback is not JSON ends like the 99 tasks beside it', async () => {
    await addEndpoint('/all', { events: EVERY })
    const { bad } = await withOneDamaged(`callback = '{'`)
    const tasks = await allEnded(100)
    expect(tasks.filter(({ status }: { status: string }) => status !== 'completed')).toEqual([])
    expect(tasks.find(({ id }: { id: string }) => id === bad).callback).toMatchObject({ endpointId: null, events: null })
    await receiver.receives(300)
  })

  test('an endpoint whose stored subscription is not JSON gets the default events, and no task of its client is delayed', async () => {
    const odd = await addEndpoint('/odd')
    await addEndpoint('/good')
    await sql(`update endpoints set events = '[', task_types = 'x', retry_schedule = '[1,', header_names = '' where id = '${odd}'`)
    await submit(20)
    await allEnded(20)
    await receiver.receives(40)
    expect((await call('GET', '/v1/endpoints')).data).toHaveLength(2)
  })

  test('deliveries whose endpoint or event is missing are canceled while others arrive, and an event that is not JSON is shown without its data', async () => {
    const endpointId = await addEndpoint('/hooks')
    await call('POST', `/v1/endpoints/${endpointId}/pause`)
    const ids = await submit(100)
    await allEnded(100)
    const of = (i: number) => `task_id = '${ids[i]}'`
    await sql(`update deliveries set endpoint_id = 'endpoint_gone' where ${of(0)}`)
    await sql(`delete from events where ${of(1)}`)
    await sql(`update events set body = '{"type":' where ${of(2)}`)
    await call('POST', `/v1/endpoints/${endpointId}/resume`)
    const shown = await eventually('all settled', async () => {
      const { data } = await call('GET', '/v1/deliveries?limit=200')
      return data.every(({ status }: { status: string }) => ['delivered', 'canceled'].includes(status)) && data
    })
    const canceled = shown.filter(({ status }: { status: string }) => status === 'canceled')
    expect(new Set(canceled.map((each: { taskId: string; canceledReason: string }) => `${each.taskId} ${each.canceledReason}`))).toEqual(
      new Set([`${ids[0]} endpointDeleted`, `${ids[1]} taskDeleted`, `${ids[2]} taskDeleted`]),
    )
    expect(receiver.arrivals).toHaveLength(97)
    expect(warnings).toContainEqual(expect.stringMatching(/is owed to endpoint endpoint_gone, which is not in the store/))
    expect(warnings).toContainEqual(expect.stringMatching(/is of event event_\w+, whose bytes are damaged/))
    const feed = await call('GET', '/v1/events?limit=200')
    expect(feed.data).toHaveLength(99)
    expect(feed.data.filter(({ data }: { data: unknown }) => data === null)).toMatchObject([{ type: 'task.completed' }])
  })

  test('a secret that cannot be decrypted fails the attempts of its endpoint on schedule, and no others', async () => {
    const sealed = await addEndpoint('/sealed', { retrySchedule: [3_600] })
    await addEndpoint('/good')
    await sql(`update endpoints set secret = 'v1.${'A'.repeat(8)}.AAAA.AAAA', headers = 'x' where id = '${sealed}'`)
    await submit(50)
    await receiver.receives(50)
    await eventually('all attempted', async () => {
      const { data } = await call('GET', `/v1/deliveries?limit=200&endpointId=${sealed}`)
      return data.length === 50 && data.every(({ tries, status }: { tries: number; status: string }) => tries === 1 && status === 'pending')
    })
    expect(warnings.filter((said) => said.includes(`endpoints.secret of "${sealed}"`)).length).toBeGreaterThan(0)
    expect(new Set(receiver.arrivals.map(({ path }) => path))).toEqual(new Set(['/good']))
    expect((await call('GET', '/v1/endpoints')).data.map(({ status }: { status: string }) => status)).toEqual(['active', 'active'])
  })
})
