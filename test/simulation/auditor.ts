/**
 * Records every row of every commit with database triggers, and checks each commit against the previous rows and against the guarantees about
 * tasks.
 */
import type Database from 'better-sqlite3'
import { transitions } from '../../src/core/lifecycle.ts'
import { isTerminal, type Millis, type State } from '../../src/core/model.ts'
import type { LeaseRef } from '../../src/store/interfaces.ts'
import type { World } from './world.ts'

const TASK =
  'id, client_id, lane_id, type, concurrency_key, state, fence, tries, max_tries, generation, revision, progress, result, error, last_error, cancel_requested_at, callback, started_at, timeout_seconds, deadline_at'
export interface TaskRow {
  readonly id: string
  readonly client_id: string
  readonly lane_id: string
  readonly type: string
  readonly concurrency_key: string | null
  readonly state: State
  readonly fence: number
  readonly tries: number
  readonly max_tries: number
  readonly generation: number
  readonly revision: number
  readonly progress: number
  readonly result: string | null
  readonly error: string | null
  readonly last_error: string | null
  readonly cancel_requested_at: Millis | null
  readonly callback: string | null
  readonly started_at: Millis | null
  readonly timeout_seconds: number
  readonly deadline_at: Millis | null
}
const DELIVERY = 'id, lane_id, endpoint_id, event_id, event_type, task_id, state, fence, tries, max_tries, trigger, canceled_reason'
export interface DeliveryRow {
  readonly id: string
  readonly lane_id: string
  readonly endpoint_id: string
  readonly event_id: string
  readonly event_type: string
  readonly task_id: string | null
  readonly state: State
  readonly fence: number
  readonly tries: number
  readonly max_tries: number
  readonly trigger: string
  readonly canceled_reason: string | null
}
const EVENT = 'id, client_id, task_id, type, terminal, generation, revision, seq, body'
interface EventRow {
  readonly id: string
  readonly client_id: string
  readonly task_id: string
  readonly type: string
  readonly terminal: number
  readonly generation: number
  readonly revision: number
  readonly seq: number
  readonly body: string
}
const ATTEMPT = 'delivery_id, fence'
interface AttemptRow {
  readonly delivery_id: string
  readonly fence: number
}
const ENDPOINT = 'id, client_id, events, max_in_flight, deleted_at'
interface EndpointRow {
  readonly id: string
  readonly client_id: string
  readonly events: string
  readonly max_in_flight: number
  readonly deleted_at: Millis | null
}

type Seen =
  | { readonly table: 'tasks'; readonly row: TaskRow }
  | { readonly table: 'deliveries'; readonly row: DeliveryRow }
  | { readonly table: 'events'; readonly row: EventRow }
  | { readonly table: 'attempts'; readonly row: AttemptRow }
  | { readonly table: 'endpoints'; readonly row: EndpointRow }
  | { readonly table: 'gone'; readonly row: { readonly id: string } }

export interface Auditor {
  /** The transaction that ran has committed, or was undone. */
  committed(who: string): void
  undone(): void
  /** A handler begins, here or at a worker. */
  started(who: string, run: { readonly id: string; readonly fence: number; readonly generation: number; readonly try: number }): void
  /** Whether the task runs under that lease. */
  holds(lease: LeaseRef): boolean
  /** Whether a running task's own times are over. */
  isLate(id: string, now: Millis): boolean
  /** A receiver took a webhook: it answers 2xx. */
  took(eventId: string, endpointId: string): void
  /** The name a row has in the trace. */
  name(id: string): string
  readonly tasks: ReadonlyMap<string, TaskRow>
  readonly deliveries: ReadonlyMap<string, DeliveryRow>
  /** Tasks and deliveries that have not ended. */
  open(): { readonly tasks: number; readonly deliveries: number }
  /** Task and generation of every terminal event there has ever been. */
  readonly ends: ReadonlySet<string>
  /** Of ended tasks whose cancel was asked for: how long it took. */
  readonly cancels: readonly { readonly id: string; readonly askedAt: Millis; readonly tookMs: Millis }[]
  /** Whether that place of a client's feed told of a task that was removed since. */
  isRemoved(clientId: string, seq: number): boolean
  /** From now on nothing fails, so no lease that is taken is lost. */
  calm(): void
}

