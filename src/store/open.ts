/** Opens a store: selects the driver by URL, migrates, and binds the scripts to the nine interfaces. */
import { closeSync, mkdirSync, openSync } from 'node:fs'
import { dirname } from 'node:path'
import type { Clock } from '../core/clock.ts'
import { StartupError } from '../core/errors.ts'
import { bindAccess } from './bind/access.ts'
import { type BindingOptions, createBinding } from './bind/binding.ts'
import { bindDeliveries } from './bind/deliveries.ts'
import { bindEndpoints } from './bind/endpoints.ts'
import { bindEvents } from './bind/events.ts'
import { bindMaintenance } from './bind/maintenance.ts'
import { bindNotifications } from './bind/notifications.ts'
import { bindSchedules } from './bind/schedules.ts'
import { bindSigning } from './bind/signing.ts'
import { bindTasks } from './bind/tasks.ts'
import type { Driver } from './driver.ts'
import type { Store } from './interfaces.ts'
import { migrate } from './migrate.ts'
import { now } from './script.ts'

export interface StoreOptions extends BindingOptions {
  /** `file:<path>` or `postgres://…` */
  readonly url: string
  /** SQLite: owns the store, so that a second owner is refused. */
  readonly exclusive?: boolean
}

/** @throws StartupError when the database cannot be opened, is owned by another process, or was migrated by a newer program. */
export async function openStore(options: StoreOptions): Promise<Store> {
  const { driver, disown } = await connect(options)
  try {
    await migrate(driver)
  } catch (error) {
    await driver.close()
    disown()
    throw error
  }
  return bindStore(driver, options, disown)
}

/** Migrates and closes. Returns how many migrations it applied. */
export async function migrateStore(options: { readonly url: string; readonly clock: Clock }): Promise<number> {
  const { driver, disown } = await connect({ ...options, publicUrl: () => '', retrySchedule: [] })
  try {
    return await migrate(driver)
  } finally {
    await driver.close()
    disown()
  }
}

async function connect({ url, clock, exclusive, events }: StoreOptions): Promise<{ driver: Driver; disown: () => void }> {
  // Only the driver in use is loaded.
  if (/^postgres(ql)?:\/\//.test(url)) {
    const { openPostgres } = await import('./postgres.ts')
    return { driver: await openPostgres(url, clock, (error) => events?.emit('trouble', { error })), disown: () => {} }
  }
  if (!url.startsWith('file:')) throw new StartupError(`the database URL "${url}" is neither file:<path> nor postgres://…`)
  const file = url.slice('file:'.length)
  try {
    mkdirSync(dirname(file), { recursive: true })
    // Readable by its user only: it holds the data of clients. SQLite creates the files beside it with the same mode.
    closeSync(openSync(file, 'a', 0o600))
  } catch (error) {
    throw new StartupError(`the database file "${file}" cannot be created: ${(error as Error).message}`)
  }
  const { openSqlite, lockSqlite } = await import('./sqlite.ts')
  const disown = exclusive ? lockSqlite(file) : () => {}
  try {
    return { driver: openSqlite(file, clock), disown }
  } catch (error) {
    disown()
    throw error
  }
}

/** A store on any driver. `disown` is called after the store has closed. */
export function bindStore(driver: Driver, options: BindingOptions, disown: () => void): Store {
  const binding = createBinding(driver, options)
  const { local, notifications } = bindNotifications(driver)
  return {
    tasks: bindTasks(binding, local),
    deliveries: bindDeliveries(binding),
    events: bindEvents(binding),
    endpoints: bindEndpoints(binding),
    schedules: bindSchedules(binding),
    access: bindAccess(binding),
    signing: bindSigning(binding),
    maintenance: bindMaintenance(binding),
    notifications,
    now: () => binding.read(now),
    get refusal() {
      return driver.writeError
    },
    async close() {
      await driver.close()
      disown()
    },
  }
}
