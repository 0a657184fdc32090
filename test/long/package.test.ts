import { execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { delimiter, dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'

const root = fileURLToPath(new URL('../..', import.meta.url))
const manifest = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as { version: string; exports: Record<string, unknown> }

// The Node that runs the tests comes first, whatever else the machine has.
const env: NodeJS.ProcessEnv = {
  ...Object.fromEntries(Object.entries(process.env).filter(([name]) => !name.startsWith('RINGBACK_') && !name.startsWith('npm_'))),
  PATH: `${dirname(process.execPath)}${delimiter}${process.env.PATH}`,
}
const run = (file: string, args: readonly string[], cwd: string): string => execFileSync(file, args, { cwd, env, encoding: 'utf8' })

describe('the package, installed elsewhere,', () => {
  let app: string
  let packed: readonly string[]
  beforeAll(() => {
    app = mkdtempSync(join(tmpdir(), 'ringback-package-'))
    const told = run('npm', ['pack', '--json', '--pack-destination', app], root)
    // The build that runs before it may talk too.
    const parsed: unknown = JSON.parse(told.slice(told.search(/^[[{]/m)))
    const [pack] = Object.values(parsed as Record<string, { filename: string; files: { path: string }[] }>)
    packed = pack!.files.map(({ path }) => path)
    writeFileSync(join(app, 'package.json'), JSON.stringify({ name: 'app', private: true, type: 'module' }))
    run('npm', ['install', '--no-audit', '--no-fund', join(app, pack!.filename)], app)
  })
  afterAll(() => {
    rmSync(app, { recursive: true, force: true })
  })

  test('holds what runs, the migrations and the licence, and neither sources nor tests', () => {
    const folders = new Set(packed.map((path) => path.split('/')[0]))
    expect([...folders].filter((it) => !it!.includes('.') && it !== 'LICENSE').sort()).toEqual(['bin', 'dist', 'migrations'])
    expect(packed).toEqual(
      expect.arrayContaining(['LICENSE', 'bin/ringback.cjs', 'dist/cli/main.js', 'dist/index.d.ts', 'dist/http/openapi/reference/LICENSE']),
    )
  })

  test('tells its version through npx', () => {
    expect(run('npx', ['--no', '--', 'ringback', '--version'], app)).toBe(`${manifest.version}\n`)
  })

  test('can be imported by every name it exports', () => {
    const names = Object.keys(manifest.exports).filter((name) => !name.endsWith('.json'))
    expect(names.length).toBeGreaterThan(1)
    for (const name of names) {
      const script = `const it = await import(${JSON.stringify(name.replace(/^\./, 'ringback'))}); console.log(Object.keys(it).length > 0)`
      expect(run(process.execPath, ['--input-type=module', '-e', script], app)).toBe('true\n')
    }
  })

  test('gives its types to a program in TypeScript', () => {
    writeFileSync(
      join(app, 'types.ts'),
      `import { defineTask } from 'ringback'
       import * as client from 'ringback/client'
       import * as receiver from 'ringback/receiver'
       void client; void receiver
       // @ts-expect-error a task type has a name
       defineTask({ run: () => 1 })`,
    )
    const flags = ['--noEmit', '--strict', '--module', 'nodenext', '--target', 'es2024', '--skipLibCheck', 'false', '--types', 'node']
    run(
      process.execPath,
      [join(root, 'node_modules', '.bin', 'tsc'), ...flags, '--typeRoots', join(root, 'node_modules', '@types'), 'types.ts'],
      app,
    )
  })

  test('serves the task types of a ringback.config.ts', async () => {
    const source = `import { isMainThread } from 'node:worker_threads'
      import { defineTask } from 'ringback'
      const echo = defineTask({ type: 'demo.echo', run: (input) => input })
      const thread = defineTask({ type: 'demo.thread', where: 'thread', run: () => ({ isMainThread }) })
      export default { tasks: [echo, thread] }`
    writeFileSync(join(app, 'ringback.config.ts'), source)
    const server = spawn(join(app, 'node_modules', '.bin', 'ringback'), ['serve', '--port', '0'], {
      cwd: app,
      env,
      stdio: ['ignore', 'pipe', 'inherit'],
    })
    const ended = once(server, 'exit')
    try {
      let said = ''
      for await (const chunk of server.stdout) {
        said += chunk
        if (said.includes('"msg":"listening"')) break
      }
      const url = /"url":"([^"]+)","env"/.exec(said)?.[1]
      expect((await fetch(`${url}/healthz`)).status).toBe(200)
      // The files of the API reference come with the package.
      for (const path of ['docs', 'docs/swagger-ui-bundle.js', 'docs/swagger-ui.css', 'docs/start.js'])
        expect([path, (await fetch(`${url}/${path}`)).status]).toEqual([path, 200])
      const headers = {
        authorization: `Bearer ${readFileSync(join(app, 'data', 'development-key'), 'utf8').trim()}`,
        'content-type': 'application/json',
      }
      const body = JSON.stringify({ type: 'demo.thread', input: null })
      const ended = await fetch(`${url}/v1/tasks?wait=30`, { method: 'POST', headers, body })
      expect(await ended.json()).toMatchObject({ status: 'completed', result: { isMainThread: false } })
    } finally {
      server.kill('SIGTERM')
    }
    expect(await ended).toEqual([0, null])
  })

  test('has nothing that publint would mend', () => {
    expect(run(process.execPath, [join(root, 'node_modules', '.bin', 'publint'), '--strict', '--pack', 'npm'], root)).toContain('All good!')
  })
})
