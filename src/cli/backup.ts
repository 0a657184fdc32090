/** `ringback backup`: copies a SQLite store, also while a server runs. */
import { Command } from 'commander'
import { parseConfig } from '../config/config.ts'
import { print } from './print.ts'

interface BackupFlags {
  readonly to: string
  readonly overwrite?: boolean
  readonly databaseUrl?: string
}

export function backupCommand(): Command {
  return new Command('backup')
    .description('copy a SQLite database, also while a server runs')
    .requiredOption('--to <file>', 'the copy')
    .option('--overwrite', 'replace an existing file')
    .option('--database-url <url>', 'file:…')
    .action(async ({ to, overwrite = false, databaseUrl }: BackupFlags) => {
      const config = parseConfig({ env: process.env, options: databaseUrl === undefined ? {} : { databaseUrl } })
      const { backupDatabase } = await import('./operations.ts')
      const { bytes } = await backupDatabase(config, to, overwrite)
      await print(
        `${to} is a checked copy of ${bytes.toLocaleString('en-US')} bytes. It does not contain the master key: back that up separately.\n`,
      )
    })
}
