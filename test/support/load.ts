/** Load that repeats failed requests, and the check that nothing was lost. */
import { setTimeout as sleep } from 'node:timers/promises'
import { expect } from 'vitest'
import type { Arrival, Reply } from './receiver.ts'
import { type Call, calling, eventually, type Home } from './server.ts'

/** A number in [0, 1), the same sequence for the same seed. */
export type Random = () => number

/** Mulberry32 by its published constants; RINGBACK_TEST_SEED repeats a row that was printed. */
export function seededRandom(seed = Number(process.env.RINGBACK_TEST_SEED ?? Math.floor(Math.random() * 2 ** 32))): {
  seed: number
  random: Random
} {
  let state = seed
  const random = (): number => {
    state = (state + 0x6d2b79f5) | 0
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state)
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4_294_967_296
  }
  return { seed, random }
}

/** What is submitted: mostly quick, some slow enough to be caught running, some that fail. */
function anyTask(random: Random): object {
  const kinds: readonly (readonly [weight: number, () => object])[] = [
    [8, () => ({ type: 'work.instant', input: null })],
    [6, () => ({ type: 'work.nap', input: { ms: 50 } })],
    [2, () => ({ type: 'work.stumble', input: { times: 1 + Math.floor(random() * 2) } })],
    [1, () => ({ type: 'work.stumble', input: { times: 9 }, maxTries: 2 })],
    [1, () => ({ type: 'work.refuse', input: null })],
    [1, () => ({ type: 'work.nap', input: { ms: 1_500 } })],
    [1, () => ({ type: 'work.nap', input: { ms: 300 }, maxTries: 1 })],
    [1, () => ({ type: 'work.steps', input: { count: 4, ms: 60 } })],
    [1, () => ({ type: 'work.instant', input: null, delaySeconds: random() * 2 })],
    [1, () => ({ type: 'work.instant', input: null, callback: null })],
    [1, () => ({ type: 'work.nap', input: { ms: 20 }, concurrencyKey: 'one' })],
  ]
  const every = kinds.flatMap(([weight, make]) => Array<() => object>(weight).fill(make))
  return every[Math.floor(random() * every.length)]!()
}

export interface LoadOptions {
  /** Servers that are up, as far as is known. */
  readonly bases: () => readonly string[]
  readonly key: string
  readonly random: Random
  readonly submitters: number
  /** The mean pause of a submitter between two tasks. */
  readonly pauseMs: number
}
export interface Load {
  /** Ids of the tasks that were acknowledged. */
  readonly acknowledged: ReadonlySet<string>
  /** Requests that had to be sent again. */
  readonly repeats: number
  /** Begins nothing more; resolves when everything begun has been acknowledged. Rejects when an answer was wrong. */
  stop(): Promise<void>
}

/** Submits until it is stopped. A request without a good answer is sent again, to any server, under the same Idempotency-Key. */
export function startLoad({ bases, key, random, submitters, pauseMs }: LoadOptions): Load {
  const acknowledged = new Set<string>()
  const failed: string[] = []
  let repeats = 0
  let stopped = false

  const answered = async (send: (call: Call) => ReturnType<Call>): Promise<Awaited<ReturnType<Call>>> => {
    for (;;) {
      const up = bases()
      const base = up[Math.floor(random() * up.length)]
      const answer = base === undefined ? null : await send(calling(base, key, 10_000)).catch(() => null)
      if (answer !== null && answer.status < 500) return answer
      repeats++
      await sleep(30)
    }
  }
  const submit = async (idempotencyKey: string): Promise<void> => {
    const body = anyTask(random)
    const create = () => answered((call) => call('POST', '/v1/tasks', body, { 'idempotency-key': idempotencyKey }))
    const { status, json, text } = await create()
    if (status !== 202) return void failed.push(`${JSON.stringify(body)} was answered ${status}: ${text}`)
    acknowledged.add(json.id)
    const whim = random()
    if (whim < 0.05) {
      const again = (await create()).json.id
      if (again !== json.id) failed.push(`the key of ${json.id} was answered with ${again}`)
    } else if (whim < 0.1) await answered((call) => call('POST', `/v1/tasks/${json.id}/cancel`))
    else if (whim < 0.15) await answered((call) => call('POST', `/v1/tasks/${json.id}/retry`))
  }
  const run = async (name: string): Promise<void> => {
    for (let n = 0; !stopped; n++) {
      await submit(`${name}-${n}`)
      await sleep(pauseMs * 2 * random())
    }
  }
  const running = Promise.all(Array.from({ length: submitters }, (_, i) => run(`submitter-${i}`)))
  return {
    acknowledged,
    get repeats() {
      return repeats
    },
    async stop() {
      stopped = true
      await running
      expect(failed).toEqual([])
    },
  }
}

/** Answers as a receiver with bad days does: mostly 200, now and then an error or a pause. */
export const moody =
  (random: Random) =>
  ({ path }: Arrival): Reply => {
    if (path !== '/moody') return { status: 200 }
    const whim = random()
    if (whim < 0.08) return { status: 500 }
    if (whim < 0.1) return { status: 429 }
    return whim < 0.13 ? { status: 200, afterMs: 300 + random() * 700 } : { status: 200 }
  }

/** Resolves when no task and no delivery is open any more. */
export async function drained(home: Home, withinMs = 120_000): Promise<void> {
  const open = (table: string) => `select cast(count(*) as integer) as n from ${table} where state in ('pending', 'running')`
  const look = async (): Promise<boolean> => {
    for (const table of ['tasks', 'deliveries']) if ((await home.query<{ n: number }>(open(table)))[0]!.n > 0) return false
    return true
  }
  await eventually('everything ended', look, { withinMs, everyMs: 200 })
}

