import { type ChildProcess, execFileSync, spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { copyFileSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { delimiter, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import Database from 'better-sqlite3'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'

import { looksLikeApiKey } from '../../src/core/api-key.ts'

const root = fileURLToPath(new URL('../..', import.meta.url))
const bin = join(root, 'bin', 'ringback.cjs')
const { version } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as { version: string }

let folder: string
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'ringback-cli-'))
  writeFileSync(join(folder, 'package.json'), '{"type":"module"}')
})
afterEach(() => {
  rmSync(folder, { recursive: true, force: true })
})

const environment = (env: Record<string, string>): NodeJS.ProcessEnv => ({
  ...Object.fromEntries(Object.entries(process.env).filter(([name]) => !name.startsWith('RINGBACK_'))),
  ...env,
})

function ringback(args: readonly string[], env: Record<string, string> = {}): { status: number | null; stdout: string; stderr: string } {
  return spawnSync(process.execPath, [bin, ...args], { cwd: folder, env: environment(env), encoding: 'utf8' })
}

/** Task types in a folder where nothing is installed: one answers, two give up for good, one leaves a rejected promise behind, one begins by saying so and then never ends, whatever its signal says. */
function writeTaskTypes(): void {
  const source = `
    import { defineTask, Permanent } from 'ringback'
    const run = () => { throw new Permanent('never', { code: 'test_never' }) }
    export default { tasks: [
      defineTask({ type: 'demo.echo', run: (input) => input }),
      defineTask({ type: 'test.never', run }),
      defineTask({ type: 'test.never.thread', run, where: 'thread', module: import.meta.url }),
      defineTask({ type: 'test.litter', run: () => { Promise.reject(new Error('left behind')); return 'done' } }),
      defineTask({ type: 'test.hang', run: () => { process.stdout.write('hanging\\n'); return new Promise(() => setInterval(() => {}, 1000)) } }),
    ] }`
  writeFileSync(join(folder, 'ringback.config.ts'), source)
}

