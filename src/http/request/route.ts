/**
 * One route is one declaration: what it takes and answers (the OpenAPI document is made of it), and one function that does everything
 * in the order the contract gives to errors. There is no chain of middleware: a hot route is a straight line.
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

export interface ResponseSpec {
  readonly description: string
  /** None: the answer has no body. */
  readonly schema?: z.ZodType
  readonly type?: string
  readonly headers?: readonly string[]
  /** A second media type of the answer, for who asks for it. */
  readonly alternative?: { readonly type: string; readonly schema: z.ZodType }
}

interface RouteSpec<Query extends z.ZodType, Body extends z.ZodType> {
  readonly method: 'get' | 'post' | 'patch' | 'delete'
  /** As OpenAPI writes it: `/v1/tasks/{id}`. */
  readonly path: string
  readonly name: string
  readonly summary: string
  readonly description?: string
  readonly tag: string
  /** `public`: no key is asked for. */
  readonly scope: Scope | 'public'
  /** Needs a client's key: the operator owns nothing. */
  readonly clientOnly?: boolean
  /** Left out: the route takes no query parameters. */
  readonly query?: Query
  /** Left out: a body is not read. */
  readonly body?: Body
  readonly bodyOptional?: boolean
  /** The largest body, where that is more than the installation's. */
  readonly bodyLimitBytes?: number
  /** Media types of the body; `application/json` when left out. */
  readonly acceptedTypes?: readonly string[]
  readonly requestHeaders?: readonly string[]
  readonly responses: Readonly<Record<number, ResponseSpec>>
  /** Beyond those that every route of its kind has. */
  readonly errorCodes?: readonly ErrorCode[]
}

/** A route's stages, in the order of the contract; each may refuse by throwing. */
interface RouteStages<Query, Body, Found> {
  /** Request headers beyond the common ones: 400. */
  readonly checkHeaders?: (call: ApiCall) => void
  /** Answers at once what was asked before: after the syntax, before everything that looks into the request. */
  readonly replay?: (call: ApiCall) => Promise<ApiReply | null>
  /** The object the path names: 404, 410, and 412. */
  readonly find?: (call: ApiCall) => Promise<Found>
  /** Refuses what no shape can say: 422. The rest: 409, 503, and the answer. */
  readonly handle: (
    call: ApiCall,
    asked: { readonly query: Query; readonly body: Body; readonly found: Found },
  ) => Promise<ApiReply> | ApiReply
}

// biome-ignore lint/suspicious/noExplicitAny: a table of routes holds routes of every shape
export type Route = RouteSpec<z.ZodType, z.ZodType> & RouteStages<any, any, any>

/** Ties the types of a route's stages to its shapes. */
export const route = <Query extends z.ZodType, Body extends z.ZodType, Found = undefined>(
  shape: RouteSpec<Query, Body>,
  stages: RouteStages<z.output<Query>, z.output<Body>, Found>,
): Route => ({ ...shape, ...stages }) as Route

/** What every route needs of the context. */
export interface RoutePipeline {
  readonly authenticator: Authenticator
  readonly clock: Pick<Clock, 'now'>
  readonly bodyLimitBytes: number
  /** A made-up id for requests that bring none. */
  newRequestId(): string
  /** Rate limits; left out: there are none. Between 403 and 415. */
  readonly rateLimiter?: RateLimiter | undefined
  /** Headers for a page of another origin; undefined: CORS is off. */
  readonly cors?: ((origin: string | undefined) => Readonly<Record<string, string>>) | undefined
  readonly events: EventSink
}

const NOBODY: Caller = { clientId: null, keyId: null, operator: false, scopes: new Set(), taskTypes: null, suspended: false }

/** One request on its way through a route. */
export class ApiCall {
  readonly c: Context
  readonly request: Request
  readonly requestId: string
  caller: Caller = NOBODY
  /** When the request came. */
  readonly receivedAt: Millis
  /** The body as it came; empty when the route reads none. */
  text = ''
  /** The body parsed; undefined when there is none. */
  json: unknown = undefined
  idempotencyKey: string | null = null
  fingerprint: string | null = null
  readonly #incoming: IncomingHttpHeaders | undefined

