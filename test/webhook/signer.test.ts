import { createPrivateKey } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { base64url, type CryptoKey, calculateJwkThumbprint, createLocalJWKSet, flattenedVerify, importJWK, type JWK } from 'jose'
import { Webhook } from 'standardwebhooks'
import { beforeAll, describe, expect, test } from 'vitest'
import { systemClock } from '../../src/core/clock.ts'
import { createReceiver, verifyStandardWebhook } from '../../src/receiver/index.ts'
import { generateSecret, type SignerKey, secretBytes, secretHint, secretKey, signWebhook } from '../../src/webhook/signer.ts'
import { fc } from '../support/chance.ts'

const clock = systemClock()
const { jwks } = JSON.parse(readFileSync(new URL('../vectors/webhooks.json', import.meta.url), 'utf8')) as { jwks: { keys: JWK[] } }

/** RFC 7515 A.3. */
const privateJwk: JWK = { ...jwks.keys[0]!, d: 'jpsQnnGQmL-YBIffH1136cspYG6-0iY7X1fCE9-E9LI' }
const kid = 'oKIywvGUpTVTyxMQ3bwIIeQUudfr_CkLMjCE19ECD-U'
const issuer = 'https://tasks.example.com'
const audience = 'https://app.example.net/hooks/tasks'
const atSeconds = 1795341605
const whsec = 'whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw'

let key: SignerKey
beforeAll(async () => {
  key = { kid, privateKey: (await importJWK(privateJwk, 'ES256')) as CryptoKey }
})

/** What the four headers are for the message of the product vectors. */
const message = {
  issuer,
  audience,
  id: 'msg_01JD7Z3M0Q8Y3T6W9K2V5N4R1B',
  atSeconds,
  body: '{"type":"task.completed","timestamp":"2026-11-22T10:00:05.120Z","data":{"id":"tsk_1","status":"completed"}}',
  secrets: [secretKey(whsec)],
}
const headES256 =
  'eyJhbGciOiJFUzI1NiIsImtpZCI6Im9LSXl3dkdVcFRWVHl4TVEzYndJSWVRVXVkZnJfQ2tMTWpDRTE5RUNELVUiLCJ0eXAiOiJ3ZWJob29rK2p3cyIsImlzcyI6Imh0dHBzOi8vdGFza3MuZXhhbXBsZS5jb20iLCJhdWQiOiJodHRwczovL2FwcC5leGFtcGxlLm5ldC9ob29rcy90YXNrcyIsImlhdCI6MTc5NTM0MTYwNSwianRpIjoibXNnXzAxSkQ3WjNNMFE4WTNUNlc5SzJWNU40UjFCIn0'
const signatureES256 = 'Bq3Os6OK-XxNLysFTTWJcL-l5ao4Fo1KVLPnfT5kYmDYGg5ZtnCHF67Q8haUKYcfj4Kl6VGRvujo9zk7eN33Hg'
const headEdDSA =
  'eyJhbGciOiJFZERTQSIsImtpZCI6ImtQcktfcW14VldhWVZBOXd3QkY2SXVvM3ZWeno3VHhIQ1R3WEJ5Z3JTNGsiLCJ0eXAiOiJ3ZWJob29rK2p3cyIsImlzcyI6Imh0dHBzOi8vdGFza3MuZXhhbXBsZS5jb20iLCJhdWQiOiJodHRwczovL2FwcC5leGFtcGxlLm5ldC9ob29rcy90YXNrcyIsImlhdCI6MTc5NTM0MTYwNSwianRpIjoibXNnXzAxSkQ3WjNNMFE4WTNUNlc5SzJWNU40UjFCIn0'
const signatureEdDSA = 'sQ29AGpgesFBW7b_tJez_ozHs3fc9Npr-1Rhoe0sxKrl69x0msJ4X2bUMFpLcv5NnKfabjOEt2T8Y0gt5ZR1Aw'

