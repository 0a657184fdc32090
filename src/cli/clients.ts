/** `ringback clients`: a first client and its key without curl, on the database itself. */
import { Command } from 'commander'
import { loadDevelopmentSecrets, parseConfig } from '../config/config.ts'
import { systemClock } from '../core/clock.ts'
import { StartupError } from '../core/errors.ts'
import type { ClientAdmin } from './store-admin.ts'

interface ClientsFlags {
  readonly databaseUrl?: string
}

export function clientsCommand(): Command {
  const clients = new Command('clients').description('clients and their keys')
  const database = ['--database-url <url>', 'file:… or postgres://…'] as const
  clients.addCommand(
    new Command('create')
      .description('make a client, and a key with every scope of a client, shown this once')
      .argument('<name>', 'what people call it')
      .option(...database)
      .action((name: string, given: ClientsFlags) => {
        if (!/^\P{C}{1,200}$/u.test(name)) throw new StartupError(`the name ${JSON.stringify(name)} does not do: give 1 to 200 characters.`)
        return withClients(given, async (admin) => {
          const { client, key } = await admin.create(name)
          process.stdout.write(`${client.id}\n${key}\n`)
        })
      }),
  )
  clients.addCommand(
    new Command('list')
      .description('show them all')
      .option(...database)
      .action((given: ClientsFlags) =>
        withClients(given, async (admin) => {
          for await (const { id, status, name } of admin.list()) process.stdout.write(`${id}  ${status.padEnd(9)}  ${name}\n`)
        }),
      ),
  )
  return clients
}

async function withClients(given: ClientsFlags, act: (admin: ClientAdmin) => Promise<void>): Promise<void> {
  // Without need of them: in development a database that is made here is to have its secrets beside it, or serve would take it for another's.
  const config = loadDevelopmentSecrets(parseConfig({ env: process.env, options: given }), systemClock())
  // Loaded here, so that --help and --version need nothing native.
  const { openClientAdmin } = await import('./store-admin.ts')
  const admin = await openClientAdmin(config)
  try {
    await act(admin)
  } finally {
    await admin.close()
  }
}
