/** Adapters for servers: they read the raw body up to the limit and send the reply. */
import type { Answerer, Reply, WebhookHandler } from './answer.ts'
import { RAW } from './verify.ts'

type Headers = Readonly<Record<string, string | readonly string[] | undefined>>

/** The part of a request of node:http, Express and similar that is used. */
export interface NodeRequest {
  readonly method?: string | undefined
  readonly headers: Headers
  /** The result of an Express parser. */
  readonly body?: unknown
  readonly readableDidRead: boolean
  // biome-ignore lint/suspicious/noExplicitAny: each event has its own arguments
  on(event: 'data' | 'end' | 'close' | 'error', listener: (...values: any[]) => void): unknown
  pause(): unknown
}

/** The part of a response of node:http, Express and similar that is used. */
export interface NodeResponse {
  writeHead(status: number, headers: Record<string, string>): { end(body: string): unknown }
}

/** The part of a Fastify request that is used. */
export interface FastifyRequest {
  readonly method: string
  readonly headers: Headers
  readonly body?: unknown
}

/** The part of a Fastify reply that is used. */
export interface FastifyReply {
  code(status: number): unknown
  headers(headers: Record<string, string>): unknown
  send(body: string): unknown
}

/** For the Fetch standard: Hono, Deno, Bun, workers, route handlers of Next.js. */
export function fetchAdapter(answerer: Answerer, handler: WebhookHandler): (request: Request) => Promise<Response> {
  return async (request) => {
    const reply = await replyTo(request)
    return new Response(reply.body === '' ? null : reply.body, { status: reply.status, headers: reply.headers })
  }

  async function replyTo(request: Request): Promise<Reply> {
    if (request.bodyUsed) return answerer.misused(`The body of the request has been read already. ${RAW}`)
    if (contentLengthOf(request.headers.get('content-length')) > answerer.maxBodyBytes) return answerer.tooLarge()
    const chunks = collectChunks(answerer.maxBodyBytes)
    // Not every runtime can iterate a stream, so a reader is used.
    const reader = request.body?.getReader()
    for (;;) {
      const { done, value } = (await reader?.read()) ?? { done: true }
      if (done || value === undefined)
        return answerer.answer({ method: request.method, headers: request.headers, body: chunks.joined() }, handler)
      if (!chunks.add(value)) {
        await reader?.cancel()
        return answerer.tooLarge()
      }
    }
  }
}

/** For node:http, Express (before or after `express.raw`) and Connect. */
export function nodeAdapter(answerer: Answerer, handler: WebhookHandler): (request: NodeRequest, response: NodeResponse) => Promise<void> {
  return async (request, response) => {
    const body = rawBody(request.body) ?? (request.readableDidRead ? 'parsed' : await readBody(request, answerer.maxBodyBytes))
    // The sender has closed the connection.
    if (body === 'cut') return
    const reply =
      body === 'large'
        ? answerer.tooLarge()
        : body === 'parsed'
          ? answerer.misused(
              `A middleware has read the body before the receiver could: mount the receiver before express.json(), or give its route express.raw({ type: '*/*' }) before. ${RAW}`,
            )
          : await answerer.answer({ method: request.method ?? '', headers: request.headers, body }, handler)
    // The unread rest of a body must not be parsed as the next request.
    const headers = body === 'large' ? { ...reply.headers, connection: 'close' } : { ...reply.headers }
    response.writeHead(reply.status, headers).end(reply.body)
  }
}

/** For Fastify with a parser that returns a buffer. */
export function fastifyAdapter(
  answerer: Answerer,
  handler: WebhookHandler,
): (request: FastifyRequest, reply: FastifyReply) => Promise<void> {
  return async (request, reply) => {
    const body = rawBody(request.body) ?? (request.body === undefined || request.body === null ? new Uint8Array() : null)
    const answer =
      body === null
        ? answerer.misused(
            `Fastify has parsed the body: in the plugin of this route call removeAllContentTypeParsers() and addContentTypeParser('*', { parseAs: 'buffer' }, (request, body, done) => done(null, body)). ${RAW}`,
          )
        : await answerer.answer({ method: request.method, headers: request.headers, body }, handler)
    reply.code(answer.status)
    reply.headers({ ...answer.headers })
    reply.send(answer.body)
  }
}

/** A body that was read as bytes. Text is refused: decoding may have lost bytes. */
const rawBody = (body: unknown): Uint8Array | null => (body instanceof Uint8Array ? body : null)

function readBody(request: NodeRequest, maxBytes: number): Promise<Uint8Array | 'large' | 'cut'> {
  if (contentLengthOf(request.headers['content-length']) > maxBytes) return Promise.resolve('large')
  return new Promise((resolve) => {
    const chunks = collectChunks(maxBytes)
    request.on('data', (chunk: Uint8Array) => {
      if (chunks.add(chunk)) return
      request.pause()
      resolve('large')
    })
    request.on('end', () => resolve(chunks.joined()))
    request.on('error', () => resolve('cut'))
    request.on('close', () => resolve('cut'))
  })
}

/** The announced length; 0 without one: the bytes are counted on arrival. */
const contentLengthOf = (header: unknown): number => Number(header ?? 0)

/** Collects chunks of at most `maxBytes` in total. */
function collectChunks(maxBytes: number): { add(chunk: Uint8Array): boolean; joined(): Uint8Array } {
  const chunks: Uint8Array[] = []
  let length = 0
  return {
    add(chunk) {
      length += chunk.length
      if (length > maxBytes) return false
      chunks.push(chunk)
      return true
    },
    joined() {
      const whole = new Uint8Array(length)
      let at = 0
      for (const chunk of chunks) {
        whole.set(chunk, at)
        at += chunk.length
      }
      return whole
    },
  }
}
