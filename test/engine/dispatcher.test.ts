/** Deliveries over days of fake time, sent over real sockets by the whole platform. */
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { openPlatform, type Platform } from '../support/platform.ts'
import { openReceiver, type Receiver } from '../support/receiver.ts'

const SCHEDULE = [5, 30, 120, 600, 1_800, 7_200, 18_000, 36_000, 50_400, 72_000, 86_400]

let receiver: Receiver
beforeEach(async () => {
  receiver = await openReceiver()
})
afterEach(() => receiver.close())

/** An endpoint, and one task that ended: its delivery, once it was attempted for the first time. */
async function owe(platform: Platform, endpoint: object = {}): Promise<{ endpointId: string; delivery: () => Promise<Shown> }> {
  const { id: endpointId } = await platform.call('POST', '/v1/endpoints', { url: `${receiver.url}/hooks`, ...endpoint })
  const { id } = await platform.call('POST', '/v1/tasks', { type: 'echo', input: {} })
  const delivery = async (): Promise<Shown> => (await platform.call('GET', `/v1/deliveries?taskId=${id}`)).data[0]
  await platform.until(async () => ((await delivery())?.attempts.length ?? 0) >= 1)
  return { endpointId, delivery }
}
interface Shown {
  readonly id: string
  readonly status: string
  readonly tries: number
  readonly maxTries: number
  readonly nextAttemptAt: string | null
  readonly waitingFor: string | null
  readonly attempts: readonly {
    readonly outcome: string
    readonly startedAt: string
    readonly durationMs: number
    readonly retryAfterSeconds: number | null
  }[]
}

describe('the schedule of retries', () => {
  test('is 12 attempts over 76 to 91 hours, each after its delay plus up to 20 % jitter, counted from the end of the previous one', async () => {
    receiver.answer({ status: 500 })
    const platform = await openPlatform()
    const { delivery } = await owe(platform)
    const begun = platform.clock.now()
    for (const [i, seconds] of SCHEDULE.entries()) {
      const before = await delivery()
      expect(before).toMatchObject({ status: 'pending', tries: i + 1, maxTries: 12, waitingFor: 'retryBackoff' })
      const last = before.attempts.at(-1)!
      const delay = Date.parse(before.nextAttemptAt!) - (Date.parse(last.startedAt) + last.durationMs)
      expect(delay).toBeGreaterThanOrEqual(seconds * 1_000)
      expect(delay).toBeLessThanOrEqual(seconds * 1_200)
      const wait = Date.parse(before.nextAttemptAt!) - platform.clock.now()
      await platform.pass(wait - 1)
      expect((await delivery()).attempts, 'not before its time').toHaveLength(i + 1)
      await platform.pass(1)
      await platform.until(async () => (await delivery()).attempts.length === i + 2)
      expect(platform.clock.now() - Date.parse(before.nextAttemptAt!), 'at its time').toBe(0)
    }
    const ended = await delivery()
    expect(ended).toMatchObject({ status: 'failed', tries: 12, nextAttemptAt: null, waitingFor: null })
    const hours = (platform.clock.now() - begun) / 3_600_000
    expect(hours).toBeGreaterThanOrEqual(75.6)
    expect(hours).toBeLessThanOrEqual(91)
    const ids = new Set(receiver.arrivals.map(({ id }) => id))
    expect(receiver.arrivals).toHaveLength(12)
    expect(ids.size).toBe(1)
    expect(new Set(receiver.arrivals.map(({ body }) => body.toString())).size).toBe(1)
    expect(receiver.arrivals.map(({ headers }) => headers['webhook-attempt'])).toEqual(Array.from({ length: 12 }, (_, i) => String(i + 1)))
  })

  test('honours a Retry-After longer than its delay, and jitter never shortens it', async () => {
    receiver.answer({ status: 429, headers: { 'retry-after': '3600' } })
    const platform = await openPlatform()
    const { delivery } = await owe(platform)
    const first = await delivery()
    expect(first).toMatchObject({ waitingFor: 'retryAfter' })
    expect(first.attempts[0]).toMatchObject({ outcome: 'http_error', retryAfterSeconds: 3_600 })
    await platform.pass(3_599_000)
    expect(receiver.arrivals).toHaveLength(1)
    receiver.answer({ status: 204 })
    await platform.pass(2_000)
    await platform.until(async () => (await delivery()).status === 'delivered')
  })

  test('a Retry-After of 429 is capped at a day', async () => {
    receiver.answer({ status: 429, headers: { 'retry-after': '999999999' } })
    const platform = await openPlatform()
    const { delivery } = await owe(platform)
    const { nextAttemptAt } = await delivery()
    expect(Date.parse(nextAttemptAt!) - platform.clock.now()).toBe(86_400_000)
  })

  test("410 ends it: the delivery fails, the endpoint is disabled, and the client's other endpoint is notified", async () => {
    const other = await openReceiver()
    const platform = await openPlatform()
    await platform.call('POST', '/v1/endpoints', { url: `${other.url}/told`, taskTypes: ['none'] })
    receiver.answer({ status: 410 })
    const { endpointId, delivery } = await owe(platform)
    await platform.until(async () => (await delivery()).status === 'failed')
    expect(await platform.call('GET', `/v1/endpoints/${endpointId}`)).toMatchObject({ status: 'disabled', disabledReason: 'gone' })
    const [told] = await other.receives(1)
    expect(told!.event).toMatchObject({ type: 'endpoint.disabled', data: { endpointId, reason: 'gone' } })
    await other.close()
  })
})

test('a delivery that waits for the breaker shows it, and arrives when a probe succeeds', async () => {
  receiver.answer({ status: 500 })
  const platform = await openPlatform({ retrySchedule: Array.from({ length: 20 }, () => 0) })
  const { delivery } = await owe(platform)
  await platform.until(async () => (await delivery()).tries === 10)
  await platform.until(async () => (await delivery()).status === 'pending')
  expect(await delivery()).toMatchObject({ waitingFor: 'breaker', nextAttemptAt: null })
  receiver.answer({ status: 200 })
  await platform.pass(5_100)
  await platform.until(async () => (await delivery()).status === 'delivered')
  expect(receiver.arrivals).toHaveLength(11)
})

test('one client’s slow receivers do not delay another client’s webhook, even with enough deliveries for every slot', async () => {
  receiver.answer(({ path }) => ({ status: 200, ...(path.startsWith('/late') && { afterMs: 8_000 }) }))
  const platform = await openPlatform({ dispatchConcurrency: 8 })
  for (let i = 0; i < 10; i++) await platform.call('POST', '/v1/endpoints', { url: `${receiver.url}/late/${i}` })
  for (let i = 0; i < 3; i++) await platform.call('POST', '/v1/tasks', { type: 'echo', input: {} })
  await platform.until(() => receiver.load.now >= 6)
  const other = await platform.newClient()
  await other('POST', '/v1/endpoints', { url: `${receiver.url}/hooks` })
  await other('POST', '/v1/tasks', { type: 'echo', input: {} })
  await receiver.receives(1, { path: '/hooks' })
  const late = receiver.arrivals.filter(({ path }) => path.startsWith('/late'))
  expect(late.map(({ status }) => status)).toEqual(Array(6).fill(null))
  // And what waits of the first goes on as those that began end.
  await platform.until(() => receiver.arrivals.length > 8)
})
