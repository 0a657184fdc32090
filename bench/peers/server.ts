/** The HTTP side every peer shares; a peer brings a {@link Queue}. */
import { randomUUID } from 'node:crypto'
import { serve } from '@hono/node-server'
import { Hono } from 'hono'
import { createSender, type Endpoint, renderTask, type Sender, type Task } from './webhook.ts'

export interface Queue {
  /** Resolves when the task is stored. */
  enqueue(task: Task, delaySeconds: number): Promise<void>
  /** Tasks and deliveries that have not ended, counted in the store. */
  countOpen(): Promise<number>
}

export async function servePeer(start: (sender: Sender) => Promise<Queue>): Promise<void> {
  const port = Number(process.env.BENCH_PORT)
  const key = `Bearer ${process.env.BENCH_KEY}`
  const endpoints = JSON.parse(process.env.BENCH_ENDPOINTS!) as Endpoint[]
  const known = new Set(endpoints.map(({ id }) => id))
  const sender = await createSender(endpoints, `http://127.0.0.1:${port}`)
  const queue = await start(sender)

  const app = new Hono()
  app.get('/readyz', (c) => c.json({ status: 'ok' }))
  app.get('/open', async (c) => c.json({ open: await queue.countOpen() }))
  app.get('/.well-known/jwks.json', (c) => c.json(sender.jwks))
  app.post('/v1/tasks', async (c) => {
    if (c.req.header('authorization') !== key) return c.json({ title: 'unauthenticated' }, 401)
    const { type, input, callback, delaySeconds = 0 } = await c.req.json()
    if (type !== 'demo.echo' || typeof input !== 'object' || input === null || !known.has(callback?.endpointId)) {
      return c.json({ title: 'validation_failed' }, 422)
    }
    const task: Task = { id: `task_${randomUUID()}`, type, input, endpointId: callback.endpointId, createdAt: new Date().toISOString() }
    await queue.enqueue(task, delaySeconds)
    c.header('Location', `/v1/tasks/${task.id}`)
    return c.json(renderTask(task, 'pending', null), 202)
  })
  serve({ fetch: app.fetch, port, hostname: '127.0.0.1' })
}
