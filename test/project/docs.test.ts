import { spawnSync } from 'node:child_process'
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join, relative, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'
import type { Command } from 'commander'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import type { z } from 'zod'
import config from '../../ringback.config.ts'
import { auditCommand } from '../../src/cli/audit.ts'
import { backupCommand } from '../../src/cli/backup.ts'
import { migrateCommand } from '../../src/cli/migrate.ts'
import { restoreCommand } from '../../src/cli/restore.ts'
import { serveCommand } from '../../src/cli/serve.ts'
import { settings } from '../../src/config/settings.ts'
import { errorStatuses } from '../../src/core/errors.ts'
import { transitions } from '../../src/core/lifecycle.ts'
import { auditActions, defaultEvents, endpointEventTypes, taskEventTypes, terminalStates } from '../../src/core/model.ts'
import * as deliveryShapes from '../../src/http/shapes/deliveries.ts'
import * as endpointShapes from '../../src/http/shapes/endpoints.ts'
import * as eventShapes from '../../src/http/shapes/events.ts'
import * as scheduleShapes from '../../src/http/shapes/schedules.ts'
import * as systemShapes from '../../src/http/shapes/system.ts'
import * as taskShapes from '../../src/http/shapes/tasks.ts'
import * as workerShapes from '../../src/http/shapes/workers.ts'
import { createRingback, type Ringback } from '../../src/index.ts'
import { parseAddressRules } from '../../src/webhook/address.ts'

const root = fileURLToPath(new URL('../..', import.meta.url))
const read = (path: string): string => readFileSync(join(root, path), 'utf8')
const found = (folder: string, ending: string): string[] =>
  readdirSync(join(root, folder), { recursive: true, encoding: 'utf8' })
    .filter((name) => name.endsWith(ending))
    .map((name) => join(folder, name))
    .sort()

/** Every page for readers, from the root of the repository. */
const pages = [...readdirSync(root).filter((name) => name.endsWith('.md')), ...found('docs', '.md'), 'test/vectors/README.md']
const source = found('src', '.ts').map(read).join('\n')

interface Fence {
  readonly page: string
  /** The language and what follows it, as in "json Task". */
  readonly info: string
  readonly code: string
}
const fences: readonly Fence[] = pages.flatMap((page) =>
  [...read(page).matchAll(/^```(.*)\n([\s\S]*?)^```$/gm)].map(([, info = '', code = '']) => ({ page, info, code })),
)
const fencesOf = (page: string, language: string): readonly Fence[] =>
  fences.filter((fence) => fence.page === page && fence.info.split(' ')[0] === language)

/** The rows of every table of a page whose cells fit `row`. */
function rowsOf(page: string, row: RegExp): string[][] {
  return read(page)
    .split('\n')
    .flatMap((line) => (row.exec(line) ? [row.exec(line)!.slice(1)] : []))
}
const sorted = (items: Iterable<string>): string[] => [...items].sort()

