import { createRemoteJWKSet, flattenedVerify } from 'jose'
import { Webhook } from 'standardwebhooks'
import type { Endpoint } from './contestants.ts'
import type { KeptRequest } from './protocol.ts'

/** Verifies both signatures of every request, after the measurement. Returns how many; throws at the first that is wrong. */
export async function verifyRequests(jwksUrl: string, endpoints: readonly Endpoint[], requests: readonly KeptRequest[]): Promise<number> {
  const keys = createRemoteJWKSet(new URL(jwksUrl))
  for (const { path, headers, body } of requests) {
    const endpoint = endpoints.find(({ url }) => new URL(url).pathname === path)
    if (endpoint === undefined) throw new Error(`a webhook came to ${path}, which is no endpoint`)
    new Webhook(endpoint.secret).verify(body, { ...headers })
    const [head = '', empty, signature = ''] = (headers['webhook-jws'] ?? '').split('.')
    if (empty !== '') throw new Error(`webhook-jws is not a detached JWS: ${headers['webhook-jws']}`)
    const jws = { protected: head, payload: Buffer.from(body).toString('base64url'), signature }
    const { protectedHeader } = await flattenedVerify(jws, keys, { algorithms: ['ES256'] })
    if (protectedHeader?.aud !== endpoint.url) throw new Error(`the JWS has aud ${protectedHeader?.aud}, not ${endpoint.url}`)
  }
  return requests.length
}
