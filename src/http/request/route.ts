/**
 * A route is one declaration: its request, its responses and its stages. The OpenAPI document is made from it. One function runs the stages in the
 * contract's order of errors. There is no middleware chain, which keeps the cost of a request low.
 */
import type { IncomingHttpHeaders } from 'node:http'
import type { z } from '@hono/zod-openapi'
import type { Context } from 'hono'
import type { Clock } from '../../core/clock.ts'
import { type ErrorCode, RingbackError, toErrorLog } from '../../core/errors.ts'
import { type Author, actors, type Millis, type Scope } from '../../core/model.ts'
import type { EventSink } from '../../observe/events.ts'
import type { RateLimiter, RateLimitGrant } from '../limits/rate-limit.ts'
import type { Authenticator, Caller } from './auth.ts'
import { acceptsAny, isValidRequestId, mediaType } from './headers.ts'
import { parseJson, readBodyText } from './json.ts'
import { type ApiReply, addSecurityHeaders, problemReply, toRingbackError, validationFailed } from './problem.ts'
import { toFaults } from './validation-issues.ts'

/** An example of a body, under the name that the OpenAPI document gives it. */
export interface NamedExample {
  readonly name: string
  readonly summary: string
  readonly value: unknown
}

/** A body in one media type. */
interface MediaSpec {
  readonly type: string
  readonly schema: z.ZodType
  readonly examples?: readonly NamedExample[]
}

export interface ResponseSpec extends Partial<MediaSpec> {
  readonly description: string
  /** Left out: the response has no body. */
  readonly schema?: z.ZodType
  /** `application/json` when left out. */
  readonly type?: string
  readonly headers?: readonly string[]
  /** A second media type, chosen by `Accept`. */
  readonly alternative?: MediaSpec
}

/** A JSON response. */
export const response = (
  description: string,
  schema: z.ZodType,
  examples: readonly NamedExample[],
  headers: readonly string[] = [],
): ResponseSpec => ({ description, schema, examples, headers })

interface RouteSpec<Query extends z.ZodType, Body extends z.ZodType> {
  readonly summary: string
  readonly description?: string
  readonly tag: string
  /** `public`: the route needs no key. */
  readonly scope: Scope | 'public'
  /** The route needs a client's key: the operator owns no objects. */
  readonly clientOnly?: boolean
  /** Left out: the route takes no query parameters. */
  readonly query?: Query
  /** Left out: the body is not read. */
  readonly body?: Body
  readonly bodyExamples?: readonly NamedExample[]
  readonly bodyOptional?: boolean
  /** The largest body, where the route allows more than the setting. */
  readonly bodyLimitBytes?: number
  /** Media types of the body. `application/json` when left out. */
  readonly acceptedTypes?: readonly string[]
  readonly requestHeaders?: readonly string[]
  readonly responses: Readonly<Record<number, ResponseSpec>>
  /** In addition to the codes that every route of its kind has. */
  readonly errorCodes?: readonly ErrorCode[]
}

/** The stages of a route, in the contract's order. A stage refuses the request by throwing. */
interface RouteStages<Query, Body, Found> {
  /** Checks request headers beyond the common ones: 400. */
  readonly checkHeaders?: (call: ApiCall) => void
  /** Answers a repeated Idempotency-Key: after the syntax check, before every check of the content. */
  readonly replay?: (call: ApiCall) => Promise<ApiReply | null>
  /** Finds the object that the path names: 404, 410 and 412. */
  readonly find?: (call: ApiCall) => Promise<Found>
  /** Checks what a schema cannot express (422), then the rest: 409, 503 and the reply. */
  readonly handle: (
    call: ApiCall,
    input: { readonly query: Query; readonly body: Body; readonly found: Found },
  ) => Promise<ApiReply> | ApiReply
}

// biome-ignore lint/suspicious/noExplicitAny: a table of routes holds routes of every shape
type AnyStages = RouteStages<any, any, any>
type Method = 'get' | 'post' | 'patch' | 'delete'

export interface Route extends RouteSpec<z.ZodType, z.ZodType>, AnyStages {
  readonly method: Method
  /** In OpenAPI notation: `/v1/tasks/{id}`. */
  readonly path: string
  /** The `operationId`. */
  readonly name: string
}

const declare =
  (method: Method) =>
  <Query extends z.ZodType, Body extends z.ZodType, Found = undefined>(
    path: string,
    name: string,
    declaration: RouteSpec<Query, Body> & RouteStages<z.output<Query>, z.output<Body>, Found>,
  ): Route =>
    ({ method, path, name, ...declaration }) as Route

/**
 * Declares a route. The types of its stages come from its schemas.
 * @example route.get('/v1/clients/{id}', 'getClient', { summary: 'Get a client', tag: 'Clients', scope: 'admin', responses, handle })
 */
export const route = { get: declare('get'), post: declare('post'), patch: declare('patch'), delete: declare('delete') }

