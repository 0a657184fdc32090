/** `ringback clients`: creates and lists clients in the database, without the API. */
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
      .description('create a client and a key with all client scopes; the key is printed only this once')
      .argument('<name>', '1 to 200 characters')
      .option(...database)
      .action((name: string, flags: ClientsFlags) => {
        if (!/^\P{C}{1,200}$/u.test(name))
          throw new StartupError(`the name ${JSON.stringify(name)} must have 1 to 200 printable characters.`)
        return withClients(flags, async (admin) => {
          const { client, key } = await admin.create(name)
          process.stdout.write(`${client.id}\n${key}\n`)
        })
      }),
  )
  clients.addCommand(
    new Command('list')
      .description('list all clients')
      .option(...database)
      .action((flags: ClientsFlags) =>
        withClients(flags, async (admin) => {
          for await (const { id, status, name } of admin.list()) process.stdout.write(`${id}  ${status.padEnd(9)}  ${name}\n`)
        }),
      ),
  )
  return clients
}

async function withClients(flags: ClientsFlags, act: (admin: ClientAdmin) => Promise<void>): Promise<void> {
  // The secrets are not needed here, but in development `serve` refuses a database that has no secrets beside it.
  const config = loadDevelopmentSecrets(parseConfig({ env: process.env, options: flags }), systemClock())
  const { openClientAdmin } = await import('./store-admin.ts')
  const admin = await openClientAdmin(config)
  try {
    await act(admin)
  } finally {
    await admin.close()
  }
}
