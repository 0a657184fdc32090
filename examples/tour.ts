/**
 * `npm run tour [data set]`: the whole cycle in one terminal. Submits a task over HTTP, which profiles a real data set, and verifies the webhook.
 * Exits with 0 only if every check passed. `RINGBACK_DATABASE_URL=postgres://…` uses PostgreSQL, in a temporary database.
 */
import { deepStrictEqual } from 'node:assert/strict'
import { once } from 'node:events'
import { statSync } from 'node:fs'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { buffer } from 'node:stream/consumers'
import { base64url, createRemoteJWKSet, flattenedVerify } from 'jose'
import type config from '../ringback.config.ts'
import { createClient, type Task } from '../src/client/index.ts'
import { createReceiver } from '../src/receiver/index.ts'
import { startPlatform } from './platform.ts'
import { datasetUrl } from './tasks/table.ts'

interface Arrival {
  readonly body: Buffer<ArrayBuffer>
  readonly headers: Readonly<Record<string, string | string[] | undefined>>
}

const began = performance.now()
const dataset = process.argv[2] ?? 'zipcodes.csv'
const held: boolean[] = []

function heading(text: string): void {
  console.log(`\n${text}`)
}
function note(label: string, text: string): void {
  console.log(`  ${label.padEnd(18)} ${text}`)
}
async function check(label: string, verify: () => Promise<string> | string): Promise<void> {
  try {
    note(label, await verify())
    held.push(true)
  } catch (error) {
    note(label, `DID NOT HOLD: ${(error as Error).message}`)
    held.push(false)
  }
}
const since = (start: number): string => `${((performance.now() - start) / 1000).toFixed(2)} s`

/** The platform runs in a separate process. */
const platform = await startPlatform({ databaseUrl: process.env.RINGBACK_DATABASE_URL ?? '' })
/** The time limit of the whole tour. */
const end = AbortSignal.timeout(60_000)
const arrived = Promise.withResolvers<Arrival>()
const receiving = createServer(async (request, response) => {
  const body = Buffer.from(await buffer(request))
  response.writeHead(204).end()
  arrived.resolve({ body, headers: request.headers })
})

try {
  const client = createClient<(typeof config)['tasks']>(platform)
  heading('The platform')
  note('address', platform.url)
  note('database', platform.database)

  receiving.listen(0, '127.0.0.1')
  await once(receiving, 'listening')
  const audience = `http://127.0.0.1:${(receiving.address() as AddressInfo).port}/hooks`
  const endpoint = await client.endpoints.create({ url: audience }, { signal: end })
  heading('The receiver')
  note('address', audience)
  note('registered as', `${endpoint.id}, ${endpoint.status}`)

  heading('The task')
  const bytes = statSync(datasetUrl(dataset)).size
  const submittedAt = performance.now()
  const task = await client.submit('dataset.profile', { dataset }, { signal: end })
  note('submitted', `dataset.profile of ${dataset}, ${(bytes / 1e6).toFixed(1)} MB: ${task.id}`)
  const ended = await client.wait(task, {
    signal: end,
    onProgress: ({ status, progress, progressMessage }) =>
      note(
        `+ ${since(submittedAt)}`,
        `${status.padEnd(9)} ${progress.toFixed(1).padStart(5)} %  ${status === 'running' ? (progressMessage ?? '') : ''}`.trimEnd(),
      ),
  })
  const profile = await client.result(ended, { signal: end })
  note('result', `${profile.rows} rows, ${profile.columns.length} columns`)
  for (const { name, type, count, nulls, distinct, min, max, quantiles } of profile.columns) {
    const range = min === null ? '' : `, ${min} to ${max}${quantiles ? `, median ${quantiles.p50}` : ''}`
    note('', `${name}: ${type}, ${count} values, ${nulls} nulls, ${distinct} distinct${range}`)
  }

  heading('The webhook')
  const webhook = await Promise.race([arrived.promise, once(end, 'abort').then(() => Promise.reject(end.reason))])
  const { body, headers } = webhook
  const event = JSON.parse(body.toString()) as { id: string; type: string; data: Task }
  note('arrived', `${event.type}, ${event.id}, ${body.length} bytes, attempt ${headers['webhook-attempt']}`)
  await check('plain jose', () => verifyWithJose(webhook, platform.url, audience))
  const receiver = createReceiver({ issuer: platform.url, audience })
  await check('ringback/receiver', async () => {
    const { id, type, keyId } = await receiver.verify({ headers, body })
    deepStrictEqual({ id, type }, { id: event.id, type: 'task.completed' })
    return `holds: signed by key ${keyId}`
  })
  await check('one byte changed', async () => {
    const changed = Buffer.from(body)
    changed[changed.length - 3]! ^= 1
    for (const verify of [
      () => receiver.verify({ headers, body: changed }),
      () => verifyWithJose({ headers, body: changed }, platform.url, audience),
    ])
      await verify().then(
        () => Promise.reject(new Error('it was believed')),
        () => {},
      )
    return 'is refused by both'
  })

  heading('The status endpoint')
  await check('the same document', async () => {
    const shown = await client.get(task.id, { signal: end })
    // A webhook cannot contain the outcome of its own delivery.
    deepStrictEqual(event.data, { ...shown, callback: { ...shown.callback, status: null } })
    return `all ${Object.keys(shown).length} members are equal, but for callback.status`
  })
  await check('callback.status', async () => {
    let { status } = (await client.get(task.id, { signal: end })).callback
    // The server records the response after the receiver sent it.
    while (status === 'pending') status = (await client.get(task.id, { signal: end })).callback.status
    deepStrictEqual(status, 'delivered')
    return 'delivered'
  })
} catch (error) {
  note('DID NOT HOLD', (error as Error).message)
  held.push(false)
} finally {
  receiving.closeAllConnections()
  receiving.close()
  await platform.stop()
}
const everything = held.length === 5 && held.every(Boolean)
console.log(`\n${everything ? 'Everything held' : 'Not everything held'}, in ${since(began)}.`)
process.exitCode = everything ? 0 : 1

/** Everything that a receiver without the Ringback library has to do. */
async function verifyWithJose({ headers, body }: Arrival, issuer: string, audience: string): Promise<string> {
  const keys = createRemoteJWKSet(new URL(`${issuer}/.well-known/jwks.json`))
  const [head = '', signature = ''] = String(headers['webhook-jws']).split('..')
  const jws = { protected: head, payload: base64url.encode(body), signature }
  const { protectedHeader: signed } = await flattenedVerify(jws, keys, { algorithms: ['ES256', 'EdDSA'] })
  const fresh = Math.abs(Date.now() / 1000 - Number(signed?.iat)) <= 300
  if (signed?.typ !== 'webhook+jws' || signed.iss !== issuer || signed.aud !== audience || !fresh)
    throw new Error('it is not for us, or not fresh')
  return `holds: ${signed.alg}, from ${signed.iss} to ${signed.aud}`
}
