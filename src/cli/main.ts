/** The command line. Each command has its own file, and imports the platform on demand: --help and --version need nothing native. */
import { readFileSync } from 'node:fs'
import { Command, CommanderError } from 'commander'
import { StartupError } from '../core/errors.ts'
import { auditCommand } from './audit.ts'
import { backupCommand } from './backup.ts'
import { clientsCommand } from './clients.ts'
import { keysCommand } from './keys.ts'
import { migrateCommand } from './migrate.ts'
import { restoreCommand } from './restore.ts'
import { serveCommand } from './serve.ts'

/** Runs a command; `args` are without Node and script. Returns the exit code: 0, or 1 after an error or a failed check. */
export async function runCli(args: readonly string[]): Promise<number> {
  let code = 0
  const program = new Command('ringback')
    .description('A webhook-first async task platform: a task goes in over HTTP, runs, and rings back with a signed webhook.')
    .version(version())
    // Options after a command belong to it: the id of a key may begin with -V.
    .enablePositionalOptions()
    .addHelpText('after', '\nSettings come from RINGBACK_* variables; options override them.')
  const audit = auditCommand((exitCode) => {
    code = exitCode
  })
  const commands = [serveCommand(), migrateCommand(), clientsCommand(), keysCommand(), audit, backupCommand(), restoreCommand()]
  for (const command of commands) program.addCommand(command.copyInheritedSettings(program))
  try {
    throwInsteadOfExiting(program)
    await program.parseAsync(args, { from: 'user' })
    return code
  } catch (error) {
    if (error instanceof CommanderError) return error.exitCode
    if (!(error instanceof StartupError)) throw error
    process.stderr.write(`ringback: ${error.message}\n`)
    return 1
  }
}

/** By default each Commander command exits the process on an error. */
function throwInsteadOfExiting(command: Command): void {
  command.exitOverride()
  command.commands.forEach(throwInsteadOfExiting)
}

function version(): string {
  const text = readFileSync(new URL('../../package.json', import.meta.url), 'utf8')
  return (JSON.parse(text) as { version: string }).version
}
