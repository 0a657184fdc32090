/** The cost to healthy endpoints of hanging endpoints, and of many due deliveries to one of them. */
import { spawnSync } from 'node:child_process'
import { type Bench, type Figures, latencyOf, runTasks, startMeter, tasksPerRound, warmUp } from './benches.ts'
import { waitUntil } from './clock.ts'
import type { RunningProduct } from './contestants.ts'
import { askChild, launchCommanded, makeFolder } from './process.ts'
import { round } from './statistics.ts'

const hangingEndpoints = 200
/** Due to each of them before anything is measured: their breakers have not tripped by then. */
const dueToEach = 20
const chunk = 20_000
/** Below the limit of every store here: at its limit, a store multiplies whatever it is given. */
const ratePerSecond = 250

/** The rate and the latency of the ten well endpoints: alone, and then beside 200 that hang and one with a mountain due. */
export async function measureIsolation(bench: Bench, running: RunningProduct): Promise<Figures> {
  const warmPerSecond = await warmUp(bench, running)
  const count = tasksPerRound(bench, warmPerSecond)
  const measure = async (firstNumber: number) => {
    const perSecond = await runTasks(bench, running, count, firstNumber)
    return { perSecond, ...(await latencyOf(bench, running, ratePerSecond)) }
  }
  const folder = makeFolder()
  const hanging = launchCommanded(new URL('hanging.ts', import.meta.url).pathname, bench.site.placement.load, `${folder.path}/log`)
  try {
    const url = `http://127.0.0.1:${await askChild<number>(hanging, undefined)}`
    const alone = await measure(4e9)
    await pileUp(bench, running, url)
    const stopMeter = startMeter(bench, running.server.pid, running.storePid)
    const beside = await measure(5e9)
    const meter = stopMeter()
    return {
      p99Times: round(beside.p99Ms / alone.p99Ms),
      throughputShare: round(beside.perSecond / alone.perSecond),
      p99Ms: beside.p99Ms,
      p99AloneMs: alone.p99Ms,
      p50Ms: beside.p50Ms,
      p50AloneMs: alone.p50Ms,
      perSecond: round(beside.perSecond, 4),
      perSecondAlone: round(alone.perSecond, 4),
      missing: beside.missing,
      mountain: bench.scale.mountain,
      ...meter,
    }
  } finally {
    await hanging.stop()
    folder.remove()
  }
}

async function pileUp(bench: Bench, running: RunningProduct, url: string): Promise<void> {
  const ids = []
  for (let i = 0; i < hangingEndpoints; i++) ids.push((await running.addEndpoint(`${url}/${i}`)).id)
  const mountain = await running.addEndpoint(`${url}/mountain`)
  await running.call('POST', `/v1/endpoints/${mountain.id}/pause`)
  const task = (endpointId: string) => ({ type: 'demo.echo', input: { n: 0, pad: '' }, callback: { endpointId } })
  await running.call('POST', '/v1/tasks', task(mountain.id))
  const owed = async (): Promise<boolean> =>
    (await running.call<{ data: unknown[] }>('GET', `/v1/deliveries?endpointId=${mountain.id}&limit=1`)).data.length > 0
  await waitUntil('The mountain has its first delivery', owed, 20, 5_000)
  // Copied in the store itself: what is measured is what the rows cost, not how they came.
  const columns =
    'client_id, lane_id, state, line, rank, due_at, tries, max_tries, fence, event_id, event_type, task_id, endpoint_id, trigger, created_at, updated_at'
  for (let done = 0; done < bench.scale.mountain; done += chunk)
    await running.query(
      `insert into deliveries (id, ${columns}) select 'delivery_copy' || (10000000 + ${done} + n.n), ${columns} from deliveries,
        (with recursive s(n) as (select 1 union all select n + 1 from s where n < ${chunk}) select n from s) n
        where endpoint_id = '${mountain.id}' and id not like 'delivery_copy%'`,
    )
  await running.tidy()
  // What was copied is written back now, not while others commit.
  spawnSync('sync')
  for (const id of ids) await running.call('POST', '/v1/tasks/batch', { tasks: Array.from({ length: dueToEach }, () => task(id)) })
  await waitUntil('All tasks have run', async () => !(await running.hasOpenTasks()), 50, 30_000)
  await running.call('POST', `/v1/endpoints/${mountain.id}/resume`)
}
