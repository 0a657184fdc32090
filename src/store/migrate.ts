/** Migrations: the folder drizzle-kit writes, applied in order, once, whoever starts first. A store newer than this program is refused. */
import { fileURLToPath } from 'node:url'
import { sql } from 'drizzle-orm'
import { readMigrationFiles } from 'drizzle-orm/migrator'
import { StartupError } from '../errors.ts'
import { type Driver, order } from './driver.ts'
import { query, rows, type Script } from './script.ts'

/** The number of the advisory lock that lets one node migrate at a time: "ringback" has no number of its own, so this is one. */
const MIGRATION_LOCK = 7_319_640_201

/**
 * Brings the store up to this program's schema and answers how many migrations were applied.
 * @throws StartupError when the store was migrated by a newer program.
 */
export function migrate(driver: Driver): Promise<number> {
  const folder = fileURLToPath(new URL(`../../migrations/${driver.dialect.name}`, import.meta.url))
  const files = readMigrationFiles({ migrationsFolder: folder })
  return driver.write(order.other, function* (): Script<number> {
    if (driver.dialect.name === 'postgres') yield query(() => sql`select pg_advisory_xact_lock(${MIGRATION_LOCK})`)
    yield query(() => sql`create table if not exists migrations (hash text primary key, made_at bigint not null)`)
    const done = new Set((yield* rows<{ hash: string }>(query(() => sql`select hash from migrations`))).map(({ hash }) => hash))
    const known = new Set(files.map(({ hash }) => hash))
    const foreign = [...done].filter((hash) => !known.has(hash))
    if (foreign.length > 0)
      throw new StartupError(
        `the database was migrated by a newer version of Ringback (${foreign.length} migration${foreign.length === 1 ? '' : 's'} unknown to this one); upgrade this node`,
      )
    let applied = 0
    for (const { hash, folderMillis, sql: statements } of files) {
      if (done.has(hash)) continue
      for (const text of statements) if (text.trim()) yield query(() => sql.raw(text))
      yield query(() => sql`insert into migrations (hash, made_at) values (${hash}, ${folderMillis})`)
      applied++
    }
    return applied
  })
}
