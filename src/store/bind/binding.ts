/** What the nine interfaces of the store share: transactions, merged statements, lent slots, the audit log, and the translation of driver errors. */
import { createBatcher } from '../../core/batch.ts'
import type { Clock } from '../../core/clock.ts'
import { RingbackError, StartupError, storeUnavailable } from '../../core/errors.ts'
import { newId } from '../../core/id.ts'
import type { Author, Millis } from '../../core/model.ts'
import type { EventSink } from '../../observe/events.ts'
import { type Driver, type WritePriority, writePriority } from '../driver.ts'
import type { LentSlots } from '../queue/claim.ts'
import { queueOf } from '../queue/task-types.ts'
import type { Script } from '../script.ts'
import * as audit from '../scripts/audit-log.ts'
import type { StoppedWork } from '../scripts/erasure.ts'
import type { RenderContext } from '../scripts/outbox.ts'
import type { SlotLender } from '../types.ts'

export interface BindingOptions {
  readonly clock: Clock
  /** The base of the links in event bodies. */
  readonly publicUrl: () => string
  /** The installation's delays before each retry of a delivery, in seconds. */
  readonly retrySchedule: readonly number[]
  /** How long an ended task of this type is retained. Default: a week. */
  readonly keepMs?: (type: string) => Millis
  /** Task types with a concurrency limit across nodes. */
  readonly limitedTypes?: readonly string[]
  readonly events?: EventSink
}

/** Per merged statement. */
const MAX_ITEMS = 500
const MAX_BYTES = 8 * 1024 * 1024

const REPEAT_AFTER_MS: Millis = 50
/** A read that fails after more than this is not repeated: its caller has already waited through a timeout. */
const REPEAT_WITHIN_MS: Millis = 5_000

/** What a script throws when it cannot decode a row. */
const DECODING = [SyntaxError, RangeError, TypeError]
const WEEK_MS: Millis = 7 * 86_400_000
/** Prefix of the notification that the cancel of a running task was requested. */
export const CANCEL = 'cancel:'

export interface Merging<Item> {
  readonly priority: WritePriority
  /** Approximate bytes that an item adds to a statement. */
  readonly size: (item: Item) => number
  /** Items that may wait for a statement; one more is answered 503. Default: no limit. */
  readonly maxWaiting?: number
}

export interface Binding {
  readonly render: RenderContext
  /** A read changes nothing: it is repeated once after a lost connection. If that fails too, it throws 503. */
  read<R>(make: () => Script<R>): Promise<R>
  write<R>(make: () => Script<R>, priority?: WritePriority): Promise<R>
  /** A change and its audit log entry, in one commit. Without `by` there is no entry. */
  audited<R>(by: Author | undefined, make: () => Script<R>, toRecord: (answer: R) => audit.AuditRecord | null): Promise<R>
  /** Calls that arrive while a commit runs share the next one as one statement. */
  merged<Item, Answer>(
    script: (items: readonly Item[]) => Script<readonly Answer[]>,
    merging: Merging<Item>,
  ): (item: Item) => Promise<Answer>
  /** As `merged`, with slots lent by a pump: work that the script starts runs after the commit. */
  starting<Item, Answer, W>(
    lender: () => SlotLender<W> | null,
    script: (
      items: readonly Item[],
      slots: LentSlots | null,
    ) => Script<{ readonly answers: readonly Answer[]; readonly started: readonly W[] }>,
    merging: Merging<Item>,
  ): (item: Item) => Promise<Answer>
  notify(channel: string): void
  /** Notifies of tasks that were stopped (`changed`), and of running tasks that were asked to stop. */
  notifyStopped(stopped: Pick<StoppedWork, 'changed' | 'asked'>): void
}

