/**
 * A process that starts and stops the whole platform in a loop (`node looper.ts <url> <receiver> <times>`). Each round runs a task and sends its
 * webhook, then prints the resources that the process still holds.
 */
import { readdirSync } from 'node:fs'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { createRingback, defineTask } from '../../src/index.ts'

setFlagsFromString('--expose-gc')
const collect = runInNewContext('gc') as () => void
const [databaseUrl, receiver, times] = process.argv.slice(2) as [string, string, string]
const adminToken = 'operator-of-the-tests-0123456789'
const echo = defineTask({ type: 'demo.echo', run: (input: unknown) => input })

let key: string | null = null
for (let i = 0; i < Number(times); i++) {
  const ringback = await createRingback({
    databaseUrl,
    masterKey: Buffer.alloc(32, 1).toString('base64'),
    adminToken,
    publicUrl: 'https://tasks.example.com',
    endpointVerification: 'none',
    logLevel: 'silent',
    tasks: [echo],
  })
  await ringback.start()
  const call = async (token: string, method: string, path: string, body?: object) => {
    const headers = { authorization: `Bearer ${token}`, ...(body && { 'content-type': 'application/json' }) }
    const request = new Request(`http://ringback${path}`, { method, headers, ...(body && { body: JSON.stringify(body) }) })
    // biome-ignore lint/suspicious/noExplicitAny: documents have many shapes
    return (await (await ringback.app.fetch(request)).json()) as any
  }
  if (key === null) {
    const { id } = await call(adminToken, 'POST', '/v1/clients', { name: 'loop' })
    key = (await call(adminToken, 'POST', `/v1/clients/${id}/keys`, {})).key as string
    await call(key, 'POST', '/v1/endpoints', { url: receiver })
  }
  const { id } = await call(key, 'POST', '/v1/tasks?wait=30', { type: 'demo.echo', input: i })
  for (let status = ''; status !== 'delivered'; ) {
    await new Promise((resolve) => setTimeout(resolve, 5))
    status = (await call(key, 'GET', `/v1/tasks/${id}`)).callback.status
  }
  await ringback.stop()
  // Sockets that were closed are gone when the loop has come round, which on a busy machine takes as long as it takes.
  for (let rounds = 0; rounds < 100; rounds++) {
    await new Promise((resolve) => setTimeout(resolve, 20))
    if (!process.getActiveResourcesInfo().some((name) => name.includes('TCP'))) break
  }
  collect()
  const holds = {
    files: readdirSync('/dev/fd').length,
    resources: process.getActiveResourcesInfo().sort(),
    listeners: process.eventNames().reduce((sum, name) => sum + process.listenerCount(name), 0),
    heapBytes: process.memoryUsage().heapUsed,
  }
  process.stdout.write(`${JSON.stringify(holds)}\n`)
}
