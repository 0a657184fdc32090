/** Hono + pg-boss: two queues, `run` then `deliver`, fetched and completed in batches. */
import { PgBoss } from 'pg-boss'
import { servePeer } from './server.ts'
import { type Delivery, deliverTries, makeDelivery, runEcho, runTries, type Task } from './webhook.ts'

await servePeer(async (sender) => {
  // Notifications wake a worker for every job: quick for one, but then batches stay small. Polling makes large ones.
  const notify = process.env.BENCH_AIM === 'latency'
  const boss = new PgBoss({ connectionString: process.env.BENCH_POSTGRES_URL!, max: 10, useListenNotify: notify })
  boss.on('error', (error) => console.error(error))
  await boss.start()
  await boss.createQueue('run', { retryLimit: runTries - 1, retryDelay: 2, retryBackoff: true, notify })
  await boss.createQueue('deliver', { retryLimit: deliverTries - 1, retryDelay: 5, retryBackoff: true, notify })

  // One worker a queue with large batches did more than two or four, 200 a batch about as much as 500.
  const work = { batchSize: 200, localConcurrency: 1, pollingIntervalSeconds: 0.5, burstWhenBatchFull: true }
  const toDelivery = async ({ data }: { data: Task }) => ({ data: makeDelivery(data, await runEcho(data)) })
  await boss.work<Task, unknown, { transactional: true }>('run', { ...work, transactional: true }, async (jobs, tx) => {
    await boss.insert('deliver', await Promise.all(jobs.map(toDelivery)), { db: tx })
  })
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
      const counted =
        "select count(*)::int as open from pgboss.job where name in ('run', 'deliver') and state not in ('completed', 'cancelled')"
      const { rows } = await boss.getDb().executeSql(counted)
      return rows[0].open
    },
  }
})
