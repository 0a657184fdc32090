/**
 * A tunnel through the operator's egress proxy: HTTP CONNECT (RFC 9110 §9.3.6) to a checked address, never to a name that the proxy would
 * resolve. Environment variables such as HTTPS_PROXY are ignored.
 */
import { request } from 'node:http'
import { isIPv6, type Socket } from 'node:net'
import type { EgressProxy } from '../config/parsers.ts'

/** Of the proxy's response headers, names and values. */
const MAX_HEADER_BYTES = 8_192

/** The proxy refused. Clients read the message, so it names only the class of the status. */
export class ProxyRefusal extends Error {
  readonly status: number
  constructor(status: number) {
    super(`The egress proxy refused the connection (${status === 407 ? 'its credentials' : `${Math.floor(status / 100)}xx`}).`)
    this.status = status
  }
}

/** Turns `socket` into a tunnel to `address`. Rejects with {@link ProxyRefusal} unless the proxy answers 2xx. */
export function openTunnel(socket: Socket, address: string, port: number, { authorization }: EgressProxy): Promise<Socket> {
  const authority = `${isIPv6(address) ? `[${address}]` : address}:${port}`
  return new Promise((resolve, reject) => {
    const connecting = request({
      method: 'CONNECT',
      path: authority,
      headers: { host: authority, ...(authorization !== null && { 'proxy-authorization': authorization }) },
      // Without an agent, Node uses exactly this socket.
      createConnection: () => socket,
      maxHeaderSize: MAX_HEADER_BYTES,
    })
    connecting.on('connect', (response, tunnel: Socket, early) => {
      const status = response.statusCode ?? 0
      if (status < 200 || status > 299) {
        tunnel.destroy()
        reject(new ProxyRefusal(status))
        return
      }
      if (early.length > 0) tunnel.unshift(early)
      resolve(tunnel)
    })
    connecting.on('error', reject)
    connecting.end()
  })
}
