/** Hono + graphile-worker: two task identifiers, `run` then `deliver`, with the local queue and batched completion on. */
import { Logger, run } from 'graphile-worker'
import { Pool } from 'pg'
import { servePeer } from './server.ts'
import { type Delivery, deliverTries, makeDelivery, runEcho, runTries, type Task } from './webhook.ts'

await servePeer(async (sender) => {
  const pool = new Pool({ connectionString: process.env.BENCH_POSTGRES_URL!, max: 20 })
  pool.on('error', (error) => console.error(error))
  const quiet = new Logger(() => (level, message) => {
    if (level === 'error') console.error(message)
  })
  const runner = await run({
    pgPool: pool,
    logger: quiet,
    noHandleSignals: true,
    preset: {
      worker: {
        concurrentJobs: 50,
        pollInterval: 1_000,
        localQueue: { size: 200 },
        completeJobBatchDelay: 0,
        failJobBatchDelay: 0,
      },
    },
    taskList: {
      run: async (payload, { addJob }) => {
        const task = payload as Task
        await addJob('deliver', makeDelivery(task, await runEcho(task)), { maxAttempts: deliverTries })
      },
      deliver: async (payload, { job }) => await sender.send(payload as Delivery, job.attempts),
    },
  })
  return {
    enqueue: async (task, delaySeconds) => {
      const runAt = delaySeconds > 0 ? { runAt: new Date(Date.now() + delaySeconds * 1e3) } : {}
      await runner.addJob('run', task, { maxAttempts: runTries, ...runAt })
    },
    countOpen: async () => {
      // Ended jobs are deleted by the library; what failed for good stays and counts as open.
      const { rows } = await pool.query<{ open: number }>('select count(*)::int as open from graphile_worker._private_jobs')
      return rows[0]!.open
    },
  }
})
