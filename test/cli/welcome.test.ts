/** The development key, where servers of one folder start at one moment. */
import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Worker } from 'node:worker_threads'
import { afterAll, expect, test } from 'vitest'

const folder = mkdtempSync(join(tmpdir(), 'ringback-welcome-'))
afterAll(() => rmSync(folder, { recursive: true, force: true }))

/** A server that starts a hundred times on a new database each, so that no key that was kept is good. */
const starts = `
  import { parentPort, workerData } from 'node:worker_threads'
  import { randomBytes } from 'node:crypto'
  const { developmentKey } = await import(workerData.welcome)
  const answers = { GET: () => ({ data: [] }), POST: () => ({ id: 'client_1', key: 'sk_' + randomBytes(300).toString('hex') }) }
  const fetch = async (request) =>
    request.url.includes('/tasks') ? new Response('', { status: 401 }) : Response.json(answers[request.method]())
  const keys = []
  for (let i = 0; i < 100; i++) keys.push(await developmentKey(fetch, workerData.config, { bytes: (n) => randomBytes(n) }))
  parentPort.postMessage(keys)
`

test('servers that start at the same moment in one folder each get a key of their own, and the file holds one complete key', async () => {
  const workerData = { welcome: new URL('../../src/cli/welcome.ts', import.meta.url).href, config: { dataFolder: folder, adminToken: 'x' } }
  const servers = Array.from(
    { length: 4 },
    () =>
      new Promise<string[]>((resolve, reject) =>
        new Worker(new URL(`data:text/javascript,${encodeURIComponent(starts)}`), { workerData })
          .once('message', resolve)
          .once('error', reject),
      ),
  )
  const keys = (await Promise.all(servers)).flat()
  expect(new Set(keys).size).toBe(400)
  expect(keys).toContain(readFileSync(join(folder, 'development-key'), 'utf8').trim())
  expect(readdirSync(folder)).toEqual(['development-key'])
  expect(statSync(join(folder, 'development-key')).mode & 0o777).toBe(0o600)
})
