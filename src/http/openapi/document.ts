/** The OpenAPI 3.1 document, built from the routes: the served schemas are the documented ones. */
import { OpenAPIHono, type RouteConfig, z } from '@hono/zod-openapi'
import type { ErrorCode } from '../../core/errors.ts'
import { clientScopes, type EventType, endpointEventTypes, taskEventTypes } from '../../core/model.ts'
import { statusOf, titleOf } from '../request/problem.ts'
import type { NamedExample, ResponseSpec, Route } from '../request/route.ts'
import * as shapes from '../shapes/events.ts'
import * as systemShapes from '../shapes/system.ts'
import { webhookExamples } from './examples/events.ts'
import { problemExample } from './examples/system.ts'
import { linksOf } from './links.ts'

export interface ApiInfo {
  readonly version: string
  readonly publicUrl: string
}

type Header = {
  readonly description: string
  readonly schema: { readonly type: 'string' | 'integer'; readonly format?: string; readonly minimum?: number }
  readonly example: string | number
}
const text = (description: string, example: string): Header => ({ description, schema: { type: 'string' }, example })

const HEADERS: Readonly<Record<string, Header>> = {
  Location: {
    description: 'The URL of the task or object.',
    schema: { type: 'string', format: 'uri' },
    example: 'https://tasks.example.com/v1/tasks/task_01m82a2cmhfzn9hav3yz5hh6je',
  },
  'Retry-After': { description: 'Whole seconds to wait before the next request.', schema: { type: 'integer', minimum: 1 }, example: 2 },
  ETag: text('The revision: weak for tasks, strong for endpoints and schedules.', 'W/"7"'),
  'Cache-Control': text('Whether and how long caches may keep the response.', 'private, no-cache'),
  Vary: text('The request headers that change the response.', 'Authorization, Accept, Prefer'),
  Link: text('The next page, with rel="next" (RFC 8288).', '<https://tasks.example.com/v1/tasks?cursor=WzE3OTUzNDE2MDAwMDBd>; rel="next"'),
  'Idempotent-Replayed': text('`true`: the Idempotency-Key was used before, and this is the same task.', 'true'),
  'Preference-Applied': text('The `wait` that was applied, in seconds (RFC 7240).', 'wait=10'),
  'X-Request-Id': text('The id that was sent, or a new one. Log entries about the request carry it.', 'request_1YUS1JXtq1N2000005'),
  Accept: text('The media types that the request body may have.', 'application/json'),
  'Accept-Patch': text('The media types that the body of a PATCH may have (RFC 5789).', 'application/merge-patch+json, application/json'),
  'Accept-Encoding': text('The content codings that the request body may have.', 'identity'),
  'WWW-Authenticate': text('The required authentication (RFC 6750).', 'Bearer realm="ringback", error="invalid_token"'),
  'RateLimit-Policy': text(
    'The rate limit of the request, if there is one (draft-ietf-httpapi-ratelimit-headers-10).',
    '"write";q=600;w=60',
  ),
  RateLimit: text('The remaining quota, and the seconds until it resets.', '"write";r=598;t=41'),
  'Content-Security-Policy': text('What the page may load: only files of this server.', "default-src 'none'; script-src 'self'"),
}
/** Only routes for clients are rate limited. */
const LIMITED_SCOPES: readonly string[] = clientScopes
const LIMITED = ['RateLimit-Policy', 'RateLimit']
const REQUEST_HEADERS: Readonly<Record<string, string>> = {
  'Idempotency-Key': '1 to 255 visible ASCII characters, bare or in double quotes. Kept for 24 h.',
  Prefer: '`wait=N`, 1 to 60 seconds (RFC 7240).',
  'If-None-Match': 'An entity tag. Answers 304 if it is the current one.',
  'Last-Event-ID': 'The `id` of the last frame that was read, a revision. The stream continues after it.',
  'If-Match': 'An entity tag. Answers 412 unless it is the current one.',
  traceparent: 'W3C trace context. The handler and the webhook receive it.',
  tracestate: 'W3C trace context.',
}