interface TaskRow {
  id: string
  state: string
  tries: number
  max_tries: number
  generation: number
  callback: string | null
}
interface EventRow {
  id: string
  task_id: string
  type: string
  generation: number
  body: string
}
interface DeliveryRow {
  id: string
  event_id: string
  url: string
  state: string
  tries: number
  max_tries: number
  attempts: number
}

/** The whole store as `ringback audit` sees it, while its servers go on: everything holds, and with `idle` nothing is owed any more. */
export async function proveSound(home: Home, { idle = true } = {}): Promise<void> {
  const { code, stdout, stderr } = await home.command('audit', '--json')
  expect(stderr).toBe('')
  const { violations, owed, lapsedLeases } = JSON.parse(stdout)
  expect({ code, violations: violations.first, lapsedLeases }).toEqual({ code: 0, violations: [], lapsedLeases: 0 })
  if (idle) expect(owed).toEqual([])
}

/** What the proof counted. */
export interface Proof {
  readonly tasks: number
  readonly runs: number
  readonly webhooks: number
  /** Webhooks that came again although they had been answered 200. */
  readonly duplicates: number
}

/**
 * Proves, after {@link drained}, from the database, the API and what arrived: every acknowledged task exists and has ended, with one
 * terminal event for each generation; every webhook owed has arrived, always with the same bytes; no try was
 * handed out twice, unless tries were given back.
 */
export async function proveNothingLost(
  home: Home,
  call: Call,
  load: Load,
  arrivals: readonly Arrival[],
  { givenBack = false } = {},
): Promise<Proof> {
  const tasks = await home.query<TaskRow>('select id, state, tries, max_tries, generation, callback from tasks')
  const events = await home.query<EventRow>('select id, task_id, type, generation, body from events where terminal = 1')
  const deliveries = await home.query<DeliveryRow>(
    `select d.id, d.event_id, e.url, d.state, d.tries, d.max_tries,
       cast((select count(*) from attempts a where a.delivery_id = d.id) as integer) as attempts
     from deliveries d join endpoints e on e.id = d.endpoint_id`,
  )
  const none: readonly string[] = []

  // Neither lost nor made twice.
  expect(sorted(tasks.map(({ id }) => id))).toEqual(sorted([...load.acknowledged]))
  expect(tasks.filter(({ state }) => !['completed', 'failed', 'canceled'].includes(state))).toEqual(none)
  expect(tasks.filter(({ tries, max_tries }) => tries > max_tries)).toEqual(none)

  const expected = tasks.flatMap(({ id, generation }) => Array.from({ length: generation }, (_, i) => `${id} ${i + 1}`))
  expect(sorted(events.map(({ task_id, generation }) => `${task_id} ${generation}`))).toEqual(sorted(expected))

  const runs = home.runs().map((run) => `${run.taskId} ${run.generation} ${run.try}`)
  if (!givenBack) expect(runs.length).toBe(new Set(runs).size)

  // Who asked for it is owed it, once.
  const silent = new Set(tasks.filter(({ callback }) => callback === null).map(({ id }) => id))
  const endpoints = await home.query<{ url: string; events: string }>('select url, events from endpoints')
  const owed = events
    .filter(({ task_id }) => !silent.has(task_id))
    .flatMap((event) => endpoints.filter((it) => JSON.parse(it.events).includes(event.type)).map(({ url }) => `${event.id} ${url}`))
  expect(sorted(deliveries.map(({ event_id, url }) => `${event_id} ${url}`))).toEqual(sorted(owed))
  expect(deliveries.filter(({ state, tries, max_tries }) => state !== 'completed' || tries > max_tries)).toEqual(none)
  // A try that a crash cut short is on record as well.
  expect(deliveries.filter(({ tries, attempts }) => tries !== attempts)).toEqual(none)

  const bodies = new Map(events.map(({ id, body }) => [id, body]))
  const taken = new Map<string, number>()
  for (const { id, path, body, status } of arrivals) {
    expect(body.toString(), `the bytes of ${id}`).toBe(bodies.get(id))
    if (status === 200) taken.set(`${id} ${path}`, (taken.get(`${id} ${path}`) ?? 0) + 1)
  }
  expect(deliveries.filter(({ event_id, url }) => !taken.has(`${event_id} ${new URL(url).pathname}`))).toEqual(none)

  // The API says the same as the last webhook.
  const last = new Map(events.map(({ task_id, generation, body }) => [`${task_id} ${generation}`, JSON.parse(body).data]))
  let listed = 0
  for (let path: string | null = '/v1/tasks?limit=200'; path !== null; ) {
    const page: { data: Shown[]; nextCursor: string | null } = (await call('GET', path)).json
    for (const task of page.data) {
      const told = last.get(`${task.id} ${task.generation}`)
      expect(told).toEqual({ ...task, callback: { ...task.callback, status: null } })
      expect(task.callback.status).toBe(silent.has(task.id) ? 'none' : 'delivered')
      if (task.status === 'completed') expect(task.result).toMatchObject({ run: `${task.generation}.${task.tries}` })
    }
    listed += page.data.length
    path = page.nextCursor && `/v1/tasks?limit=200&cursor=${encodeURIComponent(page.nextCursor)}`
  }
  expect(listed).toBe(tasks.length)

  const webhooks = deliveries.length
  return { tasks: tasks.length, runs: runs.length, webhooks, duplicates: [...taken.values()].reduce((sum, n) => sum + n, 0) - webhooks }
}

interface Shown {
  readonly id: string
  readonly status: string
  readonly generation: number
  readonly tries: number
  readonly result: unknown
  readonly callback: { readonly status: string }
}

const sorted = (list: readonly string[]): readonly string[] => [...list].sort()
