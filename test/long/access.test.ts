/** The ends of keys and of clients, on real servers: heard of by others, and gone on with after a sudden death. */
import { afterEach, expect, test } from 'vitest'
import { calling, databases, eventually, newClient, ok, openHome } from '../support/server.ts'

const OPERATOR = 'operator-of-the-tests-0123456789'

const closing: { close(): Promise<void> }[] = []
afterEach(async () => {
  await Promise.all(closing.splice(0).map((it) => it.close()))
})

test('a key revoked on one of two servers is refused by the other within 5 s, and so is what was rotated away', async () => {
  const home = await openHome('PostgreSQL')
  closing.push(home)
  const [here, there] = await Promise.all((await Promise.all([home.start(), home.start()])).map(({ listening }) => listening))
  const operator = calling(here!, OPERATOR)
  const client = await newClient(here!)
  const keys = `/v1/clients/${client.id}/keys`
  const status = async (key: string) => (await calling(there!, key)('GET', '/v1/tasks')).status
  const refusedAfter = async (key: string, end: () => Promise<unknown>): Promise<number> => {
    expect(await status(key)).toBe(200)
    await end()
    const endedAt = performance.now()
    await eventually('the other server refuses it', async () => (await status(key)) !== 200)
    return performance.now() - endedAt
  }
  const [{ id }] = (await ok(operator('GET', keys))).json.data
  const rotated = await ok(operator('POST', `${keys}/${id}/rotate`))
  expect(await refusedAfter(client.key, () => ok(operator('POST', `${keys}/${id}/rotate`, { overlapSeconds: 0 })))).toBeLessThan(5_000)
  const { id: fresh, key } = rotated.json
  expect(await refusedAfter(key, () => ok(operator('DELETE', `${keys}/${fresh}`)))).toBeLessThan(5_000)
}, 120_000)

test.each(databases)(
  'a client deleted with thousands of tasks is erased whole, though the server is killed amid it, on %s',
  async (name) => {
    const home = await openHome(name)
    closing.push(home)
    const first = await home.start()
    const base = await first.listening
    const [leaves, stays] = [await newClient(base), await newClient(base)]
    const waiting = Array.from({ length: 100 }, () => ({ type: 'demo.echo', input: 'x', metadata: { a: 'b' }, delaySeconds: 3_600 }))
    for (const { call } of [leaves, stays]) await ok(call('POST', '/v1/endpoints', { url: 'http://127.0.0.1:9009/hooks' }))
    await Promise.all(Array.from({ length: 60 }, () => ok(leaves.call('POST', '/v1/tasks/batch', { tasks: waiting }))))
    await ok(stays.call('POST', '/v1/tasks/batch', { tasks: waiting }))
    await ok(calling(base, OPERATOR)('DELETE', `/v1/clients/${leaves.id}`))
    expect((await leaves.call('GET', '/v1/tasks')).status).toBe(401)
    const count = async (table: string, of: string): Promise<number> =>
      Number((await home.query<{ n: number }>(`select count(*) as n from ${table} where client_id = '${of}'`))[0]!.n)
    const pending = () => home.query<{ n: number }>(`select id from tasks where client_id = '${leaves.id}' and state = 'pending'`)
    // One page was done with the deletion itself; a few more are on their way when it dies.
    await eventually('a page of the janitor', async () => (await pending()).length < 5_500, { withinMs: 30_000, everyMs: 2 })
    first.kill('SIGKILL')
    await first.ended
    const left = await count('tasks', leaves.id)
    expect(left).toBeGreaterThan(0)
    const second = await home.start()
    await second.listening
    const tables = ['tasks', 'events', 'labels', 'deliveries', 'endpoints', 'keys', 'schedules', 'idempotency']
    await eventually(
      'nothing of it is left',
      async () => {
        const counts = await Promise.all(tables.map((table) => count(table, leaves.id)))
        return counts.every((n) => n === 0)
      },
      { withinMs: 60_000, everyMs: 200 },
    )
    expect(await count('tasks', stays.id)).toBe(100)
    expect(await count('labels', stays.id)).toBe(100)
  },
  120_000,
)
