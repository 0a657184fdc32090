/** Keys beside and between real servers: what the operator's API shows, the command line, a new master key, emergency revocation, and secrets that overlap. */
import { spawnSync } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { base64url, createRemoteJWKSet, flattenedVerify } from 'jose'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { type Arrival, openReceiver, type Receiver } from '../support/receiver.ts'
import { calling, databases, eventually, type Home, newClient, ok, openHome } from '../support/server.ts'

const DAY = 86_400_000
const OPERATOR = 'operator-of-the-tests-0123456789'
const bin = fileURLToPath(new URL('../../bin/ringback.cjs', import.meta.url))
const newKey = (): string => randomBytes(32).toString('base64')
const RESEALED = 'every secret is encrypted with the current master key: the previous one may be removed'

describe.each(databases)('on %s', { timeout: 120_000 }, (database) => {
  let home: Home
  let receiver: Receiver
  beforeEach(async () => {
    receiver = await openReceiver()
    home = await openHome(database)
  })
  afterEach(async () => {
    await receiver.close()
    await home.close()
  })

  test('a new master key seals everything anew behind the start; then the server starts with it alone, and lists, cursors and webhooks go on', async () => {
    const [old, fresh] = [newKey(), newKey()]
    const first = await home.start({ RINGBACK_MASTER_KEY: old })
    const client = await newClient(await first.listening)
    await ok(client.call('POST', '/v1/endpoints', { url: receiver.url, headers: { Authorization: 'Bearer of-the-receiver' } }))
    const tasks = Array.from({ length: 3 }, () => ({ type: 'demo.echo', input: null }))
    await ok(client.call('POST', '/v1/tasks/batch', { tasks }))
    const { nextCursor } = (await ok(client.call('GET', '/v1/tasks?limit=1'))).json
    await receiver.receives(3)
    first.kill('SIGTERM')
    await first.ended

    const early = home.spawn({ RINGBACK_MASTER_KEY: fresh })
    expect((await early.ended).code).toBe(1)
    expect(early.said()).toContain('give that key as RINGBACK_MASTER_KEY or RINGBACK_MASTER_KEY_PREVIOUS')

    const both = await home.start({ RINGBACK_MASTER_KEY: fresh, RINGBACK_MASTER_KEY_PREVIOUS: old })
    await eventually('everything encrypted again', () => both.lines(RESEALED)[0])
    both.kill('SIGTERM')
    await both.ended

    const alone = await home.start({ RINGBACK_MASTER_KEY: fresh })
    const call = calling(await alone.listening, client.key)
    expect((await ok(call('GET', `/v1/tasks?limit=1&cursor=${nextCursor}`))).json.data).toHaveLength(1)
    await ok(call('POST', '/v1/tasks', { type: 'demo.echo', input: null }))
    const arrival = (await receiver.receives(4))[3]!
    expect(arrival.headers.authorization).toBe('Bearer of-the-receiver')
  })

  test('the operator sees keys without their private parts, and what is asked for is remembered; a client sees nothing', async () => {
    const base = await (await home.start()).listening
    const operator = calling(base, OPERATOR)
    const client = await newClient(base)
    const list = await ok(operator('GET', '/v1/signing-keys'))
    expect(list.text).not.toMatch(/private|"d"|v1\./i)
    expect(list.json.data.map(({ state }: Shown) => state)).toEqual(['active', 'next'])
    const [active, next]: Shown[] = list.json.data
    expect(Object.keys(active!)).toEqual([
      'id',
      'state',
      'alg',
      'createdAt',
      'publishedAt',
      'activatedAt',
      'retiredAt',
      'signsFrom',
      'leavesAt',
    ])
    expect(next).toMatchObject({ activatedAt: null, signsFrom: null, leavesAt: null })

    const wished: Shown[] = (await ok(operator('POST', '/v1/signing-keys/rotate'))).json.data
    expect(
      wished.map(({ state }) => state),
      'too young to sign',
    ).toEqual(['active', 'next'])
    expect(Date.parse(wished[1]!.signsFrom!) - Date.parse(next!.publishedAt)).toBe(DAY)
    expect((await ok(operator('POST', '/v1/signing-keys/rotate'))).json.data, 'asked twice is asked once').toEqual(wished)

    for (const [method, path] of [
      ['GET', ''],
      ['POST', '/rotate'],
      ['POST', `/${active!.id}/revoke`],
    ])
      expect((await client.call(method!, `/v1/signing-keys${path}`)).status).toBe(403)
    expect((await operator('POST', '/v1/signing-keys/nothing/revoke')).status).toBe(404)
    expect((await ok(operator('GET', '/v1/signing-keys'))).json.data).toEqual(wished)
  })

  test('the command line works beside a running server, which hears of it', async () => {
    const masterKey = newKey()
    const base = await (await home.start({ RINGBACK_MASTER_KEY: masterKey })).listening
    const operator = calling(base, OPERATOR)
    const keys = (...args: string[]) => ringbackKeys(args, home.databaseUrl, masterKey)
    const [active, next]: Shown[] = (await ok(operator('GET', '/v1/signing-keys'))).json.data
    const listed = keys('list')
    expect(listed).toMatchObject({ status: 0, stderr: '' })
    expect(listed.stdout).toMatch(new RegExp(`^${active!.id}  active .*\n${next!.id}  next `))
    expect(keys('rotate')).toMatchObject({ status: 0, stdout: expect.stringContaining('signs from') })
    expect((await ok(operator('GET', '/v1/signing-keys'))).json.data[1].signsFrom).not.toBeNull()
    expect(keys('revoke', active!.id)).toMatchObject({ status: 0, stdout: expect.stringContaining('revoked') })
    expect(ringbackKeys(['list'], home.databaseUrl, newKey())).toMatchObject({
      status: 1,
      stdout: '',
      stderr: expect.stringContaining('The master key does not fit this store.'),
    })
    const kids = async (): Promise<string[]> =>
      (await ok(operator('GET', '/.well-known/jwks.json'))).json.keys.map(({ kid }: { kid: string }) => kid)
    // On SQLite no other process can tell the server: it reads the keys anew within 30 s, or when it changes them itself.
    if (database === 'SQLite') await ok(operator('POST', '/v1/signing-keys/rotate'))
    await eventually('the revoked key gone', async () => !(await kids()).includes(active!.id))
    expect(await kids()).toContain(next!.id)
  })

  test('in an emergency under load, what is signed after the revocation verifies at receivers with a stale key set, and nothing is lost', async () => {
    const base = await (await home.start()).listening
    const operator = calling(base, OPERATOR)
    const client = await newClient(base)
    await ok(client.call('POST', '/v1/endpoints', { url: receiver.url, maxInFlight: 50 }))
    // Keys for ten minutes; without the pause that jose makes between two fetches, a test has no time for it.
    const stale = createRemoteJWKSet(new URL(`${base}/.well-known/jwks.json`), { cacheMaxAge: 600_000, cooldownDuration: 0 })
    const seen: { kid: string; iat: number; error: unknown }[] = []
    const verdicts: Promise<unknown>[] = []
    receiver.answer((arrival) => {
      verdicts.push(verdict(arrival, stale).then((it) => seen.push(it)))
      return { status: 200 }
    })
    let loading = true
    let submitted = 0
    const load = (async () => {
      while (loading) {
        const tasks = Array.from({ length: 20 }, () => ({ type: 'demo.echo', input: {} }))
        await ok(client.call('POST', '/v1/tasks/batch', { tasks }))
        submitted += tasks.length
      }
    })()
    await receiver.receives(60)
    const revoked: { kid: string; at: number }[] = []
    // The second time the key that steps in is seconds old: no receiver has seen it.
    for (let time = 0; time < 2; time++) {
      const active = (await ok(operator('GET', '/v1/signing-keys'))).json.data[0] as Shown
      const { data } = (await ok(operator('POST', `/v1/signing-keys/${active.id}/revoke`))).json
      revoked.push({ kid: active.id, at: Math.ceil(Date.now() / 1000) })
      expect(data.find(({ id }: Shown) => id === active.id)).toMatchObject({ state: 'revoked' })
      expect((await ok(operator('GET', '/.well-known/jwks.json'))).text).not.toContain(active.id)
      await receiver.receives(receiver.arrivals.length + 100)
    }
    loading = false
    await load
    await receiver.receives(submitted)
    await Promise.all(verdicts)
    for (const { kid, at } of revoked)
      expect(
        seen.filter((it) => it.kid === kid && it.iat > at),
        'nothing is signed with it any more',
      ).toEqual([])
    const outOfUse = new Set(revoked.map(({ kid }) => kid))
    expect(seen.filter(({ kid, error }) => error !== null && !outOfUse.has(kid))).toEqual([])
    expect(new Set(seen.map(({ kid }) => kid)).size, 'all three signed').toBe(3)
    expect(new Set(receiver.arrivals.map(({ id }) => id)).size).toBe(submitted)
  })
})

