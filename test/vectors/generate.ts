/**
 * Writes webhooks.json anew: `node test/vectors/generate.ts`. Signs with jose and node:crypto alone, so that the vectors judge our own code.
 * Every input is fixed; ES256 signatures are not deterministic, so the file changes with each run and is committed.
 */
import { createECDH, createHash, createHmac, createPublicKey, sign as signNow } from 'node:crypto'
import { writeFileSync } from 'node:fs'
import { base64url, type CryptoKey, FlattenedSign, importJWK, type JWK } from 'jose'

const issuer = 'https://tasks.example.com'
const audience = 'https://app.example.net/hooks'
const now = 1795341605
const id = 'event_01jd7z3m0q8y3t6w9k2v5n4r1b'

// Keys printed in RFCs: everybody has them, so nothing real may be signed with them.
const active: JWK = {
  kty: 'EC',
  crv: 'P-256',
  x: 'f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU',
  y: 'x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0',
  d: 'jpsQnnGQmL-YBIffH1136cspYG6-0iY7X1fCE9-E9LI',
  kid: 'oKIywvGUpTVTyxMQ3bwIIeQUudfr_CkLMjCE19ECD-U',
  alg: 'ES256',
}
const next: JWK = {
  kty: 'EC',
  crv: 'P-256',
  x: 'MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4',
  y: '4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM',
  d: '870MB6gfuTJ4HtUnUvYMyJpr5eUZNP4Bk43bVdj3eAE',
  kid: 'cn-I_WNMClehiVp51i_0VpOENW1upEerA8sEam5hn-s',
  alg: 'ES256',
}
const edwards: JWK = {
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

type Header = Record<string, unknown>
const headerOf = (key: JWK): Header => ({ alg: key.alg, kid: key.kid, typ: 'webhook+jws', iss: issuer, aud: audience, iat: now, jti: id })
const join = (header: Header, signature: string): string => `${base64url.encode(JSON.stringify(header))}..${signature}`
const inputOf = (header: Header, text: string): string => `${base64url.encode(JSON.stringify(header))}.${base64url.encode(text)}`

/** A detached JWS over `text`; members of `change` that are undefined are left out. */
async function sign(key: JWK, text: string, change: Header = {}): Promise<string> {
  const header = { ...headerOf(key), ...change }
  const sent = JSON.parse(JSON.stringify(header)) as Header
  const jws = await new FlattenedSign(new TextEncoder().encode(text)).setProtectedHeader(sent as never).sign(await importJWK(key, key.alg))
  return `${jws.protected}..${jws.signature}`
}

const token = (key: string, text: string, at: number): string =>
  `v1,${createHmac('sha256', Buffer.from(key.slice(6), 'base64'))
    .update(`${id}.${at}.${text}`)
    .digest('base64')}`

interface Vector {
  readonly name: string
  /** `valid`, or the code of the refusal. */
  readonly jws: string
  readonly standard: string
  readonly headers: Record<string, string>
  readonly body: string
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
add('ES256', valid, await sign(active, body))
add('EdDSA', valid, await sign(edwards, body))
add('ES256 with the next key, after a rotation', valid, await sign(next, body))
add('two secrets overlap, the newest last', valid, await sign(active, body), {
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
  add(name, valid, await sign(active, signed), { signed })
}
add('signed 300 s ago', valid, await sign(active, body, { iat: now - 300 }), { at: now - 300 })
add('signed 300 s ahead', valid, await sign(active, body, { iat: now + 300 }), { at: now + 300 })

// Another body than was signed.
add('a byte changed', both('bad_signature'), await sign(active, body), { sent: body.replace('"pages":12', '"pages":13'), signed: body })
add('a member added', both('bad_signature'), await sign(active, body), {
  sent: body.replace('{"pages"', '{"paid":true,"pages"'),
  signed: body,
})
const spaced = bodyWith('{"result":1.0}')
add('serialised again', both('bad_signature'), await sign(active, spaced), { sent: JSON.stringify(JSON.parse(spaced)), signed: spaced })
add('an empty body', both('bad_signature'), await sign(active, body), { sent: '', signed: body })

// Another time, sender, receiver or purpose than expected.
add('signed 301 s ago', both('stale'), await sign(active, body, { iat: now - 301 }), { at: now - 301 })
add('signed 301 s ahead', both('stale'), await sign(active, body, { iat: now + 301 }), { at: now + 301 })
add('no iat', refused('stale'), await sign(active, body, { iat: undefined }))
add('iat as text', refused('stale'), await sign(active, body, { iat: String(now) }))
add('iat null', refused('stale'), await sign(active, body, { iat: null }))
add(
  'an audience elsewhere: replayed by another receiver',
  { jws: 'wrong_audience', standard: 'bad_signature' },
  await sign(active, body, { aud: 'https://other.example.org/hooks' }),
  {
    tokens: token(foreignSecret, body, now),
  },
)
add('an audience with a slash more', refused('wrong_audience'), await sign(active, body, { aud: `${audience}/` }))
add('a list of audiences', refused('wrong_audience'), await sign(active, body, { aud: [audience] }))
add('no audience', refused('wrong_audience'), await sign(active, body, { aud: undefined }))
add('another issuer', refused('wrong_issuer'), await sign(active, body, { iss: 'https://tasks.example.org' }))
add('no issuer', refused('wrong_issuer'), await sign(active, body, { iss: undefined }))
add('typ JWT', refused('wrong_type'), await sign(active, body, { typ: 'JWT' }))
add('no typ', refused('wrong_type'), await sign(active, body, { typ: undefined }))
add('jti of another event', refused('malformed'), await sign(active, body, { jti: 'event_01jd7z3m0q8y3t6w9k2v5n4r1z' }))
add('no jti', refused('malformed'), await sign(active, body, { jti: undefined }))

// Another key or algorithm than pinned.
const stranger = strangerKey()
add('an unknown kid', refused('unknown_key'), await sign(stranger, body))
add('a stranger under a known kid', refused('bad_signature'), await sign(stranger, body, { kid: active.kid }))
add('the kid of a key for another algorithm', refused('unknown_key'), await sign(active, body, { kid: edwards.kid }))
add('no kid', refused('malformed'), await sign(active, body, { kid: undefined }))
add('alg none, no signature', refused('malformed'), join({ ...headerOf(active), alg: 'none' }, ''))
add('alg none, with a signature', refused('bad_signature'), join({ ...headerOf(active), alg: 'none' }, base64url.encode('none')))
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
add('an embedded jwk', refused('malformed'), await sign(stranger, body, { jwk: strangerPublic }))
add('an embedded jwk under a known kid', refused('malformed'), await sign(stranger, body, { kid: active.kid, jwk: strangerPublic }))
add('a jku of the sender', refused('malformed'), await sign(stranger, body, { jku: 'https://evil.example.org/jwks.json' }))

// Another form than Appendix F.
const good = await sign(active, body)
const [head, , tail] = good.split('.') as [string, string, string]
add('the payload in the middle', refused('malformed'), `${head}.${base64url.encode(body)}.${tail}`)
add('a foreign payload in the middle', refused('malformed'), `${head}.${base64url.encode('{"type":"task.failed"}')}.${tail}`)
add('two parts', refused('malformed'), `${head}.${tail}`)
add('four parts', refused('malformed'), `${head}..${tail}.${tail}`)
add('no signature', refused('malformed'), `${head}..`)
add('half a signature', refused('bad_signature'), `${head}..${tail.slice(0, 43)}`)
add(
  'an ASN.1 signature',
  refused('bad_signature'),
  `${head}..${signNow('sha256', Buffer.from(inputOf(headerOf(active), body)), { key: active as never, format: 'jwk', dsaEncoding: 'der' }).toString('base64url')}`,
)
add('two in one header', refused('malformed'), `${good}, ${good}`)
add('a header that is no JSON', refused('malformed'), `${base64url.encode('{')}..${tail}`)
add('no webhook-jws', refused('missing_header'), null)
const bare = { ...headerOf(active), b64: false }
add('b64 false, unencoded and critical', refused('malformed'), await signBare({ ...bare, crit: ['b64'] }))
add('b64 false without crit', refused('malformed'), await sign(active, body, { b64: false }))
add('b64 true and critical', refused('malformed'), await sign(active, body, { b64: true, crit: ['b64'] }))
const critical = { ...headerOf(active), crit: ['aud'] }
add('crit', refused('malformed'), join(critical, await rawSignature(inputOf(critical, body))))

// The symmetric signature alone.
add('the secret of another endpoint', { jws: 'valid', standard: 'bad_signature' }, good, { tokens: token(foreignSecret, body, now) })
add('a v1a token only', { jws: 'valid', standard: 'bad_signature' }, good, { tokens: token(secret, body, now).replace('v1,', 'v1a,') })
add('tokens of other kinds beside a good one', valid, good, { tokens: `v1a,AAAA v1 v2,x,y v1,!!! ${token(secret, body, now)}` })

/** A P-256 key that nobody published, made of a fixed text. */
function strangerKey(): JWK {
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

async function rawSignature(input: string): Promise<string> {
  const key = (await importJWK(active, 'ES256')) as CryptoKey
  return base64url.encode(
    new Uint8Array(await crypto.subtle.sign({ name: 'ECDSA', hash: 'SHA-256' }, key, new TextEncoder().encode(input))),
  )
}

async function signBare(header: Header): Promise<string> {
  return join(header, await rawSignature(`${base64url.encode(JSON.stringify(header))}.${body}`))
}

const publicOf = ({ d: _private, ...key }: JWK): JWK => ({ ...key, use: 'sig' })
const description =
  'Webhooks as Ringback sends them, and forgeries. `jws` and `standard` say what a receiver makes of webhook-jws and of webhook-signature: "valid", or why it is refused. See README.md.'
const file = {
  description,
  issuer,
  audience,
  now,
  toleranceSeconds: 300,
  secrets: [secret],
  jwks: { keys: [active, next, edwards].map(publicOf) },
  vectors,
}
writeFileSync(new URL('webhooks.json', import.meta.url), `${JSON.stringify(file, null, 2)}\n`)
