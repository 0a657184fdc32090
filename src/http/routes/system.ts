/** Routes about the node: health, readiness, public keys, the OpenAPI document, and its task types. */
import { RingbackError } from '../../core/errors.ts'
import type { QueueState } from '../../store/interfaces.ts'
import type { TaskType } from '../../tasks/define.ts'
import type { Registry } from '../../tasks/registry.ts'
import { type AppContext, OPERATOR_SCOPE } from '../context.ts'
import { systemExamples as examples } from '../openapi/examples/system.ts'
import { taskTypeExamples } from '../openapi/examples/tasks.ts'
import { type ApiReply, problemReply } from '../request/problem.ts'
import { jsonReply, notFound, toTimestampOrNull } from '../request/replies.ts'
import { type ApiCall, type NamedExample, type Route, response, route } from '../request/route.ts'
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
  const one = (example: NamedExample) => ({ 200: response('The task type.', taskShapes.taskType, [example]) })
  const pausing = (verb: 'pause' | 'resume', summary: string, description: string): Route =>
    route.post(`/v1/task-types/{name}/${verb}`, `${verb}TaskType`, {
      tag: 'Task types',
      scope: OPERATOR_SCOPE,
      summary,
      description,
      responses: one(verb === 'pause' ? taskTypeExamples.pausedTaskType : taskTypeExamples.taskType),
      find,
      async handle(call, { found }) {
        const state = await context.store.schedules.pauseTaskType({ type: found.type, paused: verb === 'pause', by: call.author })
        return jsonReply(200, toTaskTypeDocument(context, found, state))
      },
    })
  return [
    route.get('/v1/task-types', 'listTaskTypes', {
      ...common,
      summary: 'List the task types of this node',
      description: 'Another node of the installation may have other task types.',
      responses: { 200: response('The task types.', taskShapes.taskTypeList, [taskTypeExamples.taskTypeList]) },
      async handle() {
        const states = new Map((await context.store.schedules.listTaskTypes()).map((state) => [state.type, state]))
        const data = offered(context.registry).map((type) => toTaskTypeDocument(context, type, states.get(type.type)))
        return jsonReply(200, { data, hasMore: false, nextCursor: null }, { 'Cache-Control': 'private, no-cache' })
      },
    }),
    route.get('/v1/task-types/{name}', 'getTaskType', {
      ...common,
      summary: 'Get a task type: its schemas and limits',
      description: 'The `input` of a new task must fit `inputSchema`.',
      responses: one(taskTypeExamples.taskType),
      find,
      async handle(_call, { found }) {
        const states = await context.store.schedules.listTaskTypes()
        const state = states.find(({ type }) => type === found.type)
        return jsonReply(200, toTaskTypeDocument(context, found, state), { 'Cache-Control': 'private, no-cache' })
      },
    }),
    pausing(
      'pause',
      'Pause a task type on every node: new tasks wait, running tasks continue',
      '`pausedAt` says since when. The `waitingFor` of its pending tasks is `paused`.',
    ),
    pausing('resume', 'Resume a paused task type: pending tasks start at once', 'Changes nothing if the task type is not paused.'),
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
  // Anyone may call, and each check costs a query. Concurrent calls share one check.
  let checking: ReturnType<AppContext['health']> | null = null
  const healthOnce = (): ReturnType<AppContext['health']> => {
    checking ??= context.health().finally(() => {
      checking = null
    })
    return checking
  }
  const common = { tag: 'Operations', scope: 'public' } as const
  return [
    route.get('/healthz', 'getHealth', {
      ...common,
      summary: 'Check that the process is up',
      description: 'A liveness probe. Does not depend on the store.',
      responses: { 200: response('The process is up.', shapes.health, [examples.health]) },
      handle: () => jsonReply(200, { status: 'ok' }),
    }),
    route.get('/readyz', 'getReadiness', {
      ...common,
      summary: 'Check that the node is ready',
      description: 'A readiness probe. A 503 is a problem document with the member `checks`.',
      responses: { 200: response('The node is ready.', shapes.readiness, [examples.readiness]) },
      errorCodes: ['temporary_reduced_capacity'],
      handle: async (call) => readiness(call, await healthOnce()),
    }),
    route.get('/.well-known/jwks.json', 'getJwks', {
      ...common,
      summary: 'Get the public keys that verify webhooks (RFC 7517)',
      description:
        'The current key, the next key and recent keys. Cache the set for the time in `Cache-Control`. Always 200, because some libraries accept nothing else.',
      requestHeaders: ['If-None-Match'],
      responses: {
        200: {
          description: 'The key set.',
          schema: shapes.jwks,
          examples: [examples.jwks],
          type: 'application/jwk-set+json',
          headers: ['ETag', 'Cache-Control'],
        },
      },
      handle: () => jwksReply(context),
    }),
    route.get('/openapi.json', 'getOpenApi', {
      ...common,
      summary: 'Get this document',
      description: 'OpenAPI 3.1, built from the schemas that validate requests. `/docs` shows it as a page.',
      responses: { 200: { description: 'OpenAPI 3.1.', schema: taskShapes.anyJson } },
      handle: () => ({
        status: 200,
        headers: { 'Content-Type': 'application/json', 'Cache-Control': 'public, max-age=300', 'Access-Control-Allow-Origin': '*' },
        body: describe(),
      }),
    }),
  ]
}

/** Always 200, never 304: some JWKS clients accept nothing else, jose among them. */
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
