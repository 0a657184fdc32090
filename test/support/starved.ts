/**
 * The platform in a process with a file size limit (`node starved.ts <database> <receiver>`): a task ends and a webhook gets its response while
 * the disk is full, then the limit is removed. It prints the observed states.
 */
import { execFileSync } from 'node:child_process'
import { statSync } from 'node:fs'
import { parseConfig, withPort } from '../../src/config/config.ts'
import { openRingback } from '../../src/platform.ts'
import { defineTask } from '../../src/tasks/define.ts'
import { eventually } from './server.ts'

const [databaseUrl, receiver] = process.argv.slice(2) as [string, string]
const adminToken = 'operator-of-the-tests-0123456789'
const limitFiles = (most: string): unknown => execFileSync('prlimit', ['--pid', String(process.pid), `--fsize=${most}:unlimited`])
// The system sends this signal when a file may not grow; by default it ends the process.
process.on('SIGXFSZ', () => {})

const held = Promise.withResolvers<void>()
let runs = 0
const tasks = [
  defineTask({ type: 'echo', run: async () => ++runs }),
  defineTask({
    type: 'hold',
    async run() {
      runs++
      await held.promise
      return 'done'
    },
  }),
]
let troubles = 0
const warn = () => void troubles++
const options = { databaseUrl, adminToken, masterKey: Buffer.alloc(32, 7).toString('base64') }
const config = withPort(parseConfig({ env: {}, options }), 0) as Parameters<typeof openRingback>[0]['config']
const ringback = await openRingback({ config, tasks, log: { info() {}, debug() {}, error: warn, warn } as never })
await ringback.start()
const ask = (token: string) => async (method: string, path: string, body?: object) => {
  const headers = { authorization: `Bearer ${token}`, ...(body && { 'content-type': 'application/json' }) }
  const response = await ringback.app.fetch(
    new Request(`http://ringback${path}`, { method, headers, ...(body && { body: JSON.stringify(body) }) }),
  )
  const text = await response.text()
  return { status: response.status, json: text === '' ? null : JSON.parse(text) }
}
const operate = ask(adminToken)
const client = (await operate('POST', '/v1/clients', { name: 'tests' })).json
const call = ask((await operate('POST', `/v1/clients/${client.id}/keys`, {})).json.key)
await call('POST', '/v1/endpoints', { url: receiver })

const { id: answered } = (await call('POST', '/v1/tasks', { type: 'echo', input: null })).json
const { id: running } = (await call('POST', '/v1/tasks', { type: 'hold', input: null })).json
await eventually('both running', () => runs === 2)
await eventually('a webhook on its way', async () => (await call('GET', '/v1/deliveries?status=sending')).json.data.length === 1)
const statuses = new Map<number, number>()
const acknowledged: string[] = []
while ((statuses.get(503) ?? 0) < 20) {
  const { status, json } = await call('POST', '/v1/tasks', { type: 'echo', input: 'x', delaySeconds: 3_600 })
  statuses.set(status, (statuses.get(status) ?? 0) + 1)
  if (status === 202) acknowledged.push(json.id)
  // From here on the file cannot grow by a single page.
  if (acknowledged.length === 5) limitFiles(String(statSync(`${databaseUrl.slice('file:'.length)}-wal`).size))
}
held.resolve()
const before = troubles
// The settlements of the task and of the webhook, each refused more than once.
await eventually('settlements refused', () => troubles > before + 4)
// A small write may still fit now and then, and clears the error until the next refusal.
const refused = await eventually('readyz names the store', async () => {
  const answer = await operate('GET', '/readyz')
  return answer.status === 503 && answer
})
const full = { ready: refused, task: (await call('GET', `/v1/tasks/${running}`)).json.status }
limitFiles('unlimited')
const settled = await eventually('settled', async () => {
  const found = [await call('GET', `/v1/tasks/${running}`), await call('GET', `/v1/tasks/${answered}`)].map(({ json }) => json)
  return found.every(({ callback }) => callback.status === 'delivered') && found
})
const { data: deliveries } = (await call('GET', '/v1/deliveries')).json
const again = await operate('GET', '/readyz')
const kept = await Promise.all(acknowledged.map(async (id) => (await call('GET', `/v1/tasks/${id}`)).status))
process.stdout.write(
  `${JSON.stringify({
    statuses: [...statuses.keys()].sort(),
    full: { status: full.ready.status, checks: full.ready.json.checks, task: full.task },
    again: again.status,
    lost: kept.filter((status) => status !== 200).length,
    tasks: settled.map(({ status, tries }) => ({ status, tries })),
    deliveries: deliveries.map(({ status, tries, attempts }: { status: string; tries: number; attempts: object[] }) => ({
      status,
      tries,
      attempts: attempts.length,
    })),
    runs,
  })}\n`,
)
await ringback.stop()
