/** The cost of one client's tasks to other clients: a long queue, a blocked key, and queue depth. */
import { spawnSync } from 'node:child_process'
import { type Bench, type Figures, latencyOf, runTasks, startMeter, tasksPerRound, warmUp } from './benches.ts'
import { monotonicMs, sleepMs, waitUntil } from './clock.ts'
import type { RunningProduct } from './contestants.ts'
import { median, percentile, round } from './statistics.ts'

/** Slots of a server under test: RINGBACK_CONCURRENCY. */
const slots = 200
const samples = 60
const chunk = 20_000
const ratePerSecond = 250

const columns =
  'client_id, lane_id, state, line, rank, due_at, tries, max_tries, fence, type, generation, revision, input, result, progress, metadata, priority, concurrency_key, created_at, updated_at, started_at, finished_at, timeout_seconds'
const numbers = (count: number): string =>
  `(with recursive s(n) as (select 1 union all select n + 1 from s where n < ${count}) select n from s) n`

/**
 * As many more tasks like the one with this id: copied in the store itself, for what is measured is what the rows cost, not how they came.
 * `columnsOf` may say otherwise of some columns; `n.n` counts the copies.
 */
export async function copyTask(
  running: RunningProduct,
  id: string,
  count: number,
  name: string,
  columnsOf: Readonly<Record<string, string>> = {},
): Promise<void> {
  const values = columns
    .split(', ')
    .map((column) => columnsOf[column] ?? column)
    .join(', ')
  for (let done = 0; done < count; done += chunk)
    await running.query(
      `insert into tasks (id, ${columns}) select 'task_${name}' || (100000000 + ${done} + n.n), ${values} from tasks, ${numbers(Math.min(chunk, count - done))} where id = '${id}'`,
    )
}

export const echo = (more: object = {}): object => ({ type: 'demo.echo', input: { n: 0, pad: '' }, callback: null, ...more })
const tomorrow = 86_400

/** How long the single task of one client waits: alone, and while another has 100,000 queued. A round is each slot used once. */
export async function measureFairness(bench: Bench, running: RunningProduct): Promise<Figures> {
  const other = await running.addClient()
  await warmUp(bench, running)
  const waits = async (): Promise<number[]> => {
    const measured: number[] = []
    for (let i = 0; i < samples; i++) {
      const task = await other<{ createdAt: string; startedAt: string }>('POST', '/v1/tasks?wait=30', echo())
      measured.push(Date.parse(task.startedAt) - Date.parse(task.createdAt))
    }
    return measured
  }
  await waits()
  const alone = await waits()
  const { id } = await running.call<{ id: string }>('POST', '/v1/tasks', echo({ delaySeconds: tomorrow }))
  await running.query(`update tasks set line = 0, rank = created_at, due_at = created_at where id = '${id}'`)
  await copyTask(running, id, bench.scale.queued - 1, 'queued')
  await running.tidy()
  spawnSync('sync')
  const pending = async (): Promise<number> =>
    Number((await running.query<{ n: number | string }>(`select count(*) as n from tasks where state = 'pending'`))[0]!.n)
  // The turn that its lane would have; the pump hears of it with the next task.
  await running.query(
    `insert into turns (queue, client_id, lane_id, turn) select 'task/' || type, client_id, lane_id, rank from tasks where id = '${id}'`,
  )
  const stopMeter = startMeter(bench, running.server.pid, running.storePid)
  await running.call('POST', '/v1/tasks', echo())
  const [begunAt, before] = [monotonicMs(), await pending()]
  const behind = await waits()
  const [endedAt, after] = [monotonicMs(), await pending()]
  const meter = stopMeter()
  if (after === 0) throw new Error('the queue was drained before the waits were measured')
  const perSecond = ((before - after) / (endedAt - begunAt)) * 1e3
  const roundMs = (slots / perSecond) * 1e3
  return {
    rounds: round(median(behind) / roundMs),
    waitMs: round(median(behind)),
    waitAloneMs: round(median(alone)),
    p95Ms: round(percentile(behind, 0.95)),
    p95AloneMs: round(percentile(alone, 0.95)),
    roundMs: round(roundMs),
    perSecond: round(perSecond, 4),
    queued: bench.scale.queued,
    ...meter,
  }
}

