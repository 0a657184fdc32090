/**
 * Writes webhooks.json anew: `node test/vectors/generate.ts`. Signs with node:crypto alone, so that the vectors judge our own code.
 * Every input is fixed, the nonces of ES256 too (RFC 6979): each run writes the same bytes.
 *
 * `node test/vectors/generate.ts now [issuer] [audience]` prints them for a receiver whose clock cannot be set: signed now, for that issuer and audience.
 */
import { createECDH, createHash, createHmac, createPrivateKey, createPublicKey, sign as signNow } from 'node:crypto'
import { writeFileSync } from 'node:fs'

/** A key as RFC 7517 has it. */
export interface Jwk {
  readonly [member: string]: string
  readonly kty: string
  readonly kid: string
  readonly alg: string
}

export interface Vector {
  readonly name: string
  /** `valid`, or the code of the refusal. */
  readonly jws: string
  readonly standard: string
  readonly headers: Readonly<Record<string, string>>
  readonly body: string
}

export interface Vectors {
  readonly description: string
  readonly issuer: string
  readonly audience: string
  readonly now: number
  readonly toleranceSeconds: number
  readonly secrets: readonly string[]
  readonly jwks: { readonly keys: readonly Jwk[] }
  readonly vectors: readonly Vector[]
}

export interface Situation {
  readonly issuer: string
  readonly audience: string
  /** When the receiver judges, in seconds since the epoch. */
  readonly now: number
  /** How far the vectors at the edges of the tolerance stay from them, for a receiver whose clock goes on. */
  readonly slackSeconds: number
}

const published: Situation = {
  issuer: 'https://tasks.example.com',
  audience: 'https://app.example.net/hooks',
  now: 1795341605,
  slackSeconds: 0,
}
const id = 'event_01jd7z3m0q8y3t6w9k2v5n4r1b'
const TOLERANCE_SECONDS = 300

// Keys printed in RFCs: everybody has them, so nothing real may be signed with them.
const active: Jwk = {
  kty: 'EC',
  crv: 'P-256',
  x: 'f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU',
  y: 'x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0',
  d: 'jpsQnnGQmL-YBIffH1136cspYG6-0iY7X1fCE9-E9LI',
  kid: 'oKIywvGUpTVTyxMQ3bwIIeQUudfr_CkLMjCE19ECD-U',
  alg: 'ES256',
}
const next: Jwk = {
  kty: 'EC',
  crv: 'P-256',
  x: 'MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4',
  y: '4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM',
  d: '870MB6gfuTJ4HtUnUvYMyJpr5eUZNP4Bk43bVdj3eAE',
  kid: 'cn-I_WNMClehiVp51i_0VpOENW1upEerA8sEam5hn-s',
  alg: 'ES256',
}
const edwards: Jwk = {
  kty: 'OKP',
  crv: 'Ed25519',
  x: '11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo',
  d: 'nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A',
  kid: 'kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k',
  alg: 'EdDSA',
}
const secret = 'whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw'
const olderSecret = `whsec_${Buffer.from('an older secret of the endpoint!').toString('base64')}`
const foreignSecret = `whsec_${Buffer.from('the secret of another endpoint..').toString('base64')}`

const body = `{"type":"task.completed","timestamp":"2026-11-22T10:00:05.120Z","id":"${id}","data":{"id":"task_01jd7z3m0q8y3t6w9k2v5n4r1c","status":"completed","generation":1,"revision":3,"result":{"pages":12}}}`
const bodyWith = (data: string): string => `{"type":"task.completed","timestamp":"2026-11-22T10:00:05.120Z","id":"${id}","data":${data}}`

const thin = bodyWith(
  '{"id":"task_01jd7z3m0q8y3t6w9k2v5n4r1c","status":"completed","input":null,"inputUrl":"https://tasks.example.com/v1/tasks/task_01jd7z3m0q8y3t6w9k2v5n4r1c/input","result":null,"resultUrl":"https://tasks.example.com/v1/tasks/task_01jd7z3m0q8y3t6w9k2v5n4r1c/result","metadata":null}',
)
const challenge = `{"type":"endpoint.verification","timestamp":"2026-11-22T10:00:05.120Z","id":"${id}","data":{"endpointId":"endpoint_01jd7z3m0q8y3t6w9k2v5n4r1e","challenge":"Y2hhbGxlbmdlIG9mIHRoZSB2ZWN0b3JzLCA0MyBjaGFycw","expiresAt":"2026-11-23T10:00:05.120Z"}}`

