/** `ringback migrate`: migrates the database to the schema of this version. */
import { Command } from 'commander'
import { loadDevelopmentSecrets, parseConfig } from '../config/config.ts'
import { systemClock } from '../core/clock.ts'

export function migrateCommand(): Command {
  return new Command('migrate')
    .description('migrate the database to the schema of this version (serve does so too when it starts)')
    .option('--database-url <url>', 'file:… or postgres://…')
    .action(async (given: { databaseUrl?: string }) => {
      // The secrets are not needed here, but in development `serve` refuses a database that has no secrets beside it.
      const config = loadDevelopmentSecrets(parseConfig({ env: process.env, options: given }), systemClock())
      const { migrate } = await import('./store-admin.ts')
      const { applied } = await migrate(config)
      process.stdout.write(
        applied === 0 ? 'The database is up to date.\n' : `${applied} ${applied === 1 ? 'migration' : 'migrations'} applied.\n`,
      )
    })
}
