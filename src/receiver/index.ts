/**
 * `ringback/receiver`: verifies that a webhook is from your Ringback, for this endpoint, unchanged and fresh, and answers it.
 *
 * Give it the raw bytes of the request, before any JSON middleware. More in `docs/how-to/verify-a-webhook.md`.
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
 * Responses: a challenge is answered with itself; a webhook 204 after the handler resolved, 500 when it threw; a repetition 200, or 409 while the first is being
 * handled; a forgery 401; another method 405; too large a body 413; 503 when the keys or `seen` cannot be read.
 */
export interface Receiver {
  /** Returns the webhook or throws a {@link WebhookVerificationError}. Reads the body; sends and stores nothing. */
  verify(webhook: Request | RawWebhook): Promise<Webhook>
  /** The base of the adapters below, for any other server. Rejects only when `onError` throws. */
  answer(request: RawRequest, handler: WebhookHandler): Promise<Reply>
  /** For Hono, Deno, Bun and other servers with the Fetch API. */
  fetch(handler: WebhookHandler): (request: Request) => Promise<Response>
  /** For node:http and Express. With Express, mount it before `express.json()` or after `express.raw({ type: '*\/*' })`. */
  node(handler: WebhookHandler): (request: NodeRequest, response: NodeResponse) => Promise<void>
  /** For Fastify, with a content type parser that returns a buffer. */
  fastify(handler: WebhookHandler): (request: FastifyRequest, reply: FastifyReply) => Promise<void>
}

/** Throws a TypeError when issuer, audience or a limit is missing or invalid. */
export function createReceiver(options: ReceiverOptions): Receiver {
  const verify = createVerifier(options)
  const answerer = createAnswerer(verify, wallOf(options), options)
  return {
    verify: async (input) => verify('arrayBuffer' in input ? await readRequest(input) : input),
    answer: (request, handler) => answerer.answer(request, handler),
    fetch: (handler) => fetchAdapter(answerer, handler),
    node: (handler) => nodeAdapter(answerer, handler),
    fastify: (handler) => fastifyAdapter(answerer, handler),
  }
}

async function readRequest(request: Request): Promise<RawWebhook> {
  if (request.bodyUsed) throw new TypeError(`The body of the request has been read already. ${RAW}`)
  return { headers: request.headers, body: new Uint8Array(await request.arrayBuffer()) }
}
