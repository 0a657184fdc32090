/** The OpenAPI 3.1 document, made of the routes themselves: what is served is what is described. */
import { OpenAPIHono, type RouteConfig, z } from '@hono/zod-openapi'
import type { ErrorCode } from '../../core/errors.ts'
import { clientScopes, type EventType, endpointEventTypes, taskEventTypes } from '../../core/model.ts'
import { statusOf, titleOf } from '../request/problem.ts'
import type { ResponseSpec, Route } from '../request/route.ts'
import * as shapes from '../shapes/events.ts'
import * as systemShapes from '../shapes/system.ts'
import { addExamplesAndLinks, type OpenApiDocument } from './add-examples.ts'

export interface ApiInfo {
  readonly version: string
  readonly publicUrl: string
}

type Header = {
  readonly description: string
  readonly schema: { readonly type: 'string' | 'integer'; readonly format?: string; readonly minimum?: number; readonly const?: string }
  readonly example: string | number
}
const text = (description: string, example: string): Header => ({ description, schema: { type: 'string' }, example })

const HEADERS: Readonly<Record<string, Header>> = {
  Location: {
    description: 'The URL of the task or object.',
    schema: { type: 'string', format: 'uri' },
    example: 'https://tasks.example.com/v1/tasks/task_01m82a2cmhfzn9hav3yz5hh6je',
  },
  'Retry-After': { description: 'Whole seconds to wait before asking again.', schema: { type: 'integer', minimum: 1 }, example: 2 },
  ETag: text('The revision: weak for tasks, strong for endpoints and schedules.', 'W/"7"'),
  'Cache-Control': text('Whether and how long the answer may be kept.', 'private, no-cache'),
  Vary: text('What the answer depends on.', 'Authorization, Accept, Prefer'),
  Link: text('The next page, with rel="next" (RFC 8288).', '<https://tasks.example.com/v1/tasks?cursor=WzE3OTUzNDE2MDAwMDBd>; rel="next"'),
  'Idempotent-Replayed': text('`true`: the Idempotency-Key was used before; this is the same task.', 'true'),
  'Preference-Applied': text('The `wait` that was honoured, in seconds (RFC 7240).', 'wait=10'),
  'X-Request-Id': text('Echoed when sent, else made. It stands in the log beside whatever went wrong.', 'request_1YUS1JXtq1N2000005'),
  Accept: text('The media types that the body may have.', 'application/json'),
  'Accept-Patch': text('The same, of a PATCH (RFC 5789).', 'application/merge-patch+json, application/json'),
  'Accept-Encoding': text('The content codings that the body may have.', 'identity'),
  'WWW-Authenticate': text('What is asked for (RFC 6750).', 'Bearer realm="ringback", error="invalid_token"'),
  'RateLimit-Policy': text(
    'The rate limit that counts this request, where there is one (draft-ietf-httpapi-ratelimit-headers-10).',
    '"write";q=600;w=60',
  ),
  RateLimit: text('What is left of it, and for how many seconds.', '"write";r=598;t=41'),
  'Content-Security-Policy': text('What the page may load: nothing but what this server serves.', "default-src 'none'; script-src 'self'"),
}
/** Of whatever a client asks for: the operator and workers are not counted. */
const OF_CLIENTS: readonly string[] = clientScopes
const LIMITED = ['RateLimit-Policy', 'RateLimit']
const REQUEST_HEADERS: Readonly<Record<string, string>> = {
  'Idempotency-Key': '1 to 255 visible ASCII characters, bare or in double quotes; kept 24 h.',
  Prefer: '`wait=N`, 1 to 60 seconds (RFC 7240).',
  'If-None-Match': 'An entity tag: answers 304 while it is the present one.',
  'Last-Event-ID': 'The `id` of the last frame of a stream, a revision: it goes on from there.',
  'If-Match': 'An entity tag: answers 412 unless it is the present one.',
  traceparent: 'W3C trace context, carried on to the handler and the webhook.',
  tracestate: 'W3C trace context.',
}

const ABOUT = `A webhook-first async task platform: a task goes in over HTTP, runs, and rings back with a signed webhook.

\`POST /v1/tasks\` answers 202 once the task is on disk. Ask for it with \`GET /v1/tasks/{id}\`, which can wait, follow it as a stream, or be told by a
webhook to one of your endpoints. Every error is a problem document (RFC 9457) with a \`code\` of a closed list. Clients ignore members they do not know; unknown members of requests are refused.`

const TAGS: Readonly<Record<string, string>> = {
  Tasks: 'Work that was submitted: what it is, how far, and what came of it.',
  Schedules: 'Tasks that recur.',
  Events: 'What became true, in the order in which it did: the same documents that webhooks carry.',
  Endpoints: 'Where a client’s webhooks go.',
  Deliveries: 'Webhooks that are owed or were sent, with every attempt.',
  'Task types': 'What this installation can do.',
  Workers: 'For programs that run tasks over HTTP.',
  Clients: 'For the operator: who submits tasks, and with which keys.',
  Operators: 'For the operator: keys of operators and workers, and the keys that sign.',
  Operations: 'Of the node itself: for anyone.',
  Webhooks: 'What Ringback sends. Each is signed twice: with a detached JWS that public keys verify, and with the secret of the endpoint.',
}

