/**
 * The webhook receiver: a process of its own on raw `node:http`. It answers 204 at once, counts webhooks by `webhook-id`
 * and keeps some requests whole, so that signatures are verified after the measurement and cost nothing during it.
 */
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { monotonicMs } from './clock.ts'
import { type KeptRequest, type ReceiverCommand, type ReceiverCount, serveCommands } from './protocol.ts'

interface Waiter {
  readonly count: number
  readonly resolve: (count: ReceiverCount) => void
}

function createReceiver() {
  let keepEvery = 0
  let requests = 0
  let firstAt = 0
  let lastAt = 0
  let seen = new Set<string>()
  let kept: KeptRequest[] = []
  let waiter: Waiter | null = null

  const count = (): ReceiverCount => ({ requests, webhooks: seen.size, firstAt, lastAt })

  const note = (id: string, at: number): void => {
    if (requests++ === 0) firstAt = at
    const before = seen.size
    seen.add(id)
    if (seen.size === before) return
    lastAt = at
    if (waiter !== null && seen.size >= waiter.count) {
      waiter.resolve(count())
      waiter = null
    }
  }

  const keep = (request: IncomingMessage, at: number): void => {
    const pieces: Buffer[] = []
    request.on('data', (piece: Buffer) => pieces.push(piece))
    request.on('end', () => {
      const headers = Object.fromEntries(Object.entries(request.headers).map(([name, value]) => [name, String(value)]))
      kept.push({ at, path: request.url ?? '', headers, body: Buffer.concat(pieces).toString('utf8') })
    })
  }

  const onRequest = (request: IncomingMessage, response: ServerResponse): void => {
    // The head is parsed in the turn that read its first byte, so this is the first byte's time as this process sees it.
    const at = monotonicMs()
    response.writeHead(204).end()
    if (keepEvery > 0 && requests % keepEvery === 0) keep(request, at)
    else request.resume()
    note(String(request.headers['webhook-id']), at)
  }

  const answer = (command: ReceiverCommand): unknown => {
    switch (command.command) {
      case 'reset':
        keepEvery = command.keepEvery
        requests = firstAt = lastAt = 0
        seen = new Set()
        kept = []
        return true
      case 'count':
        return count()
      case 'kept':
        return kept
      case 'await': {
        if (seen.size >= command.count) return count()
        return new Promise<ReceiverCount>((resolve) => {
          const timer = setTimeout(() => {
            waiter = null
            resolve(count())
          }, command.timeoutMs)
          waiter = {
            count: command.count,
            resolve: (now) => {
              clearTimeout(timer)
              resolve(now)
            },
          }
        })
      }
    }
  }
  return { onRequest, answer }
}

const receiver = createReceiver()
const server = createServer({ keepAliveTimeout: 60_000 }, receiver.onRequest)
server.listen(0, '127.0.0.1', 4096, () => {
  serveCommands(receiver.answer)
  process.send?.({ ok: (server.address() as AddressInfo).port })
})
