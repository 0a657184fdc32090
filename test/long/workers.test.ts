/** The workers in other languages under examples/workers, run against live servers: they work, are killed, stopped and sent away. */
import { execFile, spawn, spawnSync } from 'node:child_process'
import { X509Certificate } from 'node:crypto'
import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { setTimeout as sleep } from 'node:timers/promises'
import { rootCertificates } from 'node:tls'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { afterAll, beforeAll, describe, expect, type TestContext, test } from 'vitest'
import { freePort } from '../support/ports.ts'
import { type Call, databases, eventually, type Home, newClient, newWorkerKey, ok, openHome } from '../support/server.ts'

const run = promisify(execFile)
const examples = fileURLToPath(new URL('../../examples/workers', import.meta.url))
const LEASE_SECONDS = 5
const settings = { RINGBACK_CONFIG: join(examples, 'ringback.config.ts'), RINGBACK_LEASE_SECONDS: String(LEASE_SECONDS) }

interface Language {
  readonly name: string
  /** What tells that its tools are here. */
  readonly tool: readonly [string, ...string[]]
  build(folder: string, built: string): Promise<unknown>
  command(folder: string, built: string): readonly [string, ...string[]]
  readonly type: string
  readonly input: object
  /** What its type fails for good. */
  readonly bad: { readonly input: object; readonly code: string } | null
  check(result: unknown): void
}

/** Two colors, one beside the other, as a GIF of 2 × 1 pixels. */
const GIF = 'R0lGODlhAgABAIAAAP8AAAAA/ywAAAAAAgABAAACAgQKADs='
const roots = rootCertificates.slice(0, 2)
const languages: readonly Language[] = [
  {
    name: 'typescript',
    tool: [process.execPath, '--version'],
    build: async () => {},
    command: (folder) => [process.execPath, join(folder, 'worker.ts')],
    type: 'certificate.inspect',
    input: { pem: roots.join('\n') },
    bad: { input: { pem: 'nothing' }, code: 'no_certificate' },
    check(result) {
      const [first, second] = roots.map((pem) => new X509Certificate(pem))
      expect(result).toMatchObject({
        certificates: [
          { sha256: first!.fingerprint256, subject: first!.subject, signedByNext: false },
          { sha256: second!.fingerprint256, signedByNext: true },
        ],
      })
    },
  },
  {
    name: 'python',
    tool: ['python3', '-c', 'import sys; sys.exit(sys.version_info < (3, 10))'],
    build: async () => {},
    command: (folder) => ['python3', join(folder, 'worker.py')],
    type: 'texts.duplicates',
    input: { texts: ['the quick brown fox', 'lorem ipsum', 'the quick brown fax'] },
    bad: null,
    check: (result) => expect(result).toEqual({ compared: 3, pairs: [{ first: 0, second: 2, ratio: 0.9474 }] }),
  },
  {
    name: 'go',
    tool: ['go', 'version'],
    build: (folder, built) => run('go', ['build', '-C', folder, '-o', join(built, 'worker')]),
    command: (_folder, built) => [join(built, 'worker')],
    type: 'image.thumbnail',
    input: { image: GIF, width: 1 },
    bad: { input: { image: 'bm90aGluZw==', width: 1 }, code: 'not_an_image' },
    check(result) {
      expect(result).toMatchObject({ width: 1, height: 1, sourceWidth: 2, sourceHeight: 1 })
      expect(Buffer.from((result as { image: string }).image, 'base64').subarray(0, 3)).toEqual(Buffer.from([0xff, 0xd8, 0xff]))
    },
  },
]

interface Worker {
  readonly pid: number
  kill(signal: NodeJS.Signals): void
  /** What it printed that fits, as soon as there is such a line. */
  says(line: RegExp): Promise<string>
  readonly ended: Promise<number | null>
}
/** Starts a worker, killed when the test is over. */
function startWorker(
  { onTestFinished }: TestContext,
  [command, ...args]: readonly [string, ...string[]],
  url: string,
  key: string,
): Worker {
  const env = { ...process.env, WORKER_PLATFORM: url, WORKER_KEY: key }
  const child = spawn(command, args, { cwd: join(examples, 'python'), env, stdio: ['ignore', 'pipe', 'inherit'] })
  const closed = once(child, 'close')
  const lines: string[] = []
  createInterface({ input: child.stdout }).on('line', (line) => void lines.push(line))
  onTestFinished(async () => {
    child.kill('SIGKILL')
    await closed
  })
  return {
    pid: child.pid!,
    kill: (signal) => void child.kill(signal),
    says: (line) =>
      eventually(`a line like ${line} among ${JSON.stringify(lines)}`, () => lines.find((it) => line.test(it)), { withinMs: 180_000 }),
    ended: closed.then(([code]) => code as number | null),
  }
}

