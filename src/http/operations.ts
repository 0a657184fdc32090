/** What anyone may ask of the node: is it up, is it ready, which keys does it sign with, what does it offer. */
import { RingbackError } from '../errors.ts'
import type { Registry, TaskType } from '../task.ts'
import { type House, jsonReply, notFound } from './house.ts'
import { problemReply, type Reply } from './problem.ts'
import { type Call, type Route, route } from './route.ts'
import * as shapes from './shapes.ts'

/** `describe` gives the OpenAPI document as JSON text. */
export function operationRoutes(house: House, describe: () => string): Route[] {
  return [...typeRoutes(house), ...publicRoutes(house, describe)]
}

function typeRoutes(house: House): Route[] {
  const common = { tag: 'Task types', scope: 'tasks:read' } as const
  return [
    route(
      {
        ...common,
        method: 'get',
        path: '/v1/task-types',
        name: 'listTaskTypes',
        summary: 'List the task types of this node',
        answers: { 200: { description: 'The task types.', schema: shapes.taskTypeList } },
      },
      {
        handle: () =>
          jsonReply(
            200,
            { data: offered(house.registry).map(shownType), hasMore: false, nextCursor: null },
            { 'Cache-Control': 'private, no-cache' },
          ),
      },
    ),
    route(
      {
        ...common,
        method: 'get',
        path: '/v1/task-types/{name}',
        name: 'getTaskType',
        summary: 'Read a task type: its schemas and limits',
        answers: { 200: { description: 'The task type.', schema: shapes.taskType } },
      },
      {
        async find(call) {
          const type = offered(house.registry).find((candidate) => candidate.type === call.param('name'))
          if (!type) throw notFound('task type')
          return type
        },
        handle: (_call, { found }) => jsonReply(200, shownType(found), { 'Cache-Control': 'private, no-cache' }),
      },
    ),
  ]
}

const offered = (registry: Registry): TaskType[] => registry.list().filter(({ type }) => !type.startsWith('system.'))

const shownType = (type: TaskType) => ({
  name: type.type,
  description: type.description,
  inputSchema: type.inputJsonSchema,
  resultSchema: type.resultJsonSchema,
  timeoutSeconds: type.timeoutSeconds,
  maxTries: type.retry.tries,
  concurrency: type.concurrency,
  typicalDurationMs: null,
})

function publicRoutes(house: House, describe: () => string): Route[] {
  const common = { tag: 'Operations', scope: 'public', method: 'get' } as const
  return [
    route(
      {
        ...common,
        path: '/healthz',
        name: 'getHealth',
        summary: 'Is the process up',
        answers: { 200: { description: 'It is.', schema: shapes.health } },
      },
      { handle: () => jsonReply(200, { status: 'ok' }) },
    ),
    route(
      {
        ...common,
        path: '/readyz',
        name: 'getReadiness',
        summary: 'Can the node do its work',
        description: 'A 503 is a problem document with the member `checks`.',
        answers: { 200: { description: 'It can.', schema: shapes.readiness } },
        refusals: ['temporary_reduced_capacity'],
      },
      { handle: (call) => readiness(house, call) },
    ),
    route(
      {
        ...common,
        path: '/.well-known/jwks.json',
        name: 'getJwks',
        summary: 'The public keys that webhooks are signed with (RFC 7517)',
        requestHeaders: ['If-None-Match'],
        answers: {
          200: {
            description: 'The key set.',
            schema: shapes.jwks,
            type: 'application/jwk-set+json',
            headers: ['ETag', 'Cache-Control'],
          },
        },
      },
      { handle: () => jwksReply(house) },
    ),
    route(
      {
        ...common,
        path: '/openapi.json',
        name: 'getOpenApi',
        summary: 'This document',
        answers: { 200: { description: 'OpenAPI 3.1.', schema: shapes.anyJson } },
      },
      {
        handle: () => ({
          status: 200,
          headers: { 'Content-Type': 'application/json', 'Cache-Control': 'public, max-age=300', 'Access-Control-Allow-Origin': '*' },
          body: describe(),
        }),
      },
    ),
  ]
}

/** Always 200 and never conditional: some JWKS clients take nothing else (jose among them). */
function jwksReply(house: House): Reply {
  const { body, etag } = house.signingKeys.jwks()
  return {
    status: 200,
    headers: {
      'Content-Type': 'application/jwk-set+json',
      'Cache-Control': 'public, max-age=300, stale-if-error=600',
      'Access-Control-Allow-Origin': '*',
      ETag: etag,
    },
    body,
  }
}

async function readiness(house: House, call: Call): Promise<Reply> {
  const checks = await house.health()
  const failed = Object.keys(checks).filter((name) => checks[name] !== 'ok')
  if (failed.length === 0) return jsonReply(200, { status: 'ok', checks })
  const refusal = new RingbackError('temporary_reduced_capacity', `Not ready: ${failed.join(', ')}.`, { headers: { 'Retry-After': '5' } })
  return problemReply(refusal, { instance: call.path, requestId: call.requestId }, { checks })
}
