/** Hono + pg-boss: two queues, `run` then `deliver`, fetched and completed in batches. */
import { PgBoss } from 'pg-boss'
import { servePeer } from './server.ts'
import { type Delivery, deliverTries, makeDelivery, runEcho, runTries, type Task } from './webhook.ts'

await servePeer(async (sender) => {
  const boss = new PgBoss({
    connectionString: process.env.BENCH_POSTGRES_URL!,
    max: Number(process.env.POOL ?? 20),
    useListenNotify: true,
  })
  boss.on('error', (error) => console.error(error))
  await boss.start()
  const partition = process.env.PART === '1'
  await boss.createQueue('run', { retryLimit: runTries - 1, retryDelay: 2, retryBackoff: true, notify: true, partition })
  await boss.createQueue('deliver', { retryLimit: deliverTries - 1, retryDelay: 5, retryBackoff: true, notify: true, partition })

  const batchSize = Number(process.env.BATCH ?? 100)
  const work = { batchSize, localConcurrency: Number(process.env.CONC ?? 2), pollingIntervalSeconds: 0.5, burstWhenBatchFull: true }
  const toDelivery = async ({ data }: { data: Task }) => ({ data: makeDelivery(data, await runEcho(data)) as object })
  if (process.env.TX === '1') {
    await boss.work<Task, unknown, { transactional: true }>('run', { ...work, transactional: true }, async (jobs, tx) => {
      await boss.insert('deliver', await Promise.all(jobs.map(toDelivery)), { db: tx })
    })
  } else {
    await boss.work<Task>('run', work, async (jobs) => {
      await boss.insert('deliver', await Promise.all(jobs.map(toDelivery)))
    })
  }
  // One refused webhook must not make the rest of its batch be sent again: each job is settled on its own, in one statement.
  await boss.work<Delivery, unknown, { perJobResults: true; includeMetadata: true }>(
    'deliver',
    { ...work, perJobResults: true, includeMetadata: true },
    async (jobs) =>
      await Promise.all(
        jobs.map(({ id, data, retryCount }) =>
          sender.send(data, retryCount + 1).then(
            () => ({ id, status: 'completed' as const }),
            (error: Error) => ({ id, status: 'failed' as const, output: { message: error.message } }),
          ),
        ),
      ),
  )

  return {
    enqueue: async (task, delaySeconds) => {
      await boss.send('run', task, delaySeconds > 0 ? { startAfter: delaySeconds } : {})
    },
    countOpen: async () => {
      const counted = "select count(*)::int as open from pgboss.job where name in ('run', 'deliver') and state not in ('completed', 'cancelled')"
      const { rows } = await boss.getDb().executeSql(counted)
      return rows[0].open
    },
  }
})
