/** The listening socket. It opens before the platform does, so that a port of 0 is known in time; early requests wait. */
import { once } from 'node:events'
import type { Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { createAdaptorServer } from '@hono/node-server'
import type { Clock } from '../clock.ts'
import type { Config } from '../config.ts'
import { StartupError } from '../errors.ts'
import type { Millis } from '../model.ts'

export type Fetch = (request: Request, bindings?: object) => Response | Promise<Response>

export interface Door {
  readonly port: number
  /** Lets `fetch` answer from now on, beginning with the requests that wait. */
  admit(fetch: Fetch): void
  /** Listens no more; connections end with the answer they wait for. */
  shut(): void
  /** Resolves when every connection has ended; those that linger after their answer are cut after {@link LINGER_MS}. */
  emptied(clock: Pick<Clock, 'after'>): Promise<void>
  /** Cuts whatever is left. */
  abandon(): void
}

const LINGER_MS: Millis = 1000
/** Longer than the idle timeout of usual load balancers (60 s), so that it is they who close a connection, never we under a request. */
const KEEP_ALIVE_MS: Millis = 65_000

/** @throws StartupError when that address cannot be listened on. */
export async function openDoor({ host, port }: Pick<Config, 'host' | 'port'>): Promise<Door> {
  const opened = Promise.withResolvers<Fetch>()
  // An abandoned door leaves nobody waiting who could mind.
  opened.promise.catch(() => {})
  let answer: Fetch = async (request, bindings) => (await opened.promise)(request, bindings)
  const server = createAdaptorServer({ fetch: (request, bindings) => answer(request, bindings) }) as Server
  server.keepAliveTimeout = KEEP_ALIVE_MS
  server.listen(port, host)
  await once(server, 'listening').catch((error) => {
    throw refusal(error, host, port)
  })
  const ended = once(server, 'close')
  const shut = (): void => {
    if (!server.listening) return
    server.prependListener('request', (_request, response) => void response.setHeader('Connection', 'close'))
    server.close()
  }
  return {
    port: (server.address() as AddressInfo).port,
    admit(fetch) {
      answer = fetch
      opened.resolve(fetch)
    },
    shut,
    async emptied(clock) {
      server.closeIdleConnections()
      const disarm = clock.after(LINGER_MS, () => server.closeAllConnections())
      await ended
      disarm()
    },
    abandon() {
      shut()
      server.closeAllConnections()
    },
  }
}

function refusal(error: NodeJS.ErrnoException, host: string, port: number): StartupError {
  const where = `Port ${port} on ${host}`
  const why: Readonly<Record<string, string>> = {
    EADDRINUSE: `${where} is taken: stop what listens there, or set RINGBACK_PORT to another (0 takes any free one).`,
    EACCES: `${where} may not be listened on by this user: set RINGBACK_PORT to one from 1024 up.`,
    EADDRNOTAVAIL: `${where} cannot be listened on, because this machine has no such address: set RINGBACK_HOST to one it has.`,
    ENOTFOUND: `${where} cannot be listened on, because that name has no address: set RINGBACK_HOST to an address of this machine.`,
  }
  return new StartupError(
    why[error.code ?? ''] ?? `${where} cannot be listened on (${error.message}): set RINGBACK_HOST and RINGBACK_PORT.`,
  )
}
