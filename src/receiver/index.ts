/**
 * `ringback/receiver`: is this webhook from the Ringback I know, meant for me, unchanged and fresh? And what do I answer?
 *
 * Give it the raw bytes of the request, before any JSON middleware. `docs/how-to/verify-a-webhook.md` tells the rest.
 */
import {
  type FastifyReply,
  type FastifyRequest,
  fastifyAdapter,
  fetchAdapter,
  type NodeRequest,
  type NodeResponse,
  nodeAdapter,
} from './adapters.ts'
import { type AnswererOptions, createAnswerer, type RawRequest, type Reply, type WebhookHandler } from './answer.ts'
import { createVerifier, RAW, type RawWebhook, type VerifierOptions, type Webhook, wallOf } from './verify.ts'

export type { ChallengeData, EventDocument as WebhookEvent, TaskDocument as TaskData } from '../core/documents.ts'
export type { FastifyReply, FastifyRequest, NodeRequest, NodeResponse } from './adapters.ts'
export type { HandledWebhook, RawRequest, Reply, WebhookHandler } from './answer.ts'
export { type Claim, memorySeen, type SeenIds, type SqlQuery, sqlSeen } from './seen.ts'
export {
  type RawWebhook,
  verifyStandardWebhook,
  type Webhook,
  type WebhookHeaders,
  type WebhookVerificationCode,
  WebhookVerificationError,
} from './verify.ts'

export interface ReceiverOptions extends VerifierOptions, AnswererOptions {}

/**
 * What arrives is answered: a challenge with itself, a webhook 204 after the handler resolved and 500 when it threw, a repetition 200 (409 while the first is being
 * handled), a forgery 401, another method 405, a body too large 413, and 503 when the keys or the memory cannot be read.
 */
export interface Receiver {
  /** The webhook, or a {@link WebhookVerificationError}. Reads the request's body, answers nothing and remembers nothing. */
  verify(webhook: Request | RawWebhook): Promise<Webhook>
  /** The core of the adapters below, for any other server. Rejects only when `onError` throws. */
  answer(request: RawRequest, handler: WebhookHandler): Promise<Reply>
  /** For Hono, Deno, Bun, and whatever else speaks Fetch. */
  fetch(handler: WebhookHandler): (request: Request) => Promise<Response>
  /** For node:http and Express. With Express, mount it before `express.json()` or behind `express.raw({ type: '*\/*' })`. */
  node(handler: WebhookHandler): (request: NodeRequest, response: NodeResponse) => Promise<void>
  /** For Fastify, with a content type parser that leaves a buffer. */
  fastify(handler: WebhookHandler): (request: FastifyRequest, reply: FastifyReply) => Promise<void>
}

/** Throws a TypeError when issuer, audience or a bound could not refuse anything. */
export function createReceiver(options: ReceiverOptions): Receiver {
  const verify = createVerifier(options)
  const answerer = createAnswerer(verify, wallOf(options), options)
  return {
    verify: async (input) => verify('arrayBuffer' in input ? await taken(input) : input),
    answer: (request, handler) => answerer.answer(request, handler),
    fetch: (handler) => fetchAdapter(answerer, handler),
    node: (handler) => nodeAdapter(answerer, handler),
    fastify: (handler) => fastifyAdapter(answerer, handler),
  }
}

async function taken(request: Request): Promise<RawWebhook> {
  if (request.bodyUsed) throw new TypeError(`The body of the request has been read already. ${RAW}`)
  return { headers: request.headers, body: new Uint8Array(await request.arrayBuffer()) }
}