const ABOUT = `A webhook-first async task platform: you submit a task over HTTP, it runs, and a signed webhook reports the result.

\`POST /v1/tasks\` answers 202 once the task is on disk. To follow it, call \`GET /v1/tasks/{id}\` (which can wait), open a stream, or register an endpoint
for webhooks. Every error is a problem document (RFC 9457) with a \`code\` from a closed list. Clients must ignore unknown response members. Unknown request members are refused.`

const TAGS: Readonly<Record<string, string>> = {
  Tasks: 'Submitted work: its state, its progress and its result.',
  Schedules: 'Recurring tasks.',
  Events: 'Events in commit order: the same documents that webhooks carry.',
  Endpoints: 'The URLs that receive the webhooks of a client.',
  Deliveries: 'Webhooks that were sent or will be sent, with every attempt.',
  'Task types': 'The types of tasks that this installation runs.',
  Workers: 'For programs that run tasks over HTTP.',
  Clients: 'For the operator: clients and their keys.',
  Operators: 'For the operator: keys of operators and workers, and signing keys.',
  Operations: 'About the node. No key needed.',
  Webhooks: 'The events that Ringback sends. Each is signed twice: with a detached JWS (public keys) and with the secret of the endpoint.',
}

/** The document as an object. */
export function buildOpenApiDocument(routes: readonly Route[], { version, publicUrl }: ApiInfo): object {
  // This app serves nothing. It holds the registry and generates the document.
  const document = new OpenAPIHono()
  const registry = document.openAPIRegistry
  registry.register('Problem', systemShapes.problem)
  registry.register('TaskEvent', shapes.taskEvent)
  registry.registerComponent('securitySchemes', 'bearer', {
    type: 'http',
    scheme: 'bearer',
    bearerFormat: 'rb_…',
    description:
      'A client’s key, an operator’s key, or the admin token. Each operation names the scope that it needs. The key of a suspended client gets 403.',
  })
  for (const [name, header] of Object.entries(HEADERS)) registry.registerComponent('headers', name, header)
  const components = createComponents()
  for (const route of routes) registry.registerPath(operation(route, components))
  for (const type of taskEventTypes)
    registry.registerWebhook(webhook(type, `Sent to the endpoints that subscribe to ${type}`, shapes.taskEvent, components))
  for (const type of endpointEventTypes)
    registry.registerWebhook(webhook(type, ABOUT_ENDPOINT_EVENTS[type], shapes.endpointEvents[type], components))
  for (const [id, example] of components.used.examples) registry.registerComponent('examples', id, example)
  for (const [id, link] of components.used.links) registry.registerComponent('links', id, link)
  // `identifier` is part of OpenAPI 3.1, but not of the types of the library.
  const license = { name: 'MIT', identifier: 'MIT' }
  return document.getOpenAPI31Document({
    openapi: '3.1.0',
    info: { title: 'Ringback', version, description: ABOUT, license },
    servers: [{ url: publicUrl, description: 'This installation.' }],
    tags: Object.entries(TAGS).map(([name, description]) => ({ name, description })),
  })
}

type References = Record<string, { readonly $ref: string }>
const references = (kind: string, entries: readonly (readonly [name: string, id: string])[]): References =>
  Object.fromEntries(entries.map(([name, id]) => [name, { $ref: `#/components/${kind}/${id}` }]))

/** Collects the examples and links that operations use, and refers to them. */
function createComponents() {
  const used = { examples: new Map<string, object>(), links: new Map<string, object>() }
  return {
    used,
    /** A body in each of the media types. */
    content(types: readonly string[], schema: Media['schema'], examples: readonly NamedExample[] = []): Record<string, Media> {
      for (const { name, summary, value } of examples) used.examples.set(name, { summary, value })
      const names = examples.map(({ name }) => [name, name] as const)
      return Object.fromEntries(
        types.map((type) => [type, { schema, ...(names.length > 0 && { examples: references('examples', names) }) }]),
      )
    },
    links(operationId: string, { schema, type }: ResponseSpec): { links?: References } {
      const links = schema && type === undefined ? linksOf(operationId, schema) : []
      for (const [, id, link] of links) used.links.set(id, link)
      return links.length > 0
        ? {
            links: references(
              'links',
              links.map(([name, id]) => [name, id]),
            ),
          }
        : {}
    },
  }
}
type Components = ReturnType<typeof createComponents>
interface Media {
  readonly schema: z.ZodType | { readonly $ref: string }
  readonly examples?: References
}