type Header = Readonly<Record<string, unknown>>
const base64url = (bytes: string | Uint8Array): string => Buffer.from(bytes as Uint8Array).toString('base64url')
const join = (header: Header, signature: string): string => `${base64url(JSON.stringify(header))}..${signature}`
const inputOf = (header: Header, text: string): string => `${base64url(JSON.stringify(header))}.${base64url(text)}`
const token = (key: string, text: string, at: number): string =>
  `v1,${createHmac('sha256', Buffer.from(key.slice(6), 'base64'))
    .update(`${id}.${at}.${text}`)
    .digest('base64')}`

/** The order of the group of P-256. */
const N = 0xffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551n

/** ES256 over `input`, with the nonce of RFC 6979 §3.2: the same key and input give the same signature. */
export function signP256(privateKey: Uint8Array, input: string): Buffer {
  const hash = createHash('sha256').update(input).digest()
  const hmac = (key: Uint8Array, ...parts: Uint8Array[]): Buffer => createHmac('sha256', key).update(Buffer.concat(parts)).digest()
  const seed = Buffer.concat([privateKey, bytesOf(numberOf(hash) % N)])
  let v: Buffer = Buffer.alloc(32, 1)
  let k: Buffer = Buffer.alloc(32, 0)
  for (const step of [0, 1]) {
    k = hmac(k, v, Buffer.from([step]), seed)
    v = hmac(k, v)
  }
  v = hmac(k, v)
  // Once in 2^32 the first candidate is beyond the group; none of our inputs is such a one.
  const nonce = numberOf(v)
  if (nonce === 0n || nonce >= N) throw new Error('The nonce is not in the group: change the input.')
  const point = createECDH('prime256v1')
  point.setPrivateKey(v)
  const r = numberOf(point.getPublicKey().subarray(1, 33)) % N
  const s = (inverse(nonce) * (numberOf(hash) + r * numberOf(privateKey))) % N
  return Buffer.concat([bytesOf(r), bytesOf(s)])
}

const numberOf = (bytes: Uint8Array): bigint => BigInt(`0x${Buffer.from(bytes).toString('hex')}`)
const bytesOf = (number: bigint): Buffer => Buffer.from(number.toString(16).padStart(64, '0'), 'hex')

/** By Fermat: N is a prime. */
function inverse(of: bigint): bigint {
  let result = 1n
  for (let base = of % N, exponent = N - 2n; exponent > 0n; exponent >>= 1n) {
    if (exponent & 1n) result = (result * base) % N
    base = (base * base) % N
  }
  return result
}

function signatureOf(key: Jwk, input: string): string {
  const bytes =
    key.alg === 'ES256'
      ? signP256(Buffer.from(key.d!, 'base64url'), input)
      : signNow(null, Buffer.from(input), createPrivateKey({ key, format: 'jwk' }))
  return base64url(bytes)
}

/** The same signature in ASN.1, as TLS has it and JWS does not. */
function asn1(signature: Buffer): Buffer {
  const integer = (bytes: Buffer): Buffer => {
    const short = bytes.subarray(bytes.findIndex((byte) => byte !== 0))
    const positive = short[0]! < 0x80 ? short : Buffer.concat([Buffer.from([0]), short])
    return Buffer.concat([Buffer.from([2, positive.length]), positive])
  }
  const both = Buffer.concat([integer(signature.subarray(0, 32)), integer(signature.subarray(32))])
  return Buffer.concat([Buffer.from([0x30, both.length]), both])
}

