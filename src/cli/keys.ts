/** `ringback keys`: the keys that sign webhooks, from the command line, beside a running server too. */
import { Command } from 'commander'
import { loadDevelopmentSecrets, parseConfig } from '../config/config.ts'
import { systemClock } from '../core/clock.ts'
import type { SigningKeyAdmin } from '../platform.ts'

interface KeysFlags {
  readonly databaseUrl?: string
}

export function keysCommand(): Command {
  const keys = new Command('keys').description('the keys that sign webhooks')
  const add = (signature: string, description: string, act: (keeper: SigningKeyAdmin, id: string) => Promise<void>): void => {
    const command = new Command(signature.split(' ')[0]!)
      .description(description)
      .option('--database-url <url>', 'file:… or postgres://…')
      .action(async (...args: unknown[]) => {
        const [id, given] = (signature.includes('<') ? args : ['', ...args]) as [string, KeysFlags]
        await withKeys(given, (keeper) => act(keeper, id))
      })
    // An id is base64url (RFC 7638) and may begin with a dash: what looks like an option nobody knows is one.
    if (signature.includes('<')) command.argument('<kid>', 'the id of the key').allowUnknownOption().helpOption('--help')
    keys.addCommand(command)
  }
  add('list', 'show them all', print)
  add('rotate', 'let the next key sign as soon as it has been published for 24 hours', async (keeper) => {
    await keeper.rotate()
    await print(keeper)
  })
  add('revoke <kid>', 'in an emergency: take a key out of use and out of the published set now', async (keeper, id) => {
    await keeper.revoke(id)
    await print(keeper)
  })
  return keys
}

async function withKeys(given: KeysFlags, act: (keeper: SigningKeyAdmin) => Promise<void>): Promise<void> {
  const config = loadDevelopmentSecrets(parseConfig({ env: process.env, options: given }), systemClock())
  // Loaded here, so that --help and --version need nothing native.
  const { openSigningKeyAdmin: openKeys } = await import('../platform.ts')
  const keeper = await openKeys(config)
  try {
    await act(keeper)
  } finally {
    await keeper.close()
  }
}

async function print(keeper: SigningKeyAdmin): Promise<void> {
  const day = (at: number | null): string => (at === null ? '' : new Date(at).toISOString())
  for (const key of await keeper.list()) {
    const notes = [
      `published ${day(key.publishedAt)}`,
      key.signsFrom === null ? '' : `signs from ${day(key.signsFrom)}`,
      key.leavesAt === null ? '' : `leaves ${day(key.leavesAt)}`,
    ]
    process.stdout.write(`${key.id}  ${key.state.padEnd(8)}  ${notes.filter((note) => note !== '').join(', ')}\n`)
  }
}
