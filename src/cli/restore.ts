/** `ringback restore`: replaces a SQLite store with a copy. */
import { Command } from 'commander'
import { parseConfig } from '../config/config.ts'
import { print } from './print.ts'

interface RestoreFlags {
  readonly from: string
  readonly overwrite?: boolean
  readonly databaseUrl?: string
}

export function restoreCommand(): Command {
  return new Command('restore')
    .description('restore a copy of a SQLite database that no server uses')
    .requiredOption('--from <file>', 'the copy')
    .option('--overwrite', 'replace the existing database for good')
    .option('--database-url <url>', 'file:…, the database to restore')
    .action(async ({ from, overwrite = false, databaseUrl }: RestoreFlags) => {
      const config = parseConfig({ env: process.env, options: databaseUrl === undefined ? {} : { databaseUrl } })
      const { restoreDatabase } = await import('./operations.ts')
      const { path, pendingMigrations: behind } = await restoreDatabase(config, from, overwrite)
      const older =
        behind === 0 ? '' : ` It is of an older version: the next start applies ${behind} ${behind === 1 ? 'migration' : 'migrations'}.`
      await print(
        `${path} is restored to the state of ${from}.${older} Later changes are lost: tasks that have ended since then run again, and their webhooks are sent again.\n`,
      )
    })
}
