/** The app: a function from Request to Response, made of a table of routes. */
import { type Context, Hono } from 'hono'
import { SmartRouter } from 'hono/router/smart-router'
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
import { TableRouter } from './request/router.ts'
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

/** The API. Mount it, serve it, or call `app.request()`. */
export function createApp(options: AppOptions): Hono {
  const context: AppContext = {
    ...options,
    authenticator: createAuthenticator(options),
    cursors: createCursorCodec(options),
    endpointOwners: createEndpointOwners(options),
    waitingReasons: createWaitingReasons(options),
    checkCapacity: createOpenTaskCheck(options),
    streamLimiter: createOpenCallLimiter(
      options.streamLimits,
      'streams',
      'close some, or wait for tasks with ?wait, or for all of them at once with GET /v1/events',
    ),
    waitLimiter: createOpenCallLimiter(
      options.waitLimits,
      'calls that wait',
      'ask without ?wait, or for all of your tasks at once with GET /v1/events',
    ),
  }
  const routes = apiRoutes(context)
  const pipeline = createPipeline(context)
  const app = new Hono({ router: new SmartRouter({ routers: [new TableRouter(), new TrieRouter()] }) })
  for (const route of routes) app.on(route.method.toUpperCase(), route.path.replaceAll(/\{(\w+)\}/g, ':$1'), serve(route, pipeline))
  app.notFound(unmatchedHandler(routes, pipeline))
  return app
}

/** Every route there is, as data. */
export function apiRoutes(context: AppContext): readonly Route[] {
  let document: { readonly described: object; readonly text: string } | null = null
  const describe = () => {
    if (document === null) {
      const described = buildOpenApiDocument(routes, { version: '1', publicUrl: context.publicUrl() })
      document = { described, text: JSON.stringify(described) }
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
    ...eventSchemaRoutes(context, () => describe().described),
    ...referenceRoutes(),
  ]
  return routes
}

function createPipeline(context: AppContext): RoutePipeline {
  const { clock, bodyLimitBytes, authenticator: gate, rateLimiter: admit, events } = context
  const start = Buffer.from(clock.bytes(9)).toString('base64url')
  let count = 0
  return {
    authenticator: gate,
    clock,
    bodyLimitBytes,
    rateLimiter: admit,
    events,
    cors: createCors(context.corsOrigins),
    // Unique, not secret: the chance of the start and a count.
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

/** What no route takes: 404 when the path is none of ours, an answer to OPTIONS, 405 for the rest. */
function unmatchedHandler(routes: readonly Route[], pipeline: RoutePipeline): (c: Context) => Response {
  const paths = methodsByPath(routes)
  return (c) => {
    const call = new ApiCall(c, pipeline)
    const offered = paths.find(({ pattern }) => pattern.test(call.path))?.allow
    // The patterns are open to the left, for apps mounted under a path. What is offered and yet came here is under another one.
    const elsewhere = call.request.method !== 'OPTIONS' && offered?.split(', ').includes(call.request.method)
    const allow = elsewhere ? undefined : offered
    if (allow !== undefined && call.request.method === 'OPTIONS')
      return toResponse({ status: 204, headers: { Allow: allow, ...preflight(call, pipeline, allow) }, body: null }, call, pipeline)
    const refusal =
      allow === undefined
        ? new RingbackError('not_found', 'There is nothing at this path; /docs shows what there is, and /openapi.json lists it.')
        : new RingbackError('method_not_allowed', `${call.request.method} is not offered here; ${allow} are.`, {
            headers: { Allow: allow },
          })
    return toResponse(toErrorReply(refusal, call, pipeline.events), call, pipeline)
  }
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

function methodsByPath(routes: readonly Route[]): { pattern: RegExp; allow: string }[] {
  const methods = new Map<string, Set<string>>()
  for (const { path, method } of routes) {
    const offered = methods.get(path) ?? new Set()
    methods.set(path, offered.add(method.toUpperCase()))
    if (method === 'get') offered.add('HEAD')
  }
  // A concrete path wins over one with parameters, as in OpenAPI.
  const paths = [...methods].sort(([a], [b]) => Number(a.includes('{')) - Number(b.includes('{')))
  return paths.map(([path, offered]) => ({
    pattern: new RegExp(`${path.replaceAll('.', '\\.').replaceAll(/\{\w+\}/g, '[^/]+')}$`),
    allow: [...offered.add('OPTIONS')].sort().join(', '),
  }))
}
