/** The receivers in other languages under examples/receivers: each is built as its README says, and judged by the vectors and by live webhooks. */
import { execFile, spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { afterAll, beforeAll, describe, expect, type TestContext, test } from 'vitest'
import { freePort } from '../support/ports.ts'
import { eventually, type Home, newClient, ok, openHome } from '../support/server.ts'
import { makeVectors } from '../vectors/generate.ts'

const run = promisify(execFile)
const folderOf = (language: string): string => fileURLToPath(new URL(`../../examples/receivers/${language}`, import.meta.url))

interface Language {
  readonly name: string
  /** What tells that its tools are here. */
  readonly tool: readonly [string, ...string[]]
  /** Fetches what it needs from elsewhere: where that cannot be had, nothing can be said of the receiver. */
  fetch(folder: string, built: string): Promise<unknown>
  build(folder: string, built: string): Promise<unknown>
  command(folder: string, built: string): readonly [string, ...string[]]
}

const languages: readonly Language[] = [
  {
    name: 'python',
    tool: ['python3', '-c', 'import sys, venv; sys.exit(sys.version_info < (3, 10))'],
    async fetch(folder, built) {
      await run('python3', ['-m', 'venv', built])
      await run(join(built, 'bin/pip'), ['install', '--quiet', '--disable-pip-version-check', '-r', join(folder, 'requirements.txt')])
    },
    build: async () => {},
    command: (folder, built) => [join(built, 'bin/python'), join(folder, 'receiver.py')],
  },
  {
    name: 'go',
    tool: ['go', 'version'],
    fetch: async () => {},
    build: (folder, built) => run('go', ['build', '-C', folder, '-o', join(built, 'receiver')]),
    command: (_folder, built) => [join(built, 'receiver')],
  },
  {
    name: 'rust',
    tool: ['cargo', '--version'],
    fetch: (folder) => run('cargo', ['fetch', '--locked', '--manifest-path', join(folder, 'Cargo.toml')]),
    build: (folder, built) =>
      run('cargo', ['build', '--locked', '--offline', '--manifest-path', join(folder, 'Cargo.toml'), '--target-dir', built]),
    command: (_folder, built) => [join(built, 'debug/ringback-receiver')],
  },
]

describe.concurrent.each(languages)('the receiver in $name', (language) => {
  const folder = folderOf(language.name)
  let built: string
  /** Why nothing can be said here. */
  let missing: string | undefined
  beforeAll(async () => {
    built = mkdtempSync(join(tmpdir(), `ringback-${language.name}-`))
    const [tool, ...args] = language.tool
    if (spawnSync(tool, args).status !== 0) missing = `${tool} is not on this machine, or too old`
    else {
      const failed = await language.fetch(folder, built).then(
        () => null,
        (error: unknown) => error as { stderr?: string; message: string },
      )
      if (failed === null) await language.build(folder, built)
      else missing = `what it depends on could not be fetched: ${(failed.stderr || failed.message).slice(-300)}`
    }
    if (missing !== undefined) console.warn(`The receiver in ${language.name} was not tested: ${missing}`)
  })
  afterAll(() => {
    rmSync(built, { recursive: true, force: true })
  })

  /** Starts it on that port, and gives the lines it prints as they come. */
  async function start(
    { skip, onTestFinished }: TestContext,
    env: Readonly<Record<string, string>>,
    port: number,
  ): Promise<readonly string[]> {
    if (missing !== undefined) skip(missing)
    const [command, ...args] = language.command(folder, built)
    const child = spawn(command, args, { env: { ...process.env, ...env, PORT: String(port) }, stdio: ['ignore', 'pipe', 'inherit'] })
    const ended = once(child, 'close')
    onTestFinished(async () => {
      child.kill('SIGKILL')
      await ended
    })
    const lines: string[] = []
    createInterface({ input: child.stdout }).on('line', (line) => void lines.push(line))
    await eventually('the receiver listening', () => lines.some((line) => line.startsWith('listening')))
    lines.splice(0)
    return lines
  }

  test('takes every vector that is valid, once, and refuses every other', async (context) => {
    const { issuer, audience, jwks, vectors } = vectorsNow()
    const keys = await serveKeys(context, () => ({ status: 200, body: JSON.stringify(jwks) }))
    const port = await freePort()
    const lines = await start(context, { ISSUER: issuer, AUDIENCE: audience, JWKS_URL: keys.url }, port)
    const url = `http://127.0.0.1:${port}/hooks`
    // ES256 is what is sent; a receiver that pins it alone refuses EdDSA, and may.
    const judged = vectors.filter(({ name }) => name !== 'EdDSA')
    const verdicts: [string, number][] = []
    for (const { name, headers, body } of judged) verdicts.push([name, (await post(url, headers, body)).status])
    expect(verdicts).toEqual(judged.map(({ name, jws }) => [name, jws !== 'valid' ? 401 : name === 'a challenge' ? 200 : 204]))
    const challenge = vectors.find(({ name }) => name === 'a challenge')!
    const answer = await post(url, challenge.headers, challenge.body)
    expect(await answer.json()).toEqual({ challenge: JSON.parse(challenge.body).data.challenge })
    expect(lines).toEqual([`${vectors[0]!.headers['webhook-id']} task.completed task_01jd7z3m0q8y3t6w9k2v5n4r1c`])
    // However many names of keys were made up.
    expect(keys.fetches()).toBe(1)
    expect((await fetch(url)).status).toBeGreaterThanOrEqual(400)
    expect((await post(url, {}, 'x'.repeat(1_048_577)).catch(() => ({ status: 413 }))).status).toBe(413)
  })

  test('answers a challenge for its own endpoint alone, when it knows which that is', async (context) => {
    const { issuer, audience, jwks, vectors } = vectorsNow()
    const keys = await serveKeys(context, () => ({ status: 200, body: JSON.stringify(jwks) }))
    const port = await freePort()
    await start(context, { ISSUER: issuer, AUDIENCE: audience, JWKS_URL: keys.url, ENDPOINT_ID: 'endpoint_of_mine' }, port)
    const { headers, body } = vectors.find(({ name }) => name === 'a challenge')!
    expect((await post(`http://127.0.0.1:${port}/`, headers, body)).status).toBe(403)
  })

  test('answers 503 while there are no keys, and knows a key that was published later', async (context) => {
    const { issuer, audience, jwks, vectors } = vectorsNow()
    let answer = { status: 500, body: '' }
    const keys = await serveKeys(context, () => answer)
    const port = await freePort()
    await start(context, { ISSUER: issuer, AUDIENCE: audience, JWKS_URL: keys.url }, port)
    const send = async () => (await post(`http://127.0.0.1:${port}/`, vectors[0]!.headers, vectors[0]!.body)).status
    expect(await send()).toBe(503)
    answer = { status: 200, body: JSON.stringify({ keys: jwks.keys.slice(1) }) }
    expect(await send()).toBe(401)
    answer = { status: 200, body: JSON.stringify(jwks) }
    await eventually('the new key known', async () => (await send()) === 204, { withinMs: 40_000, everyMs: 1_000 })
    expect(keys.fetches()).toBe(3)
  })

  describe('called by a server', () => {
    let home: Home
    let url: string
    beforeAll(async () => {
      home = await openHome('SQLite')
      url = await (await home.start({ RINGBACK_ENDPOINT_VERIFICATION: 'challenge' })).listening
    })
    afterAll(() => home.close())

    test.for(['standard', 'cloudevents'])(
      'answers its challenge and takes live webhooks of format %s, each once',
      async (format, context) => {
        const port = await freePort()
        const audience = `http://127.0.0.1:${port}/hooks?of=${format}`
        const lines = await start(context, { ISSUER: url, AUDIENCE: audience }, port)
        const { call } = await newClient(url)
        const { id: endpointId } = (await ok(call('POST', '/v1/endpoints', { url: audience, format }))).json
        await eventually('the challenge answered', async () => (await call('GET', `/v1/endpoints/${endpointId}`)).json.status === 'active')

        const tasks: string[] = []
        for (const [type, input] of [
          ['demo.echo', { ü: '🐎\u2028"', z: 1.5e-7, a: [0.1, { '10': 1, '9': 2 }] }],
          ['work.refuse', null],
          ['work.fill', { bytes: 20_000 }],
        ] as const)
          tasks.push((await ok(call('POST', '/v1/tasks', { type, input }))).json.id)
        const delivered = (count: number) =>
          eventually('every webhook delivered', async () => {
            const all = (await ok(call('GET', `/v1/deliveries?endpointId=${endpointId}`))).json.data
            const data = all.filter((it: { eventType: string }) => it.eventType.startsWith('task.'))
            return data.length === count && data.every((it: { status: string }) => it.status === 'delivered') && data
          })
        const deliveries = await delivered(3)
        expect(deliveries.map((it: { attempts: unknown[] }) => it.attempts.length)).toEqual([1, 1, 1])
        const told = lines.map((line) => line.split(' '))
        expect(told.map(([id]) => id).sort()).toEqual(deliveries.map((it: { eventId: string }) => it.eventId).sort())
        expect(told.map(([, type, id]) => `${id} ${type}`).sort()).toEqual(
          tasks.map((id, i) => `${id} ${i === 1 ? 'task.failed' : 'task.completed'}`).sort(),
        )

        await ok(call('POST', `/v1/deliveries/${deliveries[0].id}/redeliver`))
        await delivered(4)
        expect(lines).toHaveLength(3)
      },
    )
  })
})

/** The vectors as if signed now, for a receiver whose clock cannot be set. */
const vectorsNow = () =>
  makeVectors({
    issuer: 'https://tasks.example.com',
    audience: 'https://app.example.net/hooks',
    now: Math.floor(Date.now() / 1000),
    slackSeconds: 120,
  })

const post = (url: string, headers: Readonly<Record<string, string>>, body: string) =>
  fetch(url, { method: 'POST', headers: { 'content-type': 'application/json', ...headers }, body })

/** Serves a key set, and counts how often it is fetched. */
async function serveKeys({ onTestFinished }: TestContext, answer: () => { readonly status: number; readonly body: string }) {
  let fetches = 0
  const server = createServer((_request, response) => {
    fetches++
    const { status, body } = answer()
    response.writeHead(status, { 'content-type': 'application/jwk-set+json' }).end(body)
  }).listen(0, '127.0.0.1')
  await once(server, 'listening')
  onTestFinished(() => {
    server.closeAllConnections()
    server.close()
  })
  return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/keys`, fetches: () => fetches }
}
