import { createHash, randomBytes } from 'node:crypto'
import { base64url, createLocalJWKSet, FlattenedSign, flattenedVerify, type JSONWebKeySet } from 'jose'
import { describe, expect, test } from 'vitest'
import { systemClock } from '../../src/core/clock.ts'
import { createEncryptor, type Encryptor } from '../../src/core/encryption.ts'
import type { Millis, SigningKey, SigningKeyState } from '../../src/core/model.ts'
import { createKeyRing, type KeyRing, planKeyRotation } from '../../src/webhook/keys.ts'
import { fc } from '../support/chance.ts'

const DAY_MS = 86_400_000
const newSealer = (): Encryptor => createEncryptor({ masterKey: randomBytes(32).toString('base64'), clock: systemClock() })
const published = (ring: KeyRing): JSONWebKeySet => JSON.parse(ring.jwks().body) as JSONWebKeySet
const kids = (ring: KeyRing): (string | undefined)[] => published(ring).keys.map((key) => key.kid)

type Signing = Parameters<typeof createKeyRing>[0]['store']['signing']

/** Rows in memory under the rules of the store: one active and one next key. */
function memory() {
  const rows: SigningKey[] = []
  const taken = (key: SigningKey): boolean => rows.some((row) => row.state === key.state)
  let reads = 0
  let failure: Error | null = null
  const signing: Signing = {
    async listKeys() {
      reads++
      if (failure !== null) throw failure
      return [...rows]
    },
    async addKeys({ keys }) {
      for (const key of keys) if (!taken(key)) rows.push(key)
      return [...rows]
    },
    async rotateKeys({ activate, retire, remove }) {
      const set = (id: string, state: SigningKeyState): void => {
        const at = rows.findIndex((row) => row.id === id)
        rows[at] = { ...rows[at]!, state }
      }
      if (retire) set(retire, 'retiring')
      if (activate) set(activate, 'active')
      rows.splice(0, rows.length, ...rows.filter(({ id }) => !remove.includes(id)))
      return [...rows]
    },
  }
  const kid = (state: SigningKeyState): string | undefined => rows.find((row) => row.state === state)?.id
  const move = (from: SigningKeyState, to: SigningKeyState): void => {
    const at = rows.findIndex((row) => row.state === from)
    rows[at] = { ...rows[at]!, state: to }
  }
  return { store: { signing }, rows, kid, move, reads: () => reads, fail: (error: Error | null) => (failure = error) }
}

/** Time that stands still until it is moved. */
function stillClock() {
  let at: Millis = 1_795_341_605_000
  return { now: () => at, pass: (ms: Millis) => (at += ms) }
}

/** Waits until everything that is under way and waits for no outside event is done. */
const settled = (): Promise<void> => new Promise((resolve) => setImmediate(() => setImmediate(resolve)))

describe('the first start', () => {
  test('creates an active and a next key and publishes both', async () => {
    const { store, rows, kid } = memory()
    const ring = createKeyRing({ store, encryptor: newSealer(), clock: stillClock() })
    await ring.load()
    expect(rows.map(({ state }) => state)).toEqual(['active', 'next'])
    expect(kids(ring)).toEqual([kid('active'), kid('next')])
    expect((await ring.active()).kid).toBe(kid('active'))
  })

  test('happens once: a later start finds the same keys', async () => {
    const { store, rows } = memory()
    const encryptor = newSealer()
    const before = createKeyRing({ store, encryptor, clock: stillClock() })
    await before.load()
    const kept = structuredClone(rows)
    const after = createKeyRing({ store, encryptor, clock: stillClock() })
    await after.load()
    expect(rows).toEqual(kept)
    expect(after.jwks()).toEqual(before.jwks())
  })

  test('of several nodes at once, in any order of their statements, ends with one active and one next key', async () => {
    await fc.assert(
      fc.asyncProperty(fc.scheduler(), fc.integer({ min: 2, max: 3 }), async (order, nodes) => {
        const { store, rows } = memory()
        const encryptor = newSealer()
        const rings = Array.from({ length: nodes }, () =>
          createKeyRing({
            store: {
              signing: {
                listKeys: order.scheduleFunction(store.signing.listKeys),
                addKeys: order.scheduleFunction(store.signing.addKeys),
                rotateKeys: order.scheduleFunction(store.signing.rotateKeys),
              },
            },
            encryptor,
            clock: stillClock(),
          }),
        )
        await order.waitFor(Promise.all(rings.map((ring) => ring.load())))
        expect(rows.map(({ state }) => state).sort()).toEqual(['active', 'next'])
        const actives = await Promise.all(rings.map((ring) => ring.active()))
        expect(new Set(actives.map(({ kid }) => kid))).toEqual(new Set([rows.find(({ state }) => state === 'active')!.id]))
        expect(new Set(rings.map((ring) => ring.jwks().etag)).size).toBe(1)
      }),
      { numRuns: 30 },
    )
  })

  test('with a wrong master key creates and changes no keys', async () => {
    const { store, rows, move } = memory()
    const clock = stillClock()
    await createKeyRing({ store, encryptor: newSealer(), clock }).load()
    const wrong = createKeyRing({ store, encryptor: newSealer(), clock })
    const kept = structuredClone(rows)
    await expect(wrong.load()).rejects.toThrow(/signing_keys\.private_jwk of .* was encrypted with master key/)
    expect(rows).toEqual(kept)
    move('next', 'retiring')
    move('active', 'retiring')
    await expect(wrong.load()).rejects.toThrow(/was encrypted with master key/)
    expect(rows).toHaveLength(2)
  })
})

