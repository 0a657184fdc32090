import { type ChildProcess, execFileSync, spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { copyFileSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { delimiter, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'

const root = fileURLToPath(new URL('..', import.meta.url))
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

/** Two task types: one answers, one begins by saying so and then never ends, whatever its signal says. */
function writeTaskTypes(): void {
  const source = `
    import { defineTask } from ${JSON.stringify(new URL('../src/task.ts', import.meta.url).href)}
    export default { tasks: [
      defineTask({ type: 'demo.echo', run: (input) => input }),
      defineTask({ type: 'test.hang', run: () => { process.stdout.write('hanging\\n'); return new Promise(() => setInterval(() => {}, 1000)) } }),
    ] }`
  writeFileSync(join(folder, 'ringback.config.ts'), source)
}

describe('the command line', () => {
  test('tells its version', () => {
    expect(ringback(['--version'])).toMatchObject({ status: 0, stdout: `${version}\n`, stderr: '' })
  })

  test('tells its commands', () => {
    const { status, stdout } = ringback(['--help'])
    expect(status).toBe(0)
    for (const command of ['serve', 'migrate']) expect(stdout).toMatch(new RegExp(`^ +${command} `, 'm'))
  })

  test('refuses a command it does not have, and names the nearest', () => {
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
  test('when there is no module with task types', () => {
    refused(`There is no ${join(folder, 'ringback.config.ts')}`)
    refused('There is no', { RINGBACK_CONFIG: 'elsewhere.ts' })
  })
  test.each([
    ['export const tasks = []', 'does not say which task types there are'],
    ['export default { tasks: [] }', 'has an empty list of task types'],
    ['export default { tasks: [{ type: "x" }] }', 'tasks[0] in'],
    ['throw new Error("no such table")', 'cannot be loaded: no such table'],
  ])('when that module is %j', (source, why) => {
    writeFileSync(join(folder, 'ringback.config.ts'), source)
    refused(why)
  })
  test('when that module lies in a package that is no module', () => {
    writeFileSync(join(folder, 'package.json'), '{"type":"commonjs"}')
    writeTaskTypes()
    refused('Set "type": "module"')
  })
  test('when the port is taken', async () => {
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
  async function start(): Promise<{ process: ChildProcess; url: string; says(text: string): Promise<string> }> {
    writeTaskTypes()
    const child = spawn(process.execPath, [bin, 'serve', '--port', '0'], {
      cwd: folder,
      env: environment({}),
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

  test('drains once, and ends at once with a second signal', async () => {
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

  test.each(['0.10.48', '22.18.9'])('is told so in one sentence before anything is loaded: %s', (found) => {
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