describe('the command line', () => {
  test('prints its version', () => {
    expect(ringback(['--version'])).toMatchObject({ status: 0, stdout: `${version}\n`, stderr: '' })
  })

  test('prints its commands', () => {
    const { status, stdout } = ringback(['--help'])
    expect(status).toBe(0)
    for (const command of ['serve', 'migrate', 'clients', 'keys', 'audit', 'backup', 'restore'])
      expect(stdout).toMatch(new RegExp(`^ +${command} `, 'm'))
  })

  test('lists, rotates and revokes the keys that sign, on the database alone', () => {
    const keys = (...args: string[]) => ringback(['keys', ...args])
    const shown = ({ stdout }: { stdout: string }) =>
      stdout
        .trimEnd()
        .split('\n')
        .filter((line) => line !== '')
        .map((line) => line.split(/ +/))
    // A database without keys is one that no server has used: a wish for the next key makes the first two.
    expect(keys('list')).toMatchObject({ status: 0, stdout: '', stderr: '' })
    const wished = keys('rotate')
    expect(wished).toMatchObject({ status: 0, stderr: '' })
    const [active, next] = shown(wished)
    expect([active![1], next![1]]).toEqual(['active', 'next'])
    expect(keys('rotate').stdout).toContain('signs from')
    const revoked = shown(keys('revoke', active![0]!))
    expect(Object.fromEntries(revoked.map(([id, state]) => [id, state]))).toMatchObject({ [active![0]!]: 'revoked', [next![0]!]: 'active' })
    expect(revoked).toHaveLength(3)
    for (const id of ['nothing', '-nothing', '-hnothing', '-Vnothing'])
      expect(keys('revoke', id)).toMatchObject({ status: 1, stderr: expect.stringContaining(`there is no signing key "${id}"`) })
  })

  test('audits a database, with code 0 when everything holds, otherwise with code 1 and one sentence per violation', () => {
    const refused = ringback(['audit'])
    expect(refused).toMatchObject({ status: 1, stdout: '' })
    expect(refused.stderr).toMatch(/^ringback: the database file ".*ringback\.db" cannot be opened/)
    expect(existsSync(join(folder, 'data', 'ringback.db')), 'it makes none').toBe(false)
    expect(ringback(['migrate'])).toMatchObject({ status: 0 })
    const sound = ringback(['audit'])
    expect(sound).toMatchObject({ status: 0, stderr: '' })
    expect(sound.stdout).toContain('Checked 0 tasks (0 live)')
    expect(sound.stdout.match(/^holds {2}/gm)).toHaveLength(9)
    const db = new Database(join(folder, 'data', 'ringback.db'))
    db.exec(`insert into tombstones (id, client_id, expires_at) values ('task_1', 'client_1', 1);
      insert into turns (queue, client_id, lane_id) values ('task/a', 'client_1', 'client_1/a')`)
    db.close()
    const faulty = ringback(['audit', '--limit', '1'])
    expect(faulty).toMatchObject({ status: 1, stderr: '' })
    expect(faulty.stdout).toMatch(/^FAILS {2}lanes .* 1 violation\.$/m)
    expect(faulty.stdout).toMatch(/^lanes: Turn 1 of lane client_1\/a has no time\.$/m)
    const { status, stdout } = ringback(['audit', '--json'])
    expect(status).toBe(1)
    expect(JSON.parse(stdout)).toMatchObject({ counts: { tombstones: 1 }, violations: { total: 1, byCheck: { lanes: 1 } }, owed: [] })
    expect(ringback(['audit', '--limit', 'all'])).toMatchObject({ status: 1, stderr: expect.stringContaining('must be a whole number') })
  })

  test('refuses to back up PostgreSQL and names the tool that does', () => {
    const env = { RINGBACK_DATABASE_URL: 'postgres://localhost/ringback', RINGBACK_MASTER_KEY: Buffer.alloc(32).toString('base64') }
    expect(ringback(['backup', '--to', 'x.db'], env)).toMatchObject({ status: 1, stdout: '', stderr: expect.stringContaining('pg_dump') })
    expect(ringback(['restore', '--from', 'x.db'], env)).toMatchObject({
      status: 1,
      stdout: '',
      stderr: expect.stringContaining('pg_restore'),
    })
  })

  test('makes a client with a key, and lists clients, on the database alone', () => {
    const made = ringback(['clients', 'create', 'Acme'])
    expect(made).toMatchObject({ status: 0, stderr: '' })
    const [id, key] = made.stdout.trimEnd().split('\n')
    expect(looksLikeApiKey(key!)).toBe(true)
    expect(ringback(['clients', 'list'])).toMatchObject({ status: 0, stdout: `${id}  active     Acme\n` })
    expect(ringback(['clients', 'create', ''])).toMatchObject({
      status: 1,
      stderr: expect.stringContaining('the name "" must have 1 to 200 printable characters'),
    })
    const database = new Database(join(folder, 'data', 'ringback.db'), { readonly: true })
    expect(database.prepare('select actor, action from audit_log order by id').all()).toEqual([
      { actor: 'cli', action: 'client.create' },
      { actor: 'cli', action: 'key.create' },
    ])
    database.close()
  })

  test.each([[['migrate']], [['clients', 'create', 'Acme']]])(
    '%j makes a database that serve then takes for its own',
    (args) => {
      expect(ringback(args)).toMatchObject({ status: 0, stderr: '' })
      expect(existsSync(join(folder, 'data', 'master-key'))).toBe(true)
      // It asks the same as serve before it opens a store: is the key there that sealed it?
      expect(ringback(['keys', 'list'])).toMatchObject({ status: 0, stderr: '' })
    },
    120_000,
  )

  test('refuses an unknown command and suggests the nearest one', () => {
    const { status, stderr } = ringback(['sevre'])
    expect(status).toBe(1)
    expect(stderr).toContain("unknown command 'sevre'")
    expect(stderr).toContain('Did you mean serve?')
  })
})