/** What every route needs of the context. */
export interface RoutePipeline {
  readonly authenticator: Authenticator
  readonly clock: Pick<Clock, 'now'>
  readonly bodyLimitBytes: number
  /** Makes an id for a request that has none. */
  newRequestId(): string
  /** Runs between 403 and 415. Undefined: there are no rate limits. */
  readonly rateLimiter?: RateLimiter | undefined
  /** The CORS headers for an origin. Undefined: CORS is off. */
  readonly cors?: ((origin: string | undefined) => Readonly<Record<string, string>>) | undefined
  readonly events: EventSink
}

const NO_CALLER: Caller = { clientId: null, keyId: null, operator: false, scopes: new Set(), taskTypes: null, suspended: false }

/** One request, as the stages of a route see it. */
export class ApiCall {
  readonly c: Context
  readonly request: Request
  readonly requestId: string
  caller: Caller = NO_CALLER
  /** When the request arrived. */
  readonly receivedAt: Millis
  /** The body as sent. Empty when the route reads none. */
  text = ''
  /** The parsed body. Undefined when there is none. */
  json: unknown = undefined
  idempotencyKey: string | null = null
  fingerprint: string | null = null
  readonly #incoming: IncomingHttpHeaders | undefined

  constructor(c: Context, pipeline: Pick<RoutePipeline, 'clock' | 'newRequestId'>) {
    this.receivedAt = pipeline.clock.now()
    this.c = c
    this.request = c.req.raw
    // Node has already parsed the headers. Reading them from the Request parses them again.
    this.#incoming = c.env?.incoming?.headers
    const given = this.header('x-request-id')
    this.requestId = given !== undefined && isValidRequestId(given) ? given : pipeline.newRequestId()
  }