/** Enough to compare for some seconds: a fixed text, its words in other orders. */
const long = (texts = 60) => ({
  threshold: 0.5,
  texts: Array.from({ length: texts }, (_, n) => Array.from({ length: 60 }, (_, i) => `word${(i * (n * 7 + 1) + n) % 61}`).join(' ')),
})
const submit = async (call: Call, type: string, input: object, more: object = {}): Promise<string> =>
  (await ok(call('POST', '/v1/tasks', { type, input, ...more }))).json.id
const read = async (call: Call, id: string) => (await ok(call('GET', `/v1/tasks/${id}`))).json
const ended = (call: Call, id: string, withinMs = 180_000) =>
  eventually(
    `the end of ${id}`,
    async () => {
      const task = await read(call, id)
      return task.finishedAt !== null && task
    },
    { withinMs, everyMs: 100 },
  )

describe.each(languages)('the worker in $name', (language) => {
  const folder = join(examples, language.name)
  let built: string
  let home: Home
  let url: string
  /** Why nothing can be said here. */
  let missing: string | undefined
  beforeAll(async () => {
    built = mkdtempSync(join(tmpdir(), `ringback-worker-${language.name}-`))
    const [tool, ...args] = language.tool
    if (spawnSync(tool, args).status !== 0) {
      missing = `${tool} is not on this machine, or too old`
      console.warn(`The worker in ${language.name} was not tested: ${missing}`)
    } else await language.build(folder, built)
    home = await openHome('SQLite')
    url = await (await home.start(settings)).listening
  })
  afterAll(async () => {
    await home.close()
    rmSync(built, { recursive: true, force: true })
  })

  test('waits, works, fails for good what cannot be done, and leaves when it is told to', async (context) => {
    if (missing !== undefined) context.skip(missing)
    const { call } = await newClient(url)
    const waiting = await submit(call, language.type, language.input)
    expect((await read(call, waiting)).waitingFor).toBe('noWorker')
    const worker = startWorker(context, language.command(folder, built), url, await newWorkerKey(url, [language.type]))
    language.check((await ended(call, waiting)).result)
    // It waits by now: what comes is handed to it at once.
    const ids = [await submit(call, language.type, language.input), await submit(call, language.type, language.input)]
    for (const id of ids) language.check((await ended(call, id)).result)
    if (language.bad) {
      const failed = await ended(call, await submit(call, language.type, language.bad.input))
      expect(failed).toMatchObject({ status: 'failed', tries: 1, error: { code: language.bad.code } })
    }
    worker.kill('SIGTERM')
    await worker.says(/^stopped$/)
    expect(await worker.ended).toBe(0)
    // Whoever hung up is handed nothing.
    const left = await submit(call, language.type, language.input)
    await sleep(500)
    expect(await read(call, left)).toMatchObject({ status: 'pending', tries: 0 })
  })
})