describe('serve refuses to start, with a sentence, no stack and code 1,', () => {
  const refused = (why: string, env: Record<string, string> = {}, args: readonly string[] = []): void => {
    const { status, stdout, stderr } = ringback(['serve', '--port', '0', ...args], env)
    expect(stderr).toMatch(/^ringback: /m)
    expect(stderr).toContain(why)
    expect(stderr).not.toMatch(/^ {4}at /m)
    expect({ status, stdout }).toEqual({ status: 1, stdout: '' })
  }

  test('when settings are wrong', () => {
    refused('RINGBACK_LEASE_SECONDS is "soon"', { RINGBACK_LEASE_SECONDS: 'soon' })
  })
  test('when an option is wrong', () => {
    refused('the option databaseUrl is "data.db"', {}, ['--database-url', 'data.db'])
  })
  test('when no module with task types exists', () => {
    refused(`There is no ${join(folder, 'ringback.config.ts')}`)
    refused('There is no', { RINGBACK_CONFIG: 'elsewhere.ts' })
  })
  test.each([
    ['export const tasks = []', 'does not export a list of task types'],
    ['export default { tasks: [] }', 'has an empty list of task types'],
    ['export default { tasks: [{ type: "x" }] }', 'tasks[0] in'],
    ['throw new Error("no such table")', 'cannot be loaded: no such table'],
  ])('when that module is %j', (source, why) => {
    writeFileSync(join(folder, 'ringback.config.ts'), source)
    refused(why)
  })
  test('when that module belongs to a package that is not an ES module', () => {
    writeFileSync(join(folder, 'package.json'), '{"type":"commonjs"}')
    writeTaskTypes()
    refused('Set "type": "module"')
  })
  test('when the port is in use', async () => {
    writeTaskTypes()
    const other = createServer().listen(0, '127.0.0.1')
    await once(other, 'listening')
    const { port } = other.address() as { port: number }
    refused(`Port ${port} on 127.0.0.1 is taken: stop what listens there, or set RINGBACK_PORT`, {}, ['--port', String(port)])
    other.close()
  })
})

describe('serve', () => {
  let server: ChildProcess | undefined
  afterEach(async () => {
    if (!server || server.exitCode !== null || server.signalCode !== null) return
    const ended = once(server, 'exit')
    server.kill('SIGKILL')
    await ended
  })

  /** A server in development on a free port, and a way to wait for what it says. */
  async function start(
    env: Record<string, string> = {},
  ): Promise<{ process: ChildProcess; url: string; says(text: string): Promise<string> }> {
    writeTaskTypes()
    const child = spawn(process.execPath, [bin, 'serve', '--port', '0'], {
      cwd: folder,
      env: environment(env),
      stdio: ['ignore', 'pipe', 'pipe'],
    })
    server = child
    let said = ''
    const says = (text: string): Promise<string> =>
      new Promise((resolve, reject) => {
        const look = (): void => {
          if (said.includes(text)) resolve(said)
        }
        child.stdout.on('data', look)
        child.once('close', () => reject(new Error(`it ended without saying ${JSON.stringify(text)}: ${said}`)))
        look()
      })
    for (const stream of [child.stdout, child.stderr])
      stream.on('data', (chunk) => {
        said += chunk
      })
    const url = /"url":"([^"]+)","env"/.exec(await says('"msg":"listening"'))?.[1]
    return { process: child, url: url!, says }
  }

  const key = async (says: (text: string) => Promise<string>): Promise<string> => /KEY=(\S+)/.exec(await says('/v1/endpoints'))![1]!

  test('answers at the address it prints, until SIGTERM ends it with code 0', async () => {
    const { process, url, says } = await start()
    expect(url).toMatch(/^http:\/\/127\.0\.0\.1:\d+$/)
    expect((await fetch(`${url}/healthz`)).status).toBe(200)
    const ended = once(process, 'exit')
    process.kill('SIGTERM')
    await says('"msg":"stopped"')
    expect(await ended).toEqual([0, null])
  })

  test('prints a key that is the same after the next start, and readable by its owner alone', async () => {
    const first = await start()
    const shown = await key(first.says)
    const ended = once(first.process, 'exit')
    first.process.kill('SIGINT')
    await ended
    expect(await key((await start()).says)).toBe(shown)
    expect(statSync(join(folder, 'data', 'development-key')).mode & 0o777).toBe(0o600)
  })

  const curl = spawnSync('curl', ['--version']).status === 0
  test.skipIf(!curl)('prints lines that can be pasted into a shell', async () => {
    const { says } = await start()
    const printed = await says('/v1/endpoints')
    const lines = printed.split('\n').filter((line) => line.startsWith('  '))
    expect(lines).toHaveLength(4)
    const answers = execFileSync('sh', ['-c', lines.join(' && echo &&\n')], { encoding: 'utf8' })
      .trim()
      .split('\n')
      .filter((line) => line !== '')
      .map((line): unknown => JSON.parse(line))
    expect(answers).toHaveLength(3)
    for (const answer of answers) expect(answer).not.toHaveProperty('code')
  })

  test('resolves the import of "ringback" in task types to itself, so it knows the errors they throw, also in threads', async () => {
    const { url, says } = await start()
    const headers = { authorization: `Bearer ${await key(says)}`, 'content-type': 'application/json' }
    for (const type of ['test.never', 'test.never.thread']) {
      const answer = await fetch(`${url}/v1/tasks?wait=10`, { method: 'POST', headers, body: JSON.stringify({ type, input: null }) })
      expect(await answer.json()).toMatchObject({ status: 'failed', tries: 1, error: { code: 'test_never', message: 'never' } })
    }
  })

  test.skipIf(!existsSync('/proc/self/cmdline')).each([
    [['--max-semi-space-size=32'], {}],
    [[], { NODE_OPTIONS: '--max-semi-space-size=64' }],
  ])('keeps what is young in little memory, unless a size is given: %j with %j', async (flags, env) => {
    const { process } = await start(env)
    const words = readFileSync(`/proc/${process.pid}/cmdline`, 'utf8').split('\0')
    expect(words.slice(1, words.indexOf(bin))).toEqual(flags)
  })

  test('survives and reports a rejected promise that a handler left unhandled', async () => {
    const { process, url, says } = await start()
    const headers = { authorization: `Bearer ${await key(says)}`, 'content-type': 'application/json' }
    const answer = await fetch(`${url}/v1/tasks?wait=10`, { method: 'POST', headers, body: '{"type":"test.litter","input":null}' })
    expect(await answer.json()).toMatchObject({ status: 'completed', result: 'done', tries: 1 })
    expect(await says('a promise was rejected and not handled')).toContain('left behind')
    expect(process.exitCode).toBeNull()
  })

  test('drains on the first signal and exits at once on the second', async () => {
    const { process, url, says } = await start()
    const headers = { authorization: `Bearer ${await key(says)}`, 'content-type': 'application/json' }
    const { status } = await fetch(`${url}/v1/tasks`, { method: 'POST', headers, body: '{"type":"test.hang","input":null}' })
    expect(status).toBe(202)
    await says('hanging\n')
    const ended = once(process, 'exit')
    process.kill('SIGTERM')
    await says('"msg":"draining"')
    process.kill('SIGTERM')
    expect(await ended).toEqual([143, null])
  })
})

