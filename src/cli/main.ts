/** The command line: `ringback serve` and `ringback migrate`. */
import { readFileSync } from 'node:fs'
import { Command, CommanderError } from 'commander'
import { StartupError } from '../errors.ts'
import { migrateCommand } from './migrate.ts'
import { serveCommand } from './serve.ts'

/** Runs the command that `args` (without Node and script) name. Resolves with the exit code: 0, or 1 for what its sentence on standard error says. */
export async function run(args: readonly string[]): Promise<number> {
  const program = new Command('ringback')
    .description('A webhook-first async task platform: a task goes in over HTTP, runs, and rings back with a signed webhook.')
    .version(version())
    .addHelpText('after', '\nSettings come from RINGBACK_* variables; the options above overrule them.')
  for (const command of [serveCommand(), migrateCommand()]) program.addCommand(command.copyInheritedSettings(program))
  try {
    throwInsteadOfExiting(program)
    await program.parseAsync(args, { from: 'user' })
    return 0
  } catch (error) {
    if (error instanceof CommanderError) return error.exitCode
    if (!(error instanceof StartupError)) throw error
    process.stderr.write(`ringback: ${error.message}\n`)
    return 1
  }
}

/** Commander ends the process by itself unless it is told not to, and each command must be told. */
function throwInsteadOfExiting(command: Command): void {
  command.exitOverride()
  command.commands.forEach(throwInsteadOfExiting)
}

function version(): string {
  const text = readFileSync(new URL('../../package.json', import.meta.url), 'utf8')
  return (JSON.parse(text) as { version: string }).version
}
