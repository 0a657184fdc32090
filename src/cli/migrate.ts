/** `ringback migrate`: brings the database to this version's schema and ends. */
import { Command } from 'commander'
import { loadDevelopmentSecrets, parseConfig } from '../config/config.ts'
import { systemClock } from '../core/clock.ts'

export function migrateCommand(): Command {
  return new Command('migrate')
    .description('bring the database to the schema of this version (serve does so by itself when it starts)')
    .option('--database-url <url>', 'file:… or postgres://…')
    .action(async (given: { databaseUrl?: string }) => {
      // Without need of them: in development a database that is made here is to have its secrets beside it, or serve would take it for another's.
      const config = loadDevelopmentSecrets(parseConfig({ env: process.env, options: given }), systemClock())
      // Loaded here, so that --help and --version need nothing native.
      const { migrate } = await import('./store-admin.ts')
      const { applied } = await migrate(config)
      process.stdout.write(
        applied === 0 ? 'The database is up to date.\n' : `${applied} ${applied === 1 ? 'migration' : 'migrations'} applied.\n`,
      )
    })
}