describe('a Node that is too old', () => {
  const sentence = (found: string): string =>
    `Ringback needs Node.js 22.19 or newer, and this is Node.js ${found}: install a newer one from https://nodejs.org and run it again.\n`
  /** The bin alone in a folder: whatever it loads before its sentence is not there. */
  const alone = (): string => {
    mkdirSync(join(folder, 'bin'))
    copyFileSync(bin, join(folder, 'bin', 'ringback.cjs'))
    return join(folder, 'bin', 'ringback.cjs')
  }
  const pretending = (found: string, path: string): { status: number | null; stdout: string; stderr: string } => {
    const versions = `Object.defineProperty(process, 'versions', { value: { ...process.versions, node: '${found}' } })`
    const script = `${versions}; process.argv = ['node', 'ringback', '--version']; require(${JSON.stringify(path)})`
    return spawnSync(process.execPath, ['-e', script], { encoding: 'utf8', cwd: folder })
  }

  test.each(['0.10.48', '22.18.9'])('is refused in one sentence before anything is loaded: %s', (found) => {
    expect(pretending(found, alone())).toMatchObject({ status: 1, stdout: '', stderr: sentence(found) })
  })

  test.each(['22.19.0', '100.0.0'])('is not what %s is', (found) => {
    expect(pretending(found, bin)).toMatchObject({ status: 0, stdout: `${version}\n` })
  })

  const old = realOldNode()
  test.skipIf(!old)('is told so when it is real', () => {
    const found = execFileSync(old!, ['-p', 'process.versions.node'], { encoding: 'utf8' }).trim()
    expect(spawnSync(old!, [bin, 'serve'], { encoding: 'utf8', cwd: folder })).toMatchObject({
      status: 1,
      stdout: '',
      stderr: sentence(found),
    })
  })
})

/** A Node before 22.19 on this machine's PATH, if there is one. */
function realOldNode(): string | undefined {
  const folders = [...(process.env.PATH ?? '').split(delimiter), '/usr/bin'].filter((it) => !it.includes('node_modules'))
  const isOld = (path: string): boolean => {
    const [major, minor] = execFileSync(path, ['-p', 'process.versions.node'], { encoding: 'utf8' }).split('.').map(Number)
    return major! < 22 || (major === 22 && minor! < 19)
  }
  return folders.map((it) => join(it, 'node')).find((path) => existsSync(path) && isOld(path))
}
