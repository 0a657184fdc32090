/**
 * What must not get out. A real server on each database is given recognisable values wherever a value can be given, made to succeed, to fail and
 * to break, and stopped. Then everything it printed is searched, and what a thief of its database would have.
 */
import { createHash, randomBytes } from 'node:crypto'
import { copyFileSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { basename, dirname, join } from 'node:path'
import { importJWK } from 'jose'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { parseConfig } from '../../src/config/config.ts'
import { systemClock } from '../../src/core/clock.ts'
import { createEncryptor } from '../../src/core/encryption.ts'
import { openReceiver, type Receiver } from '../support/receiver.ts'
import { type Call, calling, databases, eventually, type Home, ok, openHome, type Server } from '../support/server.ts'

const canary = (name: string): string => `canary${name}${randomBytes(12).toString('hex')}`

/** What this text looks like where it stands as it is, or inside of base64 at any of its three alignments. */
function spellings(text: string): string[] {
  const aligned = [0, 1, 2].map((lead) => {
    const encoded = Buffer.concat([Buffer.alloc(lead), Buffer.from(text)]).toString('base64')
    // Characters that also hold bits of what stands before or behind.
    return encoded.slice(Math.ceil((lead * 4) / 3), Math.floor(((lead + text.length) * 4) / 3))
  })
  return [text, ...aligned, ...aligned.map((it) => it.replaceAll('+', '-').replaceAll('/', '_'))]
}
const found = (secrets: Readonly<Record<string, string>>, where: string): string[] =>
  Object.entries(secrets).flatMap(([name, value]) => (spellings(value).some((text) => where.includes(text)) ? [name] : []))

const hashOf = (key: string): string => createHash('sha256').update(key).digest('hex')
const wrongKey = (): string => randomBytes(32).toString('base64')

interface SigningRow {
  readonly private_jwk: string
  readonly public_jwk: string
  readonly id: string
}

describe.each(databases)('on %s', (name) => {
  /** Of the operator and the keys: nowhere but where they were given. */
  const sealedOrNever = {
    adminToken: canary('Token'),
    masterKey: randomBytes(32).toString('base64'),
    databasePassword: canary('Database'),
    proxyPassword: canary('Proxy'),
    headerValue: canary('Header'),
    authorization: canary('Authorization'),
    cookie: canary('Cookie'),
    query: canary('Query'),
    userinfo: canary('Userinfo'),
    unread: canary('Unread'),
  }
  /** Data of clients: in the database, and in no line. */
  const data = {
    input: canary('Input'),
    metadata: canary('Metadata'),
    erased: canary('Erased'),
    message: canary('Message'),
    urlQuery: canary('Urlquery'),
    row: canary('Row'),
    path: canary('Path'),
    answer: canary('Answer'),
  }
  /** Made by the server. */
  const made: Record<string, string> = {}
  let home: Home
  let receiver: Receiver
  let client: Call
  let said = ''
  let stolen = ''

  const signed = (): Promise<readonly SigningRow[]> => home.query<SigningRow>('select id, public_jwk, private_jwk from signing_keys')

  beforeAll(async () => {
    home = await openHome(name)
    receiver = await openReceiver()
    receiver.answer({ status: 200, headers: { 'x-answer': data.answer }, body: data.answer })
    const url = new URL(home.databaseUrl)
    if (name === 'PostgreSQL') url.password = sealedOrNever.databasePassword
    const env = {
      RINGBACK_ADMIN_TOKEN: sealedOrNever.adminToken,
      RINGBACK_MASTER_KEY: sealedOrNever.masterKey,
      RINGBACK_DATABASE_URL: name === 'PostgreSQL' ? url.href : home.databaseUrl,
      RINGBACK_LOG_LEVEL: 'trace',
      // Development shows the key of a client it has made for whoever tries it.
      RINGBACK_ENV: 'production',
      RINGBACK_HOST: '127.0.0.1',
      RINGBACK_PUBLIC_URL: 'https://tasks.example.com',
      RINGBACK_ENDPOINT_VERIFICATION: 'none',
      RINGBACK_CALLBACK_HTTP: 'true',
      RINGBACK_CALLBACK_ALLOW: '127.0.0.1/32',
      RINGBACK_RETRY_SCHEDULE: '0',
    }
    const servers: Server[] = []
    const start = async (more: Record<string, string> = {}): Promise<string> => {
      const server = await home.start({ ...env, ...more })
      servers.push(server)
      return server.listening
    }
    const stop = async (): Promise<void> => {
      servers.at(-1)!.kill('SIGTERM')
      await servers.at(-1)!.ended
    }

    let base = await start()
    const operator = calling(base, sealedOrNever.adminToken)
    const { id: clientId } = (await ok(operator('POST', '/v1/clients', { name: 'test' }))).json
    made.clientKey = (await ok(operator('POST', `/v1/clients/${clientId}/keys`, {}))).json.key
    made.operatorKey = (await ok(operator('POST', '/v1/operator-keys', { name: 'deputy', scopes: ['admin'] }))).json.key
    client = calling(base, made.clientKey!)
    const endpoint = (
      await ok(
        client('POST', '/v1/endpoints', {
          url: `${receiver.url}/hooks?token=${data.urlQuery}`,
          headers: { Authorization: `Bearer ${sealedOrNever.headerValue}`, 'X-Custom': sealedOrNever.headerValue },
          events: ['task.created', 'task.progress', 'task.completed', 'task.failed'],
        }),
      )
    ).json
    made.firstSecret = endpoint.secret.slice('whsec_'.length)
    made.secret = (await ok(client('POST', `/v1/endpoints/${endpoint.id}/rotate-secret`, {}))).json.secret.slice('whsec_'.length)

    // What goes well, with everything a request can carry.
    const rich = { Cookie: `session=${sealedOrNever.cookie}`, tracestate: `a=${sealedOrNever.cookie}` }
    const submit = (input: unknown, type = 'demo.echo') =>
      client('POST', '/v1/tasks?wait=10', { type, input, metadata: { label: data.metadata } }, rich)
    expect((await submit({ text: data.input })).json.status).toBe('completed')
    const { json: failed } = await submit({ say: data.message }, 'work.blurt')
    expect(failed).toMatchObject({ status: 'failed', error: { message: data.message } })
    await receiver.receives(4)
    const { json: erased } = await submit({ text: data.erased })
    await eventually('every webhook is settled', async () => {
      const { json } = await client('GET', `/v1/deliveries?taskId=${erased.id}&status=pending,sending`)
      return json.data.length === 0
    })
    expect((await client('DELETE', `/v1/tasks/${erased.id}`)).status).toBe(204)

    // What is refused.
    const strangers: [string, Call, string, string, unknown][] = [
      ['a wrong key', calling(base, sealedOrNever.authorization), 'GET', '/v1/tasks', undefined],
      ['the hash of a key', calling(base, hashOf(made.clientKey!)), 'GET', '/v1/tasks', undefined],
      ['the hash of a key, dressed up', calling(base, `rb_${hashOf(made.clientKey!)}`), 'GET', '/v1/tasks', undefined],
      ['a token in a URL', client, 'GET', `/v1/tasks?access_token=${sealedOrNever.query}`, undefined],
      ['a path', client, 'GET', `/v1/${data.path}`, undefined],
      ['a URL with a password', client, 'POST', '/v1/endpoints', { url: `https://me:${sealedOrNever.userinfo}@app.example.net/` }],
      ['a wrong member', client, 'POST', '/v1/tasks', { type: 'demo.echo', input: 1, [sealedOrNever.unread]: sealedOrNever.unread }],
      ['a wrong input', client, 'POST', '/v1/tasks', { type: 'work.nap', input: { ms: sealedOrNever.unread } }],
    ]
    for (const [what, call, method, path, body] of strangers) {
      const { status } = await call(method, path, body, rich)
      expect([what, status >= 400 && status < 500]).toEqual([what, true])
    }
    const torn = await fetch(`${base}/v1/tasks`, {
      method: 'POST',
      headers: { authorization: `Bearer ${made.clientKey}`, 'content-type': 'application/json' },
      body: `{"type":"${sealedOrNever.unread}`,
    })
    expect(torn.status).toBe(400)

    // A database that refuses a row, and says which: the request, and the run, break inside.
    const [row] = await signed()
    const { d } = JSON.parse(
      createEncryptor({ masterKey: sealedOrNever.masterKey, clock: systemClock() }).decrypt(row!.private_jwk, {
        table: 'signing_keys',
        id: row!.id,
        column: 'private_jwk',
      }),
    )
    made.signingKey = d
    await sabotage(home, name)
    expect((await submit({ text: data.row })).status).toBeGreaterThanOrEqual(500)
    await stop()
    await mend(home, name)

    // A proxy that is not there.
    base = await start({ RINGBACK_EGRESS_PROXY: `http://me:${sealedOrNever.proxyPassword}@127.0.0.1:9` })
    client = calling(base, made.clientKey!)
    await submit({ text: data.input })
    await eventually('a delivery has failed', async () => (await client('GET', '/v1/deliveries?status=failed')).json.data.length > 0)
    await stop()

    // Starts that are refused.
    for (const wrong of [
      { RINGBACK_MASTER_KEY: wrongKey() },
      ...(name === 'PostgreSQL' ? [{ RINGBACK_DATABASE_URL: `postgres://me:${sealedOrNever.databasePassword}@127.0.0.1:9/nowhere` }] : []),
    ]) {
      const server = home.spawn({ ...env, ...wrong })
      servers.push(server)
      expect((await server.ended).code).toBe(1)
    }
    said = servers.map((server) => server.said()).join('\n')
    stolen = await steal(home, name)
  }, 180_000)
  afterAll(async () => {
    await receiver.close()
    await home.close()
  })

  test('a server prints no secret and no client data, even at the most verbose log level', () => {
    // It did talk.
    for (const line of ['listening', 'task.run', 'delivery.attempted', 'a request was refused for lack of capacity', 'stopped'])
      expect(said.includes(`"msg":"${line}"`), line).toBe(true)
    // With another master key it is not served at all.
    expect(said.includes('The master key does not fit this store')).toBe(true)
    // At the beginning of a word: within a fingerprint it may stand by chance.
    expect(said.match(/(?<![\w-])rb_\w{8,}|whsec_\w+/g)).toBeNull()
    expect(found({ ...sealedOrNever, ...data, ...made }, said)).toEqual([])
  })

  test('a stolen database holds no usable key, secret or header value', () => {
    expect(stolen.includes(data.input)).toBe(true)
    expect(found({ ...sealedOrNever, ...made }, stolen)).toEqual([])
    // What stands there of a key is a hash, and a hash is no key.
    expect(stolen.includes(hashOf(made.clientKey!))).toBe(true)
  })

  test('the contents of a stolen database cannot sign and cannot be decrypted with another master key', async () => {
    const rows = await signed()
    expect(rows.length).toBeGreaterThanOrEqual(2)
    const thief = createEncryptor({ masterKey: wrongKey(), clock: systemClock() })
    for (const { id, public_jwk, private_jwk } of rows) {
      expect(private_jwk).toMatch(/^v1\./)
      expect(() => thief.decrypt(private_jwk, { table: 'signing_keys', id, column: 'private_jwk' })).toThrow(
        'was encrypted with master key',
      )
      const readable = await importJWK(JSON.parse(public_jwk), 'ES256')
      expect(readable).toMatchObject({ type: 'public', usages: ['verify'] })
    }
  })

  test('what was erased is in no row any more', () => {
    expect(found({ erased: data.erased }, stolen)).toEqual([])
  })
})

test('a setting that is refused is quoted without the secret in it', () => {
  const secret = canary('Setting')
  for (const [variable, value] of [
    ['RINGBACK_MASTER_KEY', secret],
    ['RINGBACK_MASTER_KEY_PREVIOUS', `${secret}!`],
    ['RINGBACK_ADMIN_TOKEN', `${secret}!`],
    ['RINGBACK_DATABASE_URL', `postgres://me:${secret}@:x/nowhere`],
    ['RINGBACK_DATABASE_URL', `mysql://me:${secret}@127.0.0.1/nowhere`],
    ['RINGBACK_EGRESS_PROXY', `http://me:${secret}@:x`],
    ['RINGBACK_PUBLIC_URL', `https://me:${secret}@tasks.example.com`],
  ] as const) {
    const refused = ((): Error => {
      try {
        parseConfig({ env: { [variable]: value } })
      } catch (error) {
        return error as Error
      }
      throw new Error(`${variable} was taken`)
    })()
    expect(refused.message).toContain(variable)
    expect(found({ secret }, String(refused.stack))).toEqual([])
  }
})

/** Makes the database refuse every new task, and quote it. */
async function sabotage(home: Home, name: (typeof databases)[number]): Promise<void> {
  if (name === 'PostgreSQL') await home.query(`alter table tasks add constraint sabotage check (type <> 'demo.echo') not valid`)
  else await home.query(`create trigger sabotage before insert on tasks begin select raise(abort, 'sabotaged'); end`)
}
async function mend(home: Home, name: (typeof databases)[number]): Promise<void> {
  await home.query(name === 'PostgreSQL' ? 'alter table tasks drop constraint sabotage' : 'drop trigger sabotage')
}

/** Everything there is: the bytes of the files, or every row of every table. */
async function steal(home: Home, name: (typeof databases)[number]): Promise<string> {
  if (name === 'SQLite') {
    const path = home.databaseUrl.slice('file:'.length)
    const folder = mkdtempSync(join(tmpdir(), 'ringback-stolen-'))
    try {
      const files = readdirSync(dirname(path)).filter((file) => file.startsWith(basename(path)))
      for (const file of files) copyFileSync(join(dirname(path), file), join(folder, file))
      expect(files).toContain(basename(path))
      return files.map((file) => readFileSync(join(folder, file), 'latin1')).join('\n')
    } finally {
      rmSync(folder, { recursive: true })
    }
  }
  const tables = await home.query<{ name: string }>(
    `select format('%I.%I', schemaname, tablename) as name from pg_tables where schemaname not in ('pg_catalog', 'information_schema')`,
  )
  const dumps = await Promise.all(tables.map((table) => home.query<{ row: string }>(`select t::text as row from ${table.name} t`)))
  return dumps.flatMap((rows) => rows.map(({ row }) => row)).join('\n')
}
