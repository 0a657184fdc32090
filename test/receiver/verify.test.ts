import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { createServer, type Server } from 'node:http'
import { stripTypeScriptTypes } from 'node:module'
import type { AddressInfo } from 'node:net'
import { type CryptoKey, importJWK, type JWK } from 'jose'
import { afterEach, describe, expect, test, vi } from 'vitest'
import { systemClock } from '../../src/core/clock.ts'
import { createReceiver, type ReceiverOptions, verifyStandardWebhook, WebhookVerificationError } from '../../src/receiver/index.ts'
import { secretKey, signWebhook } from '../../src/webhook/signer.ts'
import { asFile, makeVectors, signP256, type Vectors } from '../vectors/generate.ts'

const file = readFileSync(new URL('../vectors/webhooks.json', import.meta.url), 'utf8')
const vectors = JSON.parse(file) as Vectors
const { issuer, audience } = vectors
const jwks = { keys: [...vectors.jwks.keys] as JWK[] }
const clock = { wall: () => vectors.now * 1000 }
const genuine = vectors.vectors[0]!
const receiverAt = (options: Partial<ReceiverOptions> = {}) => createReceiver({ issuer, audience, jwks, clock, ...options })

/** `valid`, or the code of the refusal; an error of another kind is a failure of the test. */
async function verdictOf(verifying: Promise<unknown>): Promise<string> {
  try {
    await verifying
    return 'valid'
  } catch (error) {
    if (error instanceof WebhookVerificationError) return error.code
    throw error
  }
}

describe('the published vectors', () => {
  test('hold no private key and cover every code', () => {
    for (const key of jwks.keys) expect(key).not.toHaveProperty('d')
    const codes = [
      'bad_signature',
      'malformed',
      'missing_header',
      'stale',
      'unknown_key',
      'valid',
      'wrong_audience',
      'wrong_issuer',
      'wrong_type',
    ]
    expect([...new Set(vectors.vectors.map((vector) => vector.jws))].sort()).toEqual(codes)
    expect(new Set(vectors.vectors.map((vector) => vector.name)).size).toBe(vectors.vectors.length)
  })

  test('are what their generator writes, byte for byte', () => {
    expect(asFile(makeVectors())).toBe(file)
  })

  test('are signed with the nonces of RFC 6979 (A.2.5)', () => {
    const key = Buffer.from('C9AFA9D845BA75166B5C215767B1D6934E50C3DB36E89B127B8A622B120F6721', 'hex')
    expect(signP256(key, 'sample').toString('hex').toUpperCase()).toBe(
      'EFD48B2AACB6A8FD1140DD9CD45E81D69D2C877B56AAF991C34D0EA84EAF3716F7CB1C942D657C41D436C7A1B6E29F65F3E900DBB9AFF4064DC4AB2F843ACDA8',
    )
  })

  test.each(vectors.vectors)('$name: the JWS is $jws, the symmetric signature $standard', async ({ headers, body, jws, standard }) => {
    const bytes = new TextEncoder().encode(body)
    expect(await verdictOf(receiverAt().verify({ headers, body: bytes }))).toBe(jws)
    expect(await verdictOf(verifyStandardWebhook(vectors.secrets, { headers, body }, { clock }))).toBe(standard)
  })
})

test('every known forgery is among the published vectors, and refused with its own code', async () => {
  const tried: Readonly<Record<string, string>> = {
    'signed 301 s ago': 'stale',
    'signed 301 s ahead': 'stale',
    'an audience elsewhere: replayed by another receiver': 'wrong_audience',
    'serialised again': 'bad_signature',
    'alg none, no signature': 'malformed',
    'alg none, with a signature': 'bad_signature',
    'HS256 with the public key as secret': 'bad_signature',
    'an embedded jwk': 'malformed',
    'an embedded jwk under a known kid': 'malformed',
    'an unknown kid': 'unknown_key',
  }
  for (const [name, code] of Object.entries(tried)) {
    const { headers, body } = vectors.vectors.find((vector) => vector.name === name)!
    expect([name, await verdictOf(receiverAt().verify({ headers, body }))]).toEqual([name, code])
  }
  expect(await verdictOf(receiverAt().verify(genuine))).toBe('valid')
})

