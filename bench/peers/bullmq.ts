/** Hono + BullMQ + Redis: two queues, `run` then `deliver`. */
import { Queue, Worker } from 'bullmq'
import { Redis } from 'ioredis'
import { servePeer } from './server.ts'
import { type Delivery, deliverTries, makeDelivery, runEcho, runTries, type Task } from './webhook.ts'

await servePeer(async (sender) => {
  const connect = () => new Redis({ port: Number(process.env.BENCH_REDIS_PORT), maxRetriesPerRequest: null, enableAutoPipelining: true })
  // Ended jobs are removed at once: the cheapest setting, though nobody could poll for a result then.
  const kept = { removeOnComplete: true, removeOnFail: 10_000 }
  const backoff = { type: 'exponential', delay: 2_000 }
  const run = new Queue<Task>('run', { connection: connect(), defaultJobOptions: { ...kept, attempts: runTries, backoff } })
  const deliver = new Queue<Delivery>('deliver', { connection: connect(), defaultJobOptions: { ...kept, attempts: deliverTries, backoff } })

  const concurrency = 100
  new Worker<Task>(
    'run',
    async ({ data }) => {
      const result = await runEcho(data)
      const delivery = makeDelivery(data, result)
      await deliver.add('deliver', delivery, { jobId: delivery.eventId })
      return result
    },
    { connection: connect(), concurrency },
  )
  new Worker<Delivery>('deliver', (job) => sender.send(job.data, job.attemptsMade + 1), { connection: connect(), concurrency })

  return {
    enqueue: async (task, delaySeconds) => {
      await run.add(task.type, task, { jobId: task.id, ...(delaySeconds > 0 ? { delay: delaySeconds * 1e3 } : {}) })
    },
    countOpen: async () => {
      const states = ['waiting', 'active', 'delayed', 'prioritized', 'failed'] as const
      return (await run.getJobCountByTypes(...states)) + (await deliver.getJobCountByTypes(...states))
    },
  }
})
