/** Opens a store: picks the driver by the URL, migrates, and binds each script to a method. */
import { closeSync, mkdirSync, openSync } from 'node:fs'
import { dirname } from 'node:path'
import { batch } from '../core/batch.ts'
import type { Clock } from '../core/clock.ts'
import { RingbackError, StartupError } from '../core/errors.ts'
import { newId } from '../core/id.ts'
import type { Author, Delivery, Endpoint, Millis, Schedule, Task } from '../core/model.ts'
import { type Driver, type WritePriority, writePriority } from './driver.ts'
import type {
  DeliverySettlement,
  Found,
  Intake,
  OwedDelivery,
  Progress,
  QuotaUse,
  QuotaWindow,
  Settled,
  Settlement,
  SlotLender,
  Store,
  Submitted,
  TaskClaim,
  Tick,
} from './interfaces.ts'
import { migrate } from './migrate.ts'
import { claim, type LentSlots, repairLanes } from './queue/claim.ts'
import { type FairCursor, newFairCursor } from './queue/fair-order.ts'
import * as leases from './queue/leases.ts'
import * as queues from './queue/task-types.ts'
import { first, now, type Script } from './script.ts'
import * as apikeys from './scripts/api-keys.ts'
import * as audit from './scripts/audit-log.ts'
import * as bulk from './scripts/bulk.ts'
import * as following from './scripts/changes.ts'
import * as clients from './scripts/clients.ts'
import * as deliveries from './scripts/deliveries.ts'
import * as sealed from './scripts/encrypted.ts'
import * as endpoints from './scripts/endpoints.ts'
import * as erasure from './scripts/erasure.ts'
import * as health from './scripts/health.ts'
import * as intake from './scripts/intake.ts'
import * as lists from './scripts/lists.ts'
import type { RenderContext } from './scripts/outbox.ts'
import { useQuotas } from './scripts/quotas.ts'
import * as replay from './scripts/replay.ts'
import * as retention from './scripts/retention.ts'
import * as schedules from './scripts/schedules.ts'
import * as signingkeys from './scripts/signing-keys.ts'
import * as tasks from './scripts/tasks.ts'

export interface StoreOptions {
  /** `file:<path>` or `postgres://…` */
  readonly url: string
  readonly clock: Clock
  /** The base of the links in event bodies. */
  readonly publicUrl: () => string
  /** The installation's delays before each retry of a delivery, in seconds. */
  readonly retrySchedule: readonly number[]
  /** How long a task of that type is kept after its end. Left out: a week. */
  readonly keepMs?: (type: string) => Millis
  /** Task types with a limit across nodes, whoever runs them. */
  readonly limitedTypes?: readonly string[]
  /** Owns the store (SQLite): a second owner is refused. */
  readonly owner?: boolean
  /** Told of trouble that repairs itself: a lost connection, say. */
  readonly onError?: (error: Error) => void
}

/** Items and bytes one merged statement carries, and intake that may wait for it. */
const MAX_ITEMS = 500
const MAX_BYTES = 8 * 1024 * 1024
const MAX_WAITING_INTAKE = 5_000

/** What a script throws over a row that it cannot read. */
const DECODING = [SyntaxError, RangeError, TypeError]
/** Sets of task types whose turns are remembered: the nodes' own, and those that workers name. */
const MAX_ROUNDS = 100

function lentBy<W>(lender: SlotLender<W>, most: number): LentSlots {
  const count = lender.reserve(most)
  return { by: lender.by, leaseMs: lender.leaseMs, count, allot: () => lender.allot(count) }
}

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
  // Of the two drivers only the one that is used is loaded.
  if (/^postgres(ql)?:\/\//.test(url)) {
    const { openPostgres } = await import('./postgres.ts')
    return { driver: await openPostgres(url, clock, onError ?? (() => {})), disown: () => {} }
  }
  if (!url.startsWith('file:')) throw new StartupError(`the database URL "${url}" is neither file:<path> nor postgres://…`)
  const file = url.slice('file:'.length)
  try {
    mkdirSync(dirname(file), { recursive: true })
    // A new one is its user's alone: it holds what clients sent. SQLite gives the files beside it the same mode.
    closeSync(openSync(file, 'a', 0o600))
  } catch (error) {
    throw new StartupError(`the database file "${file}" cannot be made: ${(error as Error).message}`)
  }
  const { openSqlite, ownSqlite } = await import('./sqlite.ts')
  const disown = owner ? ownSqlite(file) : () => {}
  try {
    return { driver: openSqlite(file, clock), disown }
  } catch (error) {
    disown()
    throw error
  }
}

