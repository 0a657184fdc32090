import { type ChildProcessWithoutNullStreams, spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { createServer, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { buffer } from 'node:stream/consumers'
import { fileURLToPath } from 'node:url'
import { afterEach, describe, expect, inject, test } from 'vitest'
import { type Platform, startPlatform } from '../../examples/platform.ts'
import { createColumn } from '../../examples/tasks/column.ts'
import { datasetProfile } from '../../examples/tasks/dataset-profile.ts'
import { primes } from '../../examples/tasks/primes.ts'
import { createClient } from '../../src/client/index.ts'
import { Permanent, type RunContext } from '../../src/index.ts'
import { createReceiver } from '../../src/receiver/index.ts'
import { freePort } from '../support/ports.ts'

const root = fileURLToPath(new URL('../..', import.meta.url))
const read = (path: string): string => readFileSync(join(root, path), 'utf8')

/** What ends after each test, the latest first. */
const endings: (() => unknown)[] = []
afterEach(async () => {
  for (const end of endings.splice(0).reverse()) await end()
})

interface Program {
  readonly process: ChildProcessWithoutNullStreams
  said(): string
  says(text: string): Promise<void>
  /** Resolves with the exit code. */
  readonly ended: Promise<number | null>
}

function start(command: string, args: readonly string[], options: { cwd: string; env?: Record<string, string> }): Program {
  const env = Object.fromEntries(Object.entries(process.env).filter(([name]) => !name.startsWith('RINGBACK_')))
  const child = spawn(command, args, { cwd: options.cwd, env: { ...env, ...options.env } })
  const ended = once(child, 'close').then(([code]) => code as number | null)
  endings.push(async () => {
    child.kill('SIGKILL')
    await ended
  })
  let said = ''
  for (const stream of [child.stdout, child.stderr])
    stream.setEncoding('utf8').on('data', (text: string) => {
      said += text
    })
  return {
    process: child,
    said: () => said,
    says: (text) =>
      new Promise((resolve, reject) => {
        const look = (): void => {
          if (said.includes(text)) resolve()
        }
        child.stdout.on('data', look)
        child.stderr.on('data', look)
        void ended.then((code) => reject(new Error(`it ended with ${code} without saying ${JSON.stringify(text)}: ${said}`)))
        look()
      }),
    ended,
  }
}

async function listen(server: Server): Promise<number> {
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  endings.push(() => {
    server.closeAllConnections()
    server.close()
  })
  return (server.address() as AddressInfo).port
}

function folderOf(name: string): string {
  const folder = mkdtempSync(join(tmpdir(), `ringback-${name}-`))
  endings.push(() => rmSync(folder, { recursive: true, force: true }))
  return folder
}

describe('the tour', () => {
  test('on PostgreSQL ends with verified signatures and equal documents, and leaves nothing behind', async () => {
    const temporary = folderOf('tour')
    const env = { RINGBACK_DATABASE_URL: inject('postgresUrl'), TMPDIR: temporary }
    const tour = start(process.execPath, ['examples/tour.ts'], { cwd: root, env })
    const code = await tour.ended
    const said = tour.said()
    expect(said).toContain('PostgreSQL, database ringback_')
    expect(said).toMatch(/^ {2}\+ \d+\.\d\d s +(running +[\d.]+|completed +100\.0) %/m)
    expect(said).toMatch(/^ {2}plain jose +holds: ES256/m)
    expect(said).toMatch(/^ {2}ringback\/receiver +holds: /m)
    expect(said).toMatch(/^ {2}the same document +all \d+ members are equal/m)
    expect(said).toMatch(/^Everything held, in [\d.]+ s\.$/m)
    expect(code).toBe(0)
    expect(readdirSync(temporary)).toEqual([])
  }, 120_000)
})

describe.each(['hono', 'node-http'])('the platform mounted in %s', (name) => {
  test('is reached under its path beside the application, signs with that path, and stops with it', async () => {
    const port = await freePort()
    const adminToken = 'the-operator-of-this-test'
    const app = start(process.execPath, [join(root, `examples/mount/${name}.ts`)], {
      cwd: folderOf(name),
      env: { PORT: String(port), ADMIN_TOKEN: adminToken },
    })
    await app.says('listening')
    const origin = `http://127.0.0.1:${port}`
    const url = `${origin}/ringback`
    expect(await (await fetch(origin)).text()).toBe('My application')
    expect(await (await fetch(`${origin}/v1/tasks`)).text()).not.toContain('unauthenticated')

    const [lines] = blocksOf('docs/how-to/mount-in-your-app.md').filter(({ language }) => language === 'sh')
    const paste = openShell(root, { ADMIN_TOKEN: adminToken }, { 3000: port })
    expect(json(await paste(lines!))).toMatchObject([{ status: 'completed', result: 'Hello, World!' }])
    const client = createClient({ url, key: await paste({ language: 'sh', name: '', text: 'echo $KEY' }) })
    const arrived = Promise.withResolvers<Request>()
    const hooks = `http://127.0.0.1:${await listen(
      createServer(async (request, response) => {
        const headers = new Headers(Object.entries(request.headers).map(([key, value]) => [key, String(value)]))
        arrived.resolve(new Request('http://receiver', { method: 'POST', headers, body: new Uint8Array(await buffer(request)) }))
        response.writeHead(204).end()
      }),
    )}/hooks`
    await client.endpoints.create({ url: hooks })
    const ended = await client.wait(await client.submit('greet', 'World'))
    expect(ended).toMatchObject({ result: 'Hello, World!', links: { self: `${url}/v1/tasks/${ended.id}` } })
    const webhook = await createReceiver({ issuer: url, audience: hooks }).verify(await arrived.promise)
    expect(webhook).toMatchObject({ type: 'task.completed', data: { id: ended.id, result: 'Hello, World!' } })

    app.process.kill('SIGTERM')
    expect(await app.ended).toBe(0)
  }, 120_000)
})

describe('dataset.profile', () => {
  const run = (input: object, given: Partial<RunContext> = {}): ReturnType<typeof datasetProfile.run> =>
    datasetProfile.run(input, { signal: new AbortController().signal, progress: () => {}, ...given } as RunContext)
  const columns = async (input: object): Promise<Record<string, unknown>> => {
    const { columns } = (await run(input)) as { columns: { name: string }[] }
    return Object.fromEntries(columns.map((column) => [column.name, column]))
  }

  test('tells type, count, nulls, distinct values, range, quantiles and the most frequent values of each column', async () => {
    const rows = [1, 2, 2, 3, 4, null].map((n, i) => ({
      n,
      when: `2026-11-${10 + i}`,
      yes: i % 2 === 0,
      tag: i < 4 ? 'a' : i,
      ...(i === 0 && { extra: {} }),
    }))
    expect(await columns({ rows })).toEqual({
      n: {
        name: 'n',
        type: 'number',
        count: 5,
        nulls: 1,
        distinct: 4,
        min: 1,
        max: 4,
        mean: 2.4,
        quantiles: { p05: 1.2, p25: 2, p50: 2, p75: 3, p95: 3.8 },
        top: [
          { value: '2', count: 2 },
          { value: '1', count: 1 },
          { value: '3', count: 1 },
          { value: '4', count: 1 },
        ],
      },
      when: expect.objectContaining({ type: 'date', min: '2026-11-10', max: '2026-11-15', mean: null, quantiles: null, distinct: 6 }),
      yes: expect.objectContaining({
        type: 'boolean',
        min: null,
        top: [
          { value: 'false', count: 3 },
          { value: 'true', count: 3 },
        ],
      }),
      tag: expect.objectContaining({
        type: 'mixed',
        distinct: 3,
        top: [
          { value: 'a', count: 4 },
          { value: '4', count: 1 },
          { value: '5', count: 1 },
        ],
      }),
      extra: expect.objectContaining({ type: 'object', count: 1, nulls: 5 }),
    })
    expect(createColumn('none').profile(3)).toMatchObject({ type: 'empty', count: 0, nulls: 3, min: null, mean: null, top: [] })
  })

  test('reads CSV: quotes, empty cells, numbers, and codes that only look like numbers', async () => {
    const csv = 'zip,city,people,open\n00210,"Portsmouth, NH",1.5e3,true\n10001,"He said ""no""",,false\n'
    expect(await columns({ csv })).toMatchObject({
      zip: { type: 'string', distinct: 2 },
      city: { type: 'string', top: [{ value: 'He said "no"' }, { value: 'Portsmouth, NH' }] },
      people: { type: 'number', count: 1, nulls: 1, min: 1500 },
      open: { type: 'boolean' },
    })
  })

  test('agrees with what is known about a data set', async () => {
    const result = (await run({ dataset: 'seattle-weather.csv' })) as { rows: number; columns: { name: string }[] }
    expect(result.rows).toBe(1461)
    expect(result.columns.find(({ name }) => name === 'date')).toMatchObject({ type: 'date', min: '2012-01-01', max: '2015-12-31' })
    expect(result.columns.find(({ name }) => name === 'temp_max')).toMatchObject({ type: 'number', min: -1.6, max: 35.6, nulls: 0 })
    expect(result.columns.find(({ name }) => name === 'weather')).toMatchObject({ type: 'string', distinct: 5 })
  })

  test('reports progress that rises, lets others run meanwhile, and stops when told', async () => {
    const told: number[] = []
    let turns = 0
    const turning = setInterval(() => turns++, 1)
    await run({ dataset: 'flights-5k.json' }, { progress: (percent) => told.push(percent) })
    clearInterval(turning)
    expect(told.length).toBeGreaterThan(10)
    expect(told).toEqual(told.toSorted((a, b) => a - b))
    expect(turns).toBeGreaterThan(0)

    const abort = new AbortController()
    const progress = (percent: number): void => {
      if (percent > 20) abort.abort()
    }
    await expect(run({ dataset: 'flights-5k.json' }, { progress, signal: abort.signal })).rejects.toThrow(/abort/i)
  })

  test('fails at once, with the names there are, when there is no such data set, and when it is no table', async () => {
    const missing = await Promise.resolve(run({ dataset: 'moovies.json' })).catch((error: unknown) => error)
    expect(missing).toBeInstanceOf(Permanent)
    expect(missing).toMatchObject({ code: 'dataset_not_found', message: expect.stringContaining('movies.json') })
    await expect(run({ dataset: 'us-10m.json' })).rejects.toMatchObject({ code: 'not_a_table' })
  })

  test.each([
    '../../package.json',
    '..%2fpackage.json',
    '/etc/passwd.csv',
    'data/movies.json',
    '..\\movies.json',
    '.json',
    'movies.json/',
    'movies.json\0.csv',
    'file:///x.csv',
    'movies',
    'ffox.png',
  ])('refuses the name %j', (dataset) => {
    expect(() => datasetProfile.parseInput({ dataset })).toThrow()
  })

  test.each([{}, { csv: '' }, { csv: 'a\n1', rows: [] }, { rows: [1] }, null])('refuses the input %j', (input) => {
    expect(() => datasetProfile.parseInput(input)).toThrow()
  })
})

describe('demo.primes', () => {
  const count = (upTo: number, signal = new AbortController().signal) =>
    primes.run({ upTo }, { signal, progress() {} } as unknown as RunContext) as { count: number; largest: number }

  test('counts primes as published tables do, across segment bounds too', () => {
    expect([2, 3, 10, 100, 1_000_000].map((upTo) => count(upTo))).toEqual([
      { count: 1, largest: 2 },
      { count: 2, largest: 3 },
      { count: 4, largest: 7 },
      { count: 25, largest: 97 },
      { count: 78_498, largest: 999_983 },
    ])
    const [before, at, after] = [262_144, 262_145, 262_147].map((upTo) => count(upTo).count)
    expect([at! - before!, after! - before!]).toEqual([0, 1])
  })

  test('stops when its signal is aborted', () => {
    expect(() => count(1_000_000, AbortSignal.abort(new Error('enough')))).toThrow('enough')
  })
})

/** Fenced blocks of a page. What follows the language names the file that a block is (a part of). */
interface Block {
  readonly language: string
  readonly name: string
  readonly text: string
}
const pages = [
  'docs/tutorial.md',
  'docs/how-to/mount-in-your-app.md',
  'docs/how-to/write-a-task-type.md',
  'docs/how-to/follow-a-task.md',
  'docs/how-to/write-a-worker.md',
]
const blocksOf = (page: string): Block[] =>
  [...read(page).matchAll(/^```(\w+) ?(\S*)\n([\s\S]*?)^```$/gm)].map(([, language = '', name = '', text = '']) => ({
    language,
    name,
    text,
  }))

/** A folder where `ringback` is installed. */
function readersFolder(): string {
  const folder = folderOf('reader')
  const modules = join(folder, 'node_modules')
  mkdirSync(join(modules, 'ringback'), { recursive: true })
  for (const name of readdirSync(join(root, 'node_modules'))) symlinkSync(join(root, 'node_modules', name), join(modules, name))
  symlinkSync(join(root, 'src'), join(modules, 'ringback', 'src'))
  const faces = { '.': './src/index.ts', './client': './src/client/index.ts', './receiver': './src/receiver/index.ts' }
  writeFileSync(join(modules, 'ringback', 'package.json'), JSON.stringify({ name: 'ringback', type: 'module', exports: faces }))
  writeFileSync(join(folder, 'package.json'), '{"type":"module"}')
  return folder
}

/** Writes the files that a page shows; answers where they are. */
function layFiles(folder: string, page: string, ports: Ports = {}): string[] {
  const files = new Map<string, string>()
  for (const { language, name, text } of blocksOf(page))
    if (language === 'ts') files.set(name, (files.get(name) ?? '') + atPorts(text, ports))
  for (const [name, text] of files) writeFileSync(join(folder, name), text)
  return [...files.keys()].map((name) => join(folder, name))
}

/** A folder with the files that a page shows, beside those of the clone that it speaks of. */
function readerOf(page: string, ports: Ports): string {
  const folder = readersFolder()
  symlinkSync(join(root, 'src'), join(folder, 'src'))
  layFiles(folder, page, ports)
  return folder
}

/** The ports that a page names, and those that stand for them here. */
type Ports = Readonly<Record<string, number>>
function atPorts(text: string, ports: Ports): string {
  for (const [documented, port] of Object.entries(ports)) text = text.replaceAll(new RegExp(`\\b${documented}\\b`, 'g'), String(port))
  return text
}

/** A shell that a page's lines are pasted into, one block after the other. */
function openShell(cwd: string, env: Record<string, string>, ports: Ports): (block: Block) => Promise<string> {
  const shell = start('sh', [], { cwd, env })
  let count = 0
  return async ({ text }) => {
    const before = shell.said().length
    const mark = `-- block ${++count} ended with `
    shell.process.stdin.write(`{ set -e\n${atPorts(text, ports)}\n}; printf '\\n%s%s\\n' '${mark}' $?\n`)
    await shell.says(mark)
    const [answer = '', code] = shell.said().slice(before).split(mark)
    expect(code?.trim()).toBe('0')
    return answer.trim()
  }
}
const json = (answer: string): Record<string, unknown>[] =>
  answer.split(/(?<=\})\s*(?=\{)/).map((text) => JSON.parse(text) as Record<string, unknown>)

describe('the documentation', () => {
  test('names every block of TypeScript, and every block is run here', () => {
    for (const page of pages) {
      const blocks = blocksOf(page)
      expect(blocks.length).toBeGreaterThanOrEqual(3)
      expect(read(page).match(/^```/gm)).toHaveLength(blocks.length * 2)
      for (const { language, name } of blocks)
        expect([page, language, name]).toEqual([
          page,
          expect.stringMatching(/^(ts|sh)$/),
          language === 'ts' ? expect.stringMatching(/^[\w.-]+\.ts$/) : '',
        ])
    }
  })

  test('shows TypeScript that fits the types of what it imports', () => {
    const folder = readersFolder()
    const folders = pages.map((_, i) => join(folder, String(i)))
    const files = pages.flatMap((page, i) => {
      mkdirSync(folders[i]!)
      return layFiles(folders[i]!, page)
    })
    const { compilerOptions } = JSON.parse(read('tsconfig.json')) as { compilerOptions: object }
    const project = {
      // Each page's folder lies over the clone: what it imports by path is found there.
      compilerOptions: { ...compilerOptions, rootDirs: [root, ...folders] },
      files,
    }
    writeFileSync(join(folder, 'tsconfig.json'), JSON.stringify(project))
    const compiler = [join(root, 'node_modules/typescript/bin/tsc'), '-p', folder, '--pretty', 'false']
    const { stdout, status } = spawnSync(process.execPath, compiler, { encoding: 'utf8' })
    expect([stdout, status]).toEqual(['', 0])
    expect(files).toHaveLength(10)
  }, 120_000)

  test('of mounting shows the examples unchanged', () => {
    for (const name of ['hono.ts', 'node-http.ts']) {
      const shown = blocksOf('docs/how-to/mount-in-your-app.md').find((block) => block.name === name)!.text
      expect(shown.trim()).toBe(read(`examples/mount/${name}`).replace("'../../src/index.ts'", "'ringback'").trim())
    }
  })
})

describe('the tutorial', () => {
  test('works as written, from the first start to a task type of the reader', async () => {
    const ports = { 8484: await freePort(), 9000: await freePort() }
    const folder = readerOf('docs/tutorial.md', ports)
    const paste = openShell(folder, {}, ports)
    let platform: Platform | null = null
    let receiver: Program | null = null
    const answers: string[] = []
    for (const block of blocksOf('docs/tutorial.md').filter(({ language }) => language === 'sh')) {
      const text = block.text.trim()
      const [, configFile] = /^(?:npm ci\n|RINGBACK_CONFIG=(\S+) )?npm start$/.exec(text) ?? []
      if (text.endsWith('npm start')) {
        await platform?.stop()
        platform = await startPlatform({ folder, port: ports[8484], ...(configFile && { configFile: join(folder, configFile) }) })
        const started = platform
        endings.push(() => started.stop())
      } else if (text === 'node receiver.ts') {
        receiver = start(process.execPath, ['receiver.ts'], { cwd: folder })
        await receiver.says('listening')
      } else {
        answers.push(await paste(block))
        if (text.includes('redeliver')) await receiver!.says(' is completed, attempt ')
      }
    }
    const [key, submitted, waited, endpoint, profiled, deliveries, redelivered, forged, greeted, ...rest] = answers as [string, ...string[]]
    expect([key, rest]).toEqual(['', []])
    expect(json(submitted!)).toMatchObject([{ status: 'pending', type: 'demo.sleep' }])
    expect(json(waited!)).toMatchObject([{ status: 'completed', progress: 100, result: { slept: 2 } }])
    expect(json(endpoint!)).toMatchObject([{ status: 'active', url: `http://127.0.0.1:${ports[9000]}/hooks` }])
    expect(json(profiled!)).toMatchObject([{ status: 'completed', result: { rows: 3201 } }])
    expect(json(deliveries!)).toMatchObject([
      { data: [{ eventType: 'task.completed', attempts: expect.arrayContaining([expect.objectContaining({ outcome: 'connect' })]) }] },
    ])
    expect(json(redelivered!)).toMatchObject([{ eventType: 'task.completed' }])
    expect(forged).toBe('401')
    expect(json(greeted!)).toMatchObject([
      { status: 'completed', result: { greeting: 'Hello, Ada!' } },
      { code: 'validation_failed', errors: [{ pointer: '#/input/name' }] },
    ])
    expect(receiver!.said()).toMatch(/^task_\w+ \(dataset\.profile\) is completed, attempt [23]$/m)
    expect(receiver!.said()).toContain('refused: The request has no webhook-jws header')
    await receiver!.says(String(json(greeted!)[0]!.id))
  }, 120_000)
})

describe('the how-to', () => {
  test('about task types: the bank that is too busy, that pays, and that refuses', async () => {
    const page = 'docs/how-to/write-a-task-type.md'
    const asked: { key: string; orderId: string }[] = []
    const bank = await listen(
      createServer(async (request, response) => {
        const { orderId } = JSON.parse((await buffer(request)).toString()) as { orderId: string }
        asked.push({ key: String(request.headers['idempotency-key']), orderId })
        if (asked.length === 1) response.writeHead(429, { 'retry-after': '1' }).end()
        else if (orderId === 'A-17') response.writeHead(201).end('{"id":"refund-1"}')
        else response.writeHead(422).end('{"why":"unknown order"}')
      }),
    )
    const ports = { 8484: await freePort() }
    const folder = readerOf(page, ports)
    process.env.BANK_URL = `http://127.0.0.1:${bank}`
    const configFile = join(folder, 'both.config.ts')
    writeFileSync(
      configFile,
      `import config from './ringback.config.ts'\nimport { checksum } from './checksum.ts'\nexport default { tasks: [...config.tasks, checksum] }`,
    )
    const platform = await startPlatform({ folder, port: ports[8484], configFile })
    endings.push(() => platform.stop())
    const paste = openShell(folder, { KEY: platform.key }, ports)
    const [lines] = blocksOf(page).filter(({ language }) => language === 'sh')
    const [type, task, refused] = json(await paste(lines!))
    expect(type).toMatchObject({
      name: 'shop.refund',
      maxTries: 8,
      timeoutSeconds: 60,
      concurrency: 10,
      inputSchema: { required: ['orderId', 'cents'] },
    })
    expect(task).toMatchObject({ status: 'completed', result: { refundId: 'refund-1' }, tries: 1 })
    expect(refused).toMatchObject({ status: 422, errors: [{ pointer: '#/input/cents' }] })
    expect(asked).toEqual([1, 2].map(() => ({ key: `${task!.id}.1`, orderId: 'A-17' })))
    const client = createClient(platform)
    const failed = await client.wait(await client.submit('shop.refund', { orderId: 'B-1', cents: 1 }))
    expect(failed).toMatchObject({ status: 'failed', tries: 1, error: { code: 'refund_refused', details: { why: 'unknown order' } } })
    expect(await client.run('shop.checksum', { text: 'A-17', rounds: 2 })).toMatch(/^[0-9a-f]{64}$/)
  }, 120_000)

  test('about following a task: the program runs to its end, and the curl lines are answered', async () => {
    const page = 'docs/how-to/follow-a-task.md'
    const ports = { 8484: await freePort() }
    const folder = readerOf(page, ports)
    const platform = await startPlatform({ port: ports[8484] })
    endings.push(() => platform.stop())
    const program = start(process.execPath, ['follow.ts'], { cwd: folder, env: { KEY: platform.key } })
    const code = await program.ended
    const said = program.said().trim().split('\n')
    expect([said, code]).toEqual([
      expect.arrayContaining([expect.stringMatching(/^100 step/), '3201 movies, slept 0.5 s', 'failed dataset_not_found', 'TimeoutError']),
      0,
    ])
    expect(said.slice(-2).sort()).toEqual(['demo.echo one', 'demo.echo two'])
    const [lines] = blocksOf(page).filter(({ language }) => language === 'sh')
    const [changed, ended, result] = json(await openShell(folder, { KEY: platform.key }, ports)(lines!))
    expect(changed).toMatchObject({ id: ended!.id, type: 'demo.sleep' })
    expect(ended).toMatchObject({ status: 'completed' })
    expect(result).toEqual({ slept: 1 })
  }, 120_000)

  test('about schedules: one is made, paused, changed and deleted', async () => {
    const page = 'docs/how-to/run-on-a-schedule.md'
    const ports = { 8484: await freePort() }
    const platform = await startPlatform({ port: ports[8484] })
    endings.push(() => platform.stop())
    const paste = openShell(readersFolder(), { KEY: platform.key }, ports)
    const [create, rest] = blocksOf(page)
    const [made] = json(await paste(create!))
    expect(made).toMatchObject({ type: 'demo.echo', cron: '30 6 * * 1-5', upcoming: expect.objectContaining({ length: 5 }) })
    const [paused, resumed] = json(await paste(rest!))
    expect(paused).toMatchObject({ id: made!.id, paused: true, nextAt: null })
    expect(resumed).toMatchObject({ id: made!.id, paused: false, cron: '0 7 * * 1-5', revision: 3 })
  }, 120_000)

  test('about workers: a key is made, a task is claimed, kept and completed', async () => {
    const page = 'docs/how-to/write-a-worker.md'
    const ports = { 8484: await freePort() }
    const folder = readerOf(page, ports)
    const platform = await startPlatform({ folder, port: ports[8484], configFile: join(folder, 'ringback.config.ts') })
    endings.push(() => platform.stop())
    const client = createClient(platform)
    const task = await client.submit('audio.transcribe', { url: 'https://example.com/hello.wav' })
    expect(task.waitingFor ?? (await client.get(task.id)).waitingFor).toBe('noWorker')
    const paste = openShell(folder, { ADMIN: readFileSync(join(folder, 'data/admin-token'), 'utf8').trim() }, ports)
    const [makeKey, claim, heartbeat, complete] = blocksOf(page).filter(({ language }) => language === 'sh')
    const set = (values: Record<string, unknown>) =>
      paste({
        language: 'sh',
        name: '',
        text: Object.entries(values)
          .map(([name, value]) => `${name}='${value}'`)
          .join('\n'),
      })
    const [made] = json(await paste(makeKey!))
    expect(made).toMatchObject({ scopes: ['worker'], taskTypes: ['audio.transcribe'] })
    await set({ WORKER: made!.key })
    const { tasks } = json(await paste(claim!))[0] as { tasks: { id: string; input: object; lease: { token: string } }[] }
    expect(tasks).toMatchObject([{ id: task.id, input: { url: 'https://example.com/hello.wav' } }])
    await set({ TASK: task.id, LEASE: tasks[0]!.lease.token })
    expect(json(await paste(heartbeat!))).toMatchObject([{ cancelRequested: false }])
    expect(await client.get(task.id)).toMatchObject({ status: 'running', progress: 40, progressMessage: 'minute 4 of 10' })
    expect(json(await paste(complete!))).toEqual([{ status: 'completed' }])
    expect((await client.get(task.id)).result).toEqual({ text: 'Good morning.' })
  }, 120_000)
})