describe('a verified webhook', () => {
  test('is the event, typed, with its attempt, key and time', async () => {
    const headers = { ...genuine.headers, 'webhook-attempt': '3' }
    const webhook = await receiverAt().verify({ headers, body: genuine.body })
    expect(webhook).toMatchObject({
      id: 'event_01jd7z3m0q8y3t6w9k2v5n4r1b',
      type: 'task.completed',
      timestamp: '2026-11-22T10:00:05.120Z',
      attempt: 3,
      keyId: jwks.keys[0]!.kid,
      issuedAt: '2026-11-22T10:00:05.000Z',
    })
    if (webhook.type !== 'task.completed') throw new Error('narrowed by the assertion above')
    const status: 'completed' = webhook.data.status
    expect([status, webhook.data.result]).toEqual(['completed', { pages: 12 }])
  })

  test('is read from a Request, from the headers of node:http and from names in any case', async () => {
    const request = new Request(audience, { method: 'POST', headers: genuine.headers, body: genuine.body })
    const capitals = Object.fromEntries(Object.entries(genuine.headers).map(([name, value]) => [name.toUpperCase(), value]))
    for (const given of [
      request,
      { headers: new Headers(genuine.headers), body: Buffer.from(genuine.body) },
      { headers: { host: 'x', cookie: undefined, 'set-cookie': ['a'], ...genuine.headers }, body: genuine.body },
      { headers: capitals, body: genuine.body },
    ]) {
      expect((await receiverAt().verify(given)).type).toBe('task.completed')
    }
  })

  test('of CloudEvents is the same event', async () => {
    const { headers, body } = vectors.vectors.find((vector) => vector.name === 'a CloudEvents envelope')!
    const { id, type, timestamp, data } = await receiverAt().verify({ headers, body })
    expect({ id, type, timestamp, data }).toEqual({
      id: headers['webhook-id'],
      type: 'task.completed',
      timestamp: '2026-11-22T10:00:05.120Z',
      data: { status: 'completed' },
    })
  })

  test('has no attempt when the unsigned header is missing or invalid', async () => {
    for (const attempt of ['', '0', '-1', '1.5', 'two']) {
      const headers = { ...genuine.headers, 'webhook-attempt': attempt }
      expect((await receiverAt().verify({ headers, body: genuine.body })).attempt).toBeNull()
    }
    expect((await receiverAt().verify(genuine)).attempt).toBeNull()
  })
})

test('tampering with the plain headers changes nothing that is read from the signed ones', async () => {
  const headers = { ...genuine.headers, 'webhook-id': 'event_other', 'webhook-timestamp': '1' }
  const webhook = await receiverAt().verify({ headers, body: genuine.body })
  expect([webhook.id, webhook.issuedAt]).toEqual([genuine.headers['webhook-id'], '2026-11-22T10:00:05.000Z'])
})

test('the event is read from the verified bytes, even when their buffer is reused', async () => {
  const body = Buffer.from(genuine.body)
  const verifying = receiverAt().verify({ headers: genuine.headers, body })
  body.fill('x')
  expect((await verifying).type).toBe('task.completed')
  const again = Buffer.from(genuine.body)
  const symmetric = verifyStandardWebhook(vectors.secrets, { headers: genuine.headers, body: again }, { clock })
  again.fill('x')
  expect((await symmetric).type).toBe('task.completed')
})

test('a parsed or consumed body is an error of the caller that says how to fix it', async () => {
  const parsed = { headers: genuine.headers, body: JSON.parse(genuine.body) as never }
  await expect(receiverAt().verify(parsed)).rejects.toThrow(/raw bytes/)
  await expect(verifyStandardWebhook(vectors.secrets, parsed, { clock })).rejects.toThrow(/raw bytes/)
  const request = new Request(audience, { method: 'POST', headers: genuine.headers, body: genuine.body })
  await request.json()
  await expect(receiverAt().verify(request)).rejects.toThrow(/has been read already/)
})

test.each([
  [{ issuer: '' }, /needs issuer/],
  [{ audience: undefined }, /needs audience/],
  [{ audience: '' }, /needs audience/],
  [{ toleranceSeconds: Number.NaN }, /toleranceSeconds/],
  [{ toleranceSeconds: Number.POSITIVE_INFINITY }, /toleranceSeconds/],
  [{ toleranceSeconds: -1 }, /toleranceSeconds/],
  [{ jwksUrl: 'https://tasks.example.com/keys' }, /not both/],
])('a receiver that could refuse nothing is not created: %j', (options, sentence) => {
  expect(() => receiverAt(options as never)).toThrow(sentence)
})

