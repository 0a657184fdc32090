/** The app: a function from Request to Response, built from a table of routes. */
import { METHODS } from 'node:http'
import { type Context, Hono } from 'hono'
import { TrieRouter } from 'hono/router/trie-router'
import { RingbackError } from '../core/errors.ts'
import type { AppContext, AppOptions } from './context.ts'
import { createOpenCallLimiter } from './limits/open-calls.ts'
import { createOpenTaskCheck } from './limits/open-tasks.ts'
import { createEndpointOwners } from './live/endpoint-owners.ts'
import { buildOpenApiDocument } from './openapi/document.ts'
import { eventSchemaRoutes } from './openapi/event-schemas.ts'
import { referenceRoutes } from './openapi/reference-page.ts'
import { createAuthenticator } from './request/auth.ts'
import { createCursorCodec } from './request/cursor.ts'
import { ApiCall, type Route, type RoutePipeline, serve, toErrorReply, toResponse } from './request/route.ts'
import { apiKeyRoutes } from './routes/api-keys.ts'
import { auditLogRoute } from './routes/audit-log.ts'
import { clientRoutes } from './routes/clients.ts'
import { deliveryRoutes } from './routes/deliveries.ts'
import { endpointRoutes } from './routes/endpoints.ts'
import { eventRoutes } from './routes/events.ts'
import { scheduleRoutes } from './routes/schedules.ts'
import { signingKeyRoutes } from './routes/signing-keys.ts'
import { systemRoutes } from './routes/system.ts'
import { taskRoutes } from './routes/tasks.ts'
import { createWaitingReasons } from './routes/waiting-for.ts'
import { workerRoutes } from './routes/workers.ts'

export type { AppOptions } from './context.ts'

const INSTEAD_OF_STREAMS = 'close some, or wait for tasks with ?wait, or for all of them at once with GET /v1/events'
const INSTEAD_OF_WAITING = 'ask without ?wait, or for all of your tasks at once with GET /v1/events'

/** The API. Mount it, serve it, or call `app.request()`. */
export function createApp(options: AppOptions): Hono {
  const context: AppContext = {
    ...options,
    authenticator: createAuthenticator(options),
    cursors: createCursorCodec(options),
    endpointOwners: createEndpointOwners(options),
    waitingReasons: createWaitingReasons(options),
    checkCapacity: createOpenTaskCheck(options),
    streamLimiter: createOpenCallLimiter(options.streamLimits, 'streams', INSTEAD_OF_STREAMS),
    waitLimiter: createOpenCallLimiter(options.waitLimits, 'calls that wait', INSTEAD_OF_WAITING),
  }
  const pipeline = createPipeline(context)
  // Hono's regular-expression router does not accept fixed paths beside paths with parameters.
  const app = new Hono({ router: new TrieRouter() })
  for (const [path, routes] of routesByPath(apiRoutes(context))) {
    const pattern = path.replaceAll(/\{(\w+)\}/g, ':$1')
    const methods = routes.map(({ method }) => method.toUpperCase())
    for (const route of routes) app.on(route.method.toUpperCase(), pattern, serve(route, pipeline))
    const allow = [...methods, ...(methods.includes('GET') ? ['HEAD'] : []), 'OPTIONS'].sort().join(', ')
    // Not `app.all`: a request with one handler skips Hono's middleware chain.
    const otherMethods = METHODS.filter((method) => !methods.includes(method))
    app.on(otherMethods, pattern, (c) => answerOtherMethod(new ApiCall(c, pipeline), allow, pipeline))
  }
  app.notFound((c) => answerUnknownPath(c, pipeline))
  return app
}

/** Fixed paths first: as in OpenAPI, they win over paths with parameters. */
function routesByPath(routes: readonly Route[]): [path: string, Route[]][] {
  return [...Map.groupBy(routes, ({ path }) => path)].sort(([a], [b]) => Number(a.includes('{')) - Number(b.includes('{')))
}

/** All routes. */
export function apiRoutes(context: AppContext): readonly Route[] {
  let document: { readonly value: object; readonly text: string } | null = null
  const describe = () => {
    if (document === null) {
      const value = buildOpenApiDocument(routes, { version: '1', publicUrl: context.publicUrl() })
      document = { value, text: JSON.stringify(value) }
    }
    return document
  }
  const routes: readonly Route[] = [
    ...taskRoutes(context),
    ...scheduleRoutes(context),
    ...eventRoutes(context),
    ...endpointRoutes(context),
    ...deliveryRoutes(context),
    ...clientRoutes(context),
    ...apiKeyRoutes(context),
    ...signingKeyRoutes(context),
    ...workerRoutes(context),
    auditLogRoute(context),
    ...systemRoutes(context, () => describe().text),
    ...eventSchemaRoutes(context, () => describe().value),
    ...referenceRoutes(),
  ]
  return routes
}

function createPipeline({ authenticator, clock, bodyLimitBytes, rateLimiter, events, corsOrigins }: AppContext): RoutePipeline {
  const start = Buffer.from(clock.bytes(9)).toString('base64url')
  let count = 0
  return {
    authenticator,
    clock,
    bodyLimitBytes,
    rateLimiter,
    events,
    cors: createCors(corsOrigins),
    // Unique but not secret: a random start and a counter.
    newRequestId: () => `request_${start}${(count++).toString(36).padStart(6, '0')}`,
  }
}

const EXPOSED =
  'Location, Retry-After, ETag, Link, RateLimit, RateLimit-Policy, Idempotent-Replayed, Preference-Applied, X-Request-Id, WWW-Authenticate, Allow, Accept, Accept-Patch, Accept-Encoding'

function createCors(origins: readonly string[]): RoutePipeline['cors'] {
  if (origins.length === 0) return undefined
  const any = origins.includes('*')
  return (origin) => {
    if (origin === undefined || !(any || origins.includes(origin))) return { Vary: 'Origin' }
    return { 'Access-Control-Allow-Origin': any ? '*' : origin, 'Access-Control-Expose-Headers': EXPOSED, Vary: 'Origin' }
  }
}

/** Answers OPTIONS, and 405 for a method that the path does not offer. */
function answerOtherMethod(call: ApiCall, allow: string, pipeline: RoutePipeline): Response {
  const { method } = call.request
  if (method === 'OPTIONS')
    return toResponse({ status: 204, headers: { Allow: allow, ...preflight(call, pipeline, allow) }, body: null }, call, pipeline)
  const refusal = new RingbackError('method_not_allowed', `${method} is not offered here; ${allow} are.`, { headers: { Allow: allow } })
  return toResponse(toErrorReply(refusal, call, pipeline.events), call, pipeline)
}

function answerUnknownPath(c: Context, pipeline: RoutePipeline): Response {
  const call = new ApiCall(c, pipeline)
  const refusal = new RingbackError('not_found', 'There is no route at this path; /docs shows the routes, and /openapi.json lists them.')
  return toResponse(toErrorReply(refusal, call, pipeline.events), call, pipeline)
}

function preflight(call: ApiCall, pipeline: RoutePipeline, allow: string): Record<string, string> {
  if (!pipeline.cors || call.header('access-control-request-method') === undefined) return {}
  return {
    'Access-Control-Allow-Methods': allow,
    'Access-Control-Allow-Headers':
      'Authorization, Content-Type, Idempotency-Key, If-Match, If-None-Match, Last-Event-ID, Prefer, X-Request-Id, traceparent, tracestate',
    'Access-Control-Max-Age': '600',
  }
}
