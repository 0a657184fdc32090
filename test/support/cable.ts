/** A TCP connection to a database that a test can cut and repair. */
import { once } from 'node:events'
import { type AddressInfo, connect, createServer, type Socket } from 'node:net'

export interface Cable {
  /** The URL of the database through the cable. */
  readonly url: string
  /** Ends every connection, with a reset if asked, and refuses new ones. */
  cut(how?: 'end' | 'reset'): void
  repair(): void
  close(): Promise<void>
}

export async function openCable(databaseUrl: string): Promise<Cable> {
  const there = new URL(databaseUrl)
  const sockets = new Set<Socket>()
  let isCut = false
  const server = createServer((socket) => {
    const far = connect(Number(there.port), there.hostname)
    for (const [one, other] of [
      [socket, far],
      [far, socket],
    ] as const) {
      sockets.add(one)
      one.on('error', () => {})
      one.once('close', () => {
        sockets.delete(one)
        other.destroy()
      })
      one.pipe(other)
    }
    if (isCut) socket.destroy()
  }).listen(0, '127.0.0.1')
  await once(server, 'listening')
  const here = new URL(databaseUrl)
  here.hostname = '127.0.0.1'
  here.port = String((server.address() as AddressInfo).port)
  const cut = (how: 'end' | 'reset' = 'end'): void => {
    isCut = true
    for (const socket of sockets) how === 'reset' ? socket.resetAndDestroy() : socket.destroy()
  }
  return {
    url: here.href,
    cut,
    repair() {
      isCut = false
    },
    async close() {
      cut()
      server.close()
      await once(server, 'close')
    },
  }
}
