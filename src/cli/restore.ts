/** `ringback restore`: a copy becomes the store again. */
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
    .description('put a copy of a SQLite database where no server runs on it')
    .requiredOption('--from <file>', 'the copy')
    .option('--overwrite', 'replace the database that is there, for good')
    .option('--database-url <url>', 'file:…: where it goes')
    .action(async ({ from, overwrite = false, databaseUrl }: RestoreFlags) => {
      const config = parseConfig({ env: process.env, options: databaseUrl === undefined ? {} : { databaseUrl } })
      // Loaded here, so that --help and --version need nothing native.
      const { restoreDatabase: restore } = await import('./operations.ts')
      const { path, pendingMigrations: behind } = await restore(config, from, overwrite)
      const older =
        behind === 0 ? '' : ` It is of an older version: the next start applies ${behind} ${behind === 1 ? 'migration' : 'migrations'}.`
      await print(
        `${path} is as it was when ${from} was made.${older} What has happened since is not in it: tasks that had ended since run again, and their webhooks are sent again.\n`,
      )
    })
}
