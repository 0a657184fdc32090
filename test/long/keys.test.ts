/** A new master key on several servers: in the right order nobody notices, in the wrong one it is loud and nothing is lost. */
import { randomBytes } from 'node:crypto'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { openReceiver, type Receiver } from '../support/receiver.ts'
import { calling, eventually, type Home, newClient, ok, openHome } from '../support/server.ts'

const newKey = (): string => randomBytes(32).toString('base64')
const RESEALED = 'every secret is encrypted with the current master key: the previous one may be removed'

describe('on one PostgreSQL', () => {
  let home: Home
  let receiver: Receiver
  beforeEach(async () => {
    receiver = await openReceiver()
    home = await openHome('PostgreSQL')
  })
  afterEach(async () => {
    await receiver.close()
    await home.close()
  })

  test('nodes that were all given both master keys first change over one by one without a failed attempt, and none starts too early with the new one alone', async () => {
    const [old, fresh] = [newKey(), newKey()]
    const before = { RINGBACK_MASTER_KEY: old, RINGBACK_MASTER_KEY_PREVIOUS: fresh, RINGBACK_PUBLIC_URL: 'https://tasks.example.com' }
    const after = { ...before, RINGBACK_MASTER_KEY: fresh, RINGBACK_MASTER_KEY_PREVIOUS: old }
    const alone = { RINGBACK_MASTER_KEY: fresh, RINGBACK_PUBLIC_URL: before.RINGBACK_PUBLIC_URL }
    const slow = await home.start(before)
    const slowBase = await slow.listening
    const client = await newClient(slowBase)
    await ok(client.call('POST', '/v1/endpoints', { url: `${receiver.url}/first` }))
    const quick = await home.start(after)
    await eventually('everything encrypted again', () => quick.lines(RESEALED)[0])
    // The node that has not changed over yet decrypts what was encrypted again, and encrypts with the old key.
    await ok(client.call('POST', '/v1/endpoints', { url: `${receiver.url}/second` }))
    await ok(client.call('POST', '/v1/tasks', { type: 'demo.echo', input: {} }))
    await receiver.receives(2)
    const early = home.spawn(alone)
    expect((await early.ended).code).toBe(1)
    expect(early.said()).toContain('Some values of this store are still encrypted with the previous master key')

    slow.kill('SIGTERM')
    await slow.ended
    const last = await home.start(after)
    await eventually('everything encrypted again', () => last.lines(RESEALED)[0])
    const done = await home.start(alone)
    await ok(calling(await done.listening, client.key)('POST', '/v1/tasks', { type: 'demo.echo', input: {} }))
    await receiver.receives(4)
    const attempts = await home.query<{ outcome: string }>('select distinct outcome from attempts')
    expect(attempts).toEqual([{ outcome: 'success' }])
  })

  test('a node left with the old master key alone fails attempts loudly and loses none: they are sent by the next one that has both', async () => {
    const [old, fresh] = [newKey(), newKey()]
    const left = await home.start({ RINGBACK_MASTER_KEY: old })
    const client = await newClient(await left.listening)
    await ok(client.call('POST', '/v1/endpoints', { url: receiver.url, retrySchedule: [1, 1, 1, 1, 1, 1, 1, 1, 1, 1] }))
    const both = { RINGBACK_MASTER_KEY: fresh, RINGBACK_MASTER_KEY_PREVIOUS: old }
    const ahead = await home.start(both)
    await eventually('everything encrypted again', () => ahead.lines(RESEALED)[0])
    ahead.kill('SIGTERM')
    await ahead.ended
    const task = (await ok(client.call('POST', '/v1/tasks', { type: 'demo.echo', input: {} }))).json
    const attempts = await eventually('a failed attempt', async () => {
      const { data } = (await ok(client.call('GET', `/v1/deliveries?taskId=${task.id}`))).json
      return data[0]?.attempts.length > 0 && data[0].attempts
    })
    expect(attempts[0].error).toBe('the webhook could not be signed; the log of the server says why')
    await eventually('a line that says why', () => left.said().includes('was encrypted with master key'))
    expect(receiver.arrivals).toEqual([])
    left.kill('SIGTERM')
    await left.ended
    await home.start(both)
    await receiver.receives(1)
  })
})
