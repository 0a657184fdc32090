/** Opens a store: picks the driver by the URL, migrates, and binds each script to a method. */
import { mkdirSync } from 'node:fs'
import { dirname } from 'node:path'
import { batch } from '../batch.ts'
import type { Clock } from '../clock.ts'
import { RingbackError, StartupError } from '../errors.ts'
import { newId } from '../id.ts'
import type { Delivery, Endpoint, Task } from '../model.ts'
import { type Driver, type Order, order } from './driver.ts'
import { migrate } from './migrate.ts'
import { openPostgres } from './postgres.ts'
import { first, type Script } from './script.ts'
import * as clients from './scripts/clients.ts'
import * as deliveries from './scripts/deliveries.ts'
import * as endpoints from './scripts/endpoints.ts'
import * as intake from './scripts/intake.ts'
import { claim, mend, type Slots } from './scripts/lanes.ts'
import * as leases from './scripts/leases.ts'
import * as lists from './scripts/lists.ts'
import type { View } from './scripts/outbox.ts'
import { newRound } from './scripts/share.ts'
import * as tasks from './scripts/tasks.ts'
import { openSqlite, ownSqlite } from './sqlite.ts'
import type { DeliverySettlement, Found, Intake, Owed, Progress, Settled, Settlement, Starter, Store, Submitted } from './store.ts'

export interface StoreOptions {
  /** `file:<path>` or `postgres://…` */
  readonly url: string
  readonly clock: Clock
  /** The base of the links in event bodies. */
  readonly publicUrl: () => string
  /** The installation's delays before each retry of a delivery, in seconds. */
  readonly retrySchedule: readonly number[]
  /** Owns the store (SQLite): a second owner is refused. */
  readonly owner?: boolean
  /** Told of trouble that repairs itself: a lost connection, say. */
  readonly onError?: (error: Error) => void
}

/** Items and bytes one merged statement carries, and intake that may wait for it. */
const MOST_ITEMS = 500
const MOST_BYTES = 8 * 1024 * 1024
const MOST_WAITING_INTAKE = 5_000

/** What a word about a cancel begins with. */
const CANCEL = 'cancel:'

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
  return bind(driver, options, disown)
}

/** Migrates and closes; answers how many migrations were applied. */
export async function migrateStore(options: Pick<StoreOptions, 'url' | 'clock'>): Promise<number> {
  const { driver, disown } = await connect({ ...options, publicUrl: () => '', retrySchedule: [] })
  try {
    return await migrate(driver)
  } finally {
    await driver.close()
    disown()
  }
}