describe('a key', () => {
  test('signs what its public key verifies', async () => {
    const { store } = memory()
    const ring = createKeyRing({ store, encryptor: newSealer(), clock: stillClock() })
    await ring.load()
    const { kid, privateKey } = await ring.active()
    const jws = await new FlattenedSign(new TextEncoder().encode('{}')).setProtectedHeader({ alg: 'ES256', kid }).sign(privateKey)
    const { protectedHeader } = await flattenedVerify({ ...jws, payload: base64url.encode('{}') }, createLocalJWKSet(published(ring)), {
      algorithms: ['ES256'],
    })
    expect(protectedHeader?.kid).toBe(kid)
    expect(privateKey.extractable).toBe(false)
  })

  test('has its RFC 7638 thumbprint as id, and its private key is encrypted for its own row', async () => {
    const { store } = memory()
    const [encryptor, clock] = [newSealer(), stillClock()]
    const key = await createKeyRing({ store, encryptor, clock }).generateSigningKey('next')
    const { kty, crv, x, y } = JSON.parse(key.publicJwk) as Record<string, string>
    const canonical = `{"crv":"${crv}","kty":"${kty}","x":"${x}","y":"${y}"}`
    expect(key.id).toBe(createHash('sha256').update(canonical).digest('base64url'))
    expect(key).toMatchObject({
      state: 'next',
      alg: 'ES256',
      createdAt: clock.now(),
      publishedAt: clock.now(),
      activatedAt: null,
      retiredAt: null,
      wantedAt: null,
    })
    const place = { table: 'signing_keys', id: key.id, column: 'private_jwk' }
    expect(JSON.parse(encryptor.decrypt(key.privateJwk, place))).toMatchObject({ kty, crv, x, y, d: expect.any(String) })
    expect(() => encryptor.decrypt(key.privateJwk, { ...place, id: 'another' })).toThrow(/another row/)
  })

  test('is published with only its public members, whatever the row contains', async () => {
    const { store, rows } = memory()
    const ring = createKeyRing({ store, encryptor: newSealer(), clock: stillClock() })
    await ring.load()
    rows[0] = { ...rows[0]!, publicJwk: JSON.stringify({ ...JSON.parse(rows[0]!.publicJwk), d: 'leaked', ext: true }) }
    await ring.load()
    for (const key of published(ring).keys) expect(Object.keys(key)).toEqual(['kty', 'crv', 'x', 'y', 'kid', 'alg', 'use'])
    expect(published(ring).keys[0]).toMatchObject({ kty: 'EC', crv: 'P-256', alg: 'ES256', use: 'sig' })
    expect(ring.jwks().body).not.toContain('leaked')
  })
})

describe('the published set', () => {
  test('holds active, next and retiring keys and no revoked one', async () => {
    const { store, kid, move } = memory()
    const ring = createKeyRing({ store, encryptor: newSealer(), clock: stillClock() })
    await ring.load()
    const [first, second] = [kid('active'), kid('next')]
    move('active', 'retiring')
    move('next', 'active')
    await ring.load()
    const third = kid('next')
    expect(third).toBeDefined()
    expect(kids(ring)).toEqual([second, third, first])
    expect((await ring.active()).kid).toBe(second)
    move('active', 'revoked')
    move('next', 'active')
    await ring.load()
    expect(kids(ring)).toEqual([third, kid('next'), first])
  })

  test('has a strong ETag that changes only with the set', async () => {
    const { store, move } = memory()
    const ring = createKeyRing({ store, encryptor: newSealer(), clock: stillClock() })
    await ring.load()
    const { etag } = ring.jwks()
    expect(etag).toMatch(/^"[\w-]{22}"$/)
    await ring.load()
    expect(ring.jwks().etag).toBe(etag)
    move('next', 'revoked')
    await ring.load()
    expect(ring.jwks().etag).not.toBe(etag)
  })

  test('cannot be read before it was loaded', () => {
    expect(() => createKeyRing({ store: memory().store, encryptor: newSealer(), clock: stillClock() }).jwks()).toThrow(/await load\(\)/)
  })
})

