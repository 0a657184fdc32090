/** Free ports for servers that must know their port before they listen. */
import { once } from 'node:events'
import { createServer } from 'node:net'

/** Below the ephemeral port range of operating systems. */
const FIRST_PORT = 20_000
const PORTS = 12_000

/** One that nobody takes by chance; whether it is free is not known. */
export const anyPort = (): number => FIRST_PORT + Math.floor(Math.random() * PORTS)

/** One that is free, and stays so until somebody is told to take it. */
export async function freePort(): Promise<number> {
  for (;;) {
    const port = anyPort()
    const server = createServer().listen(port, '127.0.0.1')
    const isFree = await once(server, 'listening').then(
      () => true,
      () => false,
    )
    if (!isFree) continue
    server.close()
    await once(server, 'close')
    return port
  }
}
