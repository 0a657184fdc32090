/**
 * A tunnel through the operator's egress proxy: HTTP CONNECT (RFC 9110 §9.3.6) to an address that was vetted here, never to a name, so that the
 * proxy has nothing to resolve and nothing to choose. Variables of the environment are never heeded.
 */
import { request } from 'node:http'
import { isIPv6, type Socket } from 'node:net'
import type { EgressProxy } from '../config/parsers.ts'

/** Of the proxy's answer, names and values. */
const maxHeaderBytes = 8_192

/** The proxy refused. The message names the class of its answer and nothing else: the rest is between the operator and the proxy. */
export class ProxyRefusal extends Error {
  readonly status: number
  constructor(status: number) {
    super(`The egress proxy refused the connection (${status === 407 ? 'its credentials' : `${Math.floor(status / 100)}xx`}).`)
    this.status = status
  }
}

/** The socket, once it is a tunnel to `address`. Rejects with {@link ProxyRefusal} when the proxy answers anything but 2xx. */
export function openTunnel(socket: Socket, address: string, port: number, { authorization }: EgressProxy): Promise<Socket> {
  const authority = `${isIPv6(address) ? `[${address}]` : address}:${port}`
  return new Promise((resolve, reject) => {
    const asked = request({
      method: 'CONNECT',
      path: authority,
      headers: { host: authority, ...(authorization !== null && { 'proxy-authorization': authorization }) },
      // With no agent named, the connection is this one and no other.
      createConnection: () => socket,
      maxHeaderSize: maxHeaderBytes,
    })
    asked.on('connect', (answer, tunnel: Socket, early) => {
      const status = answer.statusCode ?? 0
      if (status < 200 || status > 299) {
        tunnel.destroy()
        reject(new ProxyRefusal(status))
        return
      }
      if (early.length > 0) tunnel.unshift(early)
      resolve(tunnel)
    })
    asked.on('error', reject)
    asked.end()
  })
}
