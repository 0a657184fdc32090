/** Keys as time passes: the whole platform under a clock moved by hand, with receivers on real sockets. */
import { createHmac } from 'node:crypto'
import Database from 'better-sqlite3'
import { base64url, createRemoteJWKSet, customFetch, flattenedVerify } from 'jose'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { freshSqlite } from '../support/databases.ts'
import { openPlatform } from '../support/platform.ts'
import { type Arrival, openReceiver, type Receiver } from '../support/receiver.ts'

const DAY = 86_400_000
const HOUR = 3_600_000

let receiver: Receiver
beforeEach(async () => {
  receiver = await openReceiver()
})
afterEach(() => receiver.close())

test('rotation under load: every webhook verifies at a receiver that caches the key set for ten minutes', async () => {
  const { url, remove } = freshSqlite()
  const platform = await openPlatform({ databaseUrl: url })
  const behind = new Database(url.slice('file:'.length))
  let fetched = 0
  const keys = createRemoteJWKSet(new URL('https://tasks.example/.well-known/jwks.json'), {
    cacheMaxAge: 600_000,
    [customFetch]: async () => {
      fetched++
      return Response.json(await platform.operate('GET', '/.well-known/jwks.json'))
    },
  })
  await platform.call('POST', '/v1/endpoints', { url: receiver.url, maxInFlight: 50 })
  const ids = (await platform.operate('GET', '/v1/signing-keys')).data.map(({ id }: { id: string }) => id)
  let submitted = 0
  for (let round = 0; round < 8; round++) {
    // The first key has signed for 90 days, and the next one was published with it.
    if (round === 3)
      behind.exec(`update signing_keys set activated_at = activated_at - ${90 * DAY}, published_at = published_at - ${90 * DAY}`)
    await platform.call('POST', '/v1/tasks/batch', { tasks: Array.from({ length: 25 }, () => ({ type: 'echo', input: {} })) })
    submitted += 25
    await platform.pass(10_000)
    await platform.until(() => receiver.arrivals.length >= submitted)
  }
  const seen = await Promise.all(receiver.arrivals.map(async (arrival) => (await verified(arrival, keys)).kid))
  expect(seen).toHaveLength(submitted)
  expect([...new Set(seen)], 'first the one, then the other').toEqual(ids)
  expect(fetched).toBe(1)
  const now = (await platform.operate('GET', '/v1/signing-keys')).data
  expect(now.map(({ state }: { state: string }) => state)).toEqual(['active', 'next', 'retiring'])
  expect(Date.parse(now[2].leavesAt) - Date.parse(now[2].retiredAt)).toBe(7 * DAY)
  behind.close()
  remove()
})

test('two secrets of an endpoint sign during their overlap, the newest last; then only the newest signs and the other is erased', async () => {
  const { url, remove } = freshSqlite()
  const platform = await openPlatform({ databaseUrl: url })
  const behind = new Database(url.slice('file:'.length), { readonly: true })
  const { id, secret: first } = await platform.call('POST', '/v1/endpoints', { url: receiver.url })
  const kept = () => behind.prepare('select previous_secret as sealed, previous_secret_until as until from endpoints').get() as Kept
  const signatures = async (): Promise<string[]> => {
    const before = receiver.arrivals.length
    await platform.call('POST', '/v1/tasks', { type: 'echo', input: {} })
    await platform.until(() => receiver.arrivals.length > before)
    // Recorded too: what is in flight when hours pass would be sent again.
    await platform.until(async () => (await platform.call('GET', '/v1/deliveries?status=pending,sending')).data.length === 0)
    return receiver.arrivals.at(-1)!.headers['webhook-signature']!.split(' ')
  }
  const by = (...secrets: string[]): string[] => secrets.map((secret) => standardSignature(receiver.arrivals.at(-1)!, secret))

  expect(await signatures()).toEqual(by(first))
  const { secret: second } = await platform.call('POST', `/v1/endpoints/${id}/rotate-secret`, { overlapSeconds: 60 })
  expect(await signatures()).toEqual(by(first, second))
  await platform.pass(59_000, 1_000)
  expect(await signatures()).toEqual(by(first, second))
  await platform.pass(1_001)
  expect(await signatures()).toEqual(by(second))
  expect(kept().sealed, 'it does not sign, but is there').not.toBeNull()
  await platform.pass(3 * HOUR, HOUR / 4)
  expect(kept()).toEqual({ sealed: null, until: null })
  expect(await signatures()).toEqual(by(second))

  const { secret: third } = await platform.call('POST', `/v1/endpoints/${id}/rotate-secret`)
  expect(kept().until! - platform.clock.wall(), 'a day when nothing is said').toBe(DAY)
  expect(await signatures()).toEqual(by(second, third))
  const { secret: fourth } = await platform.call('POST', `/v1/endpoints/${id}/rotate-secret`, { overlapSeconds: 0 })
  expect(await signatures()).toEqual(by(fourth))
  behind.close()
  remove()
})

interface Kept {
  readonly sealed: string | null
  readonly until: number | null
}

/** The protected header of the webhook's JWS, which must hold. */
async function verified({ headers, body }: Arrival, keys: ReturnType<typeof createRemoteJWKSet>) {
  const [head, signature] = headers['webhook-jws']!.split('..')
  const jws = { protected: head!, payload: base64url.encode(body), signature: signature! }
  return (await flattenedVerify(jws, keys, { algorithms: ['ES256'] })).protectedHeader!
}

function standardSignature({ headers, body }: Arrival, secret: string): string {
  const key = Buffer.from(secret.slice('whsec_'.length), 'base64')
  const signed = createHmac('sha256', key).update(`${headers['webhook-id']}.${headers['webhook-timestamp']}.`).update(body)
  return `v1,${signed.digest('base64')}`
}