/** The rate and the latency of well tasks, alone and beside 10,000 tasks blocked behind one key of the same client and type. */
export async function measureBlocked(bench: Bench, running: RunningProduct): Promise<Figures> {
  return await measureBeside(bench, running, bench.scale.blocked, async () => {
    const concurrencyKey = 'blocked'
    const { id } = await running.call<{ id: string }>('POST', '/v1/tasks', echo({ delaySeconds: tomorrow, concurrencyKey }))
    // It runs for good, as far as anybody can see.
    await running.query(
      `update tasks set state = 'running', tries = 1, fence = 1, leased_by = 'boot_bench', leased_until = created_at + 100000000 where id = '${id}'`,
    )
    await running.query(`update lanes set filled = 1 where id in (select lane_id from tasks where id = '${id}')`)
    const tasks = Array.from({ length: 100 }, () => echo({ concurrencyKey }))
    for (let done = 0; done < bench.scale.blocked; done += 100) await running.call('POST', '/v1/tasks/batch', { tasks })
  })
}

/** The same beside a million pending tasks in other lanes and five million that have ended. */
export async function measureDepth(bench: Bench, running: RunningProduct): Promise<Figures> {
  return await measureBeside(bench, running, bench.scale.pending + bench.scale.ended, async () => {
    await pileUpPending(bench, running)
    const other = await running.addClient()
    const { id } = await other<{ id: string }>('POST', '/v1/tasks?wait=10', echo())
    await copyTask(running, id, bench.scale.ended, 'ended', { created_at: 'created_at + n.n / 100' })
    await running.tidy()
    spawnSync('sync')
    // What the database does after a bulk load is not what is measured.
    await sleepMs(2_000)
  })
}

/** Pending tasks of another client, due tomorrow, in a thousand lanes. */
export async function pileUpPending(bench: Bench, running: RunningProduct): Promise<void> {
  const other = await running.addClient()
  const { id } = await other<{ id: string }>('POST', '/v1/tasks', echo({ delaySeconds: tomorrow }))
  const key = `'key ' || (n.n % 1000)`
  await copyTask(running, id, bench.scale.pending, 'pending', { lane_id: `lane_id || '/' || ${key}`, concurrency_key: key })
  await running.tidy()
}

async function measureBeside(bench: Bench, running: RunningProduct, rows: number, pileUp: () => Promise<void>): Promise<Figures> {
  const warmPerSecond = await warmUp(bench, running)
  const count = tasksPerRound(bench, warmPerSecond)
  const measure = async (firstNumber: number) => {
    // The better of two: what a burst of others' work takes is nobody's here.
    const rates = [await runTasks(bench, running, count, firstNumber), await runTasks(bench, running, count, firstNumber + 1e9)]
    return { perSecond: Math.max(...rates), ...(await latencyOf(bench, running, ratePerSecond)) }
  }
  const alone = await measure(4e9)
  await pileUp()
  await waitUntil('Nothing else runs', async () => !(await running.hasOpenDeliveries()), 50, 30_000)
  const stopMeter = startMeter(bench, running.server.pid, running.storePid)
  const beside = await measure(7e9)
  const meter = stopMeter()
  return {
    throughputShare: round(beside.perSecond / alone.perSecond),
    p99Times: round(beside.p99Ms / alone.p99Ms),
    perSecond: round(beside.perSecond, 4),
    perSecondAlone: round(alone.perSecond, 4),
    p50Ms: beside.p50Ms,
    p50AloneMs: alone.p50Ms,
    p99Ms: beside.p99Ms,
    p99AloneMs: alone.p99Ms,
    missing: beside.missing,
    rows,
    ...meter,
  }
}
