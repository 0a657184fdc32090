/** Applies the migrations that drizzle-kit writes, in order and once, also when several nodes start together. */
import { fileURLToPath } from 'node:url'
import { type MigrationMeta, readMigrationFiles } from 'drizzle-orm/migrator'
import { StartupError } from '../core/errors.ts'
import { type Driver, writePriority } from './driver.ts'
import { type Dialect, execute, first, query, rows, type Script, sql } from './script.ts'

/** An arbitrary number for the advisory lock that lets one node migrate at a time. */
const MIGRATION_LOCK = 7_319_640_201

/** The migrations of this program, and the hashes of those that the store has. */
function* compare(dialect: Dialect): Script<{ readonly files: readonly MigrationMeta[]; readonly done: ReadonlySet<string> }> {
  const folder = fileURLToPath(new URL(`../../migrations/${dialect.name}`, import.meta.url))
  const files = readMigrationFiles({ migrationsFolder: folder })
  const done = new Set((yield* rows<{ hash: string }>(query(() => sql`select hash from migrations`))).map(({ hash }) => hash))
  const known = new Set(files.map(({ hash }) => hash))
  const foreign = [...done].filter((hash) => !known.has(hash)).length
  if (foreign > 0)
    throw new StartupError(
      `the database was migrated by a newer version of Ringback (${foreign} migration${foreign === 1 ? '' : 's'} unknown to this one); upgrade this node`,
    )
  return { files, done }
}

/**
 * Brings the store up to this program's schema. Returns how many migrations it applied.
 * @throws StartupError when the store was migrated by a newer program.
 */
export function migrate(driver: Driver): Promise<number> {
  return driver.write(writePriority.other, function* (): Script<number> {
    if (driver.dialect.name === 'postgres') yield query(() => sql`select pg_advisory_xact_lock(${MIGRATION_LOCK})`)
    yield query(() => sql`create table if not exists migrations (hash text primary key, made_at bigint not null)`)
    const { files, done } = yield* compare(driver.dialect)
    const missing = files.filter(({ hash }) => !done.has(hash))
    yield* execute(
      missing.flatMap(({ hash, folderMillis, sql: statements }) => [
        ...statements.filter((text) => text.trim()).map((text) => query(() => sql.raw(text))),
        query(() => sql`insert into migrations (hash, made_at) values (${hash}, ${folderMillis})`),
      ]),
    )
    return missing.length
  })
}

const findMigrations = (dialect: Dialect) =>
  dialect.name === 'postgres'
    ? query(() => sql`select to_regclass('migrations') as name`)
    : query(() => sql`select (select name from sqlite_master where type = 'table' and name = 'migrations') as name`)

/**
 * How many migrations the store lacks. Changes nothing.
 * @throws StartupError when it is not a database of Ringback, or was migrated by a newer program.
 */
export function countPendingMigrations(driver: Pick<Driver, 'dialect' | 'read'>): Promise<number> {
  return driver.read(
    (function* (): Script<number> {
      if ((yield* first<{ name: string | null }>(findMigrations(driver.dialect)))?.name == null)
        throw new StartupError('this is no database of Ringback: it has no table of migrations')
      const { files, done } = yield* compare(driver.dialect)
      return files.filter(({ hash }) => !done.has(hash)).length
    })(),
  )
}

/** @throws StartupError unless the store has this program's schema. */
export async function assertSchema(driver: Pick<Driver, 'dialect' | 'read'>): Promise<void> {
  const missing = await countPendingMigrations(driver)
  if (missing > 0)
    throw new StartupError(
      `the database has the schema of an older version of Ringback (${missing} migration${missing === 1 ? '' : 's'} behind): run ringback migrate first`,
    )
}