/** `caps`: how many of a task type may run at once. */
export function audit(db: Database.Database, world: World, caps: ReadonlyMap<string, number>): Auditor {
  let seen: Seen[] = []
  const tasks = new Map<string, TaskRow>()
  const deliveries = new Map<string, DeliveryRow>()
  const endpoints = new Map<string, EndpointRow>()
  const names = new Map<string, string>()
  const counts = new Map<string, number>()
  const running = { lane: new Map<string, number>(), type: new Map<string, number>(), endpoint: new Map<string, number>() }
  const opened = { tasks: 0, deliveries: 0 }
  const ends = new Set<string>()
  /** By client: the task of each event in its feed. */
  const feeds = new Map<string, string[]>()
  const gone = new Set<string>()
  /** Fences under which a handler ran; tries that were handed out and not given back. */
  const runs = new Set<string>()
  const tried = new Set<string>()
  const taken = new Set<string>()
  const asked = new Map<string, Millis>()
  const cancels: { id: string; askedAt: Millis; tookMs: Millis }[] = []
  /** Leases taken since nothing fails any more. */
  let calm: Set<string> | null = null

  const watch = (table: Seen['table'] & string, columns: string): void => {
    const fields = columns.split(', ')
    db.function(`seen_${table}`, { varargs: true }, (...values: unknown[]) => {
      const row = Object.fromEntries(fields.map((field, i) => [field, values[i]]))
      seen.push({ table, row } as unknown as Seen)
      return null
    })
    const list = fields.map((field) => `new.${field}`).join(', ')
    for (const verb of ['insert', 'update'])
      db.exec(`create trigger seen_${verb}_${table} after ${verb} on ${table} begin select seen_${table}(${list}); end`)
  }
  watch('tasks', TASK)
  watch('deliveries', DELIVERY)
  watch('events', EVENT)
  watch('attempts', ATTEMPT)
  watch('endpoints', ENDPOINT)
  db.function('seen_gone', (id: unknown) => {
    seen.push({ table: 'gone', row: { id: id as string } })
    return null
  })
  for (const table of ['tasks', 'deliveries'])
    db.exec(`create trigger seen_gone_${table} after delete on ${table} begin select seen_gone(old.id); end`)

  const name = (id: string): string => {
    const known = names.get(id)
    if (known) return known
    const [kind] = id.split('_') as [string]
    const nth = (counts.get(kind) ?? 0) + 1
    counts.set(kind, nth)
    names.set(id, `${kind}-${nth}`)
    return `${kind}-${nth}`
  }
  const bump = (map: Map<string, number>, key: string, by: number): number => {
    const n = (map.get(key) ?? 0) + by
    map.set(key, n)
    return n
  }
  const must = (holds: boolean, sentence: () => string): void => {
    if (!holds) world.violated(sentence())
  }
  const holds = ({ id, fence }: LeaseRef): boolean => tasks.get(id)?.state === 'running' && tasks.get(id)!.fence === fence
  const isOpen = (state: State | undefined): number => (state === 'pending' || state === 'running' ? 1 : 0)
  const isRunning = (state: State | undefined): number => (state === 'running' ? 1 : 0)
  const ways = new Set(Object.values(transitions).flatMap((way) => Object.entries(way).map(([from, to]) => `${from} ${to}`)))

  /** What holds for tasks and deliveries alike. */
  const step = (was: TaskRow | DeliveryRow, is: TaskRow | DeliveryRow, generations: number): void => {
    const it = name(is.id)
    const move = `${was.state} ${is.state}`
    must(is.fence >= was.fence, () => `the fence of ${it} fell from ${was.fence} to ${is.fence}`)
    must(was.state === is.state || ways.has(move), () => `${it} went from ${was.state} to ${is.state}, which no verb does`)
    if (move === 'pending running') {
      must(is.fence === was.fence + 1, () => `a claim moved the fence of ${it} from ${was.fence} to ${is.fence}`)
      must(is.tries === was.tries + 1, () => `a claim of ${it} counted ${was.tries} tries up to ${is.tries}`)
      must(is.tries <= is.max_tries, () => `${it} is tried ${is.tries} times of ${is.max_tries}`)
    } else if (generations === 0) must(is.tries <= was.tries, () => `${it} counted a try (${was.tries} to ${is.tries}) that nobody claimed`)
    if (was.state === 'running' && is.state === 'running')
      must(is.fence === was.fence && is.tries === was.tries, () => `${it} was claimed while it ran`)
    if (was.state === 'running' && is.state === 'pending')
      must(is.fence === was.fence && was.tries - is.tries <= 1, () => `${it} gave back ${was.tries - is.tries} tries`)
  }

  const seeTask = (is: TaskRow): void => {
    const was = tasks.get(is.id)
    tasks.set(is.id, is)
    opened.tasks += isOpen(is.state) - isOpen(was?.state)
    const more = isRunning(is.state) - isRunning(was?.state)
    bump(running.type, is.type, more)
    bump(running.lane, is.lane_id, more)
    if (is.state === 'running' && was?.fence !== is.fence) calm?.add(`${is.id} ${is.fence}`)
    if (!was) {
      must(is.revision === 1 + is.fence, () => `${name(is.id)} begins at revision ${is.revision}`)
      return
    }
    const generations = is.generation - was.generation
    step(was, is, generations)
    const it = name(is.id)
    if (isTerminal(was.state) && was.state !== is.state)
      must(generations === 1 && is.fence === was.fence, () => `${it} came back from ${was.state} without a new generation`)
    else must(generations === 0, () => `${it} is another generation, but had not ended`)
    must(is.revision >= was.revision, () => `the revision of ${it} fell from ${was.revision} to ${is.revision}`)
    if (is.state === 'running' && was.state === 'running')
      must(is.progress >= was.progress, () => `the progress of ${it} fell from ${was.progress} to ${is.progress}`)
    must((is.progress === 100) === (is.state === 'completed'), () => `${it} is ${is.state} at ${is.progress} percent`)
    if (was.state === 'running' && is.state !== 'running') {
      // What handlers return and throw says under which fence they ran.
      const said = [is.result, is.error, is.last_error === was.last_error ? null : is.last_error].join(' ')
      const fence = /"fence":(\d+)|under fence (\d+)/.exec(said)
      if (fence)
        must(Number(fence[1] ?? fence[2]) === was.fence, () => `${it} ran under fence ${was.fence} and was settled by what said: ${said}`)
    }
    if (was.state === 'running' && is.state === 'pending' && is.tries < was.tries) tried.delete(`${is.id} ${is.generation} ${was.tries}`)
    if (was.state === 'running' && is.last_error !== was.last_error && is.last_error?.includes('worker_lost'))
      must(!calm?.has(`${is.id} ${was.fence}`), () => `${it} was taken from a node that lives`)
    if (is.state === 'running' && is.cancel_requested_at !== null && !asked.has(is.id)) asked.set(is.id, world.now())
    const askedAt = asked.get(is.id)
    if (askedAt !== undefined && is.state !== 'running') {
      asked.delete(is.id)
      cancels.push({ id: is.id, askedAt, tookMs: world.now() - askedAt })
      must(isTerminal(is.state), () => `${it} was to be canceled, and is ${is.state}`)
    }
  }

  const seeDelivery = (is: DeliveryRow, attempts: ReadonlySet<string>): void => {
    const was = deliveries.get(is.id)
    deliveries.set(is.id, is)
    opened.deliveries += isOpen(is.state) - isOpen(was?.state)
    bump(running.endpoint, is.lane_id, isRunning(is.state) - isRunning(was?.state))
    if (!was) return
    step(was, is, 0)
    const it = name(is.id)
    must(!isTerminal(was.state) || was.state === is.state, () => `${it} had ended ${was.state} and is ${is.state}`)
    if (was.state === 'running' && is.state === 'completed')
      must(taken.has(`${is.event_id} ${is.endpoint_id}`), () => `${it} counts as delivered, but nobody has received it`)
    if (was.state === 'running' && is.state !== 'running' && is.state !== 'canceled')
      must(attempts.has(`${is.id} ${was.fence}`), () => `${it} was in flight under fence ${was.fence}, and no attempt of that settled it`)
  }

  /** What this commit changed, as one: endings have their event and what it owes, and nothing else has. */
  const judge = (changed: ReadonlyMap<string, TaskRow | undefined>, events: readonly EventRow[], owed: readonly DeliveryRow[]): void => {
    const ended = new Map<string, TaskRow>()
    for (const [id, was] of changed) {
      const is = tasks.get(id)
      if (!is) continue
      if (was && JSON.stringify([was.state, was.progress, was.generation]) !== JSON.stringify([is.state, is.progress, is.generation]))
        must(is.revision > was.revision, () => `${name(id)} changed within revision ${is.revision}`)
      if (isTerminal(is.state) && !isTerminal(was?.state ?? 'pending')) ended.set(id, is)
    }
    for (const event of events) {
      const feed = feeds.get(event.client_id) ?? []
      feeds.set(event.client_id, feed)
      must(
        event.seq === feed.push(event.task_id),
        () => `the feed of ${name(event.client_id)} goes on with ${event.seq} after ${feed.length - 1}`,
      )
      if (event.terminal === 0) continue
      const key = `${event.task_id} ${event.generation}`
      must(!ends.has(key), () => `${name(event.task_id)} has two terminal events of generation ${event.generation}`)
      ends.add(key)
      const task = ended.get(event.task_id)
      if (!task) {
        world.violated(`a terminal event of ${name(event.task_id)} came by another commit than its end`)
        continue
      }
      ended.delete(event.task_id)
      const { data } = JSON.parse(event.body)
      must(
        event.type === `task.${task.state}` &&
          event.revision === task.revision &&
          data.status === task.state &&
          data.revision === task.revision &&
          data.generation === task.generation,
        () => `${name(task.id)} is ${task.state} at revision ${task.revision}, and its event ${event.id} says otherwise`,
      )
      const expected = [...endpoints.values()]
        .filter((it) => task.callback !== null && it.client_id === event.client_id && it.deleted_at === null)
        .filter((it) => (JSON.parse(it.events) as string[]).includes(event.type))
      const written = owed.filter((it) => it.event_id === event.id).map((it) => it.endpoint_id)
      must(
        written.length === expected.length && expected.every(({ id }) => written.includes(id)),
        () => `the end of ${name(task.id)} is owed to ${expected.length} endpoints, and ${written.length} deliveries came with it`,
      )
    }
    for (const task of ended.values()) world.violated(`${name(task.id)} is ${task.state}, and no terminal event came with that`)
    for (const [id] of changed) {
      const { lane_id: lane, concurrency_key: key, type } = tasks.get(id) ?? { lane_id: '', concurrency_key: null, type: '' }
      must(key === null || (running.lane.get(lane) ?? 0) <= 1, () => `two tasks of key "${key}" run at once`)
      must((running.type.get(type) ?? 0) <= (caps.get(type) ?? Infinity), () => `more than ${caps.get(type)} of type ${type} run at once`)
    }
  }

  return {
    tasks,
    deliveries,
    ends,
    cancels,
    name,
    open: () => ({ ...opened }),
    isRemoved: (clientId, seq) => gone.has(feeds.get(clientId)![seq - 1]!),
    holds,
    isLate(id, now) {
      const { started_at, timeout_seconds, deadline_at } = tasks.get(id)!
      return (started_at ?? Infinity) + timeout_seconds * 1000 <= now || (deadline_at ?? Infinity) <= now
    },
    calm() {
      calm = new Set()
    },
    undone() {
      seen = []
    },
    committed(who) {
      const changed = new Map<string, TaskRow | undefined>()
      const events: EventRow[] = []
      const owed: DeliveryRow[] = []
      const attempts = new Set(seen.flatMap((it) => (it.table === 'attempts' ? [`${it.row.delivery_id} ${it.row.fence}`] : [])))
      const removed: string[] = []
      for (const it of seen) {
        if (it.table === 'tasks') {
          const was = tasks.get(it.row.id)
          if (!changed.has(it.row.id)) changed.set(it.row.id, was)
          if (was?.state !== it.row.state || was.fence !== it.row.fence)
            world.note(who, `${name(it.row.id)} ${was ? `${was.state}→` : ''}${it.row.state} fence ${it.row.fence} try ${it.row.tries}`)
          seeTask(it.row)
        } else if (it.table === 'deliveries') {
          const was = deliveries.get(it.row.id)
          if (!was && it.row.trigger === 'event') owed.push(it.row)
          if (was?.state !== it.row.state || was.fence !== it.row.fence)
            world.note(
              who,
              `${name(it.row.id)} of ${name(it.row.task_id ?? '')} ${was ? `${was.state}→` : ''}${it.row.state} fence ${it.row.fence} try ${it.row.tries}`,
            )
          seeDelivery(it.row, attempts)
          const most = endpoints.get(it.row.endpoint_id)!.max_in_flight
          must((running.endpoint.get(it.row.lane_id) ?? 0) <= most, () => `more than ${most} deliveries to one endpoint are in flight`)
        } else if (it.table === 'events') {
          if (!events.some(({ id }) => id === it.row.id) && it.row.body !== '') events.push(it.row)
        } else if (it.table === 'endpoints') endpoints.set(it.row.id, it.row)
        else if (it.table === 'gone') removed.push(it.row.id)
      }
      seen = []
      judge(changed, events, owed)
      for (const id of removed) {
        const task = tasks.get(id)
        gone.add(id)
        world.note(who, `${name(id)} is removed`)
        if (task) {
          must(isTerminal(task.state), () => `${name(id)} was removed while ${task.state}`)
          for (const delivery of deliveries.values())
            if (delivery.task_id === id)
              must(isOpen(delivery.state) === 0, () => `${name(id)} was removed while ${name(delivery.id)} was owed`)
        } else must(isOpen(deliveries.get(id)?.state) === 0, () => `${name(id)} was removed while it was owed`)
      }
    },
    started(who, run) {
      const it = name(run.id)
      world.note(who, `runs ${it} fence ${run.fence} try ${run.try}`)
      const lease = `${run.id} ${run.fence}`
      must(!runs.has(lease), () => `${it} was handed out twice under fence ${run.fence}`)
      runs.add(lease)
      // What a worker hears of after it was given back is no try.
      if (!holds(run)) return
      const one = `${run.id} ${run.generation} ${run.try}`
      must(!tried.has(one), () => `try ${run.try} of ${it} was handed out twice`)
      tried.add(one)
    },
    took: (eventId, endpointId) => void taken.add(`${eventId} ${endpointId}`),
  }
}