export function createBinding(driver: Driver, options: BindingOptions): Binding {
  const { clock, publicUrl, retrySchedule, keepMs = () => WEEK_MS, limitedTypes = [], events } = options
  const audited = auditing(clock)
  const timed = async <R>(run: () => Promise<R>, ended: (durationMs: Millis, failed: boolean) => void): Promise<R> => {
    const startedAt = clock.now()
    try {
      const answer = await run()
      ended(clock.now() - startedAt, false)
      return answer
    } catch (error) {
      ended(clock.now() - startedAt, true)
      throw error
    }
  }
  const commit = <R>(priority: WritePriority, make: () => Script<R>): Promise<R> =>
    timed(
      () => driver.write(priority, make),
      (durationMs, failed) => events?.emit('store.write', { priority, durationMs, failed }),
    )
  const write = <R>(make: () => Script<R>, priority: WritePriority = writePriority.other): Promise<R> =>
    commit(priority, make).catch(writeFailed)
  const readOrRepeat = <R>(make: () => Script<R>, repeatUntil: Millis): Promise<R> =>
    driver.read(make()).catch(async (error) => {
      if (!driver.isUnavailable(error)) throw error
      if (clock.now() >= repeatUntil) throw storeUnavailable(error, 'The store does not answer. Try again later.')
      // The other connections of the pool may be lost too. Meanwhile their ends arrive, so that the repetition gets a new connection.
      await new Promise((resolve) => clock.after(REPEAT_AFTER_MS, () => setImmediate(resolve)))
      return await readOrRepeat(make, 0)
    })
  const read = <R>(make: () => Script<R>): Promise<R> =>
    timed(
      () => readOrRepeat(make, clock.now() + REPEAT_WITHIN_MS),
      (durationMs, failed) => events?.emit('store.read', { durationMs, failed }),
    )
  const gathered = <Item, Answer>(
    run: (take: () => readonly Item[]) => Promise<readonly Answer[]>,
    { size, maxWaiting = Infinity }: Merging<Item>,
  ): ((item: Item) => Promise<Answer>) => {
    const add = createBatcher<Item, Answer>(
      {
        run,
        // A row that cannot be decoded is one item's fault too.
        isItemError: (error) => DECODING.some((kind) => error instanceof kind) || driver.isItemError(error),
        maxConcurrent: driver.maxConcurrentWrites,
      },
      { maxItems: MAX_ITEMS, maxBytes: MAX_BYTES, sizeOf: size, maxWaiting, overflowError: tooManyWaiting },
    )
    return (item) => add(item).catch(writeFailed)
  }
  return {
    render: {
      publicUrl,
      retrySchedule,
      newId: (prefix) => newId(clock, prefix),
      newChallenge: () => Buffer.from(clock.bytes(32)).toString('base64url'),
      onCorruption: (sentence) => events?.emit('trouble', { error: new Error(sentence) }),
      retentionMs: keepMs,
      limitedQueues: new Set(limitedTypes.map(queueOf)),
    },
    read,
    write,
    audited: (by, make, toRecord) => write(() => (by ? audited(by, make(), toRecord) : make())),
    merged: (script, merging) => gathered((take) => commit(merging.priority, () => script(take())), merging),
    starting: (lender, script, merging) =>
      gathered(
        (take) =>
          startLent(lender(), (lend) =>
            commit(merging.priority, () => {
              const items = take()
              return script(items, lend(items.length))
            }),
          ),
        merging,
      ),
    notify: (channel) => driver.notify(channel),
    notifyStopped({ changed, asked }) {
      for (const id of changed) driver.notify(id)
      for (const id of asked) driver.notify(CANCEL + id)
    },
  }
}

/** Runs a script with slots lent by a pump, then starts its work. Unused slots are released. */
async function startLent<Answer, W>(
  lender: SlotLender<W> | null,
  run: (lend: (count: number) => LentSlots | null) => Promise<{ readonly answers: readonly Answer[]; readonly started: readonly W[] }>,
): Promise<readonly Answer[]> {
  let slots: LentSlots | null = null
  try {
    // A repeated commit uses the slots of its first run.
    const { answers, started } = await run((max) => {
      if (lender && !slots) {
        const count = lender.reserve(max)
        slots = { leasedBy: lender.leasedBy, leaseMs: lender.leaseMs, count, allot: () => lender.allot(count) }
      }
      return slots
    })
    lender?.start(started)
    return answers
  } finally {
    lender?.release((slots as LentSlots | null)?.count ?? 0)
  }
}

/** Ids of audit log entries: within one millisecond they keep the order in which this node made them. */
function auditing(clock: Clock) {
  let stamped = { at: 0, nth: 0 }
  const newAuditId: audit.NewAuditId = (at) => {
    stamped = { at, nth: at === stamped.at ? stamped.nth + 1 : 0 }
    return newId({ stamp: () => stamped, bytes: clock.bytes }, 'audit')
  }
  return <R>(by: Author, script: Script<R>, toRecord: (answer: R) => audit.AuditRecord | null): Script<R> =>
    audit.withAuditRecord(by, script, toRecord, newAuditId)
}

const tooManyWaiting = (): RingbackError =>
  new RingbackError('temporary_reduced_capacity', 'Too many requests wait to be stored; try again in a second.', {
    headers: { 'retry-after': '1' },
  })

/** A failed write answers 503. */
function writeFailed(error: unknown): never {
  if (error instanceof RingbackError || error instanceof StartupError) throw error
  throw storeUnavailable(error, 'The store cannot take this now; nothing was changed. Try again later.')
}
