/** What anyone may ask of the node: is it up, is it ready, which keys does it sign with, what does it offer. */
import { RingbackError } from '../../core/errors.ts'
import type { QueueState } from '../../store/interfaces.ts'
import type { TaskType } from '../../tasks/define.ts'
import type { Registry } from '../../tasks/registry.ts'
import { type AppContext, jsonReply, notFound, OPERATOR_SCOPE, toTimestampOrNull } from '../context.ts'
import { type ApiReply, problemReply } from '../request/problem.ts'
import { type ApiCall, type Route, route } from '../request/route.ts'
import * as shapes from '../shapes/system.ts'
import * as taskShapes from '../shapes/tasks.ts'

/** `describe` gives the OpenAPI document as JSON text. */
export function systemRoutes(context: AppContext, describe: () => string): Route[] {
  return [...typeRoutes(context), ...publicRoutes(context, describe)]
}

function typeRoutes(context: AppContext): Route[] {
  const common = { tag: 'Task types', scope: 'tasks:read' } as const
  const find = async (call: ApiCall): Promise<TaskType> => {
    const type = offered(context.registry).find((candidate) => candidate.type === call.param('name'))
    if (!type) throw notFound('task type')
    return type
  }
  const pausing = (verb: 'pause' | 'resume', summary: string, description: string): Route =>
    route(
      {
        tag: 'Task types',
        scope: OPERATOR_SCOPE,
        method: 'post',
        path: `/v1/task-types/{name}/${verb}`,
        name: `${verb}TaskType`,
        summary,
        description,
        responses: { 200: { description: 'The task type.', schema: taskShapes.taskType } },
      },
      {
        find,
        async handle(call, { found }) {
          const state = await context.store.schedules.pauseTaskType({ type: found.type, paused: verb === 'pause', by: call.author })
          return jsonReply(200, toTaskTypeDocument(context, found, state))
        },
      },
    )
  return [
    route(
      {
        ...common,
        method: 'get',
        path: '/v1/task-types',
        name: 'listTaskTypes',
        summary: 'List the task types of this node',
        description: 'What this node knows; another node of the installation may know others.',
        responses: { 200: { description: 'The task types.', schema: taskShapes.taskTypeList } },
      },
      {
        async handle() {
          const states = new Map((await context.store.schedules.listTaskTypes()).map((state) => [state.type, state]))
          const data = offered(context.registry).map((type) => toTaskTypeDocument(context, type, states.get(type.type)))
          return jsonReply(200, { data, hasMore: false, nextCursor: null }, { 'Cache-Control': 'private, no-cache' })
        },
      },
    ),
    route(
      {
        ...common,
        method: 'get',
        path: '/v1/task-types/{name}',
        name: 'getTaskType',
        summary: 'Read a task type: its schemas and limits',
        description: '`inputSchema` is what `input` is held against before a task is taken.',
        responses: { 200: { description: 'The task type.', schema: taskShapes.taskType } },
      },
      {
        find,
        async handle(_call, { found }) {
          const states = await context.store.schedules.listTaskTypes()
          const state = states.find(({ type }) => type === found.type)
          return jsonReply(200, toTaskTypeDocument(context, found, state), { 'Cache-Control': 'private, no-cache' })
        },
      },
    ),
    pausing(
      'pause',
      'Pause a task type: its tasks are taken in and wait, on every node; what runs goes on',
      '`pausedAt` says since when. Tasks that wait for it say `paused` in `waitingFor`.',
    ),
    pausing('resume', 'Resume a paused task type: what waits starts at once', 'Resuming what is not paused changes nothing.'),
  ]
}

const offered = (registry: Registry): TaskType[] => registry.list().filter(({ type }) => !type.startsWith('system.'))

const toTaskTypeDocument = (context: AppContext, type: TaskType, state: QueueState | undefined) => ({
  name: type.type,
  description: type.description,
  inputSchema: type.inputJsonSchema,
  resultSchema: type.resultJsonSchema,
  timeoutSeconds: type.timeoutSeconds,
  maxTries: type.retry.tries,
  concurrency: type.concurrency,
  typicalDurationMs: context.typicalDurationMs(type.type),
  pausedAt: toTimestampOrNull(state?.pausedAt ?? null),
})

function publicRoutes(context: AppContext, describe: () => string): Route[] {
  // Anyone may ask, and each look costs the store a query: those who ask meanwhile share it.
  let looking: ReturnType<AppContext['health']> | null = null
  const healthOnce = (): ReturnType<AppContext['health']> => {
    looking ??= context.health().finally(() => {
      looking = null
    })
    return looking
  }
  const common = { tag: 'Operations', scope: 'public', method: 'get' } as const
  return [
    route(
      {
        ...common,
        path: '/healthz',
        name: 'getHealth',
        summary: 'Is the process up',
        description: 'Answers as long as the process does, whatever the store is like: for what would restart it.',
        responses: { 200: { description: 'It is.', schema: shapes.health } },
      },
      { handle: () => jsonReply(200, { status: 'ok' }) },
    ),
    route(
      {
        ...common,
        path: '/readyz',
        name: 'getReadiness',
        summary: 'Can the node do its work',
        description: 'For what sends traffic to it. A 503 is a problem document with the member `checks`.',
        responses: { 200: { description: 'It can.', schema: shapes.readiness } },
        errorCodes: ['temporary_reduced_capacity'],
      },
      { handle: async (call) => readiness(call, await healthOnce()) },
    ),
    route(
      {
        ...common,
        path: '/.well-known/jwks.json',
        name: 'getJwks',
        summary: 'The public keys that webhooks are signed with (RFC 7517)',
        description:
          'The key that signs now, the one that will, and those that signed not long ago: keep the set for as long as `Cache-Control` says. Always 200, since some libraries take nothing else.',
        requestHeaders: ['If-None-Match'],
        responses: {
          200: {
            description: 'The key set.',
            schema: shapes.jwks,
            type: 'application/jwk-set+json',
            headers: ['ETag', 'Cache-Control'],
          },
        },
      },
      { handle: () => jwksReply(context) },
    ),
    route(
      {
        ...common,
        path: '/openapi.json',
        name: 'getOpenApi',
        summary: 'This document',
        description: 'OpenAPI 3.1, made of what the node validates with. `/docs` shows it as a page.',
        responses: { 200: { description: 'OpenAPI 3.1.', schema: taskShapes.anyJson } },
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
function jwksReply(context: AppContext): ApiReply {
  const { body, etag } = context.signingKeys.jwks()
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

function readiness(call: ApiCall, checks: Readonly<Record<string, string>>): ApiReply {
  const failed = Object.keys(checks).filter((name) => checks[name] !== 'ok')
  if (failed.length === 0) return jsonReply(200, { status: 'ok', checks })
  const refusal = new RingbackError('temporary_reduced_capacity', `Not ready: ${failed.join(', ')}.`, { headers: { 'Retry-After': '5' } })
  return problemReply(refusal, { instance: call.path, requestId: call.requestId }, { checks })
}
