/** Unknown keys: what a flood of them costs, whom it keeps out, and whom not. */
import { hash } from 'node:crypto'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { type Authenticator, createAuthenticator } from '../../../src/http/request/auth.ts'
import { type Client, type Kit, openKit } from '../kit.ts'

const MOST = 1_000

let kit: Kit
let looks: number
let now: number
let gate: Authenticator
let client: Client
beforeEach(async () => {
  kit = await openKit()
  looks = 0
  now = kit.clock.now()
  const findKey = (hashed: string) => {
    looks++
    return kit.store.access.findKey(hashed)
  }
  gate = createAuthenticator({
    ...kit.options,
    clock: { ...kit.clock, now: () => now },
    store: { ...kit.store, access: { ...kit.store.access, findKey } },
  })
  client = await kit.newClient()
})
afterEach(() => kit.close())

let made = 0
/** Keys as they look, with a right checksum: whoever reads the source can make them. */
function forged(): string {
  const chance = String(made++).padStart(43, 'x')
  return `rb_${chance}${hash('sha256', chance, 'base64url').slice(0, 6)}`
}
/** How the gate answers: `known`, or the code of its refusal. */
const ask = async (key: string, address: string): Promise<string> => {
  try {
    await gate.authenticate({ header: () => `Bearer ${key}`, address }, now)
    return 'known'
  } catch (error) {
    return (error as { code: string }).code
  }
}
const flood = async (address: string, n: number): Promise<Record<string, number>> => {
  const answers = await Promise.all(Array.from({ length: n }, () => ask(forged(), address)))
  return Object.fromEntries([...new Set(answers)].map((code) => [code, answers.filter((it) => it === code).length]))
}

test('a key that was mistyped, cut off or guessed without its checksum costs the store nothing', async () => {
  for (const key of [`${client.key}x`, client.key.slice(0, -1), `${client.key.slice(0, -1)}!`, 'rb_', 'x'.repeat(8_000)])
    expect(await ask(key, '192.0.2.1')).toBe('unauthenticated')
  expect(looks).toBe(0)
})

test('of keys that look right an address has a thousand unknown ones looked up in a minute, however many it sends at once', async () => {
  expect(await flood('192.0.2.1', 3 * MOST)).toEqual({ unauthenticated: MOST, quota_exceeded: 2 * MOST })
  expect(looks).toBe(MOST)
  const refused = await Promise.resolve()
    .then(() => gate.authenticate({ header: () => `Bearer ${forged()}`, address: '192.0.2.1' }, now))
    .catch((error) => error)
  expect(refused).toMatchObject({ status: 429, headers: { 'Retry-After': expect.stringMatching(/^[1-6]?\d$/) } })
})

test('a client that this node has met is served beside a flood from its own address, and one that it has not from any other', async () => {
  expect(await ask(client.key, '192.0.2.1')).toBe('known')
  await flood('192.0.2.1', MOST)
  now += 10_000
  expect(await ask(client.key, '192.0.2.1'), 'what was remembered of it has lapsed').toBe('known')
  const other = await kit.newClient()
  expect(await ask(other.key, '192.0.2.1')).toBe('quota_exceeded')
  expect(await ask(other.key, '192.0.2.2')).toBe('known')
})

test('valid keys are not counted against an address', async () => {
  const keys = [client.key]
  for (let i = 0; i < 20; i++) keys.push((await kit.admin.call('POST', `/v1/clients/${client.id}/keys`, {})).json.key)
  for (const key of keys) expect(await ask(key, '192.0.2.1')).toBe('known')
  expect(looks).toBe(keys.length)
  expect(await flood('192.0.2.1', MOST)).toEqual({ unauthenticated: MOST })
})

test('an IPv6 network of 64 bits is one address', async () => {
  await flood('2001:db8:1:2::1', MOST)
  expect(await ask(forged(), '2001:db8:1:2:3:4:5:6')).toBe('quota_exceeded')
  expect(await ask(forged(), '2001:db8:1:3::1')).toBe('unauthenticated')
})
