import { createServer } from 'node:http'
import { getRequestListener } from '@hono/node-server'
import { createRingback, defineTask } from '../../src/index.ts'

const port = Number(process.env.PORT ?? 3000)
const greet = defineTask({ type: 'greet', run: (name) => `Hello, ${name}!` })

const ringback = await createRingback({
  tasks: [greet],
  databaseUrl: 'file:./data/ringback.db',
  publicUrl: `http://127.0.0.1:${port}/ringback`,
  adminToken: process.env.ADMIN_TOKEN,
})

const answer = getRequestListener(ringback.app.fetch)
const server = createServer((request, response) => {
  if (!request.url?.startsWith('/ringback/')) return response.end('My application')
  request.url = request.url.slice('/ringback'.length)
  return answer(request, response)
})

await ringback.start()
server.listen(port, '127.0.0.1', () => console.log(`listening on port ${port}`))

process.once('SIGTERM', () => {
  server.close()
  void ringback.stop()
})
