/** A proxy between client and server that injects faults. */
import { once } from 'node:events'
import { createServer, type IncomingMessage, request, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'

/** One request on its way. */
export interface Way {
  readonly request: IncomingMessage
  readonly response: ServerResponse
  /** Asks the server; `changed` overrules what was asked. Its answer streams. */
  forward(changed?: { path?: string; headers?: Record<string, string | undefined> }): Promise<IncomingMessage>
  /** Hands an answer on as it comes. */
  pass(answer: IncomingMessage): void
}

export interface TestProxy {
  readonly url: string
  /** Method, path and `Last-Event-ID` of every request, as `GET /v1/tasks/…/events 7`. */
  readonly seen: string[]
  /** Connections that are open. */
  readonly open: number
  close(): Promise<void>
}

export async function startProxy(upstream: string, treat: (way: Way) => void | Promise<void>): Promise<TestProxy> {
  const seen: string[] = []
  let open = 0
  const server = createServer((incoming, response) => {
    seen.push([incoming.method, incoming.url, incoming.headers['last-event-id']].filter((it) => it !== undefined).join(' '))
    const way: Way = {
      request: incoming,
      response,
      async forward({ path = incoming.url!, headers = {} } = {}) {
        const { host: _, ...given } = incoming.headers
        const onward = request(`${upstream}${path}`, { method: incoming.method!, headers: { ...given, ...headers }, agent: false })
        // Who hung up here hangs up there.
        response.on('close', () => onward.destroy())
        onward.on('error', () => response.destroy())
        incoming.pipe(onward)
        const [answer] = (await once(onward, 'response')) as [IncomingMessage]
        answer.on('error', () => response.destroy())
        return answer
      },
      pass(answer) {
        response.writeHead(answer.statusCode!, answer.headers)
        response.flushHeaders()
        answer.pipe(response)
      },
    }
    Promise.resolve(treat(way)).catch(() => response.destroy())
  })
  server.on('connection', (socket) => {
    open++
    socket.on('close', () => open--)
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    seen,
    get open() {
      return open
    },
    async close() {
      server.closeAllConnections()
      server.close()
      await once(server, 'close')
    },
  }
}
