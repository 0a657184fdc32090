/** The OpenAPI 3.1 document, made of the routes themselves: what is served is what is described. */
import { OpenAPIHono, type RouteConfig, z } from '@hono/zod-openapi'
import type { ErrorCode } from '../errors.ts'
import { taskEventTypes } from '../model.ts'
import { documentedStatus, titleOf } from './problem.ts'
import type { Answer, Route } from './route.ts'
import * as shapes from './shapes.ts'

export interface Described {
  readonly version: string
  readonly publicUrl: string
}

const HEADERS: Readonly<Record<string, string>> = {
  Location: 'The URL of the task or object.',
  'Retry-After': 'Whole seconds to wait before asking again.',
  ETag: 'The revision: weak for tasks, strong for endpoints.',
  'Cache-Control': 'Private, and to be asked for again.',
  Vary: 'What the answer depends on.',
  Link: 'The next page, with rel="next" (RFC 8288).',
  'Idempotent-Replayed': '`true`: the Idempotency-Key was used before; this is the same task.',
  'Preference-Applied': 'The `wait` that was honoured, in seconds (RFC 7240).',
  'X-Request-Id': 'Echoed when sent, else made.',
}
const REQUEST_HEADERS: Readonly<Record<string, string>> = {
  'Idempotency-Key': '1 to 255 visible ASCII characters, bare or in double quotes; kept 24 h.',
  Prefer: '`wait=N`, 1 to 60 seconds (RFC 7240).',
  'If-None-Match': 'An entity tag: answers 304 while it is the present one.',
  'If-Match': 'An entity tag: answers 412 unless it is the present one.',
  traceparent: 'W3C trace context, carried on to the handler and the webhook.',
  tracestate: 'W3C trace context.',
}

/** The document as an object. */
export function describeApi(routes: readonly Route[], { version, publicUrl }: Described): object {
  // Serves nothing: it holds the registry and writes the document.
  const document = new OpenAPIHono()
  const registry = document.openAPIRegistry
  registry.register('Problem', shapes.problem)
  registry.register('TaskEvent', shapes.taskEvent)
  const bearer = registry.registerComponent('securitySchemes', 'bearer', {
    type: 'http',
    scheme: 'bearer',
    description: 'A client’s key, an operator’s key, or the admin token. A suspended client’s key answers 403.',
  })
  for (const route of routes) registry.registerPath(operation(route, bearer.name))
  for (const type of taskEventTypes) registry.registerWebhook(webhook(type))
  return document.getOpenAPI31Document({
    openapi: '3.1.0',
    info: {
      title: 'Ringback',
      version,
      description: 'A webhook-first async task platform: a task goes in over HTTP, runs, and rings back with a signed webhook.',
      license: { name: 'MIT' },
    },
    servers: [{ url: publicUrl }],
  })
}

function operation(route: Route, scheme: string): RouteConfig {
  const responses: RouteConfig['responses'] = {}
  for (const [status, answer] of Object.entries(route.answers)) responses[status] = response(answer)
  for (const [status, codes] of Object.entries(refusals(route))) responses[status] = refusal(codes)
  const config: RouteConfig = {
    method: route.method,
    path: route.path,
    operationId: route.name,
    summary: route.summary,
    tags: [route.tag],
    security: route.scope === 'public' ? [] : [{ [scheme]: [] }],
    responses,
  }
  const description = [route.description, route.scope === 'public' ? undefined : `Scope: \`${route.scope}\`.`].filter(Boolean).join(' ')
  if (description) config.description = description
  config.request = request(route)
  if (route.name === 'createTask') config.callbacks = taskCallbacks
  return config
}

function request(route: Route): NonNullable<RouteConfig['request']> {
  const names = [...route.path.matchAll(/\{(\w+)\}/g)].map(([, name]) => name as string)
  const asked: NonNullable<RouteConfig['request']> = {}
  if (names.length > 0) asked.params = z.object(Object.fromEntries(names.map((name) => [name, z.string()])))
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
    const content = Object.fromEntries((route.takes ?? ['application/json']).map((type) => [type, { schema: route.body! }]))
    asked.body = { required: route.bodyOptional !== true, content }
  }
  return asked
}

function headersOf(names: readonly string[]) {
  return Object.fromEntries(names.map((name) => [name, { description: HEADERS[name] ?? name, schema: { type: 'string' as const } }]))
}

const response = ({ description, schema, type = 'application/json', headers = [] }: Answer): RouteConfig['responses'][string] => ({
  description,
  headers: headersOf(['X-Request-Id', ...headers]),
  ...(schema && { content: { [type]: { schema } } }),
})

const refusal = (codes: readonly ErrorCode[]): RouteConfig['responses'][string] => ({
  description: codes.map((code) => `\`${code}\`: ${titleOf(code)}.`).join(' '),
  headers: headersOf(['X-Request-Id']),
  content: { 'application/problem+json': { schema: shapes.problem } },
})

/** The codes a route may refuse with, by status. */
export function refusals(route: Route): Record<string, ErrorCode[]> {
  const codes = new Set<ErrorCode>(route.refusals)
  if (route.scope !== 'public')
    for (const code of ['unauthenticated', 'insufficient_scope', 'not_acceptable', 'quota_exceeded'] as const) codes.add(code)
  if (route.path.includes('{')) codes.add('not_found')
  if (route.body) for (const code of ['unsupported_media_type', 'payload_too_large', 'malformed_json'] as const) codes.add(code)
  codes.add('validation_failed').add('internal').add('temporary_reduced_capacity')
  const byStatus: Record<string, ErrorCode[]> = {}
  for (const code of codes) {
    const status = String(documentedStatus(code))
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
        summary: 'An event of the task, signed',
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

const webhook = (type: string): RouteConfig => ({
  method: 'post',
  path: type,
  operationId: `on${type.replace(/(^|\.)(\w)/g, (_, _dot, letter: string) => letter.toUpperCase())}`,
  summary: `Sent to the endpoints that subscribe to ${type}`,
  tags: ['Webhooks'],
  security: [],
  request: {
    headers: z.object(
      Object.fromEntries(Object.entries(SIGNATURE_HEADERS).map(([name, description]) => [name, z.string().openapi({ description })])),
    ),
    body: { required: true, content: { 'application/json': { schema: shapes.taskEvent } } },
  },
  responses: receiver.responses,
})