describe.each(databases)('a worker in Python on %s', (database) => {
  const python = languages[1]!
  const command = python.command(join(examples, 'python'), '')
  /** It neither asks whether its lease goes on, nor heeds it. */
  const heedless = ['python3', '-c', 'import worker; worker.Lease.progress = lambda *_: None; worker.main()'] as const
  let home: Home
  let url: string
  let key: string
  let call: Call
  const missing = spawnSync(python.tool[0], python.tool.slice(1)).status === 0 ? undefined : 'python3 is not on this machine, or too old'
  beforeAll(async () => {
    if (missing !== undefined) console.warn(`Killing a worker was not tested: ${missing}`)
    home = await openHome(database)
    url = await (await home.start(settings)).listening
    key = await newWorkerKey(url)
    call = (await newClient(url)).call
  })
  afterAll(() => home.close())

  test('pulls, keeps its lease, is killed, and its task is finished by another', async (context) => {
    if (missing !== undefined) context.skip(missing)
    const id = await submit(call, python.type, long())
    const first = startWorker(context, command, url, key)
    await first.says(new RegExp(`^claimed ${id} try 1`))
    // Beyond its first lease, or it was fast; either way some heartbeat told of progress.
    await eventually('progress', async () => (await read(call, id)).progress > 0, { withinMs: 60_000 })
    first.kill('SIGKILL')
    await first.ended
    expect((await read(call, id)).status).toBe('running')
    const second = startWorker(context, command, url, key)
    await second.says(new RegExp(`^claimed ${id} try 2`))
    expect(await read(call, id)).toMatchObject({ status: 'running', tries: 2, lastError: { code: 'worker_lost', try: 1 } })
    const task = await ended(call, id)
    expect(task).toMatchObject({ status: 'completed', tries: 2, progress: 100, result: { compared: 1770 } })
    const events = (await call('GET', `/v1/tasks/${id}/events`)).json.data
    expect(events.map(({ type }: { type: string }) => type)).toEqual(['task.completed'])
    second.kill('SIGTERM')
    expect(await second.ended).toBe(0)
  })

  test('that is stopped past its lease has its late result refused, and another’s stands', async (context) => {
    if (missing !== undefined) context.skip(missing)
    const id = await submit(call, python.type, long())
    const stopped = startWorker(context, heedless, url, key)
    await stopped.says(new RegExp(`^claimed ${id} try 1`))
    stopped.kill('SIGSTOP')
    const other = startWorker(context, command, url, key)
    await other.says(new RegExp(`^claimed ${id} try 2`))
    stopped.kill('SIGCONT')
    expect(await stopped.says(new RegExp(`^ended ${id}`))).toBe(`ended ${id} refused with 409 lease_lost`)
    expect(await other.says(new RegExp(`^ended ${id}`))).toBe(`ended ${id} completed`)
    expect(await read(call, id)).toMatchObject({ status: 'completed', tries: 2 })
    expect((await call('GET', `/v1/tasks/${id}/events`)).json.data).toHaveLength(1)
    for (const worker of [stopped, other]) {
      worker.kill('SIGTERM')
      expect(await worker.ended).toBe(0)
    }
  })

  test('gives its task back when it is told to stop, and ends it when its client cancels', async (context) => {
    if (missing !== undefined) context.skip(missing)
    const id = await submit(call, python.type, long(200))
    const first = startWorker(context, command, url, key)
    await first.says(new RegExp(`^claimed ${id} try 1`))
    first.kill('SIGTERM')
    expect(await first.says(new RegExp(`^ended ${id}`))).toBe(`ended ${id} pending`)
    expect(await first.ended).toBe(0)
    expect(await read(call, id)).toMatchObject({ status: 'pending', tries: 0, lastError: null })
    const second = startWorker(context, command, url, key)
    await second.says(new RegExp(`^claimed ${id} try 1`))
    expect((await call('POST', `/v1/tasks/${id}/cancel`)).status).toBe(202)
    expect(await second.says(new RegExp(`^ended ${id}`))).toBe(`ended ${id} canceled`)
    expect(await read(call, id)).toMatchObject({ status: 'canceled', tries: 1 })
  })

  test('goes on with its task while the node is killed and starts anew', async (context) => {
    if (missing !== undefined) context.skip(missing)
    const own = await openHome(database)
    context.onTestFinished(() => own.close())
    const again = { ...settings, RINGBACK_LEASE_SECONDS: '30', RINGBACK_PORT: String(await freePort()) }
    const node = await own.start(again)
    const base = await node.listening
    const client = await newClient(base)
    const id = await submit(client.call, python.type, long())
    const worker = startWorker(context, command, base, await newWorkerKey(base))
    await worker.says(new RegExp(`^claimed ${id} try 1`))
    node.kill('SIGKILL')
    await node.ended
    await own.start(again)
    expect(await worker.says(new RegExp(`^ended ${id}`))).toBe(`ended ${id} completed`)
    expect(await read(client.call, id)).toMatchObject({ status: 'completed', tries: 1 })
  })
})
