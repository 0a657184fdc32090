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
import { checkDeliveries } from './deliveries.ts'
import { checkEvents } from './events.ts'
import * as places from './indexes.ts'
import { checkTasks } from './tasks.ts'

export { type CheckName as Check, checks } from './checks.ts'

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
  readonly reasons: Readonly<Partial<Record<places.OpenDeliveryReason, number>>>
}
export interface CheckReport {
  /** Rows checked. */
  readonly counts: Readonly<
    Record<
      | 'tasks'
      | 'liveTasks'
      | 'endedGenerations'
      | 'events'
      | 'deliveries'
      | 'openDeliveries'
      | 'attempts'
      | 'clients'
      | 'endpoints'
      | 'schedules'
      | 'lanes'
      | 'turns'
      | 'labels'
      | 'idempotencyKeys'
      | 'tombstones',
      number
    >
  >
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
  { leaseGraceMs: sweptWithinMs, retentionMs: keptMs, limit }: Omit<CheckOptions, 'url' | 'clock'>,
): Promise<CheckReport> {
  const sweeps = { withinMs: sweptWithinMs }
  const first: Violation[] = []
  const byCheck = Object.fromEntries(Object.keys(checks).map((check) => [check, 0])) as Record<CheckName, number>
  /** Checks every page in turn. Returns the number of rows. */
  const along = async <Mark, P extends CheckPage<Mark>>(
    start: NoInfer<Mark>,
    portion: (after: Mark) => Script<P>,
    see: (portion: P) => void = () => {},
  ): Promise<number> => {
    let looked = 0
    for (let after = start; ; ) {
      const found: P = await driver.read(portion(after))
      looked += found.rowsChecked
      for (const violation of found.violations) {
        byCheck[violation.check]++
        if (first.length < limit) first.push(violation)
      }
      see(found)
      if (found.next === null) return looked
      after = found.next
    }
  }
  const seen = { live: 0, generations: 0, lapsed: 0 }
  const debts = new Map<
    string,
    { clientId: string; open: number; oldestAt: Millis; reasons: Partial<Record<places.OpenDeliveryReason, number>> }
  >()
  const counts = {
    tasks: await along(
      '',
      (after: string) => checkTasks(after, sweeps),
      (page) => {
        seen.live += page.live
        seen.generations += page.generations
        seen.lapsed += page.expiredLeases
      },
    ),
    events: await along('', checkEvents),
    deliveries: await along(
      '',
      (after: string) => checkDeliveries(after, sweeps),
      (page) => {
        seen.lapsed += page.expiredLeases
        for (const open of page.open) {
          const debt = debts.get(open.endpointId) ?? { clientId: open.clientId, open: 0, oldestAt: open.createdAt, reasons: {} }
          debt.open++
          debt.oldestAt = Math.min(debt.oldestAt, open.createdAt)
          debt.reasons[open.reason] = (debt.reasons[open.reason] ?? 0) + 1
          debts.set(open.endpointId, debt)
        }
      },
    ),
    attempts: await along(null, places.checkAttempts),
    clients: await along('', (after: string) => places.checkClients(after, keptMs)),
    endpoints: await along('', places.checkEndpoints),
    schedules: await along('', places.checkSchedules),
    lanes: await along('', places.checkLanes),
    turns: await along(0, places.checkTurns),
    labels: await along(null, places.checkLabels),
    idempotencyKeys: await along(null, places.checkIdempotencyKeys),
    tombstones: await along('', places.checkTombstones),
  }
  await along(null, (after: places.FeedMark | null) => places.checkFeeds(after, keptMs))
  await along(null, () => places.checkStrandedLanes())

  const owed: OwedToEndpoint[] = []
  const ids = [...debts.keys()]
  for (let i = 0; i < ids.length; i += OWED_ENDPOINTS_PAGE) {
    const some = ids.slice(i, i + OWED_ENDPOINTS_PAGE)
    const owedEndpoints = new Map((await driver.read(places.findOwedEndpoints(some))).map((endpoint) => [endpoint.id, endpoint]))
    for (const endpointId of some) {
      const { reasons, ...debt } = debts.get(endpointId)!
      const { url = null, hold = null } = owedEndpoints.get(endpointId) ?? {}
      owed.push({ endpointId, ...debt, url, reasons: hold === null ? reasons : held(reasons, hold) })
    }
  }
  return {
    counts: {
      ...counts,
      liveTasks: seen.live,
      endedGenerations: seen.generations,
      openDeliveries: owed.reduce((sum, { open }) => sum + open, 0),
    },
    violations: { total: Object.values(byCheck).reduce((sum, n) => sum + n, 0), byCheck, first },
    lapsedLeases: seen.lapsed,
    owed: owed.sort((a, b) => b.open - a.open),
  }
}

/** All deliveries except those in flight wait for what holds the endpoint. */
function held({ sending, ...others }: OwedToEndpoint['reasons'], hold: places.HoldReason): OwedToEndpoint['reasons'] {
  const waiting = Object.values(others).reduce((sum, n) => sum + n, 0)
  return { ...(sending !== undefined && { sending }), ...(waiting > 0 && { [hold]: waiting }) }
}
