import { serve } from '@hono/node-server'
import { Hono } from 'hono'
import { createRingback, defineTask } from '../../src/index.ts'

const port = Number(process.env.PORT ?? 3000)
const greet = defineTask({ type: 'greet', run: (name) => `Hello, ${name}!` })

const ringback = await createRingback({
  tasks: [greet],
  databaseUrl: 'file:./data/ringback.db',
  // Its public URL, including the path it is mounted under: links and signatures contain it.
  publicUrl: `http://127.0.0.1:${port}/ringback`,
  adminToken: process.env.ADMIN_TOKEN,
})

const app = new Hono()
app.get('/', (context) => context.text('My application'))
app.mount('/ringback', ringback.app.fetch)

await ringback.start()
const server = serve({ fetch: app.fetch, hostname: '127.0.0.1', port }, () => console.log(`listening on port ${port}`))

process.once('SIGTERM', () => {
  server.close()
  // Answers waiting calls, lets running tasks finish, closes the store.
  void ringback.stop()
})
