/** What a developer is told at the start: the address, a key, and lines to paste. */
import { join } from 'node:path'
import type { SecuredConfig } from '../config/config.ts'
import { readFileIfExists, replaceFileAtomically } from '../config/files.ts'
import type { Clock } from '../core/clock.ts'
import type { FetchHandler } from '../server/listener.ts'

const CLIENT = 'development'

/**
 * A key of the client called `development`, made with the first start and kept in the data folder.
 * It comes through the API, as it would for any operator.
 */
export async function developmentKey(fetch: FetchHandler, config: SecuredConfig, clock: Pick<Clock, 'bytes'>): Promise<string> {
  const path = join(config.dataFolder, 'development-key')
  const kept = readFileIfExists(path)?.trim() ?? ''
  if (kept !== '' && (await call(fetch, kept, 'GET', '/v1/tasks?limit=1')).status === 200) return kept
  const operator = async <T>(method: string, route: string, body?: object): Promise<T> => {
    const response = await call(fetch, config.adminToken, method, route, body)
    if (!response.ok) throw new Error(`${method} ${route} answered ${response.status}: ${await response.text()}`)
    return (await response.json()) as T
  }
  const { data } = await operator<{ data: readonly { id: string; name: string }[] }>('GET', '/v1/clients?limit=200')
  const client = data.find(({ name }) => name === CLIENT) ?? (await operator<{ id: string }>('POST', '/v1/clients', { name: CLIENT }))
  const { key } = await operator<{ key: string }>('POST', `/v1/clients/${client.id}/keys`, { name: CLIENT })
  // What was kept belongs to another database. Of servers that start here at once each has a key that is good, and the last one's is kept.
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
Ringback is ready at ${publicUrl} (development: it listens on this machine alone and keeps its data and secrets in ${dataFolder}).

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
