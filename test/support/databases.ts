/** A new database for each caller: test files share nothing. */
import { randomBytes } from 'node:crypto'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import pg from 'pg'
import { inject } from 'vitest'

/** An empty PostgreSQL database; `drop` ends connections that are still open. */
export async function freshPostgres(): Promise<{ readonly url: string; drop(): Promise<void> }> {
  const server = inject('postgresUrl')
  const name = `test_${randomBytes(8).toString('hex')}`
  await command(server, `create database ${name}`)
  const url = new URL(server)
  url.pathname = `/${name}`
  return { url: url.href, drop: () => command(server, `drop database if exists ${name} with (force)`) }
}

/** The URL of a SQLite file that does not exist yet, in its own folder. */
export function freshSqlite(): { readonly url: string; remove(): void } {
  const folder = mkdtempSync(join(tmpdir(), 'ringback-sqlite-'))
  return { url: `file:${join(folder, 'ringback.db')}`, remove: () => rmSync(folder, { recursive: true, force: true }) }
}

async function command(url: string, sql: string): Promise<void> {
  const client = new pg.Client({ connectionString: url })
  await client.connect()
  try {
    await client.query(sql)
  } finally {
    await client.end()
  }
}