  /** A request header by its lower-case name. */
  header(name: string): string | undefined {
    if (this.#incoming === undefined) return this.request.headers.get(name) ?? undefined
    const value = this.#incoming[name]
    return Array.isArray(value) ? value.join(', ') : value
  }

  /** Whether the request has no body, when no header tells. On Node, a request without a length has no body. */
  get endsWithHeaders(): boolean {
    return this.#incoming !== undefined || this.request.body === null
  }

  /** The IP address of the caller, or of the last proxy. Null: the request came through no socket. */
  get address(): string | null {
    return this.c.env?.incoming?.socket?.remoteAddress ?? null
  }

  /** Who acts, for the audit log. */
  get author(): Author {
    return { actor: this.caller.keyId ?? actors.token, requestId: this.requestId, remoteAddress: this.address }
  }

  /** A path parameter, decoded. */
  param(name: string): string {
    return this.c.req.param(name) ?? ''
  }

  get path(): string {
    return this.c.req.path
  }
}

/** The function that serves a route. It never rejects: an error becomes a problem document. */
export function serve(route: Route, pipeline: RoutePipeline): (c: Context) => Promise<Response> {
  const { clock, events } = pipeline
  const run = createRunner(route, pipeline)
  return async (c) => {
    const call = new ApiCall(c, pipeline)
    const reply = await run(call)
    const durationMs = clock.now() - call.receivedAt
    events.emit('http.served', { method: call.request.method, route: route.path, status: reply.status, durationMs })
    return toResponse(reply, call, pipeline)
  }
}

/** Runs the stages of a route. */
function createRunner(route: Route, pipeline: RoutePipeline): (call: ApiCall) => Promise<ApiReply> {
  const kind = route.method === 'get' ? 'read' : 'write'
  const { rateLimiter, authenticator, events } = pipeline
  const bodyLimitBytes = Math.max(pipeline.bodyLimitBytes, route.bodyLimitBytes ?? 0)
  const produced = producedTypes(route)
  return async (call) => {
    let grant: RateLimitGrant | null = null
    let reply: ApiReply | null = null
    try {
      if (route.scope !== 'public') {
        const caller = authenticator.authenticate(call, call.receivedAt)
        call.caller = caller instanceof Promise ? await caller : caller
        authenticator.authorize(call.caller, route.scope, route.clientOnly === true)
        if (rateLimiter) grant = await rateLimiter(call.caller, kind)
        if (!acceptsAny(call.header('accept'), produced)) throw notAcceptable(produced)
      }
      if (route.body && expectsBody(route, call)) {
        call.text = await readBodyText(call.request, call.header('content-length'), bodyLimitBytes)
        call.json = parseJson(call.text)
      }
      route.checkHeaders?.(call)
      if (route.replay && call.idempotencyKey !== null) reply = await route.replay(call)
      if (reply === null) {
        const found = route.find ? await route.find(call) : undefined
        // Probes and caches add query parameters to public URLs, and the key set must always be answered.
        const query = route.scope === 'public' ? undefined : checkQuery(route, call.request.url)
        const body = route.body && call.json !== undefined ? validateShape(route.body, call.json, '#') : undefined
        const handled = route.handle(call, { query, body, found })
        reply = handled instanceof Promise ? await handled : handled
      }
    } catch (thrown) {
      reply = toErrorReply(thrown, call, events)
    }
    if (grant) Object.assign(reply.headers, grant(reply.status))
    return reply
  }
}

/** The media types that a route answers with, without parameters. */
function producedTypes(route: Route): readonly string[] {
  const types = Object.values(route.responses).flatMap(({ schema, type = 'application/json', alternative }) => [
    ...(schema ? [mediaType(type)] : []),
    ...(alternative ? [mediaType(alternative.type)] : []),
  ])
  return [...new Set(types.length > 0 ? types : ['application/json']), 'application/problem+json']
}

const notAcceptable = (produced: readonly string[]): RingbackError => {
  const types = produced.filter((type) => !type.includes('problem'))
  return new RingbackError('not_acceptable', `The answer is ${types.join(' or ')}; Accept must admit it.`)
}

/**
 * Whether the body must be read. False only when it is optional and absent.
 * @throws RingbackError `unsupported_media_type`
 */
function expectsBody(route: Route, call: ApiCall): boolean {
  const accepted = route.acceptedTypes ?? JSON_BODY
  const type = call.header('content-type')
  if (type !== accepted[0]) {
    if (route.bodyOptional && hasNoBody(call)) return false
    if (type === undefined || !accepted.includes(mediaType(type))) throw unsupported(route, accepted, type)
  }
  const encoding = call.header('content-encoding')
  if (encoding !== undefined && encoding.toLowerCase() !== 'identity')
    throw new RingbackError('unsupported_media_type', `Content-Encoding "${encoding}" is not supported; send the body without encoding.`, {
      headers: { 'Accept-Encoding': 'identity' },
    })
  return !(route.bodyOptional && hasNoBody(call))
}

function hasNoBody(call: ApiCall): boolean {
  const length = call.header('content-length')
  return length === '0' || (length === undefined && call.header('transfer-encoding') === undefined && call.endsWithHeaders)
}

const JSON_BODY = ['application/json']

function unsupported(route: Route, accepted: readonly string[], type: string | undefined): RingbackError {
  const accept = accepted.join(', ')
  const header = route.method === 'patch' ? { 'Accept-Patch': accept } : { Accept: accept }
  return new RingbackError('unsupported_media_type', `Content-Type is ${type ?? 'missing'}; send ${accept}.`, { headers: header })
}

/** @throws RingbackError `validation_failed` */
export function validateShape<T extends z.ZodType>(schema: T, value: unknown, root: string): z.output<T> {
  const parsed = schema.safeParse(value)
  if (parsed.success) return parsed.data
  throw validationFailed(toFaults(parsed.error.issues, value, root))
}

function checkQuery(route: Route, url: string): unknown {
  const start = url.indexOf('?')
  const hasNone = start < 0 || start === url.length - 1
  if (hasNone && route.query === undefined) return undefined
  const values = hasNone ? {} : readQuery(url.slice(start + 1))
  if (route.query) return validateShape(route.query, values, '#/query')
  const [first] = Object.keys(values)
  if (first !== undefined) throw validationFailed([{ pointer: `#/query/${first}`, detail: 'is not a parameter of this route' }])
  return undefined
}

/** `a=1&m[k]=v` as `{a: '1', m: {k: 'v'}}`, OpenAPI's deepObject style. Refuses a parameter that is given twice. */
function readQuery(search: string): Record<string, unknown> {
  const values: Record<string, unknown> = Object.create(null)
  const end = search.indexOf('#')
  for (const [name, value] of new URLSearchParams(end < 0 ? search : search.slice(0, end))) {
    const [, outer, inner] = /^(\w+)\[(.*)\]$/s.exec(name) ?? []
    let target = values
    if (outer !== undefined) {
      if (typeof values[outer] === 'string') throw twice(outer)
      values[outer] ??= Object.create(null)
      target = values[outer] as Record<string, unknown>
    }
    const key = inner ?? name
    if (key in target) throw twice(name)
    target[key] = value
  }
  return values
}

const twice = (name: string): RingbackError => validationFailed([{ pointer: `#/query/${name}`, detail: 'is given twice' }])

export function toErrorReply(thrown: unknown, call: ApiCall, events: EventSink): ApiReply {
  const refusal = toRingbackError(thrown)
  if (refusal.status >= 500) {
    const cause = refusal.cause ?? refusal
    const err = cause instanceof Error ? toErrorLog(cause) : cause
    events.emit('http.failed', {
      code: refusal.code,
      fields: { requestId: call.requestId, method: call.request.method, path: call.path, err },
    })
  }
  return problemReply(refusal, { instance: call.path, requestId: call.requestId })
}

export function toResponse(reply: ApiReply, call: ApiCall, pipeline: RoutePipeline): Response {
  const headers = reply.headers
  headers['X-Request-Id'] = call.requestId
  addSecurityHeaders(headers)
  if (pipeline.cors) {
    const { Vary: vary, 'Access-Control-Allow-Origin': anyOrigin } = headers
    Object.assign(headers, pipeline.cors(call.header('origin')))
    // Shared caches keep public replies, so these allow every origin in each reply.
    if (anyOrigin !== undefined) headers['Access-Control-Allow-Origin'] = anyOrigin
    if (vary !== undefined) headers.Vary = `${vary}, Origin`
  }
  return new Response(reply.body, { status: reply.status, headers })
}