describe('a view of the keys', () => {
  async function loaded() {
    const [held, clock] = [memory(), stillClock()]
    const ring = createKeyRing({ store: held.store, encryptor: newSealer(), clock })
    await ring.load()
    return { ...held, clock, ring }
  }

  test('of at most 30 s signs without a query', async () => {
    const { ring, clock, reads } = await loaded()
    clock.pass(30_000)
    await Promise.all(Array.from({ length: 50 }, () => ring.active()))
    await settled()
    expect(reads()).toBe(1)
  })

  test('between 30 and 60 s signs and is reloaded in the background, once for all callers', async () => {
    const { ring, clock, kid, move, reads } = await loaded()
    const [first, second] = [kid('active'), kid('next')]
    move('active', 'revoked')
    move('next', 'active')
    clock.pass(30_001)
    const actives = await Promise.all(Array.from({ length: 50 }, () => ring.active()))
    expect(new Set(actives.map((active) => active.kid))).toEqual(new Set([first]))
    await ring.load()
    expect(reads()).toBe(3)
    expect((await ring.active()).kid).toBe(second)
  })

  test('older than 60 s does not sign: callers wait for a new one', async () => {
    const { ring, clock, kid, move, reads } = await loaded()
    const second = kid('next')
    move('active', 'revoked')
    move('next', 'active')
    clock.pass(60_001)
    const actives = await Promise.all([ring.active(), ring.active()])
    expect(actives.map((active) => active.kid)).toEqual([second, second])
    expect(reads()).toBe(2)
  })

  test('survives a failing store until it is 60 s old, with at most one query a second', async () => {
    const { ring, clock, kid, reads, fail } = await loaded()
    fail(new Error('the store is down'))
    clock.pass(45_000)
    for (let i = 0; i < 5; i++) {
      expect((await ring.active()).kid).toBe(kid('active'))
      await settled()
    }
    expect(reads()).toBe(2)
    clock.pass(1_000)
    await ring.active()
    await settled()
    expect(reads()).toBe(3)
    clock.pass(15_000)
    await expect(ring.active()).rejects.toThrow('the store is down')
    expect(ring.jwks().body).toContain(kid('active'))
    await settled()
    fail(null)
    expect((await ring.active()).kid).toBe(kid('active'))
  })

  test('that arrives late does not bring back a revoked key', async () => {
    const { store, kid, move } = memory()
    const [encryptor, clock] = [newSealer(), stillClock()]
    const gates: (() => void)[] = []
    let gated = false
    const slow: Signing = {
      ...store.signing,
      async listKeys() {
        const rows = await store.signing.listKeys()
        if (gated) await new Promise<void>((open) => gates.push(open))
        return rows
      },
    }
    const ring = createKeyRing({ store: { signing: slow }, encryptor, clock })
    await ring.load()
    const second = kid('next')
    gated = true
    const late = ring.load()
    await settled()
    move('active', 'revoked')
    move('next', 'active')
    gated = false
    await ring.load()
    expect((await ring.active()).kid).toBe(second)
    for (const open of gates) open()
    await late
    expect((await ring.active()).kid).toBe(second)
    expect(kids(ring)).toContain(second)
  })
})

describe('the plan of rotation', () => {
  const key = (id: string, state: SigningKeyState, times: Partial<SigningKey>): SigningKey => ({
    id,
    state,
    alg: 'ES256',
    publicJwk: '{}',
    privateJwk: '',
    createdAt: 0,
    publishedAt: 0,
    activatedAt: null,
    retiredAt: null,
    wantedAt: null,
    ...times,
  })
  const nothing = { activate: null, retire: null, remove: [] }
  const swap = { activate: 'b', retire: 'a', remove: [] }

  test('activates the next key after 90 days, and not a millisecond earlier', () => {
    const keys = [key('a', 'active', { activatedAt: 5 }), key('b', 'next', {})]
    expect(planKeyRotation(keys, 5 + 90 * DAY_MS - 1)).toEqual(nothing)
    expect(planKeyRotation(keys, 5 + 90 * DAY_MS)).toEqual(swap)
  })

  test('activates it on request, once it has been published for 24 hours', () => {
    const keys = (wantedAt: number | null) => [key('a', 'active', { activatedAt: 0 }), key('b', 'next', { publishedAt: 1_000, wantedAt })]
    expect(planKeyRotation(keys(null), 1_000 + DAY_MS)).toEqual(nothing)
    expect(planKeyRotation(keys(2_000), 1_000 + DAY_MS - 1)).toEqual(nothing)
    expect(planKeyRotation(keys(2_000), 1_000 + DAY_MS)).toEqual(swap)
  })

  test('never retires the active key without a next one', () => {
    expect(planKeyRotation([key('a', 'active', { activatedAt: 0 })], 365 * DAY_MS)).toEqual(nothing)
  })

  test('removes a key 7 days after it stopped signing, but no revoked key', () => {
    const keys = [
      key('a', 'active', { activatedAt: 100 * DAY_MS }),
      key('b', 'next', { publishedAt: 100 * DAY_MS }),
      key('c', 'retiring', { retiredAt: 100 * DAY_MS }),
      key('d', 'retiring', { retiredAt: 101 * DAY_MS }),
      key('e', 'revoked', { retiredAt: 0 }),
    ]
    expect(planKeyRotation(keys, 107 * DAY_MS - 1)).toEqual(nothing)
    expect(planKeyRotation(keys, 107 * DAY_MS)).toEqual({ ...nothing, remove: ['c'] })
  })
})
