/** The limit of intake: Hono reads and parses the JSON body and answers 202 with a task-like document. Nothing is stored. */
import { randomUUID } from 'node:crypto'
import { serve } from '@hono/node-server'
import { Hono } from 'hono'

const app = new Hono()
app.get('/readyz', (c) => c.json({ status: 'ok' }))
app.post('/v1/tasks', async (c) => {
  const { type, input } = await c.req.json<{ type: string; input: unknown }>()
  const id = `task_${randomUUID()}`
  const at = new Date().toISOString()
  c.header('Location', `/v1/tasks/${id}`)
  return c.json({ id, type, status: 'pending', progress: 0, result: null, error: null, input, tries: 0, createdAt: at, updatedAt: at }, 202)
})
serve({ fetch: app.fetch, port: Number(process.env.BENCH_PORT), hostname: '127.0.0.1' })