describe('the reference of errors', () => {
  const page = 'docs/reference/errors.md'
  const rows = rowsOf(page, /^\| (\d{3}) \| `(\w+)` \| (.+) \|$/)

  test('lists every code with its status, and no other', () => {
    expect(sorted(rows.map(([status, code]) => `${code} ${status}`))).toEqual(
      sorted(Object.entries(errorStatuses).map(([code, status]) => `${code} ${status}`)),
    )
  })

  test('says "Reserved" of the codes that nothing answers with, and of those alone', () => {
    const used = new Set([...source.matchAll(/RingbackError\(\s*'(\w+)'/g)].map(([, code]) => code!))
    expect(sorted(rows.filter(([, , advice]) => advice!.startsWith('Reserved')).map(([, code]) => code!))).toEqual(
      sorted(Object.keys(errorStatuses).filter((code) => !used.has(code))),
    )
  })

  test('lists the codes that a failed task can have', () => {
    const section = read(page).split('## Codes of a failed task')[1]!.split('## ')[0]!
    const codes = [...section.matchAll(/^\| `(\w+)` \|/gm)].map(([, code]) => code!)
    const engine = [
      'src/core/lifecycle.ts',
      'src/engine/task-runner.ts',
      'src/engine/run-try.ts',
      'src/engine/chores/reclaim.ts',
      'src/tasks/define.ts',
      'src/store/scripts/tasks/claim.ts',
      'src/store/scripts/tasks/overdue.ts',
    ]
      .map(read)
      .join('\n')
    const given = [...engine.matchAll(/(?:\bcode(?:: | === | \?\? )|new TryTimeout\()'(\w+)'/g)].map(([, code]) => code!)
    // `aborted` is what a delivery fails with.
    const known = new Set(given.filter((code) => code !== 'aborted'))
    expect(sorted(codes)).toEqual(sorted(known))
  })

  test('lists every outcome of an attempt', () => {
    const section = read(page).split('## Outcomes of an attempt')[1]!
    const documented = [...section.matchAll(/^\| `(\w+)` \|/gm)].map(([, outcome]) => outcome!)
    expect(sorted(documented)).toEqual(sorted(deliveryShapes.delivery.shape.attempts.element.shape.outcome.options))
  })
})

test('the reference of the audit log lists every action, and no other', () => {
  const rows = rowsOf('docs/reference/http.md', /^\| ((?:`[a-z]\w+\.\w+` ?)+) \| (?:always|when)/)
  expect(sorted(rows.flatMap(([actions]) => [...actions!.matchAll(/`(.+?)`/g)].map(([, action]) => action!)))).toEqual(sorted(auditActions))
})

describe('the reference of events', () => {
  const rows = rowsOf('docs/reference/events.md', /^\| `((?:task|endpoint)\.\w+)` \| (.+) \| (.+) \|$/)

  test('lists every type, and no other', () => {
    expect(sorted(rows.map(([type]) => type!))).toEqual(sorted([...taskEventTypes, ...endpointEventTypes]))
  })

  test('says which are sent by default', () => {
    expect(rows.filter(([, , sent]) => sent === 'by default').map(([type]) => type)).toEqual([...defaultEvents])
  })

  test('says "not yet" of the types that nothing records, and of those alone', () => {
    const recorded = [...taskEventTypes, ...endpointEventTypes].filter((type) => {
      const uses = found('src', '.ts').filter((path) => !/model|documents|shapes|receiver|client|openapi|wire/.test(path))
      return uses.some((path) => read(path).includes(`'${type}'`))
    })
    expect(sorted(rows.filter(([, when]) => when !== 'not yet').map(([type]) => type!))).toEqual(sorted(recorded))
  })
})

describe('the lifecycle', () => {
  test('is documented state by state and verb by verb', () => {
    const [head, , ...body] = read('docs/explanation/lifecycle.md')
      .split('\n')
      .filter((line) => /^\|.*\|$/.test(line))
      .slice(0, 7)
      .map((line) =>
        line
          .slice(1, -1)
          .split('|')
          .map((cell) => cell.trim().replaceAll('`', '')),
      )
    const verbs = Object.keys(transitions)
    const states = ['pending', 'running', ...terminalStates]
    const table = transitions as Record<string, Record<string, string>>
    expect([head, ...body]).toEqual([
      ['from', ...verbs],
      ...states.map((state) => [state, ...verbs.map((verb) => table[verb]![state] ?? '–')]),
    ])
  })

  test('is drawn as the code defines it', () => {
    const charts = fences.filter(({ code }) => code.startsWith('stateDiagram'))
    expect(charts.map(({ page }) => page)).toEqual(['docs/explanation/lifecycle.md'])
    const drawn = [...charts[0]!.code.matchAll(/^ {2}(\w+) --> (\w+): (\w+)$/gm)].map(([, from, to, verb]) => `${from} ${verb} ${to}`)
    const real = Object.entries(transitions).flatMap(([verb, moves]) => Object.entries(moves).map(([from, to]) => `${from} ${verb} ${to}`))
    expect(sorted(drawn)).toEqual(sorted(real))
  })
})

test('the architecture page names every folder that exists, and no other', () => {
  const section = read('docs/explanation/architecture.md').split('## Layers')[1]!.split('\n## ')[0]!
  const named = [...section.matchAll(/`([\w/]+(?:\.ts|\/))`/g)].map(([, name]) => name!)
  expect(named.filter((name) => !existsSync(join(root, name === 'migrations/' ? '' : 'src', name)))).toEqual([])
  const parts = readdirSync(join(root, 'src'), { withFileTypes: true }).map((entry) =>
    entry.isDirectory() ? `${entry.name}/` : entry.name,
  )
  // Of `http/` and `webhook/` some files stand for all of them.
  expect(parts.filter((part) => !named.some((name) => name.startsWith(part)))).toEqual([])
})

describe('the security page', () => {
  const page = 'docs/explanation/security.md'

  test.each(['forbidden', 'metadata'] as const)('lists the %s ranges as they are', (name) => {
    const documented = fences.find((fence) => fence.page === page && fence.info === `text ${name}`)!.code.trim()
    const ranges = parseAddressRules()[name].map(([ip, prefix]) => `${ip}/${prefix}`)
    expect(sorted(documented.split(/\s+/))).toEqual(sorted(ranges))
  })

  test('names a test for every threat and every attack', () => {
    const tests = found('test', '.ts').map(read).join('\n')
    const claimed = rowsOf(page, /^\| .+ \| .+ \| `(.+)` \|$/).map(([title]) => title!)
    expect(claimed.length).toBeGreaterThan(45)
    expect(claimed.filter((title) => !["'", '"'].some((quote) => tests.includes(`(${quote}${title}${quote},`)))).toEqual([])
  })
})

test('every variable that is named is a setting', () => {
  const known = new Set<string>(Object.values(settings).map(({ variable }) => variable))
  const named = pages.flatMap((page) => [...read(page).matchAll(/RINGBACK_[A-Z_]*[A-Z]\b/g)].map(([name]) => ({ page, name })))
  expect(named.filter(({ name }) => !known.has(name) && !name.startsWith('RINGBACK_TEST_'))).toEqual([])
  expect(named.length).toBeGreaterThan(30)
})

test('every option of the command line is documented, and no other', () => {
  const optionsOf = (command: Command): string[] => command.options.map(({ flags }) => `${command.name()} ${flags}`)
  const documented = read('docs/reference/cli.md')
    .split(/^## `ringback /m)
    .slice(1)
    .flatMap((section) => [...section.matchAll(/^\| `(--[^`]+)` \|/gm)].map(([, flags]) => `${/^\w+/.exec(section)![0]} ${flags}`))
  expect(sorted(documented)).toEqual(
    sorted([serveCommand(), migrateCommand(), auditCommand(() => {}), backupCommand(), restoreCommand()].flatMap(optionsOf)),
  )
})

test('every script that is named exists', () => {
  const { scripts } = JSON.parse(read('package.json')) as { scripts: Record<string, string> }
  const named = pages.flatMap((page) =>
    [...read(page).matchAll(/\bnpm (?:run ([\w:]+)|(start|test)\b)/g)].map(([, run, own]) => ({ page, script: (run ?? own)! })),
  )
  expect(named.filter(({ script }) => !(script in scripts))).toEqual([])
})

describe('links', () => {
  const slug = (heading: string): string =>
    heading
      .toLowerCase()
      .replace(/[^\p{L}\p{N} _-]/gu, '')
      .replaceAll(' ', '-')
  const anchorsOf = (path: string): string[] =>
    [
      ...read(path)
        .replaceAll(/^```[\s\S]*?^```$/gm, '')
        .matchAll(/^#+ (.+)$/gm),
    ].map(([, heading]) => slug(heading!))

  test('between pages lead somewhere', () => {
    const broken = pages.flatMap((page) =>
      [...read(page).matchAll(/\]\((?!https?:|mailto:)([^)#\s]*)(?:#([^)\s]+))?\)/g)].flatMap(([link, to = '', anchor]) => {
        const path = to === '' ? page : relative(root, resolve(root, dirname(page), to))
        const leads = existsSync(join(root, path)) && (anchor === undefined || anchorsOf(path).includes(anchor))
        return leads ? [] : [`${page}: ${link}`]
      }),
    )
    expect(broken).toEqual([])
  })

  test('reach every page of the documentation from its index', () => {
    const index = [...read('docs/README.md').matchAll(/\]\((?!\.\.|https?:)([^)#]+)\)/g)].map(([, to]) => join('docs', to!))
    expect(sorted(found('docs', '.md').filter((page) => page !== 'docs/README.md' && !index.includes(page)))).toEqual([])
  })

  test('written as file paths name files that exist', () => {
    const named = pages.flatMap((page) =>
      [...read(page).matchAll(/`((?:src|test|docs|migrations|bench|examples|bin)\/[\w./-]*)`/g)].map(([, path]) => ({ page, path: path! })),
    )
    expect(named.filter(({ path }) => !existsSync(join(root, path)))).toEqual([])
    expect(named.length).toBeGreaterThan(20)
  })
})

describe('examples', () => {
  const documents: Readonly<Record<string, z.ZodType>> = {
    Problem: systemShapes.problem,
    TaskEvent: eventShapes.taskEvent,
    ClaimedTasks: workerShapes.claimedTasks,
    CreateTask: taskShapes.createTask,
    Task: taskShapes.task,
    CreateSchedule: scheduleShapes.createSchedule,
    Schedule: scheduleShapes.schedule,
    CreateEndpoint: endpointShapes.createEndpoint,
    Endpoint: endpointShapes.endpoint,
    Delivery: deliveryShapes.delivery,
  }
  const json = fences.filter(({ info }) => info.split(' ')[0] === 'json')

  test.each(json.map((fence, i) => [fence.page, fence.info, i] as const))('in JSON parse and fit their shape: %s, %s', (_page, info, i) => {
    const value = JSON.parse(json[i]!.code)
    const [, name] = info.split(' ')
    if (name !== undefined) documents[name]!.parse(value)
  })

  test('exist for every document of the API', () => {
    expect(sorted(new Set(json.flatMap(({ info }) => info.split(' ')[1] ?? [])))).toEqual(sorted(Object.keys(documents)))
  })

  test('of verifying with jose are identical', () => {
    const plain = ['README.md', 'docs/how-to/verify-a-webhook.md'].map(
      (page) => fencesOf(page, 'ts').find(({ code }) => code.includes("from 'jose'"))?.code,
    )
    expect(plain[0]).toBeDefined()
    expect(plain[0]).toBe(plain[1])
  })

  test('in TypeScript fit the types of what they import', () => {
    const folder = mkdtempSync(join(tmpdir(), 'ringback-docs-'))
    try {
      symlinkSync(join(root, 'node_modules'), join(folder, 'node_modules'))
      writeFileSync(join(folder, 'package.json'), '{"type":"module"}')
      // What a page may leave to its reader.
      writeFileSync(
        join(folder, 'reader.d.ts'),
        'declare const request: Request\ndeclare function enqueue(...facts: unknown[]): Promise<void>\n',
      )
      for (const [i, { page, code }] of fences.filter(({ info }) => info === 'ts').entries()) {
        const name = `${page.replaceAll(/\W+/g, '-')}.${i}.ts`
        writeFileSync(join(folder, name), `${code}\nexport {}\n`)
      }
      const { compilerOptions } = JSON.parse(read('tsconfig.json')) as { compilerOptions: object }
      const faces = { ringback: 'index', 'ringback/receiver': 'receiver/index', 'ringback/client': 'client/index' }
      const paths = Object.fromEntries(Object.entries(faces).map(([name, file]) => [name, [join(root, `src/${file}.ts`)]]))
      writeFileSync(join(folder, 'tsconfig.json'), JSON.stringify({ compilerOptions: { ...compilerOptions, paths }, include: ['*.ts'] }))
      const tsc = spawnSync(process.execPath, [join(root, 'node_modules/typescript/bin/tsc'), '-p', folder, '--pretty', 'false'], {
        encoding: 'utf8',
      })
      expect(tsc.stdout + tsc.stderr).toBe('')
      expect(tsc.status).toBe(0)
    } finally {
      rmSync(folder, { recursive: true })
    }
  }, 120_000)
})

describe('a platform', () => {
  const token = 'the-operator-of-the-docs'
  let folder: string
  let ringback: Ringback
  let key: string
  const call = async (method: string, path: string, bearer: string, body?: string): Promise<Response> =>
    ringback.app.fetch(
      new Request(`http://127.0.0.1:8484${path}`, {
        method,
        headers: { authorization: `Bearer ${bearer}`, 'content-type': 'application/json' },
        ...(body !== undefined && { body }),
      }),
    )

  beforeAll(async () => {
    folder = mkdtempSync(join(tmpdir(), 'ringback-docs-'))
    mkdirSync(join(folder, 'data'))
    ringback = await createRingback({
      tasks: config.tasks,
      databaseUrl: `file:${join(folder, 'data/ringback.db')}`,
      adminToken: token,
      logLevel: 'silent',
    })
    await ringback.start()
    const client = (await (await call('POST', '/v1/clients', token, '{"name":"docs"}')).json()) as { id: string }
    key = ((await (await call('POST', `/v1/clients/${client.id}/keys`, token)).json()) as { key: string }).key
  })
  afterAll(async () => {
    await ringback.stop()
    rmSync(folder, { recursive: true })
  })

  test('has every route that is documented, with its scope, and no other', async () => {
    const { paths } = (await (await call('GET', '/openapi.json', key)).json()) as {
      paths: Record<string, Record<string, { description?: string; security: unknown[] }>>
    }
    const real = Object.entries(paths).flatMap(([path, methods]) =>
      Object.entries(methods).map(([method, { description = '', security }]) => {
        const scope = security.length === 0 ? 'public' : /Scope: `([\w:]+)`/.exec(description)?.[1]
        return `${method.toUpperCase()} ${path} ${scope}`
      }),
    )
    const documented = rowsOf('docs/reference/http.md', /^\| `([A-Z]+ \/\S*)` \| `([\w:]+)` \|/).map(
      ([route, scope]) => `${route} ${scope}`,
    )
    expect(sorted(documented)).toEqual(sorted(real))
  })

  test('takes every curl line of the README as it stands', async () => {
    const shell = fencesOf('README.md', 'sh')
      .map(({ code }) => code)
      .join('')
    const answers: [string, number][] = []
    for (const [line] of shell.matchAll(/^curl .+$/gm)) {
      const url = new URL(/http:\/\/127\.0\.0\.1:8484[^\s']*/.exec(line)![0])
      const body = / -d '(.+)'/.exec(line)?.[1]
      const { status } = await call(body === undefined ? 'GET' : 'POST', url.pathname + url.search, key, body)
      answers.push([`${url.pathname}${url.search}`, status])
    }
    expect(answers).toEqual([
      ['/v1/tasks', 202],
      ['/v1/tasks?limit=1', 200],
      ['/v1/endpoints', 201],
      ['/v1/tasks?wait=10', 200],
    ])
  })
})