interface Shown {
  readonly id: string
  readonly state: string
  readonly publishedAt: string
  readonly signsFrom: string | null
}

function ringbackKeys(args: readonly string[], databaseUrl: string, masterKey: string) {
  const inherited = Object.entries(process.env).filter(([name]) => !name.startsWith('RINGBACK_'))
  const cached = { NODE_COMPILE_CACHE: join(tmpdir(), 'ringback-tests-compile-cache') }
  const env = { ...Object.fromEntries(inherited), ...cached, RINGBACK_MASTER_KEY: masterKey, RINGBACK_ADMIN_TOKEN: OPERATOR }
  const { status, stdout, stderr } = spawnSync(process.execPath, [bin, 'keys', ...args, '--database-url', databaseUrl], {
    env,
    encoding: 'utf8',
  })
  return { status, stdout, stderr }
}

/** What its signature says, and whether it holds. */
async function verdict({ headers, body }: Arrival, keys: ReturnType<typeof createRemoteJWKSet>) {
  const [head, signature] = headers['webhook-jws']!.split('..')
  const { kid, iat } = JSON.parse(Buffer.from(head!, 'base64url').toString('utf8')) as { kid: string; iat: number }
  const jws = { protected: head!, payload: base64url.encode(body), signature: signature! }
  const error = await flattenedVerify(jws, keys, { algorithms: ['ES256'] }).then(
    () => null,
    (cause: unknown) => cause,
  )
  return { kid, iat, error }
}
