/** `ringback backup`: a copy of a SQLite store, beside a running server. */
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
    .description('copy a SQLite database, beside a running server too')
    .requiredOption('--to <file>', 'where the copy goes')
    .option('--overwrite', 'replace a file that is there')
    .option('--database-url <url>', 'file:…')
    .action(async ({ to, overwrite = false, databaseUrl }: BackupFlags) => {
      const config = parseConfig({ env: process.env, options: databaseUrl === undefined ? {} : { databaseUrl } })
      // Loaded here, so that --help and --version need nothing native.
      const { backupDatabase: backup } = await import('./operations.ts')
      const { bytes } = await backup(config, to, overwrite)
      await print(`${to} is a sound copy of ${bytes.toLocaleString('en-US')} bytes. The master key is not in it: keep it apart.\n`)
    })
}
