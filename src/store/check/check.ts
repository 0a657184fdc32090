/**
 * The consistency check. It reads the whole store page by page and reports violations, and what is owed to which endpoint. It writes nothing, and
 * servers may run meanwhile.
 */
import type { Clock } from '../../core/clock.ts'
import type { Millis } from '../../core/model.ts'
import type { Driver } from '../driver.ts'
import { assertSchema } from '../migrate.ts'
import { openPostgres } from '../postgres.ts'
import type { Script } from '../script.ts'
import { openSqliteReader } from '../sqlite.ts'
import { type CheckName, type CheckPage, checks, type Violation } from './checks.ts'
import { checkDeliveries, type OpenReason } from './deliveries.ts'
import { checkEvents } from './events.ts'
import { checkClients, checkFeeds, type FeedMark } from './feeds.ts'
import { checkEndpoints, checkLanes, checkStrandedLanes, checkTurns, findOwedEndpoints, type HoldReason } from './lanes.ts'
import { checkTasks } from './tasks.ts'
import { checkAttempts, checkIdempotencyKeys, checkLabels, checkSchedules, checkTombstones } from './traces.ts'

export { type CheckName as Check, checks } from './checks.ts'

type OwedReasons = Partial<Record<OpenReason | HoldReason, number>>
/** What one endpoint is owed. */
export interface OwedToEndpoint {
  readonly endpointId: string
  readonly clientId: string
  /** Null: the endpoint does not exist. */
  readonly url: string | null
  /** Open deliveries. */
  readonly open: number
  readonly oldestAt: Millis
  /** How many deliveries are open for each reason. */
  readonly reasons: Readonly<OwedReasons>
}
type Table =
  | 'tasks'
  | 'events'
  | 'deliveries'
  | 'attempts'
  | 'clients'
  | 'endpoints'
  | 'schedules'
  | 'lanes'
  | 'turns'
  | 'labels'
  | 'idempotencyKeys'
  | 'tombstones'
export interface CheckReport {
  /** Rows checked. */
  readonly counts: Readonly<Record<Table | 'liveTasks' | 'endedGenerations' | 'openDeliveries', number>>
  /** The counts are complete; `first` lists only the first ones. */
  readonly violations: {
    readonly total: number
    readonly byCheck: Readonly<Record<CheckName, number>>
    readonly first: readonly Violation[]
  }
  /** Leases that expired while no server was running. The next server takes the work back. */
  readonly lapsedLeases: number
  /** Most owed first. */
  readonly owed: readonly OwedToEndpoint[]
}

export interface CheckOptions {
  /** `file:<path>` or `postgres://…` */
  readonly url: string
  readonly clock: Clock
  /** How long after its end every running node has found an expired lease. */
  readonly leaseGraceMs: Millis
  /** How long endpoint events are kept. */
  readonly retentionMs: Millis
  /** How many violations are listed. */
  readonly limit: number
}

/** @throws StartupError when the store cannot be opened, or its schema is not this program's. */
export async function checkStore({ url, clock, ...options }: CheckOptions): Promise<CheckReport> {
  const driver = url.startsWith('file:') ? openSqliteReader(url.slice('file:'.length), clock) : await openPostgres(url, clock, () => {})
  try {
    await assertSchema(driver)
    return await runChecks(driver, options)
  } finally {
    await driver.close()
  }
}

const OWED_ENDPOINTS_PAGE = 500

