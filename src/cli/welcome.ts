/** What `serve` prints in development: the address, an API key, and commands to try. */
import { join } from 'node:path'
import type { SecuredConfig } from '../config/config.ts'
import { readFileIfExists, replaceFileAtomically } from '../config/files.ts'
import type { Clock } from '../core/clock.ts'
import type { FetchHandler } from '../server/listener.ts'

const CLIENT = 'development'

/** The key of the client `development`. The first start creates both through the API and stores the key in the data folder. */
export async function developmentKey(fetch: FetchHandler, config: SecuredConfig, clock: Pick<Clock, 'bytes'>): Promise<string> {
  const path = join(config.dataFolder, 'development-key')
  const stored = readFileIfExists(path)?.trim() ?? ''
  if (stored !== '' && (await call(fetch, stored, 'GET', '/v1/tasks?limit=1')).status === 200) return stored
  const callAsAdmin = async <T>(method: string, route: string, body?: object): Promise<T> => {
    const response = await call(fetch, config.adminToken, method, route, body)
    if (!response.ok) throw new Error(`${method} ${route} answered ${response.status}: ${await response.text()}`)
    return (await response.json()) as T
  }
  const { data } = await callAsAdmin<{ data: readonly { id: string; name: string }[] }>('GET', '/v1/clients?limit=200')
  const client = data.find(({ name }) => name === CLIENT) ?? (await callAsAdmin<{ id: string }>('POST', '/v1/clients', { name: CLIENT }))
  const { key } = await callAsAdmin<{ key: string }>('POST', `/v1/clients/${client.id}/keys`, { name: CLIENT })
  // The stored key was of another database. Servers that start at once each get a valid key; the last one is stored.
  replaceFileAtomically(path, key, clock)
  return key
}

function call(fetch: FetchHandler, token: string, method: string, route: string, body?: object): Response | Promise<Response> {
  const headers = { authorization: `Bearer ${token}`, 'content-type': 'application/json' }
  return fetch(new Request(`http://127.0.0.1${route}`, { method, headers, ...(body && { body: JSON.stringify(body) }) }))
}

/** The text `serve` prints in development. Every line in it can be pasted into a shell. */
export function startupMessage(
  { publicUrl, dataFolder }: Pick<SecuredConfig, 'dataFolder'> & { readonly publicUrl: string },
  key: string,
): string {
  return `
Ringback is ready at ${publicUrl} (development: it listens only on this machine and stores its data and secrets in ${dataFolder}).

The API key of the client "${CLIENT}", for this shell:
  KEY=${key}
Submit a task:
  curl -sS ${publicUrl}/v1/tasks -H "Authorization: Bearer $KEY" -H 'Content-Type: application/json' -d '{"type":"demo.echo","input":{"hello":"world"}}'
See your newest task:
  curl -sS "${publicUrl}/v1/tasks?limit=1" -H "Authorization: Bearer $KEY"
Have webhooks sent to your own server:
  curl -sS ${publicUrl}/v1/endpoints -H "Authorization: Bearer $KEY" -H 'Content-Type: application/json' -d '{"url":"http://127.0.0.1:9000/hooks"}'

`
}
