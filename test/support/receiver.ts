/** A webhook receiver on its own port. It records every request and responds as configured. */
import { once } from 'node:events'
import { createServer, type IncomingHttpHeaders, type Server } from 'node:http'
import { setTimeout as sleep } from 'node:timers/promises'
import { anyPort } from './ports.ts'

/** A complete request. */
export interface Arrival {
  readonly path: string
  readonly method: string
  readonly headers: Readonly<Record<string, string>>
  readonly body: Buffer
  readonly id: string
  /** Milliseconds since the epoch. */
  readonly at: number
  /** What was answered; null: nothing, and the sender has hung up. */
  status: number | null
  // biome-ignore lint/suspicious/noExplicitAny: tests look into events of every shape
  readonly event: any
}
export interface Reply {
  readonly status: number
  readonly headers?: Readonly<Record<string, string>>
  readonly body?: string
  readonly afterMs?: number
}
export type Answering = (arrival: Arrival) => Reply

export interface Receiver {
  readonly url: string
  readonly arrivals: readonly Arrival[]
  /** Requests being answered now, and the most there have ever been. */
  readonly load: { readonly now: number; readonly most: number }
  /** How it answers from now on; 200 at first. */
  answer(how: Answering | Reply): void
  /** Resolves with everything on `path` (or anywhere) once it is at least `count`. */
  receives(count: number, options?: { readonly path?: string; readonly withinMs?: number }): Promise<readonly Arrival[]>
  /** Refuses connections, cutting those that are open; {@link open} listens again at the same address. */
  shut(): Promise<void>
  open(): Promise<void>
  close(): Promise<void>
}

export async function openReceiver(): Promise<Receiver> {
  const arrivals: Arrival[] = []
  const waiting = new Set<() => void>()
  const load = { now: 0, most: 0 }
  let how: Answering = () => ({ status: 200 })

  const server = createServer(async (request, response) => {
    load.most = Math.max(load.most, ++load.now)
    response.once('close', () => void load.now--)
    const chunks: Buffer[] = []
    try {
      for await (const chunk of request) chunks.push(chunk as Buffer)
    } catch {
      // Cut while it was being sent: it never arrived.
      return
    }
    const arrival = arrived(request.url!, request.method!, request.headers, Buffer.concat(chunks))
    arrivals.push(arrival)
    for (const look of waiting) look()
    const { status, headers = {}, body: said = '', afterMs = 0 } = how(arrival)
    if (afterMs > 0) await sleep(afterMs)
    if (!response.destroyed) {
      arrival.status = status
      response.writeHead(status, headers).end(said)
    }
  })
  server.keepAliveTimeout = 60_000
  const port = await listenSomewhere(server)

  return {
    url: `http://127.0.0.1:${port}`,
    arrivals,
    load,
    answer(it) {
      how = typeof it === 'function' ? it : () => it
    },
    receives(count, { path, withinMs = 45_000 } = {}) {
      return new Promise((resolve, reject) => {
        const look = (): void => {
          const found = arrivals.filter((it) => path === undefined || it.path === path)
          if (found.length < count) return
          end()
          resolve(found)
        }
        const timer = setTimeout(() => {
          end()
          const seen = arrivals.map((it) => `${it.path} ${it.event?.type} ${it.status}`)
          reject(new Error(`${count} webhooks did not arrive${path ? ` at ${path}` : ''} within ${withinMs} ms, but: ${seen.join(', ')}`))
        }, withinMs)
        const end = (): void => {
          waiting.delete(look)
          clearTimeout(timer)
        }
        waiting.add(look)
        look()
      })
    },
    async shut() {
      const closed = once(server, 'close')
      server.close()
      server.closeAllConnections()
      await closed
    },
    async open() {
      await listen(server, port)
    },
    async close() {
      server.close()
      server.closeAllConnections()
    },
  }
}

async function listen(server: Server, port: number): Promise<void> {
  server.listen(port, '127.0.0.1')
  await once(server, 'listening')
}

async function listenSomewhere(server: Server): Promise<number> {
  for (;;) {
    // So that a shut receiver finds its own free again.
    const port = anyPort()
    try {
      await listen(server, port)
      return port
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EADDRINUSE') throw error
    }
  }
}

function arrived(path: string, method: string, headers: IncomingHttpHeaders, body: Buffer): Arrival {
  const plain = Object.fromEntries(Object.entries(headers).map(([name, value]) => [name, String(value)]))
  return {
    path,
    method,
    headers: plain,
    body,
    id: plain['webhook-id'] ?? '',
    at: Date.now(),
    status: null,
    event: body.length === 0 ? null : JSON.parse(body.toString('utf8')),
  }
}
