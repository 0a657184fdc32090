/** What the command line changes in a store, with or without running servers: schema, signing keys, clients. */
import { type Config, type SecuredConfig, storeUrl } from '../config/config.ts'
import { generateApiKey } from '../core/api-key.ts'
import { systemClock } from '../core/clock.ts'
import { StartupError } from '../core/errors.ts'
import { newId } from '../core/id.ts'
import { type Author, actors, type Client, clientScopes, type SigningKey } from '../core/model.ts'
import { openEncryptor, verifyMasterKey } from '../engine/reencrypt.ts'
import { migrateStore, openStore } from '../store/open.ts'
import { createKeyRing, keyTransitionTimes } from '../webhook/keys.ts'

/** Applies the migrations that the store lacks. */
export async function migrate(config: Pick<Config, 'database'>): Promise<{ applied: number }> {
  return { applied: await migrateStore({ url: storeUrl(config), clock: systemClock() }) }
}

export interface SigningKeyAdmin {
  list(): Promise<readonly (SigningKey & ReturnType<typeof keyTransitionTimes>)[]>
  rotate(): Promise<void>
  /** @throws StartupError when there is no such key. */
  revoke(id: string): Promise<void>
  close(): Promise<void>
}
const CLI_AUTHOR: Author = { actor: actors.cli, requestId: null, remoteAddress: null }
/** @throws StartupError when the store cannot be opened, or the master key is not the store's. */
export async function openSigningKeyAdmin(config: SecuredConfig): Promise<SigningKeyAdmin> {
  const clock = systemClock()
  const store = await openStore({ url: storeUrl(config), clock, publicUrl: () => '', retrySchedule: [] })
  try {
    const encryptor = openEncryptor(config, clock)
    await verifyMasterKey(store, encryptor)
    const ring = createKeyRing({ store, encryptor, clock })
    return {
      async list() {
        return (await store.signing.listKeys()).map((key) => ({ ...key, ...keyTransitionTimes(key) }))
      },
      async rotate() {
        await store.signing.requestRotation({ by: CLI_AUTHOR })
        await ring.load()
      },
      async revoke(id) {
        if ((await store.signing.revokeKey({ id, by: CLI_AUTHOR })) === null)
          throw new StartupError(`there is no signing key "${id}": ringback keys list prints all`)
        await ring.load()
      },
      close: () => store.close(),
    }
  } catch (error) {
    await store.close()
    throw error
  }
}

export interface ClientAdmin {
  /** Creates a client, and a key with every scope of a client. */
  create(name: string): Promise<{ readonly client: Client; readonly key: string }>
  list(): AsyncIterable<Client>
  close(): Promise<void>
}
/** @throws StartupError when the store cannot be opened. */
export async function openClientAdmin(config: Pick<Config, 'database'>): Promise<ClientAdmin> {
  const clock = systemClock()
  const store = await openStore({ url: storeUrl(config), clock, publicUrl: () => '', retrySchedule: [] })
  return {
    async create(name) {
      const client = await store.access.addClient({ client: { id: newId(clock, 'client'), name }, by: CLI_AUTHOR })
      const { key, hash, hint } = generateApiKey(clock)
      const made = { id: newId(clock, 'key'), clientId: client.id, name: '', hash, hint, taskTypes: null, expiresAt: null }
      await store.access.addKey({ key: { ...made, scopes: JSON.stringify(clientScopes) }, max: 1, by: CLI_AUTHOR })
      return { client, key }
    },
    async *list() {
      for (let page = await store.access.listClients(200, null); ; page = await store.access.listClients(200, page.next)) {
        yield* page.items
        if (page.next === null) return
      }
    },
    close: () => store.close(),
  }
}