const WEEK_MS: Millis = 7 * 86_400_000

/** A store over whatever carries its scripts; `disown` is called when it has closed. */
export function bind(
  driver: Driver,
  { clock, publicUrl, retrySchedule, keepMs = () => WEEK_MS, limitedTypes = [], onError }: Omit<StoreOptions, 'url'>,
  disown: () => void,
): Store {
  const view: RenderContext = {
    publicUrl,
    retrySchedule,
    newId: (prefix) => newId(clock, prefix),
    newChallenge: () => Buffer.from(clock.bytes(32)).toString('base64url'),
    trouble: (sentence) => onError?.(new Error(sentence)),
    keepMs,
    limited: new Set(limitedTypes.map(queues.queueOf)),
  }
  const deliveryRound = newFairCursor()
  const taskRounds = new Map<string, FairCursor>()
  /** Whose turn it is, for each set of types that is claimed together: else a busy type of a client would cost it its turns of others. */
  const taskRound = (types: TaskClaim['types']): FairCursor => {
    const key = types.map(({ type }) => type).join(' ')
    const round = taskRounds.get(key) ?? newFairCursor()
    taskRounds.delete(key)
    taskRounds.set(key, round)
    if (taskRounds.size > MAX_ROUNDS) for (const oldest of taskRounds.keys()) if (taskRounds.delete(oldest)) break
    return round
  }
  const read = driver.read.bind(driver)
  const write = <R>(make: () => Script<R>, place: WritePriority = writePriority.other): Promise<R> =>
    driver.write(place, make).catch(storeDown)
  let stamped = { at: 0, nth: 0 }
  /** Entries of one millisecond stand in the order they were made in here. */
  const newAuditId: audit.NewAuditId = (at) => {
    stamped = { at, nth: at === stamped.at ? stamped.nth + 1 : 0 }
    return newId({ stamp: () => stamped, bytes: clock.bytes }, 'audit')
  }
  /** An act and its entry in the audit log, in one commit; of whom is not said, nothing is kept. */
  const acted = <R>(by: Author | undefined, make: () => Script<R>, record: (answer: R) => audit.AuditRecord | null): Promise<R> =>
    write(() => (by ? audit.audited(by, make(), record, newAuditId) : make()))
  const merged = <Item, Answer>(
    place: WritePriority,
    script: (items: readonly Item[]) => Script<readonly Answer[]>,
    size: (item: Item) => number,
  ): ((item: Item) => Promise<Answer>) => gathered((take) => driver.write(place, () => script(take())), size)
  /** As `merged`, with slots lent by the pump of `kind`: what the script started runs once its transaction has committed. */
  const starting = <Item, Answer, W>(
    place: WritePriority,
    starter: () => SlotLender<W> | null,
    script: (
      items: readonly Item[],
      slots: LentSlots | null,
    ) => Script<{ readonly answers: readonly Answer[]; readonly started: readonly W[] }>,
    size: (item: Item) => number,
    waiting?: number,
  ): ((item: Item) => Promise<Answer>) =>
    gathered(
      async (take) => {
        const lender = starter()
        let slots: LentSlots | null = null
        try {
          const { answers, started } = await driver.write(place, () => {
            const items = take()
            if (lender) slots ??= lentBy(lender, items.length)
            return script(items, slots)
          })
          lender?.start(started)
          return answers
        } finally {
          lender?.release((slots as LentSlots | null)?.count ?? 0)
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
        // A row that holds no JSON, or no time, where it should is one item's fault too.
        blames: (error) => DECODING.some((kind) => error instanceof kind) || driver.blames(error),
        width: driver.width,
      },
      {
        most: MAX_ITEMS,
        mostBytes: MAX_BYTES,
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

  const changed = (task: Task): void => driver.notify(task.id)
  const ended = ({ changed, asked }: Pick<erasure.StoppedWork, 'changed' | 'asked'>): void => {
    for (const id of changed) driver.notify(id)
    for (const id of asked) driver.notify(CANCEL + id)
  }
  const taskListeners = new Set<(taskId: string) => void>()

  let taskStarter: SlotLender<Task> | null = null
  let startedTypes: intake.RunTypes = new Map()
  let deliveryStarter: SlotLender<OwedDelivery> | null = null
  const addTasks = starting<Intake, Submitted, Task>(
    writePriority.intake,
    () => taskStarter,
    (items, slots) => intake.addTasks(items, view, slots, startedTypes),
    ({ tasks }) => tasks.reduce((bytes, task) => bytes + task.input.length + 600, 0),
    MAX_WAITING_INTAKE,
  )
  const settleTask = starting<Settlement, Settled<Task>, OwedDelivery>(
    writePriority.settlement,
    () => deliveryStarter,
    (items, slots) => tasks.settleTasks(items, view, slots),
    ({ outcome }) => 600 + (outcome.kind === 'complete' ? (outcome.result?.length ?? 0) : 0),
  )
  const reportProgress = merged<Progress, Awaited<ReturnType<Store['reportProgress']>>>(
    writePriority.settlement,
    (items) => tasks.reportProgress(items, view),
    () => 200,
  )
  const settleDelivery = merged<DeliverySettlement, Awaited<ReturnType<Store['settleDelivery']>>>(
    writePriority.settlement,
    (items) => deliveries.settleDeliveries(items, view),
    ({ attempt }) => 600 + (attempt?.responseHeaders.length ?? 0) + (attempt?.responseExcerpt?.length ?? 0),
  )

  const tick = merged<Tick, boolean>(
    writePriority.intake,
    (items) => schedules.tick(items, view),
    ({ times, due }) => 600 + times.length * (due.size + 600),
  )

  const useQuota = merged<QuotaUse, QuotaWindow>(writePriority.other, useQuotas, () => 100)

  return {
    now: () => read(now()),
    get refusal() {
      return driver.refusal
    },
    startTasks(starter, types) {
      taskStarter = starter
      startedTypes = new Map(types.map(({ type, concurrency }) => [type, concurrency]))
    },
    startDeliveries(starter) {
      deliveryStarter = starter
    },

    addTasks,
    findSubmitted: (idempotency) => read(intake.findSubmitted(idempotency)),
    countOpenTasks: (after, clientId) => read(lists.countOpenTasks(after, clientId)),
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
    findRevisions: (ids) => read(following.findRevisions(ids)),
    findEndings: (list) => read(following.findTerminalEvents(list)),
    callbackStatuses: (list) => read(lists.callbackStatuses(list)),
    listTasks: (query) => read(lists.listTasks(query)),
    async cancelTask(id, clientId, by) {
      const cancel = () => tasks.cancelTask(id, clientId, view)
      const answer = await acted(audit.operatorAuthor(by, clientId), cancel, audit.taskRecord('task.cancel'))
      if (answer.kind === 'changed') {
        changed(answer.task)
        if (answer.task.state === 'running') driver.notify(CANCEL + id)
      }
      return answer
    },
    async redoTask(id, clientId, by) {
      const redo = () => tasks.redoTask(id, clientId)
      const answer = await acted(audit.operatorAuthor(by, clientId), redo, audit.taskRecord('task.retry'))
      if (answer.kind === 'changed') changed(answer.task)
      return answer
    },
    eraseTask: (id, clientId, by) =>
      acted(audit.operatorAuthor(by, clientId), () => tasks.eraseTask(id, clientId), audit.taskRecord('task.delete')),
    countBulk: (filter, after) => read(bulk.countBulk(filter, after)),
    async bulkPage(lease, filter) {
      const page = await write(() => bulk.bulkPage(lease, filter, view))
      if (page === null) return null
      ended(page)
      return page.checkpoint
    },
    async claimTasks({ limit, leaseMs, by, types }) {
      const wanted = types.map(({ type, concurrency }) => ({ id: queues.queueOf(type), cap: concurrency }))
      for (const { id, cap } of wanted) if (cap !== null) view.limited.add(id)
      const round = taskRound(types)
      const { taken, ...rest } = await write(() => claim(tasks.takingTasks(leaseMs, by, view), wanted, limit, round), writePriority.claim)
      const items = taken.filter((task) => task.state === 'running')
      // Not told to other nodes: a claim is not worth a NOTIFY.
      for (const hear of taskListeners) for (const { id } of items) hear(id)
      return { ...rest, items }
    },
    listQueues: () => read(queues.listQueues()),
    findHolds: (waiting) => read(lists.findHolds(waiting)),
    seeTypes: (types) => write(() => queues.touchTypes(types)),
    pauseType: (type, paused, by) => acted(by, () => queues.pauseQueue(type, paused), audit.taskTypeRecord(type, paused)),
    async settleTask(settlement) {
      const answer = await settleTask(settlement)
      if (answer.kind === 'settled') changed(answer.value)
      return answer
    },
    findEnded: (lease, as) => read(leases.findEnded(lease, as)),
    async reportProgress(progress) {
      const answer = await reportProgress(progress)
      if (answer.kind === 'settled') changed(answer.value)
      return answer
    },

    async claimDeliveries({ limit, leaseMs, by, allot }) {
      const queues = [{ id: deliveries.DELIVERIES, cap: null }]
      const { taken, ...rest } = await write(
        () => claim(deliveries.deliveryTable(leaseMs, by, view), queues, limit, deliveryRound, allot?.()),
        writePriority.claim,
      )
      return { ...rest, items: taken.filter((delivery) => delivery.state === 'running') }
    },
    settleDelivery,
    findDelivery: (id, clientId) => read(first<Delivery>(deliveries.readDelivery({ id, clientId }))),
    listDeliveries: (query) => read(lists.listDeliveries(query)),
    listAttempts: (ids) => read(deliveries.listAttempts(ids)),
    redeliver: (id, made, clientId, by) =>
      acted(
        audit.operatorAuthor(by, clientId),
        () => deliveries.redeliver(id, made, clientId, view),
        audit.deliveryRecord('delivery.redeliver', id),
      ),
    countReplay: (filter, after) => read(replay.countReplay(filter, after)),
    replayPage: (lease, filter) => write(() => replay.replayPage(lease, filter, view)),
    addPing: (ping, by) => acted(by, () => deliveries.addPing(ping, view), audit.deliveryRecord('endpoint.ping', ping.endpointId)),
    listEvents: (query) => read(lists.listEvents(query)),
    findSeqs: (clientIds) => read(following.findSeqs(clientIds)),
    findFeedReach: (clientId, after) => read(lists.findFeedReach(clientId, after)),
    findEventSeq: (id, clientId) => read(lists.findEventSeq(id, clientId)),

    findLanes: (ids) => read(lists.findLanes(ids)),
    tellFailing: (limit) => write(() => health.announceFailing(limit, view)),
    expireDeliveries: (limit, holdMs) => write(() => health.expireDeliveries(limit, holdMs)),

    renew: (kind, held, leaseMs) => write(() => leases.renew(kind, held, leaseMs), writePriority.renewal),
    findExpired: (limit, boot) => read(leases.findExpired(limit, boot)),
    endOverdue: (limit, graceMs) => write(() => tasks.endOverdue(limit, graceMs, view)),
    ageTasks: (after, limit, leastMs) => write(() => retention.ageTasks(after, limit, keepMs, leastMs)),
    ageNews: (after, limit, keepMs) => write(() => retention.ageNews(after, limit, keepMs)),
    forget: (limit) => write(() => retention.forget(limit)),
    sweepLanes: (after, limit) => write(() => retention.sweepLanes(after, limit)),
    mendLanes: (kind) => write(() => repairLanes(kind)),

    addEndpoint: (endpoint, most, by) =>
      acted(
        by,
        () => endpoints.addEndpoint(endpoint, most, view),
        (answer) => audit.endpointRecord('endpoint.create')(answer.kind === 'added' ? answer.value : null),
      ),
    findEndpoints: (ids) => read(endpoints.findEndpoints(ids)),
    findEndpoint: (id, clientId) => read(first<Endpoint>(endpoints.readEndpoint({ id, clientId }))),
    listEndpoints: (clientId, limit, after) => read(lists.listEndpoints(clientId, limit, after)),
    changeEndpoint: (id, clientId, patch, revision, by) =>
      acted(by, () => endpoints.changeEndpoint(id, clientId, patch, revision, view), audit.endpointChangeRecord(patch)),
    async removeEndpoint(id, clientId, by) {
      const remove = () => endpoints.removeEndpoint(id, clientId)
      return (await acted(by, remove, audit.removalRecord('endpoint.delete', id))) !== null
    },

    addSchedule: (schedule, most) => write(() => schedules.addSchedule(schedule, most)),
    findSchedule: (id, clientId) => read(first<Schedule>(schedules.readSchedule({ id, clientId }))),
    listSchedules: (clientId, limit, after) => read(schedules.listSchedules(clientId, limit, after)),
    changeSchedule: (id, clientId, patch, seen, by) =>
      acted(audit.operatorAuthor(by, clientId), () => schedules.changeSchedule(id, clientId, patch, seen), audit.scheduleRecord(patch)),
    async removeSchedule(id, clientId, by) {
      const remove = () => schedules.removeSchedule(id, clientId)
      return (await acted(audit.operatorAuthor(by, clientId), remove, audit.removalRecord('schedule.delete', id))) !== null
    },
    findDueSchedules: (types, limit, but) => read(schedules.findDueSchedules(types, limit, but)),
    tick,

    addClient: (client, by) => acted(by, () => clients.addClient(client), audit.clientRecord('client.create')),
    findClient: (id) => read(clients.findClient(id)),
    listClients: (limit, after) => read(clients.listClients(limit, after)),
    changeClient: (id, status, by) =>
      acted(by, () => clients.changeClient(id, status), audit.clientRecord(status === 'active' ? 'client.resume' : 'client.suspend')),
    async removeClient(id, by) {
      const remove = () => erasure.removeClient(id, view)
      const removed = await acted(by, remove, (answer) => audit.clientRecord('client.delete')(answer?.client ?? null))
      if (removed) ended(removed.stopped)
      return removed?.client ?? null
    },
    findDeletedClient: (after) => read(erasure.findDeletedClient(after)),
    async eraseClient(id, last) {
      const erase = () => erasure.eraseClient(id, last, view)
      const erased = await acted(audit.SYSTEM, erase, ({ client }) => audit.clientRecord('client.erase')(client))
      ended(erased)
      return erased.rest
    },
    addKey: (key, by) => acted(by, () => apikeys.addKey(key), audit.keyRecord('key.create')),
    findKey: (hash) => read(apikeys.findKey(hash)),
    listKeys: (clientId) => read(apikeys.listKeys(clientId)),
    revokeKey: (id, clientId, by) => acted(by, () => apikeys.revokeKey(id, clientId), audit.keyRecord('key.revoke')),
    rotateKey: (id, clientId, fresh, overlapMs, by) =>
      acted(
        by,
        () => apikeys.rotateKey(id, clientId, fresh, overlapMs),
        audit.keyRecord('key.rotate', { replaces: id, overlapSeconds: overlapMs / 1000 }),
      ),
    forgetKeys: (limit, keepMs) => write(() => apikeys.pruneKeys(limit, keepMs)),
    useKey: merged(writePriority.other, apikeys.touchKeys, () => 50),

    useQuota,

    listSigningKeys: () => read(signingkeys.listSigningKeys()),
    addSigningKeys: (keys) => write(() => signingkeys.addSigningKeys(keys)),
    turnKeys: async (turn) => (await acted(audit.SYSTEM, () => signingkeys.turnKeys(turn), audit.keyRotationRecord(turn))).keys,
    wantNextKey: (by) => acted(by, signingkeys.wantNextKey, audit.signingKeyRecord('signingKey.rotate', null)),
    revokeSigningKey: (id, by) => acted(by, () => signingkeys.revokeSigningKey(id), audit.signingKeyRecord('signingKey.revoke', id)),
    findSealed: (prefix, limit) => read(sealed.findEncrypted(prefix, limit)),
    erasePreviousSecrets: (limit) => write(() => sealed.erasePreviousSecrets(limit)),
    replaceSealed: (values) => write(() => sealed.replaceEncrypted(values)),
    listAudit: (query) => read(audit.listAuditLog(query)),
    forgetAudit: (limit, keepMs) => write(() => audit.pruneAuditLog(limit, keepMs)),
    keepSetting: (name, value) => write(() => clients.putSettingIfAbsent(name, value)),
    swapSetting: (name, known, value) => write(() => clients.compareAndSetSetting(name, known, value)),

    onWork: (listener) =>
      driver.onNotify((word) => {
        if (word === 'task' || word === '*') listener('task')
        if (word === 'delivery' || word === '*') listener('delivery')
      }),
    onCancelRequest: (listener) =>
      driver.onNotify((word) => {
        if (word.startsWith(CANCEL)) listener(word.slice(CANCEL.length))
      }),
    onQueues: (listener) =>
      driver.onNotify((word) => {
        if (word === queues.QUEUES || word === '*') listener()
      }),
    onSchedules: (listener) =>
      driver.onNotify((word) => {
        if (word === schedules.SCHEDULES || word === '*') listener()
      }),
    onKeys: (listener) =>
      driver.onNotify((word) => {
        if (word === signingkeys.KEYS || word === '*') listener()
      }),
    onAccess: (listener) =>
      driver.onNotify((word) => {
        if (word === '*') listener(null)
        else if (word.startsWith(apikeys.ACCESS)) listener(word.slice(apikeys.ACCESS.length))
      }),
    onTask(listener) {
      const forget = driver.onNotify((word) => {
        if (word.startsWith('task_')) listener(word)
      })
      taskListeners.add(listener)
      return () => {
        taskListeners.delete(listener)
        forget()
      }
    },
    async close() {
      await driver.close()
      disown()
    },
  }
}

/** A store that cannot write answers 503: what was not committed is never acknowledged. */
function storeDown(error: unknown): never {
  if (error instanceof RingbackError || error instanceof StartupError) throw error
  throw new RingbackError('temporary_reduced_capacity', 'The store cannot take this now; nothing was changed. Try again later.', {
    headers: { 'retry-after': '5' },
    cause: error,
  })
}
