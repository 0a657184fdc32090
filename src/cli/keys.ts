/** `ringback keys`: lists, rotates and revokes the keys that sign webhooks, also while servers run. */
import { Command } from 'commander'
import { loadDevelopmentSecrets, parseConfig } from '../config/config.ts'
import { systemClock } from '../core/clock.ts'
import type { SigningKeyAdmin } from './store-admin.ts'

interface KeysFlags {
  readonly databaseUrl?: string
}

export function keysCommand(): Command {
  const keys = new Command('keys').description('the keys that sign webhooks')
  const add = (signature: string, description: string, act: (admin: SigningKeyAdmin, id: string) => Promise<void>): void => {
    const command = new Command(signature.split(' ')[0]!)
      .description(description)
      .option('--database-url <url>', 'file:… or postgres://…')
      .action(async (...args: unknown[]) => {
        const [id, flags] = (signature.includes('<') ? args : ['', ...args]) as [string, KeysFlags]
        await withKeys(flags, (admin) => act(admin, id))
      })
    // An id is base64url (RFC 7638) and may begin with a dash, like an option.
    if (signature.includes('<')) command.argument('<kid>', 'the id of the key').allowUnknownOption().helpOption('--help')
    keys.addCommand(command)
  }
  add('list', 'list all signing keys', print)
  add('rotate', 'activate the next key once it has been published for 24 hours', async (admin) => {
    await admin.rotate()
    await print(admin)
  })
  add('revoke <kid>', 'stop using and publishing a key now, in an emergency', async (admin, id) => {
    await admin.revoke(id)
    await print(admin)
  })
  return keys
}

async function withKeys(flags: KeysFlags, act: (admin: SigningKeyAdmin) => Promise<void>): Promise<void> {
  const config = loadDevelopmentSecrets(parseConfig({ env: process.env, options: flags }), systemClock())
  const { openSigningKeyAdmin } = await import('./store-admin.ts')
  const admin = await openSigningKeyAdmin(config)
  try {
    await act(admin)
  } finally {
    await admin.close()
  }
}

async function print(admin: SigningKeyAdmin): Promise<void> {
  const day = (at: number | null): string => (at === null ? '' : new Date(at).toISOString())
  for (const key of await admin.list()) {
    const notes = [
      `published ${day(key.publishedAt)}`,
      key.signsFrom === null ? '' : `signs from ${day(key.signsFrom)}`,
      key.leavesAt === null ? '' : `leaves ${day(key.leavesAt)}`,
    ]
    process.stdout.write(`${key.id}  ${key.state.padEnd(8)}  ${notes.filter((note) => note !== '').join(', ')}\n`)
  }
}
