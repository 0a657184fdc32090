/** Every server hands a request over in its own way. All that is done here is to get at the raw bytes, bounded, and to send the answer. */
import type { Answerer, Reply, WebhookHandler } from './answer.ts'
import { RAW } from './verify.ts'

type Headers = Readonly<Record<string, string | readonly string[] | undefined>>

/** What is used of the request of node:http, Express, and whatever is built on them. */
export interface NodeRequest {
  readonly method?: string | undefined
  readonly headers: Headers
  /** What a parser of Express left. */
  readonly body?: unknown
  /** Whether anybody has read from it. */
  readonly readableDidRead: boolean
  // biome-ignore lint/suspicious/noExplicitAny: an event has the arguments it has
  on(event: 'data' | 'end' | 'close' | 'error', listener: (...given: any[]) => void): unknown
  pause(): unknown
}

/** What is used of the response of node:http, Express, and whatever is built on them. */
export interface NodeResponse {
  writeHead(status: number, headers: Record<string, string>): { end(body: string): unknown }
}

/** What is used of a request of Fastify. */
export interface FastifyRequest {
  readonly method: string
  readonly headers: Headers
  readonly body?: unknown
}

/** What is used of a reply of Fastify. */
export interface FastifyReply {
  code(status: number): unknown
  headers(headers: Record<string, string>): unknown
  send(body: string): unknown
}

/** Takes and answers a standard Request: Hono, Deno, Bun, workers, the routes of Next.js. */
export function fetchAdapter(answerer: Answerer, handler: WebhookHandler): (request: Request) => Promise<Response> {
  return async (request) => {
    const reply = await answered(request)
    return new Response(reply.body === '' ? null : reply.body, { status: reply.status, headers: reply.headers })
  }

  async function answered(request: Request): Promise<Reply> {
    if (request.bodyUsed) return answerer.misused(`The body of the request has been read already. ${RAW}`)
    if (announced(request.headers.get('content-length')) > answerer.maxBodyBytes) return answerer.tooLarge()
    const chunks = chunksWithin(answerer.maxBodyBytes)
    // A reader instead of for await: not every runtime can iterate.
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

/** Takes a request and answers it by its response: node:http, Express (before or behind `express.raw`), Connect. */
export function nodeAdapter(answerer: Answerer, handler: WebhookHandler): (request: NodeRequest, response: NodeResponse) => Promise<void> {
  return async (request, response) => {
    const body = given(request.body) ?? (request.readableDidRead ? 'parsed' : await bodyOf(request, answerer.maxBodyBytes))
    // The sender has hung up: there is nobody to answer.
    if (body === 'cut') return
    const reply =
      body === 'large'
        ? answerer.tooLarge()
        : body === 'parsed'
          ? answerer.misused(
              `A middleware has read the body before the receiver could: mount the receiver before express.json(), or give its route express.raw({ type: '*/*' }) before that. ${RAW}`,
            )
          : await answerer.answer({ method: request.method ?? '', headers: request.headers, body }, handler)
    // What was not read of a body must not be taken for the next request.
    const headers = body === 'large' ? { ...reply.headers, connection: 'close' } : { ...reply.headers }
    response.writeHead(reply.status, headers).end(reply.body)
  }
}

/** Takes a request of Fastify whose parser leaves a buffer. */
export function fastifyAdapter(
  answerer: Answerer,
  handler: WebhookHandler,
): (request: FastifyRequest, reply: FastifyReply) => Promise<void> {
  return async (request, reply) => {
    const body = given(request.body) ?? (request.body === undefined || request.body === null ? new Uint8Array() : null)
    const {
      status,
      headers,
      body: text,
    } = body === null
      ? answerer.misused(
          `Fastify has parsed the body: in the plugin of this route call removeAllContentTypeParsers() and addContentTypeParser('*', { parseAs: 'buffer' }, (request, body, done) => done(null, body)). ${RAW}`,
        )
      : await answerer.answer({ method: request.method, headers: request.headers, body }, handler)
    reply.code(status)
    reply.headers({ ...headers })
    reply.send(text)
  }
}

/** A body that somebody has read without touching it. Text would do too if it were known that nothing was lost in decoding it. */
function given(body: unknown): Uint8Array | null {
  return body instanceof Uint8Array ? body : null
}

function bodyOf(request: NodeRequest, most: number): Promise<Uint8Array | 'large' | 'cut'> {
  if (announced(request.headers['content-length']) > most) return Promise.resolve('large')
  return new Promise((resolve) => {
    const chunks = chunksWithin(most)
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

/** What the sender says that is to come; 0 when it says nothing, for then the bytes are counted as they come. */
function announced(contentLength: unknown): number {
  return Number(contentLength ?? 0)
}

/** Bytes as they come, never more than `most` of them. */
function chunksWithin(most: number): { add(chunk: Uint8Array): boolean; joined(): Uint8Array } {
  const chunks: Uint8Array[] = []
  let length = 0
  return {
    add(chunk) {
      length += chunk.length
      if (length > most) return false
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