const partsOf = (headers: Record<string, string>): string[] => headers['webhook-jws']!.split('.')
const verifyPlainly = (head: string, body: string, signature: string) =>
  flattenedVerify({ protected: head, payload: base64url.encode(body), signature }, createLocalJWKSet(jwks), {
    algorithms: ['ES256', 'EdDSA'],
  })

describe('the detached JWS', () => {
  test('has exactly the protected header of the contract, in its order', async () => {
    const [head, middle, signature] = partsOf(await signWebhook(key, message))
    expect(new TextDecoder().decode(base64url.decode(head!))).toBe(
      `{"alg":"ES256","kid":"${kid}","typ":"webhook+jws","iss":"${issuer}","aud":"${audience}","iat":${atSeconds},"jti":"${message.id}"}`,
    )
    expect(head).toBe(headES256)
    expect(middle).toBe('')
    expect(signature).toHaveLength(86)
  })

  test('verifies with plain jose over the raw body', async () => {
    const [head, , signature] = partsOf(await signWebhook(key, message))
    const { protectedHeader } = await verifyPlainly(head!, message.body, signature!)
    expect(protectedHeader?.kid).toBe(kid)
    await expect(verifyPlainly(head!, `${message.body} `, signature!)).rejects.toThrow('signature verification failed')
  })

  test('has the format of the first published vectors, ES256 and EdDSA', async () => {
    expect((await verifyPlainly(headES256, message.body, signatureES256)).protectedHeader?.alg).toBe('ES256')
    expect((await verifyPlainly(headEdDSA, message.body, signatureEdDSA)).protectedHeader?.alg).toBe('EdDSA')
  })

  test('is the same with a KeyObject', async () => {
    const privateKey = createPrivateKey({ key: privateJwk as never, format: 'jwk' })
    const [head, , signature] = partsOf(await signWebhook({ kid, privateKey }, message))
    expect((await verifyPlainly(head!, message.body, signature!)).protectedHeader?.jti).toBe(message.id)
  })

  test('names its key by the RFC 7638 thumbprint', async () => {
    const rsa = {
      kty: 'RSA',
      n: '0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw',
      e: 'AQAB',
    }
    expect(await calculateJwkThumbprint(rsa)).toBe('NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs')
    for (const jwk of jwks.keys) expect(await calculateJwkThumbprint(jwk)).toBe(jwk.kid)
  })
})

describe('the symmetric signature', () => {
  test('agrees with the published Standard Webhooks vector', async () => {
    const headers = await signWebhook(key, {
      ...message,
      id: 'msg_p5jXN8AQM9LWM0D4loKWxJek',
      atSeconds: 1614265330,
      body: '{"test": 2432232314}',
    })
    expect(headers['webhook-id']).toBe('msg_p5jXN8AQM9LWM0D4loKWxJek')
    expect(headers['webhook-timestamp']).toBe('1614265330')
    expect(headers['webhook-signature']).toBe('v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=')
  })

  test('is the same for prepared keys and bare bytes', async () => {
    const headers = await signWebhook(key, { ...message, secrets: [secretBytes(whsec)] })
    expect(headers['webhook-signature']).toBe('v1,zlZ8gdMdST1S1B08cCoebvRabT+QBcUH+m5Ee/74+iE=')
    expect((await signWebhook(key, message))['webhook-signature']).toBe(headers['webhook-signature'])
  })

  test('has one token per secret and the newest last, and the standardwebhooks package accepts either', async () => {
    const [older, newest] = [generateSecret(clock), generateSecret(clock)]
    const secrets = [secretKey(older), secretKey(newest)]
    const headers = await signWebhook(key, { ...message, atSeconds: Math.floor(clock.wall() / 1000), secrets })
    const alone = await signWebhook(key, { ...message, atSeconds: Number(headers['webhook-timestamp']), secrets: [secretKey(newest)] })
    expect(headers['webhook-signature']!.split(' ')).toHaveLength(2)
    expect(headers['webhook-signature']!.split(' ')[1]).toBe(alone['webhook-signature'])
    for (const secret of [older, newest]) expect(new Webhook(secret).verify(message.body, headers)).toEqual(JSON.parse(message.body))
    expect(() => new Webhook(generateSecret(clock)).verify(message.body, headers)).toThrow('No matching signature found')
  })
})