/** The vectors of a situation: the published ones when it is left out. */
export function makeVectors({ issuer, audience, now, slackSeconds }: Situation = published): Vectors {
  const headerOf = (key: Jwk): Header => ({ alg: key.alg, kid: key.kid, typ: 'webhook+jws', iss: issuer, aud: audience, iat: now, jti: id })
  /** A detached JWS over `text`; members of `change` that are undefined are left out. */
  const sign = (key: Jwk, text: string, change: Header = {}): string => {
    const header = { ...headerOf(key), ...change }
    return join(header, signatureOf(key, inputOf(header, text)))
  }
  const vectors: Vector[] = []
  function add(
    name: string,
    verdict: { jws: string; standard: string },
    jws: string | null,
    given: { sent?: string; signed?: string; at?: number; tokens?: string } = {},
  ): void {
    const at = given.at ?? now
    const headers: Record<string, string> = {
      'webhook-id': id,
      'webhook-timestamp': String(at),
      'webhook-signature': given.tokens ?? token(secret, given.signed ?? body, at),
    }
    if (jws !== null) headers['webhook-jws'] = jws
    vectors.push({ name, ...verdict, headers, body: given.sent ?? given.signed ?? body })
  }
  const valid = { jws: 'valid', standard: 'valid' }
  const refused = (jws: string) => ({ jws, standard: 'valid' })
  const both = (code: string) => ({ jws: code, standard: code })

  // What holds.
  add('ES256', valid, sign(active, body))
  add('EdDSA', valid, sign(edwards, body))
  add('ES256 with the next key, after a rotation', valid, sign(next, body))
  add('two secrets overlap, the newest last', valid, sign(active, body), {
    tokens: `${token(olderSecret, body, now)} ${token(secret, body, now)}`,
  })
  for (const [name, signed] of [
    ['unicode, escaped and bare', bodyWith('{"result":"Žluťoučký 🐎 \\u00e9 \\ud834\\udd1e \\u2028 \u2028"}')],
    ['numbers that do not survive a parser', bodyWith('{"result":[1.0,1e2,0.1000,12345678901234567890,-0]}')],
    ['member order and blanks of its own', bodyWith(' {"b" : 1,\n"a":\t2 } ')],
    [
      'a CloudEvents envelope',
      `{"specversion":"1.0","id":"${id}","source":"${issuer}","type":"task.completed","time":"2026-11-22T10:00:05.120Z","subject":"task_01jd7z3m0q8y3t6w9k2v5n4r1c","datacontenttype":"application/json","sequence":"3","data":{"status":"completed"}}`,
    ],
  ] as const) {
    add(name, valid, sign(active, signed), { signed })
  }
  add('a thin payload', valid, sign(active, thin), { signed: thin })
  add('a challenge', valid, sign(active, challenge), { signed: challenge })
  const within = TOLERANCE_SECONDS - slackSeconds
  add(`signed ${within} s ago`, valid, sign(active, body, { iat: now - within }), { at: now - within })
  add(`signed ${within} s ahead`, valid, sign(active, body, { iat: now + within }), { at: now + within })

  // Another body than was signed.
  add('a byte changed', both('bad_signature'), sign(active, body), { sent: body.replace('"pages":12', '"pages":13'), signed: body })
  add('a member added', both('bad_signature'), sign(active, body), {
    sent: body.replace('{"pages"', '{"paid":true,"pages"'),
    signed: body,
  })
  const spaced = bodyWith('{"result":1.0}')
  add('serialised again', both('bad_signature'), sign(active, spaced), { sent: JSON.stringify(JSON.parse(spaced)), signed: spaced })
  add('an empty body', both('bad_signature'), sign(active, body), { sent: '', signed: body })

  // Another time, sender, receiver or purpose than expected.
  const beyond = TOLERANCE_SECONDS + 1 + slackSeconds
  add(`signed ${beyond} s ago`, both('stale'), sign(active, body, { iat: now - beyond }), { at: now - beyond })
  add(`signed ${beyond} s ahead`, both('stale'), sign(active, body, { iat: now + beyond }), { at: now + beyond })
  add('no iat', refused('stale'), sign(active, body, { iat: undefined }))
  add('iat as text', refused('stale'), sign(active, body, { iat: String(now) }))
  add('iat null', refused('stale'), sign(active, body, { iat: null }))
  add(
    'an audience elsewhere: replayed by another receiver',
    { jws: 'wrong_audience', standard: 'bad_signature' },
    sign(active, body, { aud: 'https://other.example.org/hooks' }),
    {
      tokens: token(foreignSecret, body, now),
    },
  )
  add('an audience with a slash more', refused('wrong_audience'), sign(active, body, { aud: `${audience}/` }))
  add('a list of audiences', refused('wrong_audience'), sign(active, body, { aud: [audience] }))
  add('no audience', refused('wrong_audience'), sign(active, body, { aud: undefined }))
  add('another issuer', refused('wrong_issuer'), sign(active, body, { iss: 'https://tasks.example.org' }))
  add('no issuer', refused('wrong_issuer'), sign(active, body, { iss: undefined }))
  add('typ JWT', refused('wrong_type'), sign(active, body, { typ: 'JWT' }))
  add('no typ', refused('wrong_type'), sign(active, body, { typ: undefined }))
  add('jti of another event', refused('malformed'), sign(active, body, { jti: 'event_01jd7z3m0q8y3t6w9k2v5n4r1z' }))
  add('no jti', refused('malformed'), sign(active, body, { jti: undefined }))

  // Another key or algorithm than pinned.
  const stranger = strangerKey()
  add('an unknown kid', refused('unknown_key'), sign(stranger, body))
  add('a stranger under a known kid', refused('bad_signature'), sign(stranger, body, { kid: active.kid }))
  add('the kid of a key for another algorithm', refused('unknown_key'), sign(active, body, { kid: edwards.kid }))
  add('no kid', refused('malformed'), sign(active, body, { kid: undefined }))
  add('alg none, no signature', refused('malformed'), join({ ...headerOf(active), alg: 'none' }, ''))
  add('alg none, with a signature', refused('bad_signature'), join({ ...headerOf(active), alg: 'none' }, base64url('none')))
  const confused = { ...headerOf(active), alg: 'HS256' }
  const pem = createPublicKey({ key: { kty: active.kty, crv: active.crv, x: active.x, y: active.y } as never, format: 'jwk' }).export({
    type: 'spki',
    format: 'pem',
  })
  add(
    'HS256 with the public key as secret',
    refused('bad_signature'),
    join(confused, createHmac('sha256', pem).update(inputOf(confused, body)).digest('base64url')),
  )
  const { d: _, ...strangerPublic } = stranger
  add('an embedded jwk', refused('malformed'), sign(stranger, body, { jwk: strangerPublic }))
  add('an embedded jwk under a known kid', refused('malformed'), sign(stranger, body, { kid: active.kid, jwk: strangerPublic }))
  add('a jku of the sender', refused('malformed'), sign(stranger, body, { jku: 'https://evil.example.org/jwks.json' }))

  // Another form than Appendix F.
  const good = sign(active, body)
  const [head, , tail] = good.split('.') as [string, string, string]
  add('the payload in the middle', refused('malformed'), `${head}.${base64url(body)}.${tail}`)
  add('a foreign payload in the middle', refused('malformed'), `${head}.${base64url('{"type":"task.failed"}')}.${tail}`)
  add('two parts', refused('malformed'), `${head}.${tail}`)
  add('four parts', refused('malformed'), `${head}..${tail}.${tail}`)
  add('no signature', refused('malformed'), `${head}..`)
  add('half a signature', refused('bad_signature'), `${head}..${tail.slice(0, 43)}`)
  add('an ASN.1 signature', refused('bad_signature'), `${head}..${base64url(asn1(Buffer.from(tail, 'base64url')))}`)
  add('two in one header', refused('malformed'), `${good}, ${good}`)
  add('a header that is no JSON', refused('malformed'), `${base64url('{')}..${tail}`)
  add('no webhook-jws', refused('missing_header'), null)
  const bare = { ...headerOf(active), b64: false }
  const unencoded = { ...bare, crit: ['b64'] }
  const bareJws = join(unencoded, signatureOf(active, `${base64url(JSON.stringify(unencoded))}.${body}`))
  add('b64 false, unencoded and critical', refused('malformed'), bareJws)
  add('b64 false without crit', refused('malformed'), sign(active, body, { b64: false }))
  add('b64 true and critical', refused('malformed'), sign(active, body, { b64: true, crit: ['b64'] }))
  const critical = { ...headerOf(active), crit: ['aud'] }
  add('crit', refused('malformed'), join(critical, signatureOf(active, inputOf(critical, body))))

  // The symmetric signature alone.
  add('the secret of another endpoint', { jws: 'valid', standard: 'bad_signature' }, good, { tokens: token(foreignSecret, body, now) })
  add('a v1a token only', { jws: 'valid', standard: 'bad_signature' }, good, { tokens: token(secret, body, now).replace('v1,', 'v1a,') })
  add('tokens of other kinds beside a good one', valid, good, { tokens: `v1a,AAAA v1 v2,x,y v1,!!! ${token(secret, body, now)}` })

  return {
    description:
      'Webhooks as Ringback sends them, and forgeries. `jws` and `standard` say what a receiver makes of webhook-jws and of webhook-signature: "valid", or why it is refused. See README.md.',
    issuer,
    audience,
    now,
    toleranceSeconds: TOLERANCE_SECONDS,
    secrets: [secret],
    jwks: { keys: [active, next, edwards].map(({ d: _private, ...key }) => ({ ...key, use: 'sig' }) as unknown as Jwk) },
    vectors,
  }
}

/** A P-256 key that nobody published, made of a fixed text. */
function strangerKey(): Jwk {
  const pair = createECDH('prime256v1')
  pair.setPrivateKey(createHash('sha256').update('a stranger').digest())
  const point = pair.getPublicKey()
  const [x, y, d] = [point.subarray(1, 33), point.subarray(33), pair.getPrivateKey()].map((part) => part.toString('base64url')) as [
    string,
    string,
    string,
  ]
  return { kty: 'EC', crv: 'P-256', x, y, d, kid: 'a-key-of-a-stranger', alg: 'ES256' }
}

/** The file as it is published. */
export const asFile = (vectors: Vectors): string => `${JSON.stringify(vectors, null, 2)}\n`

if (import.meta.main) {
  const [when, issuer = published.issuer, audience = published.audience] = process.argv.slice(2)
  if (when === 'now') process.stdout.write(asFile(makeVectors({ issuer, audience, now: Math.floor(Date.now() / 1000), slackSeconds: 120 })))
  else writeFileSync(new URL('webhooks.json', import.meta.url), asFile(makeVectors()))
}
