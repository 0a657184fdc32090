/** The lives of keys on both databases: rotation, revocation, and a new master key, with real servers and real receivers. */
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { systemClock } from '../../src/core/clock.ts'
import { createEncryptor } from '../../src/core/encryption.ts'
import { reencrypt, verifyMasterKey } from '../../src/engine/reencrypt.ts'
import { createReceiver } from '../../src/receiver/index.ts'
import type { Store } from '../../src/store/interfaces.ts'
import { createKeyRing } from '../../src/webhook/keys.ts'
import { openReceiver, type Receiver } from '../support/receiver.ts'
import { databases, type Home, openHome, type Server } from '../support/server.ts'
import { engines, type Ground, openGround } from '../support/stores.ts'
import { addClient, added, MANY, newEndpoint } from '../support/work.ts'

const DAY = 86_400_000
const HOUR = 3_600_000
const going = new AbortController().signal
const newKey = (): string => randomBytes(32).toString('base64')

describe.each(engines)('keys on %s', (engine) => {
  let ground: Ground
  let store: Store
  beforeAll(async () => {
    ground = await openGround(engine)
    store = ground.store
  })
  afterEach(() => ground.clear())
  afterAll(() => ground.close())

  const clock = { ...systemClock() }
  /** A ring of another node, whose clock agrees with the database's. */
  const ringAt = async (encryptor = createEncryptor({ masterKey: newKey(), clock })) => {
    const skew = (await store.now()) - clock.now()
    const ring = createKeyRing({ store, encryptor, clock: { now: () => clock.now() + skew } })
    await ring.load()
    return ring
  }
  const states = async () => Object.fromEntries((await store.signing.listKeys()).map(({ id, state }) => [id, state]))
  const idOf = async (state: string) => (await store.signing.listKeys()).find((key) => key.state === state)?.id
  const published = (ring: { jwks(): { body: string } }) => JSON.parse(ring.jwks().body).keys.map(({ kid }: { kid: string }) => kid)

  test('a requested rotation waits until the next key has been published for a day, then happens once on any node', async () => {
    const encryptor = createEncryptor({ masterKey: newKey(), clock })
    await ringAt(encryptor)
    const [first, second] = [await idOf('active'), await idOf('next')]
    await store.signing.requestRotation({})
    await ground.pass(DAY - 60_000)
    await ringAt(encryptor)
    expect(await idOf('active'), 'too early').toBe(first)
    await ground.pass(120_000)
    await Promise.all([ringAt(encryptor), ringAt(encryptor), ringAt(encryptor)])
    expect(await states()).toMatchObject({ [first!]: 'retiring', [second!]: 'active' })
    expect(await store.signing.listKeys()).toHaveLength(3)
    const ring = await ringAt(encryptor)
    expect(published(ring)).toEqual([second, await idOf('next'), first])
    expect((await ring.active()).kid).toBe(second)
    // A second wish is a wish for the key after.
    expect((await store.signing.listKeys()).find(({ state }) => state === 'next')!.wantedAt).toBe(null)
    await ground.pass(7 * DAY)
    expect(published(await ringAt(encryptor))).not.toContain(first)
    expect(Object.keys(await states())).not.toContain(first)
  })

  test('after 90 days the keys rotate by themselves', async () => {
    const encryptor = createEncryptor({ masterKey: newKey(), clock })
    await ringAt(encryptor)
    const next = await idOf('next')
    await ground.pass(89 * DAY)
    await ringAt(encryptor)
    expect(await idOf('next')).toBe(next)
    const retired = await idOf('active')
    await ground.pass(2 * DAY)
    await Promise.all([ringAt(encryptor), ringAt(encryptor)])
    expect(await idOf('active')).toBe(next)
    const { items } = await store.access.listAuditLog({ action: 'signingKey.rotate', limit: 10, after: null })
    expect(items.map(({ actor, target, details }) => ({ actor, target, details: JSON.parse(details) }))).toEqual([
      { actor: 'system', target: next, details: { retired } },
    ])
  })

  test('a revoked key leaves the published set at once, its private part is erased, and the next key signs at any age', async () => {
    const encryptor = createEncryptor({ masterKey: newKey(), clock })
    const ring = await ringAt(encryptor)
    const [first, second] = [await idOf('active'), await idOf('next')]
    expect(await store.signing.revokeKey({ id: 'nothing' })).toBe(null)
    await store.signing.revokeKey({ id: first! })
    await ring.load()
    expect((await ring.active()).kid).toBe(second)
    expect(published(ring)).toEqual([second, await idOf('next')])
    const revoked = (await store.signing.listKeys()).find(({ id }) => id === first)!
    expect(revoked).toMatchObject({ state: 'revoked', privateJwk: '' })
    await store.signing.revokeKey({ id: first! })
    expect(await idOf('active'), 'revoking it again changes nothing').toBe(second)
    // The next one, and one that retires, can be revoked as well.
    const third = (await idOf('next'))!
    await store.signing.revokeKey({ id: third })
    await ring.load()
    expect(published(ring)).not.toContain(third)
    expect(published(ring)).toHaveLength(2)
  })

  test('a change of the keys is notified to every node', async () => {
    await ringAt()
    const other = await ground.anotherNode()
    const heard = Promise.withResolvers<void>()
    const stop = other.notifications.onSigningKeys(() => heard.resolve())
    await store.signing.requestRotation({})
    await heard.promise
    stop()
  })

  test('after a new master key two nodes at once re-encrypt everything, the key check last; then the old key is not needed', async () => {
    const [oldKey, newKeyText] = [newKey(), newKey()]
    const old = createEncryptor({ masterKey: oldKey, clock })
    await store.signing.putSettingIfAbsent({ name: 'canary', value: old.keyCheck() })
    await ringAt(old)
    const clientId = await addClient(store)
    const sealedEndpoint = newEndpoint({ clientId })
    const place = (column: string) => ({ table: 'endpoints', id: sealedEndpoint.id, column })
    await store.endpoints.add({
      endpoint: {
        ...sealedEndpoint,
        secret: old.encrypt('whsec_1', place('secret')),
        headers: old.encrypt('{"a":"b"}', place('headers')),
      },
      max: MANY,
    })
    await store.endpoints.change({
      id: sealedEndpoint.id,
      clientId: null,
      patch: { previousSecret: old.encrypt('whsec_0', place('previous_secret')) },
      revision: null,
    })

    const alone = createEncryptor({ masterKey: newKeyText, clock })
    const both = createEncryptor({ masterKey: newKeyText, previousMasterKey: oldKey, clock })
    const canary = () => store.signing.putSettingIfAbsent({ name: 'canary', value: '' })
    expect(() => alone.verifyKeyCheck(old.keyCheck()), 'before').toThrow(/RINGBACK_MASTER_KEY_PREVIOUS/)
    await Promise.all([reencrypt(store, both, going), reencrypt(store, both, going)])
    alone.verifyKeyCheck(await canary())
    const endpoint = (await store.endpoints.find(sealedEndpoint.id, null))!
    expect(alone.decrypt(endpoint.secret, place('secret'))).toBe('whsec_1')
    expect(alone.decrypt(endpoint.previousSecret!, place('previous_secret'))).toBe('whsec_0')
    expect(alone.decrypt(endpoint.headers!, place('headers'))).toBe('{"a":"b"}')
    await ringAt(alone)
    expect(await reencrypt(store, both, going), 'nothing is left').toBe(0)
  })

  test('no key retires while its successor is revoked, and no key takes over twice', async () => {
    await ringAt()
    const [first, second] = [(await idOf('active'))!, (await idOf('next'))!]
    const turn = { activate: second, retire: first, remove: [] }
    await store.signing.revokeKey({ id: second })
    await store.signing.rotateKeys(turn)
    expect(await idOf('active'), 'the plan is out of date').toBe(first)
    const other = await ground.anotherNode()
    await Promise.all([store, other].map((node) => node.signing.rotateKeys({ ...turn, activate: 'nothing' })))
    expect(await states()).toEqual({ [first]: 'active', [second]: 'revoked' })
  })

  test('revocation and rotation at the same time leave one active key, which is not the revoked one', async () => {
    const encryptor = createEncryptor({ masterKey: newKey(), clock })
    await ringAt(encryptor)
    const nodes = [store, await ground.anotherNode(), await ground.anotherNode()]
    for (let round = 0; round < 10; round++) {
      const [active, next] = [(await idOf('active'))!, (await idOf('next'))!]
      const revoked = round % 2 ? active : next
      const turn = { activate: next, retire: active, remove: [] }
      await Promise.all(nodes.flatMap((node) => [node.signing.rotateKeys(turn), node.signing.revokeKey({ id: revoked })]))
      await Promise.all([ringAt(encryptor), ringAt(encryptor)])
      const now = await store.signing.listKeys()
      expect(now.filter(({ state }) => state === 'active')).toHaveLength(1)
      expect(now.filter(({ state }) => state === 'next')).toHaveLength(1)
      expect(now.find(({ id }) => id === revoked)).toMatchObject({ state: 'revoked', privateJwk: '' })
    }
  })

  test('an interrupted re-encryption continues at the next start and never overwrites a value changed in the meantime', async () => {
    const [oldKey, newKeyText] = [newKey(), newKey()]
    const old = createEncryptor({ masterKey: oldKey, clock })
    const both = createEncryptor({ masterKey: newKeyText, previousMasterKey: oldKey, clock })
    const alone = createEncryptor({ masterKey: newKeyText, clock })
    const canary = old.keyCheck()
    await store.signing.putSettingIfAbsent({ name: 'canary', value: canary })
    const clientId = await addClient(store)
    const endpoint = newEndpoint({ clientId })
    const place = { table: 'endpoints', id: endpoint.id, column: 'secret' }
    await store.endpoints.add({ endpoint: { ...endpoint, secret: old.encrypt('whsec_1', place) }, max: MANY })
    const cut = new AbortController()
    cut.abort()
    expect(await reencrypt(store, both, cut.signal)).toBe(null)
    expect(await store.signing.putSettingIfAbsent({ name: 'canary', value: '' }), 'the canary is the last').toBe(canary)

    // A client rotates the secret after the old value was read and before its replacement is written.
    const found = await store.signing.findEncrypted(`v1.${both.keyId}.`, 10)
    const rotated = old.encrypt('whsec_2', place)
    await store.endpoints.change({ id: endpoint.id, clientId: null, patch: { secret: rotated }, revision: null })
    await store.signing.replaceEncrypted({
      values: found.map((value) => ({ ...value, fresh: both.encrypt(both.decrypt(value.encrypted, value.place), value.place) })),
    })
    expect((await store.endpoints.find(endpoint.id, null))!.secret).toBe(rotated)
    await reencrypt(store, both, going)
    expect(alone.decrypt((await store.endpoints.find(endpoint.id, null))!.secret, place)).toBe('whsec_2')
    await verifyMasterKey(store, alone)

    // A node that still seals with the old key comes after the canary.
    await store.endpoints.change({ id: endpoint.id, clientId: null, patch: { secret: rotated }, revision: null })
    await expect(verifyMasterKey(store, alone)).rejects.toThrow(
      /still encrypted with the previous master key.*RINGBACK_MASTER_KEY_PREVIOUS/,
    )
    await verifyMasterKey(store, both)
  })

  test('more values than one batch holds are all re-encrypted', async () => {
    const [oldKey, newKeyText] = [newKey(), newKey()]
    const old = createEncryptor({ masterKey: oldKey, clock })
    const both = createEncryptor({ masterKey: newKeyText, previousMasterKey: oldKey, clock })
    const clientId = await addClient(store)
    const made = Array.from({ length: 450 }, () => newEndpoint({ clientId }))
    const placeOf = (id: string) => ({ table: 'endpoints', id, column: 'secret' })
    const add = (endpoint: (typeof made)[number]) =>
      store.endpoints.add({ endpoint: { ...endpoint, secret: old.encrypt(endpoint.id, placeOf(endpoint.id)) }, max: MANY })
    // Each waits for the row of its client, and no longer than it may for a connection.
    for (let at = 0; at < made.length; at += 150) await Promise.all(made.slice(at, at + 150).map(add))
    expect(await reencrypt(store, both, going)).toBe(450)
    const alone = createEncryptor({ masterKey: newKeyText, clock })
    for (const { id } of made) expect(alone.decrypt((await store.endpoints.find(id, null))!.secret, placeOf(id))).toBe(id)
  })

  test('the previous secret is erased one hour after its overlap ended, and no earlier', async () => {
    const clientId = await addClient(store)
    const { id } = added(await store.endpoints.add({ endpoint: newEndpoint({ clientId }), max: MANY }))
    await store.endpoints.change({
      id,
      clientId: null,
      patch: { previousSecret: 'sealed', previousSecretUntil: (await store.now()) + 60_000 },
      revision: null,
    })
    await ground.pass(HOUR)
    expect(await store.signing.erasePreviousSecrets({ limit: 10 })).toBe(0)
    await ground.pass(120_000)
    const before = await store.endpoints.find(id, null)
    expect(before!.previousSecret).toBe('sealed')
    expect(await store.signing.erasePreviousSecrets({ limit: 10 })).toBe(1)
    expect(await store.endpoints.find(id, null)).toEqual({ ...before, previousSecret: null, previousSecretUntil: null })
  })
})