test('a signature gives these four headers and no other', async () => {
  expect(Object.keys(await signWebhook(key, message))).toEqual(['webhook-id', 'webhook-timestamp', 'webhook-signature', 'webhook-jws'])
})

test('every attempt has a fresh time under a stable id', async () => {
  const [first, second] = await Promise.all([signWebhook(key, message), signWebhook(key, { ...message, atSeconds: atSeconds + 5 })])
  expect(second['webhook-id']).toBe(first['webhook-id'])
  expect(second['webhook-timestamp']).toBe('1795341610')
  expect(second['webhook-signature']).not.toBe(first['webhook-signature'])
  expect(second['webhook-jws']).not.toBe(first['webhook-jws'])
})

test('nothing is signed without a secret or at an invalid time', async () => {
  await expect(signWebhook(key, { ...message, secrets: [] })).rejects.toThrow(/has no secret/)
  for (const broken of [Number.NaN, 1.5, Number.POSITIVE_INFINITY]) {
    await expect(signWebhook(key, { ...message, atSeconds: broken })).rejects.toThrow(/whole seconds/)
  }
})

test('a secret is 32 fresh bytes, and its hint is the last four characters', () => {
  const secret = generateSecret(clock)
  expect(secret).toMatch(/^whsec_[A-Za-z0-9+/]{43}=$/)
  expect(secretBytes(secret)).toHaveLength(32)
  expect(generateSecret(clock)).not.toBe(secret)
  expect(secretHint('whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLr1B=')).toBe('…r1B=')
})

test.each(['', 'whsec_', 'MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw', 'whsec_not base64', `whsec_${'A'.repeat(28)}`, `whsec_${'A'.repeat(88)}`])(
  'the secret %j is refused and not repeated',
  (secret) => {
    expect(() => secretBytes(secret)).toThrow(/rotate the secret/)
    try {
      secretBytes(secret)
    } catch (error) {
      if (secret.length > 8) expect((error as Error).message).not.toContain(secret.slice(6))
    }
  },
)

/** Bodies of any text, as JSON writes it or bare, and bytes that are no ASCII at all. */
const bodies = fc
  .tuple(fc.string({ unit: 'binary', maxLength: 80 }), fc.string({ unit: 'grapheme', maxLength: 80 }), fc.double())
  .map(([text, bare, number]) => {
    const plain = JSON.stringify(bare)
    return `{"type":"task.completed","timestamp":"2026-11-22T10:00:05.120Z","id":"${message.id}","data":{"text":${JSON.stringify(text)},"bare":${plain},"number":${JSON.stringify(number)}}}`
  })

test('any body verifies, and with any one byte changed it does not', async () => {
  const receiver = createReceiver({ issuer, audience, jwks, clock: { wall: () => atSeconds * 1000 } })
  const options = { clock: { wall: () => atSeconds * 1000 } }
  await fc.assert(
    fc.asyncProperty(bodies, fc.nat(), fc.integer({ min: 1, max: 255 }), async (body, index, mask) => {
      const headers = await signWebhook(key, { ...message, body })
      const sent = Buffer.from(body)
      expect((await receiver.verify({ headers, body: sent })).data).toEqual(JSON.parse(body).data)
      expect((await verifyStandardWebhook(whsec, { headers, body }, options)).data).toEqual(JSON.parse(body).data)
      const changed = Uint8Array.from(sent)
      changed[index % changed.length]! ^= mask
      await expect(receiver.verify({ headers, body: changed })).rejects.toMatchObject({ code: 'bad_signature' })
      await expect(verifyStandardWebhook(whsec, { headers, body: changed }, options)).rejects.toMatchObject({ code: 'bad_signature' })
    }),
    { numRuns: 200 },
  )
})
