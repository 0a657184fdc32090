/** The cost of a node with little load: start, idle CPU, and memory with a long queue. */
import { type Bench, type Figures, runTasks, startMeter } from './benches.ts'
import { monotonicMs, sleepMs } from './clock.ts'
import type { RunningProduct } from './contestants.ts'
import { cpuMs, residentMiB } from './process.ts'
import { echo, pileUpPending } from './sharing.ts'
import { round } from './statistics.ts'

/** From the launch of the process on an empty store to its first 202: the making of a client, a key and ten endpoints is in it. */
export async function measureStart(_bench: Bench, running: RunningProduct): Promise<Figures> {
  await running.call('POST', '/v1/tasks', echo())
  return { startMs: round(monotonicMs() - running.launchedAt) }
}

/** Thirty seconds in which nobody asks for anything. Transactions are what PostgreSQL counts; SQLite counts none. */
export async function measureIdle(bench: Bench, running: RunningProduct): Promise<Figures> {
  await runTasks(bench, running, 500, 1e9)
  // The last of what the tasks have left to be done, and the last look of those who have just been busy. PostgreSQL's processes also tell
  // what they committed up to ten seconds late: sooner, the transactions of the load would be counted as those of an idle node.
  await sleepMs(15_000)
  const transactions = async (): Promise<number | null> => {
    if (running.storePid === null) return null
    const [row] = await running.query<{ n: string }>(
      'select xact_commit + xact_rollback as n from pg_stat_database where datname = current_database()',
    )
    return Number(row!.n)
  }
  const before = await transactions()
  const stopMeter = startMeter(bench, running.server.pid, running.storePid)
  const busyMs = cpuMs(running.server.pid)
  await sleepMs(bench.scale.idleMs)
  const cpuShare = (cpuMs(running.server.pid) - busyMs) / bench.scale.idleMs
  const meter = stopMeter()
  const after = await transactions()
  return {
    cpuShare: round(cpuShare),
    // One of them is the first count itself.
    ...(before === null || after === null ? {} : { perSecond: round(((after - before - 1) / bench.scale.idleMs) * 1e3) }),
    ...meter,
  }
}

/** The memory of the node with a million tasks queued, after work beside them; and before there were any. */
export async function measureMemory(bench: Bench, running: RunningProduct): Promise<Figures> {
  const tasks = 2_000
  await runTasks(bench, running, tasks, 1e9)
  const emptyMiB = residentMiB(running.server.pid)
  await pileUpPending(bench, running)
  await runTasks(bench, running, tasks, 2e9)
  return { residentMiB: round(residentMiB(running.server.pid)), residentEmptyMiB: round(emptyMiB), rows: bench.scale.pending }
}