describe.each(databases)('a server on %s', (database) => {
  let home: Home
  let server: Server
  let base: string
  let receiver: Receiver
  beforeEach(async () => {
    receiver = await openReceiver()
    home = await openHome(database)
    server = await home.start()
    base = await server.listening
  })
  afterEach(async () => {
    await receiver.close()
    await home.close()
  })

  const call = async (token: string, method: string, path: string, body?: object) => {
    const response = await fetch(base + path, {
      method,
      headers: { authorization: `Bearer ${token}`, ...(body && { 'content-type': 'application/json' }) },
      ...(body && { body: JSON.stringify(body) }),
    })
    // biome-ignore lint/suspicious/noExplicitAny: documents have many shapes
    return (await response.json()) as any
  }

  test('refuses to start with a wrong master key, makes no new keys, and starts again with the right one', {
    timeout: 120_000,
  }, async () => {
    const sealed = () => home.query('select id, state, private_jwk from signing_keys order by id')
    const before = await sealed()
    server.kill('SIGTERM')
    await server.ended
    const wrong = home.spawn({ RINGBACK_MASTER_KEY: Buffer.alloc(32, 9).toString('base64') })
    expect(await wrong.ended).toEqual({ code: 1, signal: null })
    expect(wrong.said()).toMatch(/was encrypted with master key "[\w-]{8}", but this server has "[\w-]{8}"/)
    await expect(wrong.listening).rejects.toThrow()
    expect(await sealed()).toEqual(before)
    await home.start()
  })

  test('rotates its key under load: every delivery verifies at a receiver that caches the key set for ten minutes', async () => {
    const operator = 'operator-of-the-tests-0123456789'
    const client = await call(operator, 'POST', '/v1/clients', { name: 'load' })
    const { key } = await call(operator, 'POST', `/v1/clients/${client.id}/keys`)
    const audience = `${receiver.url}/hooks`
    await call(key, 'POST', '/v1/endpoints', { url: audience, maxInFlight: 50 })
    let fetched = 0
    const counting = createServer(async (_request, response) => {
      fetched++
      response.end(await fetch(`${base}/.well-known/jwks.json`).then((answer) => answer.text()))
    }).listen(0, '127.0.0.1')
    await once(counting, 'listening')
    const jwksUrl = `http://127.0.0.1:${(counting.address() as AddressInfo).port}/`
    // It keeps the key set for ten minutes.
    const verifier = createReceiver({ issuer: base, audience, jwksUrl })
    const kids = new Map<string, number>()
    const verdicts: Promise<unknown>[] = []
    receiver.answer((arrival) => {
      verdicts.push(
        verifier.verify(arrival).then(({ keyId }) => {
          kids.set(keyId, (kids.get(keyId) ?? 0) + 1)
        }),
      )
      return { status: 200 }
    })
    let submitted = 0
    let loading = true
    const load = (async () => {
      while (loading) {
        await call(key, 'POST', '/v1/tasks/batch', { tasks: Array.from({ length: 20 }, () => ({ type: 'demo.echo', input: {} })) })
        submitted += 20
      }
    })()
    await receiver.receives(100)
    const before: { data: { id: string; state: string }[] } = await call(operator, 'GET', '/v1/signing-keys')
    await home.query(`update signing_keys set published_at = published_at - ${2 * DAY}`)
    const after = await call(operator, 'POST', '/v1/signing-keys/rotate')
    expect(after.data.filter(({ state }: { state: string }) => state === 'retiring')).toHaveLength(1)
    await receiver.receives(receiver.arrivals.length + 200)
    loading = false
    await load
    await receiver.receives(submitted)
    await Promise.all(verdicts)
    expect([...kids.keys()].sort(), 'both keys signed').toEqual(before.data.map(({ id }) => id).sort())
    expect([...kids.values()].reduce((sum, n) => sum + n)).toBe(receiver.arrivals.length)
    expect(fetched, 'the key set was fetched once').toBe(1)
    counting.close()
  })
})