async function connect({ url, clock, owner, onError }: StoreOptions): Promise<{ driver: Driver; disown: () => void }> {
  if (/^postgres(ql)?:\/\//.test(url)) return { driver: await openPostgres(url, clock, onError ?? (() => {})), disown: () => {} }
  if (!url.startsWith('file:')) throw new StartupError(`the database URL "${url}" is neither file:<path> nor postgres://…`)
  const file = url.slice('file:'.length)
  try {
    mkdirSync(dirname(file), { recursive: true })
  } catch (error) {
    throw new StartupError(`the folder of the database file "${file}" cannot be made: ${(error as Error).message}`)
  }
  const disown = owner ? ownSqlite(file) : () => {}
  try {
    return { driver: openSqlite(file, clock), disown }
  } catch (error) {
    disown()
    throw error
  }
}

function bind(driver: Driver, { clock, publicUrl, retrySchedule }: StoreOptions, disown: () => void): Store {
  const view: View = { publicUrl, retrySchedule, newId: (prefix) => newId(clock, prefix), limited: new Set() }
  const rounds = { task: newRound(), delivery: newRound() }
  const read = driver.read.bind(driver)
  const write = <R>(make: () => Script<R>, place: Order = order.other): Promise<R> => driver.write(place, make).catch(storeDown)
  const merged = <Item, Answer>(
    place: Order,
    script: (items: readonly Item[]) => Script<readonly Answer[]>,
    size: (item: Item) => number,
  ): ((item: Item) => Promise<Answer>) => gathered((take) => driver.write(place, () => script(take())), size)
  /** As `merged`, with slots lent by the pump of `kind`: what the script started runs once its transaction has committed. */
  const starting = <Item, Answer, W>(
    place: Order,
    starter: () => Starter<W> | null,
    script: (
      items: readonly Item[],
      slots: Slots | null,
    ) => Script<{ readonly answers: readonly Answer[]; readonly started: readonly W[] }>,
    size: (item: Item) => number,
    waiting?: number,
  ): ((item: Item) => Promise<Answer>) =>
    gathered(
      async (take) => {
        const lender = starter()
        let slots: Slots | null = null
        try {
          const { answers, started } = await driver.write(place, () => {
            const items = take()
            if (lender) slots ??= { by: lender.by, leaseMs: lender.leaseMs, count: lender.reserve(items.length) }
            return script(items, slots)
          })
          lender?.start(started)
          return answers
        } finally {
          lender?.release((slots as Slots | null)?.count ?? 0)
        }
      },
      size,
      waiting,
    )
  const gathered = <Item, Answer>(
    run: (take: () => readonly Item[]) => Promise<readonly Answer[]>,
    size: (item: Item) => number,
    waiting = Infinity,
  ): ((item: Item) => Promise<Answer>) => {
    const add = batch<Item, Answer>(
      {
        run,
        // A row that holds no JSON where it should is one item's fault too.
        blames: (error) => error instanceof SyntaxError || driver.blames(error),
        width: driver.width,
      },
      {
        most: MOST_ITEMS,
        mostBytes: MOST_BYTES,
        size,
        waiting,
        refuse: () =>
          new RingbackError('temporary_reduced_capacity', 'Too many requests wait to be stored; try again in a second.', {
            headers: { 'retry-after': '1' },
          }),
      },
    )
    return (item) => add(item).catch(storeDown)
  }

  const changed = (task: Task): void => driver.tell(task.id)

  let taskStarter: Starter<Task> | null = null
  let startedTypes: ReadonlySet<string> = new Set()
  let deliveryStarter: Starter<Owed> | null = null
  const addTasks = starting<Intake, Submitted, Task>(
    order.intake,
    () => taskStarter,
    (items, slots) => intake.addTasks(items, view, slots, startedTypes),
    ({ tasks }) => tasks.reduce((bytes, task) => bytes + task.input.length + 600, 0),
    MOST_WAITING_INTAKE,
  )
  const settleTask = starting<Settlement, Settled<Task>, Owed>(
    order.settlement,
    () => deliveryStarter,
    (items, slots) => tasks.settleTasks(items, view, slots),
    ({ outcome }) => 600 + (outcome.kind === 'complete' ? (outcome.result?.length ?? 0) : 0),
  )
  const reportProgress = merged<Progress, Awaited<ReturnType<Store['reportProgress']>>>(
    order.settlement,
    (items) => tasks.reportProgress(items, view),
    () => 200,
  )
  const settleDelivery = merged<DeliverySettlement, Awaited<ReturnType<Store['settleDelivery']>>>(
    order.settlement,
    (items) => deliveries.settleDeliveries(items, view),
    ({ attempt }) => 600 + (attempt?.responseHeaders.length ?? 0) + (attempt?.responseExcerpt?.length ?? 0),
  )

  return {
    now: () => read(now()),
    startTasks(starter, types) {
      taskStarter = starter
      startedTypes = types
    },
    startDeliveries(starter) {
      deliveryStarter = starter
    },

    addTasks,
    findSubmitted: (idempotency) => read(intake.findSubmitted(idempotency)),
    countOpenTasks: () => read(lists.countOpenTasks()),
    async findTask(id, clientId) {
      return read(
        (function* (): Script<Found<Task>> {
          const task = yield* first<Task>(tasks.readTask({ id, clientId }))
          if (task) return { kind: 'found', value: task }
          return { kind: (yield* tasks.isErased(id, clientId)) ? 'gone' : 'missing' }
        })(),
      )
    },
    findTasks: (ids) => read(intake.findTasks(ids)),
    callbackStatuses: (list) => read(lists.callbackStatuses(list)),
    listTasks: (query) => read(lists.listTasks(query)),
    async cancelTask(id, clientId) {
      const answer = await write(() => tasks.cancelTask(id, clientId, view))
      if (answer.kind === 'changed') {
        changed(answer.task)
        if (answer.task.state === 'running') driver.tell(CANCEL + id)
      }
      return answer
    },
    async redoTask(id, clientId) {
      const answer = await write(() => tasks.redoTask(id, clientId))
      if (answer.kind === 'changed') changed(answer.task)
      return answer
    },
    eraseTask: (id, clientId) => write(() => tasks.eraseTask(id, clientId)),
    async claimTasks({ limit, leaseMs, by, types }) {
      const queues = types.map(({ type, concurrency }) => ({ id: tasks.queueOf(type), cap: concurrency }))
      for (const { id, cap } of queues) if (cap !== null) view.limited.add(id)
      const { taken, ...rest } = await write(() => claim(tasks.takingTasks(leaseMs, by, view), queues, limit, rounds.task), order.claim)
      const items = taken.filter((task) => task.state === 'running')
      return { ...rest, items }
    },
    async settleTask(settlement) {
      const answer = await settleTask(settlement)
      if (answer.kind === 'settled') changed(answer.value)
      return answer
    },
    async reportProgress(progress) {
      const answer = await reportProgress(progress)
      if (answer.kind === 'settled') changed(answer.value)
      return answer
    },

    async claimDeliveries({ limit, leaseMs, by }) {
      const queues = [{ id: deliveries.DELIVERIES, cap: null }]
      const { taken, ...rest } = await write(
        () => claim(deliveries.takingDeliveries(leaseMs, by), queues, limit, rounds.delivery),
        order.claim,
      )
      return { ...rest, items: taken }
    },
    settleDelivery,
    findDelivery: (id, clientId) => read(first<Delivery>(deliveries.readDelivery({ id, clientId }))),
    listDeliveries: (query) => read(lists.listDeliveries(query)),
    listAttempts: (ids) => read(deliveries.listAttempts(ids)),
    redeliver: (id, made, clientId) => write(() => deliveries.redeliver(id, made, clientId, view)),
    addPing: (ping) => write(() => deliveries.addPing(ping, view)),
    listEvents: (query) => read(lists.listEvents(query)),
    findEventSeq: (id, clientId) => read(lists.findEventSeq(id, clientId)),

    renew: (kind, held, leaseMs) => write(() => leases.renew(kind, held, leaseMs), order.renewal),
    findExpiredTasks: (limit, boot) => read(leases.findExpired('task', limit, boot)) as Promise<readonly Task[]>,
    findExpiredDeliveries: (limit, boot) => read(leases.findExpired('delivery', limit, boot)) as Promise<readonly Delivery[]>,
    endOverdue: (limit, graceMs) => write(() => tasks.endOverdue(limit, graceMs, view)),
    mendLanes: (kind) => write(() => mend(kind)),

    addEndpoint: (endpoint) => write(() => endpoints.addEndpoint(endpoint)),
    findEndpoint: (id, clientId) => read(first<Endpoint>(endpoints.readEndpoint({ id, clientId }))),
    listEndpoints: (clientId, limit, after) => read(lists.listEndpoints(clientId, limit, after)),
    changeEndpoint: (id, clientId, patch, revision) => write(() => endpoints.changeEndpoint(id, clientId, patch, revision)),
    removeEndpoint: (id, clientId) => write(() => endpoints.removeEndpoint(id, clientId)),

    addClient: (client) => write(() => clients.addClient(client)),
    findClient: (id) => read(clients.findClient(id)),
    listClients: (limit, after) => read(clients.listClients(limit, after)),
    changeClient: (id, status) => write(() => clients.changeClient(id, status)),
    addKey: (key) => write(() => clients.addKey(key)),
    findKey: (hash) => read(clients.findKey(hash)),
    listKeys: (clientId) => read(clients.listKeys(clientId)),
    revokeKey: (id, clientId) => write(() => clients.revokeKey(id, clientId)),

    listSigningKeys: () => read(clients.listSigningKeys()),
    addSigningKeys: (keys) => write(() => clients.addSigningKeys(keys)),
    keepSetting: (name, value) => write(() => clients.keepSetting(name, value)),

    onWork: (listener) =>
      driver.onTold((word) => {
        if (word === 'task' || word === '*') listener('task')
        if (word === 'delivery' || word === '*') listener('delivery')
      }),
    onCancelRequest: (listener) =>
      driver.onTold((word) => {
        if (word.startsWith(CANCEL)) listener(word.slice(CANCEL.length))
      }),
    onTask: (listener) =>
      driver.onTold((word) => {
        if (word.startsWith('task_')) listener(word)
      }),
    async close() {
      await driver.close()
      disown()
    },
  }
}

function* now(): Script<number> {
  return (yield* first<{ now: number }>(deliveries.readNow()))!.now
}

/** A store that cannot write answers 503: what was not committed is never acknowledged. */
function storeDown(error: unknown): never {
  if (error instanceof RingbackError || error instanceof StartupError) throw error
  throw new RingbackError('temporary_reduced_capacity', 'The store cannot take this now; nothing was changed. Try again later.', {
    headers: { 'retry-after': '5' },
    cause: error,
  })
}