function operation(route: Route, components: Components): RouteConfig {
  const responses: RouteConfig['responses'] = {}
  const common = ['X-Request-Id', ...(LIMITED_SCOPES.includes(route.scope) ? LIMITED : [])]
  for (const [status, spec] of Object.entries(route.responses)) responses[status] = response(route, spec, common, components)
  for (const [status, codes] of Object.entries(errorCodesByStatus(route))) responses[status] = refusal(codes, common, components)
  const description = [route.description, route.scope === 'public' ? undefined : `Scope: \`${route.scope}\`.`].filter(Boolean).join(' ')
  return {
    method: route.method,
    path: route.path,
    operationId: route.name,
    summary: route.summary,
    tags: [route.tag],
    security: route.scope === 'public' ? [] : [{ bearer: [route.scope] }],
    responses,
    ...(description && { description }),
    request: request(route, components),
    ...(route.name === 'createTask' && { callbacks: taskCallbacks(components) }),
  }
}

/** The path segment before a parameter says what it names: `/v1/tasks/{id}` is the id of a task. */
function pathParameter(path: string, name: string): z.ZodString {
  const [, kind = ''] = new RegExp(`([\\w-]+)/\\{${name}\\}`).exec(path) ?? []
  const { what, example } = PATH_PARAMETERS[kind] ?? { what: kind, example: kind }
  return z.string().openapi({ description: what, example })
}
const idOf = (prefix: string) => ({ what: `The id of the ${prefix}.`, example: `${prefix}_01m82a2cmhfzn9hav3yz5hh6je` })
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

function request(route: Route, components: Components): NonNullable<RouteConfig['request']> {
  const names = [...route.path.matchAll(/\{(\w+)\}/g)].map(([, name]) => name as string)
  const { query, body, bodyExamples, acceptedTypes = ['application/json'], requestHeaders: headers } = route
  const header = (name: string) =>
    z
      .string()
      .optional()
      .openapi({ description: REQUEST_HEADERS[name] ?? name })
  return {
    ...(names.length > 0 && { params: z.object(Object.fromEntries(names.map((name) => [name, pathParameter(route.path, name)]))) }),
    ...(query && { query: query as z.ZodObject }),
    ...(headers && { headers: z.object(Object.fromEntries(headers.map((name) => [name, header(name)]))) }),
    ...(body && { body: { required: route.bodyOptional !== true, content: components.content(acceptedTypes, body, bodyExamples) } }),
  }
}

function response(route: Route, spec: ResponseSpec, common: readonly string[], components: Components): RouteConfig['responses'][string] {
  const { description, schema, type = 'application/json', headers = [], examples, alternative: other } = spec
  const content = schema && {
    ...components.content([type], schema, examples),
    ...(other && components.content([other.type], other.schema, other.examples)),
  }
  return { description, headers: headersOf([...common, ...headers]), ...(content && { content }), ...components.links(route.name, spec) }
}

const headersOf = (names: readonly string[]): References =>
  references(
    'headers',
    names.map((name) => [name, name]),
  )

const refusal = (codes: readonly ErrorCode[], common: readonly string[], components: Components): RouteConfig['responses'][string] => ({
  description: codes.map((code) => `\`${code}\`: ${titleOf(code)}.`).join(' '),
  headers: headersOf([...common, ...new Set(codes.flatMap((code) => HEADERS_BY_CODE[code] ?? []))]),
  content: components.content(['application/problem+json'], systemShapes.problem, codes.map(problemExample)),
})
const HEADERS_BY_CODE: Partial<Record<ErrorCode, string[]>> = {
  unauthenticated: ['WWW-Authenticate'],
  insufficient_scope: ['WWW-Authenticate'],
  unsupported_media_type: ['Accept', 'Accept-Patch', 'Accept-Encoding'],
  quota_exceeded: ['Retry-After'],
  temporary_reduced_capacity: ['Retry-After'],
}