/** The document as an object. */
export function buildOpenApiDocument(routes: readonly Route[], { version, publicUrl }: ApiInfo): object {
  // Serves nothing: it holds the registry and writes the document.
  const document = new OpenAPIHono()
  const registry = document.openAPIRegistry
  registry.register('Problem', systemShapes.problem)
  registry.register('TaskEvent', shapes.taskEvent)
  registry.registerComponent('securitySchemes', 'bearer', {
    type: 'http',
    scheme: 'bearer',
    bearerFormat: 'rb_…',
    description:
      'A client’s key, an operator’s key, or the admin token. The scope an operation asks for stands beside the scheme. A suspended client’s key answers 403.',
  })
  for (const [name, header] of Object.entries(HEADERS)) registry.registerComponent('headers', name, header)
  for (const route of routes) registry.registerPath(operation(route))
  for (const type of taskEventTypes)
    registry.registerWebhook(webhook(type, `Sent to the endpoints that subscribe to ${type}`, shapes.taskEvent))
  for (const type of endpointEventTypes) registry.registerWebhook(webhook(type, ABOUT_ENDPOINTS[type], shapes.endpointEvents[type]))
  // Of OpenAPI 3.1, and not in the types of the library yet.
  const license = { name: 'MIT', identifier: 'MIT' }
  const described = document.getOpenAPI31Document({
    openapi: '3.1.0',
    info: { title: 'Ringback', version, description: ABOUT, license },
    servers: [{ url: publicUrl, description: 'This installation.' }],
    tags: Object.entries(TAGS).map(([name, description]) => ({ name, description })),
  })
  const codes = new Map(routes.map((route) => [route.name, errorCodesByStatus(route)]))
  addExamplesAndLinks(described as unknown as OpenApiDocument, (operationId) => codes.get(operationId) ?? {})
  return described
}

function operation(route: Route): RouteConfig {
  const responses: RouteConfig['responses'] = {}
  const common = ['X-Request-Id', ...(OF_CLIENTS.includes(route.scope) ? LIMITED : [])]
  for (const [status, answer] of Object.entries(route.responses)) responses[status] = response(answer, common)
  for (const [status, codes] of Object.entries(errorCodesByStatus(route))) responses[status] = refusal(codes, common)
  const config: RouteConfig = {
    method: route.method,
    path: route.path,
    operationId: route.name,
    summary: route.summary,
    tags: [route.tag],
    security: route.scope === 'public' ? [] : [{ bearer: [route.scope] }],
    responses,
  }
  const description = [route.description, route.scope === 'public' ? undefined : `Scope: \`${route.scope}\`.`].filter(Boolean).join(' ')
  if (description) config.description = description
  config.request = request(route)
  if (route.name === 'createTask') config.callbacks = taskCallbacks
  return config
}

/** What a parameter names is what stands before it in the path: `/v1/tasks/{id}` is of a task. */
function pathParameter(path: string, name: string): z.ZodString {
  const [, kind = ''] = new RegExp(`([\\w-]+)/\\{${name}\\}`).exec(path) ?? []
  const { what, example } = PATH_PARAMETERS[kind] ?? { what: kind, example: kind }
  return z.string().openapi({ description: what, example })
}
const idOf = (prefix: string, what = prefix) => ({ what: `The id of the ${what}.`, example: `${prefix}_01m82a2cmhfzn9hav3yz5hh6je` })
const PATH_PARAMETERS: Readonly<Record<string, { readonly what: string; readonly example: string }>> = {
  tasks: idOf('task'),
  schedules: idOf('schedule'),
  endpoints: idOf('endpoint'),
  deliveries: idOf('delivery'),
  clients: idOf('client'),
  keys: idOf('key'),
  'operator-keys': idOf('key'),
  'signing-keys': { what: 'The `kid` of the key.', example: 'oKIywvGUpTVTyxMQ3bwIIeQUudfr_CkLMjCE19ECD-U' },
  'task-types': { what: 'The name of the task type.', example: 'report.build' },
  events: { what: 'The event type.', example: 'task.completed' },
  docs: { what: 'The name of the file.', example: 'start.js' },
}

function request(route: Route): NonNullable<RouteConfig['request']> {
  const names = [...route.path.matchAll(/\{(\w+)\}/g)].map(([, name]) => name as string)
  const asked: NonNullable<RouteConfig['request']> = {}
  if (names.length > 0) asked.params = z.object(Object.fromEntries(names.map((name) => [name, pathParameter(route.path, name)])))
  if (route.query) asked.query = route.query as NonNullable<typeof asked.query>
  if (route.requestHeaders)
    asked.headers = z.object(
      Object.fromEntries(
        route.requestHeaders.map((name) => [
          name,
          z
            .string()
            .optional()
            .openapi({ description: REQUEST_HEADERS[name] ?? name }),
        ]),
      ),
    )
  if (route.body) {
    const content = Object.fromEntries((route.acceptedTypes ?? ['application/json']).map((type) => [type, { schema: route.body! }]))
    asked.body = { required: route.bodyOptional !== true, content }
  }
  return asked
}