  constructor(c: Context, pipeline: Pick<RoutePipeline, 'clock' | 'newRequestId'>) {
    this.receivedAt = pipeline.clock.now()
    this.c = c
    this.request = c.req.raw
    // Node has parsed the headers already; through a Request each one is looked for again.
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

  /** Whether nothing follows the headers, where no header tells: by the Request, which Node's connection would have to make first. */
  get endsWithHeaders(): boolean {
    return this.#incoming !== undefined || this.request.body === null
  }

  /** Where the caller, or the proxy before it, is; null: the request came by no socket. */
  get address(): string | null {
    return this.c.env?.incoming?.socket?.remoteAddress ?? null
  }

  /** Who acts, for the audit log. */
  get author(): Author {
    return {
      actor: this.caller.keyId ?? actors.token,
      requestId: this.requestId,
      remoteAddress: this.address,
    }
  }

  /** A parameter of the path, decoded. */
  param(name: string): string {
    return this.c.req.param(name) ?? ''
  }

  get path(): string {
    return this.c.req.path
  }
}

/** The function that serves a route. It never rejects: what is thrown becomes a problem document. */
export function serve(route: Route, pipeline: RoutePipeline): (c: Context) => Promise<Response> {
  const kind = route.method === 'get' ? 'read' : 'write'
  const { rateLimiter: admit, authenticator: gate, events } = pipeline
  const bodyLimitBytes = Math.max(pipeline.bodyLimitBytes, route.bodyLimitBytes ?? 0)
  const others = Object.values(route.responses).flatMap(({ alternative: otherwise }) => otherwise?.type ?? [])
  const produced = [...JSON_ANSWERS, ...others]
  return async (c) => {
    const call = new ApiCall(c, pipeline)
    let admission: RateLimitGrant | null = null
    try {
      if (route.scope !== 'public') {
        const caller = gate.authenticate(call.header('authorization'), call.receivedAt, call)
        call.caller = caller instanceof Promise ? await caller : caller
        gate.authorize(call.caller, route.scope, route.clientOnly === true)
        if (admit) admission = await admit(call.caller, kind)
        if (!acceptsAny(call.header('accept'), produced)) throw notAcceptable(produced)
      }
      if (route.body && expectsBody(route, call)) {
        call.text = await readBodyText(call.request, call.header('content-length'), bodyLimitBytes)
        call.json = parseJson(call.text)
      }
      route.checkHeaders?.(call)
      let reply = route.replay && call.idempotencyKey !== null ? await route.replay(call) : null
      if (reply === null) {
        const found = route.find ? await route.find(call) : undefined
        // Probes and caches add parameters of their own to what anyone may ask, and the key set must be answered always.
        const query = route.scope === 'public' ? undefined : checkQuery(route, call.request.url)
        const body = route.body && call.json !== undefined ? validateShape(route.body, call.json, '#') : undefined
        const answer = route.handle(call, { query, body, found })
        reply = answer instanceof Promise ? await answer : answer
      }
      if (admission) Object.assign(reply.headers, admission(reply.status))
      return toResponse(reply, call, pipeline)
    } catch (thrown) {
      const reply = toErrorReply(thrown, call, events)
      if (admission) Object.assign(reply.headers, admission(reply.status))
      return toResponse(reply, call, pipeline)
    }
  }
}

const JSON_ANSWERS = ['application/json', 'application/problem+json']
const notAcceptable = (produced: readonly string[]): RingbackError => {
  const types = produced.filter((type) => !type.includes('problem'))
  return new RingbackError('not_acceptable', `The answer is ${types.join(' or ')}; Accept must admit it.`)
}

/**
 * Whether a body is to be read: false only where it is optional and absent.
 * @throws RingbackError `unsupported_media_type`
 */
function expectsBody(route: Route, call: ApiCall): boolean {
  const takes = route.acceptedTypes ?? JSON_BODY
  const type = call.header('content-type')
  if (type !== takes[0]) {
    if (route.bodyOptional && hasNoBody(call)) return false
    if (type === undefined || !takes.includes(mediaType(type))) throw unsupported(route, takes, type)
  }
  const encoding = call.header('content-encoding')
  if (encoding !== undefined && encoding.toLowerCase() !== 'identity')
    throw new RingbackError('unsupported_media_type', `Content-Encoding "${encoding}" is not taken; send the body as it is.`, {
      headers: { 'Accept-Encoding': 'identity' },
    })
  return !(route.bodyOptional && hasNoBody(call))
}

function hasNoBody(call: ApiCall): boolean {
  const length = call.header('content-length')
  return length === '0' || (length === undefined && call.header('transfer-encoding') === undefined && call.endsWithHeaders)
}

const JSON_BODY = ['application/json']

function unsupported(route: Route, takes: readonly string[], type: string | undefined): RingbackError {
  const accept = takes.join(', ')
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

/** `a=1&m[k]=v` as `{a: '1', m: {k: 'v'}}`, the deepObject style of OpenAPI. A parameter given twice is refused. */
function readQuery(search: string): Record<string, unknown> {
  const values: Record<string, unknown> = Object.create(null)
  const end = search.indexOf('#')
  for (const [name, value] of new URLSearchParams(end < 0 ? search : search.slice(0, end))) {
    const [, outer, inner] = /^(\w+)\[(.*)\]$/s.exec(name) ?? []
    let into = values
    if (outer !== undefined) {
      if (typeof values[outer] === 'string') throw twice(outer)
      values[outer] ??= Object.create(null)
      into = values[outer] as Record<string, unknown>
    }
    const key = inner ?? name
    if (key in into) throw twice(name)
    into[key] = value
  }
  return values
}

const twice = (name: string): RingbackError => validationFailed([{ pointer: `#/query/${name}`, detail: 'is given twice' }])

export function toErrorReply(thrown: unknown, call: ApiCall, events: EventSink): ApiReply {
  const refusal = toRingbackError(thrown)
  if (refusal.status >= 500) {
    const fields = { requestId: call.requestId, method: call.request.method, path: call.path, err: loggable(refusal.cause ?? refusal) }
    events.emit('http.failed', { code: refusal.code, fields })
  }
  return problemReply(refusal, { instance: call.path, requestId: call.requestId })
}

const loggable = (thrown: unknown): unknown => (thrown instanceof Error ? toErrorLog(thrown) : thrown)

export function toResponse(reply: ApiReply, call: ApiCall, pipeline: RoutePipeline): Response {
  const headers = reply.headers
  headers['X-Request-Id'] = call.requestId
  addSecurityHeaders(headers)
  if (pipeline.cors) {
    const { Vary: vary, 'Access-Control-Allow-Origin': anybody } = headers
    Object.assign(headers, pipeline.cors(call.header('origin')))
    // What every page may read is kept by shared caches: it says so to each.
    if (anybody !== undefined) headers['Access-Control-Allow-Origin'] = anybody
    if (vary !== undefined) headers.Vary = `${vary}, Origin`
  }
  return new Response(reply.body, { status: reply.status, headers })
}