/** The check itself, over any driver. */
export async function runChecks(
  driver: Pick<Driver, 'read'>,
  { leaseGraceMs, retentionMs, limit }: Omit<CheckOptions, 'url' | 'clock'>,
): Promise<CheckReport> {
  const first: Violation[] = []
  const byCheck = Object.fromEntries(Object.keys(checks).map((check) => [check, 0])) as Record<CheckName, number>
  /** Checks every page in turn. Returns the number of rows. */
  const checkAll = async <Mark, P extends CheckPage<Mark>>(
    start: NoInfer<Mark>,
    checkPage: (after: Mark) => Script<P>,
    onPage: (page: P) => void = () => {},
  ): Promise<number> => {
    let rowsChecked = 0
    for (let after = start; ; ) {
      const page: P = await driver.read(checkPage(after))
      rowsChecked += page.rowsChecked
      for (const violation of page.violations) {
        byCheck[violation.check]++
        if (first.length < limit) first.push(violation)
      }
      onPage(page)
      if (page.next === null) return rowsChecked
      after = page.next
    }
  }
  const sums = { live: 0, generations: 0, expiredLeases: 0 }
  const open = new Map<string, { clientId: string; open: number; oldestAt: Millis; reasons: OwedReasons }>()
  const counts: Record<Table, number> = {
    tasks: await checkAll(
      '',
      (after: string) => checkTasks(after, leaseGraceMs),
      (page) => {
        sums.live += page.live
        sums.generations += page.generations
        sums.expiredLeases += page.expiredLeases
      },
    ),
    events: await checkAll('', checkEvents),
    deliveries: await checkAll(
      '',
      (after: string) => checkDeliveries(after, leaseGraceMs),
      (page) => {
        sums.expiredLeases += page.expiredLeases
        for (const { endpointId, clientId, createdAt, reason } of page.open) {
          const owed = open.get(endpointId) ?? { clientId, open: 0, oldestAt: createdAt, reasons: {} }
          owed.open++
          owed.oldestAt = Math.min(owed.oldestAt, createdAt)
          owed.reasons[reason] = (owed.reasons[reason] ?? 0) + 1
          open.set(endpointId, owed)
        }
      },
    ),
    attempts: await checkAll(null, checkAttempts),
    clients: await checkAll('', (after: string) => checkClients(after, retentionMs)),
    endpoints: await checkAll('', checkEndpoints),
    schedules: await checkAll('', checkSchedules),
    lanes: await checkAll('', checkLanes),
    turns: await checkAll(0, checkTurns),
    labels: await checkAll(null, checkLabels),
    idempotencyKeys: await checkAll(null, checkIdempotencyKeys),
    tombstones: await checkAll('', checkTombstones),
  }
  await checkAll(null, (after: FeedMark | null) => checkFeeds(after, retentionMs))
  await checkAll(null, () => checkStrandedLanes())

  const owed: OwedToEndpoint[] = []
  const endpointIds = [...open.keys()]
  for (let i = 0; i < endpointIds.length; i += OWED_ENDPOINTS_PAGE) {
    const page = endpointIds.slice(i, i + OWED_ENDPOINTS_PAGE)
    const endpoints = new Map((await driver.read(findOwedEndpoints(page))).map((endpoint) => [endpoint.id, endpoint]))
    for (const endpointId of page) {
      const { reasons, ...rest } = open.get(endpointId)!
      const { url = null, hold = null } = endpoints.get(endpointId) ?? {}
      owed.push({ endpointId, ...rest, url, reasons: hold === null ? reasons : heldReasons(reasons, hold) })
    }
  }
  const openDeliveries = owed.reduce((sum, { open }) => sum + open, 0)
  return {
    counts: { ...counts, liveTasks: sums.live, endedGenerations: sums.generations, openDeliveries },
    violations: { total: Object.values(byCheck).reduce((sum, n) => sum + n, 0), byCheck, first },
    lapsedLeases: sums.expiredLeases,
    owed: owed.sort((a, b) => b.open - a.open),
  }
}

/** All deliveries except those in flight wait for what holds the endpoint. */
function heldReasons({ sending, ...others }: OwedReasons, hold: HoldReason): OwedReasons {
  const waiting = Object.values(others).reduce((sum, n) => sum + n, 0)
  return { ...(sending !== undefined && { sending }), ...(waiting > 0 && { [hold]: waiting }) }
}