test('with a broken clock everything is refused', async () => {
  expect(await verdictOf(receiverAt({ clock: { wall: () => Number.NaN } }).verify(genuine))).toBe('stale')
})

test('an empty or unreadable secret is refused instead of used', async () => {
  for (const secret of ['', 'whsec_', 'whsec_!!!']) {
    await expect(verifyStandardWebhook(secret, genuine, { clock })).rejects.toThrow(TypeError)
  }
  expect(await verdictOf(verifyStandardWebhook([], genuine, { clock }))).toBe('bad_signature')
})

test('too many tokens are refused before any comparison', async () => {
  const headers = { ...genuine.headers, 'webhook-signature': Array(17).fill(genuine.headers['webhook-signature']).join(' ') }
  expect(await verdictOf(verifyStandardWebhook(vectors.secrets, { headers, body: genuine.body }, { clock }))).toBe('malformed')
})

describe('keys that are fetched', () => {
  let server: Server | undefined
  afterEach(() => {
    server?.closeAllConnections()
    server?.close()
    server = undefined
  })

  /** Serves `answer()` as the issuer's key set, and signs for that issuer, now. */
  async function serve(answer: () => { status: number; keys: JWK[] }) {
    const paths: string[] = []
    server = createServer((request, response) => {
      paths.push(request.url ?? '')
      const { status, keys } = answer()
      response.writeHead(status, { 'content-type': 'application/jwk-set+json' }).end(JSON.stringify({ keys }))
    }).listen(0, '127.0.0.1')
    await once(server, 'listening')
    const issuer = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
    const jwk = { ...jwks.keys[0]!, d: 'jpsQnnGQmL-YBIffH1136cspYG6-0iY7X1fCE9-E9LI' }
    const privateKey = (await importJWK(jwk, 'ES256')) as CryptoKey
    const headers = await signWebhook(
      { kid: String(jwk.kid), privateKey },
      {
        issuer,
        audience,
        id: genuine.headers['webhook-id']!,
        atSeconds: Math.floor(systemClock().wall() / 1000),
        body: genuine.body,
        secrets: vectors.secrets.map(secretKey),
      },
    )
    return { paths, issuer, webhook: { headers, body: genuine.body } }
  }

  test('come from the well-known URL of the issuer, once for many webhooks', async () => {
    const { paths, issuer, webhook } = await serve(() => ({ status: 200, keys: jwks.keys }))
    const receiver = createReceiver({ issuer, audience })
    for (let i = 0; i < 3; i++) expect((await receiver.verify(webhook)).type).toBe('task.completed')
    expect(paths).toEqual(['/.well-known/jwks.json'])
  })

  test('come from another URL when one is given', async () => {
    const { paths, issuer, webhook } = await serve(() => ({ status: 200, keys: jwks.keys }))
    await createReceiver({ issuer, audience, jwksUrl: new URL(`${issuer}/keys`) }).verify(webhook)
    expect(paths).toEqual(['/keys'])
  })

  test('are not fetched again for every forged kid', async () => {
    const { paths, issuer, webhook } = await serve(() => ({ status: 200, keys: jwks.keys.slice(1) }))
    const receiver = createReceiver({ issuer, audience })
    for (let i = 0; i < 3; i++) expect(await verdictOf(receiver.verify(webhook))).toBe('unknown_key')
    expect(paths).toHaveLength(1)
  })

  test('that cannot be fetched are no verdict on the webhook, and are fetched again', async () => {
    let status = 503
    const { issuer, webhook } = await serve(() => ({ status, keys: jwks.keys }))
    const receiver = createReceiver({ issuer, audience })
    const error = await receiver.verify(webhook).catch((error: unknown) => error)
    expect(error).not.toBeInstanceOf(WebhookVerificationError)
    expect((error as Error).message).toContain(`the keys at ${issuer}/.well-known/jwks.json could not be read`)
    status = 200
    expect((await receiver.verify(webhook)).type).toBe('task.completed')
  })

  test('are valid for ten minutes while they cannot be fetched, and no longer', async () => {
    let status = 200
    const { paths, issuer, webhook } = await serve(() => ({ status, keys: jwks.keys }))
    const receiver = createReceiver({ issuer, audience, toleranceSeconds: 3_600 })
    await receiver.verify(webhook)
    status = 503
    vi.useFakeTimers({ toFake: ['Date'] })
    try {
      vi.setSystemTime(systemClock().wall() + 590_000)
      expect((await receiver.verify(webhook)).type).toBe('task.completed')
      expect(paths).toHaveLength(1)
      vi.setSystemTime(systemClock().wall() + 20_000)
      await expect(receiver.verify(webhook)).rejects.toThrow('could not be read: answer 503')
      status = 200
      expect((await receiver.verify(webhook)).type).toBe('task.completed')
      expect(paths).toHaveLength(3)
    } finally {
      vi.useRealTimers()
    }
  })

  test('are fetched again for an unknown key once they are 30 s old', async () => {
    let keys = jwks.keys.slice(1)
    const { paths, issuer, webhook } = await serve(() => ({ status: 200, keys }))
    const receiver = createReceiver({ issuer, audience })
    expect(await verdictOf(receiver.verify(webhook))).toBe('unknown_key')
    keys = jwks.keys
    expect(await verdictOf(receiver.verify(webhook))).toBe('unknown_key')
    vi.useFakeTimers({ toFake: ['Date'] })
    try {
      vi.setSystemTime(systemClock().wall() + 31_000)
      expect(await verdictOf(receiver.verify(webhook))).toBe('valid')
      expect(paths).toHaveLength(2)
    } finally {
      vi.useRealTimers()
    }
  })

  test('serve the plain jose verification of the how-to as well', async () => {
    const { issuer, webhook } = await serve(() => ({ status: 200, keys: jwks.keys }))
    const verifyWebhook = await documented(issuer)
    const body = new TextEncoder().encode(webhook.body)
    const jws = webhook.headers['webhook-jws']!
    expect(await verifyWebhook(body, jws)).toEqual(JSON.parse(webhook.body))
    await expect(verifyWebhook(new TextEncoder().encode(`${webhook.body} `), jws)).rejects.toThrow('signature verification failed')
    await expect(verifyWebhook(body, jws.replace('..', '.e30.'))).rejects.toThrow('not detached')
  })

  test('let the plain jose verification of the how-to refuse every forgery', async () => {
    const { issuer: at } = await serve(() => ({ status: 200, keys: jwks.keys }))
    const verifyWebhook = await documented(at, { issuer, now: vectors.now })
    // Only the genuine key could have made these: it reads neither jti, nor kid, nor b64 once the signature holds, and takes a time in text for one.
    const beyond = [
      'iat as text',
      'jti of another event',
      'no jti',
      'no kid',
      'b64 false without crit',
      'b64 true and critical',
      'no webhook-jws',
    ]
    for (const { name, headers, body, jws } of vectors.vectors.filter((vector) => !beyond.includes(vector.name))) {
      const verdict = await verifyWebhook(new TextEncoder().encode(body), headers['webhook-jws']!).then(
        () => 'valid',
        () => 'refused',
      )
      expect([name, verdict]).toEqual([name, jws === 'valid' ? 'valid' : 'refused'])
    }
  })
})

type VerifyWebhook = (rawBody: Uint8Array, webhookJws: string) => Promise<unknown>

/** The code of the how-to, run as it stands but for the address of the key set and, to judge the vectors, the issuer and the time. */
async function documented(at: string, judged?: { issuer: string; now: number }): Promise<VerifyWebhook> {
  const page = readFileSync(new URL('../../docs/how-to/verify-a-webhook.md', import.meta.url), 'utf8')
  const block = [...page.matchAll(/```ts\n([\s\S]*?)```/g)].map(([, code]) => code!).find((code) => code.includes("from 'jose'"))!
  const code = stripTypeScriptTypes(block)
    .replace("'jose'", `'${import.meta.resolve('jose')}'`)
    .replace(/\$\{issuer\}(?=\/\.well-known)/, at)
    .replace('https://tasks.example.com', judged?.issuer ?? at)
    .replace('Date.now()', judged === undefined ? 'Date.now()' : String(judged.now * 1000))
  const { verifyWebhook } = (await import(`data:text/javascript,${encodeURIComponent(code)}`)) as { verifyWebhook: VerifyWebhook }
  return verifyWebhook
}