/** The error codes of a route, by status. */
export function errorCodesByStatus(route: Route): Record<string, ErrorCode[]> {
  const codes = new Set<ErrorCode>(route.errorCodes)
  if (route.scope !== 'public')
    for (const code of ['unauthenticated', 'insufficient_scope', 'not_acceptable', 'quota_exceeded'] as const) codes.add(code)
  if (route.path.includes('{')) codes.add('not_found')
  if (route.body) for (const code of ['unsupported_media_type', 'payload_too_large', 'malformed_json'] as const) codes.add(code)
  // The headers or the URL of any request may be too long.
  codes.add('malformed_header').add('validation_failed').add('internal').add('temporary_reduced_capacity')
  const byStatus: Record<string, ErrorCode[]> = {}
  for (const code of codes) {
    const status = String(statusOf(code))
    byStatus[status] = [...(byStatus[status] ?? []), code]
  }
  return byStatus
}

const SIGNATURE_HEADERS: Readonly<Record<string, string>> = {
  'webhook-id': 'The id of the event, the same in every attempt. Store it to process each event once.',
  'webhook-timestamp': 'The time of this attempt in Unix seconds.',
  'webhook-signature': 'Standard Webhooks: `v1,<base64>` tokens.',
  'webhook-jws': 'A detached JWS (RFC 7515 Appendix F) over the raw body, ES256, typ `webhook+jws`.',
  'webhook-attempt': '1 in the first attempt.',
}

const WEBHOOK_RESPONSES = {
  '2XX': { description: 'Received. After any other status, the event is sent again.' },
  410: { description: 'Gone. The endpoint is disabled.' },
}

const taskCallbacks = (components: Components) => ({
  onTaskEvent: {
    '{$request.body#/callback/url}': {
      post: {
        operationId: 'onTaskEvent',
        summary: 'An event of the task, signed',
        description: 'Sent to the `callback.url` of the task instead of the URL of its endpoint.',
        tags: ['Webhooks'],
        security: [],
        parameters: Object.entries(SIGNATURE_HEADERS).map(([name, description]) => ({
          name,
          in: 'header' as const,
          required: true,
          description,
          schema: { type: 'string' as const },
        })),
        requestBody: {
          required: true,
          content: components.content(['application/json'], { $ref: '#/components/schemas/TaskEvent' }, [
            webhookExamples['task.completed'],
            webhookExamples['task.failed'],
            webhookExamples['task.canceled'],
          ]) as Record<string, { schema: { $ref: string } }>,
        },
        responses: WEBHOOK_RESPONSES,
      },
    },
  },
})

const ABOUT_ENDPOINT_EVENTS: Readonly<Record<(typeof endpointEventTypes)[number], string>> = {
  'endpoint.verification': 'Asks for proof of ownership: answer 200 with {"challenge": data.challenge}',
  'endpoint.ping': 'Sent when a client pings the endpoint',
  'endpoint.failing': 'Another endpoint of the client has failed for a day',
  'endpoint.disabled': 'Another endpoint of the client was disabled',
}

const webhook = (type: EventType, summary: string, body: z.ZodType, components: Components): RouteConfig => ({
  method: 'post',
  path: type,
  operationId: `on${type.replace(/(^|\.)(\w)/g, (_, _dot, letter: string) => letter.toUpperCase())}`,
  summary,
  description:
    'Answer 2xx once you have stored the event, then process it. Events may arrive more than once and out of order: process each `webhook-id` once, and for each task keep the highest `data.revision`.',
  tags: ['Webhooks'],
  security: [],
  request: {
    headers: z.object(
      Object.fromEntries(Object.entries(SIGNATURE_HEADERS).map(([name, description]) => [name, z.string().openapi({ description })])),
    ),
    body: { required: true, content: components.content(['application/json'], body, [webhookExamples[type]]) },
  },
  responses: WEBHOOK_RESPONSES,
})