const headersOf = (names: readonly string[]) => Object.fromEntries(names.map((name) => [name, { $ref: `#/components/headers/${name}` }]))

const response = (
  { description, schema, type = 'application/json', headers = [], alternative: otherwise }: ResponseSpec,
  common: readonly string[],
): RouteConfig['responses'][string] => ({
  description,
  headers: headersOf([...common, ...headers]),
  ...(schema && { content: { [type]: { schema }, ...(otherwise && { [otherwise.type]: { schema: otherwise.schema } }) } }),
})

const refusal = (codes: readonly ErrorCode[], common: readonly string[]): RouteConfig['responses'][string] => ({
  description: codes.map((code) => `\`${code}\`: ${titleOf(code)}.`).join(' '),
  headers: headersOf([...common, ...new Set(codes.flatMap((code) => ANSWERED_WITH[code] ?? []))]),
  content: { 'application/problem+json': { schema: systemShapes.problem } },
})
const ANSWERED_WITH: Partial<Record<ErrorCode, string[]>> = {
  unauthenticated: ['WWW-Authenticate'],
  insufficient_scope: ['WWW-Authenticate'],
  unsupported_media_type: ['Accept', 'Accept-Patch', 'Accept-Encoding'],
  quota_exceeded: ['Retry-After'],
  temporary_reduced_capacity: ['Retry-After'],
}

/** The codes a route may refuse with, by status. */
export function errorCodesByStatus(route: Route): Record<string, ErrorCode[]> {
  const codes = new Set<ErrorCode>(route.errorCodes)
  if (route.scope !== 'public')
    for (const code of ['unauthenticated', 'insufficient_scope', 'not_acceptable', 'quota_exceeded'] as const) codes.add(code)
  if (route.path.includes('{')) codes.add('not_found')
  if (route.body) for (const code of ['unsupported_media_type', 'payload_too_large', 'malformed_json'] as const) codes.add(code)
  // Any request may have headers, or a URL, over the limit.
  codes.add('malformed_header').add('validation_failed').add('internal').add('temporary_reduced_capacity')
  const byStatus: Record<string, ErrorCode[]> = {}
  for (const code of codes) {
    const status = String(statusOf(code))
    byStatus[status] = [...(byStatus[status] ?? []), code]
  }
  return byStatus
}

const EVENT = { $ref: '#/components/schemas/TaskEvent' }

const SIGNATURE_HEADERS: Readonly<Record<string, string>> = {
  'webhook-id': 'The event’s id: the same on every attempt. Remember it, and take each event once.',
  'webhook-timestamp': 'Unix seconds of this attempt.',
  'webhook-signature': 'Standard Webhooks: `v1,<base64>` tokens.',
  'webhook-jws': 'A detached JWS (RFC 7515 Appendix F) over the raw body, ES256, typ `webhook+jws`.',
  'webhook-attempt': '1 on the first attempt.',
}

const receiver = {
  requestBody: { required: true, content: { 'application/json': { schema: EVENT } } },
  responses: { '2XX': { description: 'Taken. Anything else is tried again.' }, 410: { description: 'No more: the endpoint is disabled.' } },
}

const taskCallbacks = {
  onTaskEvent: {
    '{$request.body#/callback/url}': {
      post: {
        operationId: 'onTaskEvent',
        summary: 'An event of the task, signed',
        description: 'Sent to the URL that the task names in `callback.url`, in place of the URL of the endpoint it is under.',
        tags: ['Webhooks'],
        security: [],
        parameters: Object.entries(SIGNATURE_HEADERS).map(([name, description]) => ({
          name,
          in: 'header' as const,
          required: true,
          description,
          schema: { type: 'string' as const },
        })),
        ...receiver,
      },
    },
  },
}

const ABOUT_ENDPOINTS: Readonly<Record<(typeof endpointEventTypes)[number], string>> = {
  'endpoint.verification': 'Asks the endpoint for a proof: answer 200 with {"challenge": data.challenge}',
  'endpoint.ping': 'Sent when a ping of the endpoint was asked for',
  'endpoint.failing': 'Another endpoint of the client has failed for a day',
  'endpoint.disabled': 'Another endpoint of the client was disabled',
}

const webhook = (type: EventType, summary: string, body: z.ZodType): RouteConfig => ({
  method: 'post',
  path: type,
  operationId: `on${type.replace(/(^|\.)(\w)/g, (_, _dot, letter: string) => letter.toUpperCase())}`,
  summary,
  description:
    'Answer 2xx when the event is safe with you, and work afterwards. Events may come more than once and out of order: take each `webhook-id` once, and of a task the highest `data.revision`.',
  tags: ['Webhooks'],
  security: [],
  request: {
    headers: z.object(
      Object.fromEntries(Object.entries(SIGNATURE_HEADERS).map(([name, description]) => [name, z.string().openapi({ description })])),
    ),
    body: { required: true, content: { 'application/json': { schema: body } } },
  },
  responses: receiver.responses,
})
