/** The listening socket. It opens before the platform, so that the port is known in time. Early requests wait. */
import { once } from 'node:events'
import { createServer, type IncomingMessage, maxHeaderSize, type ServerResponse, STATUS_CODES } from 'node:http'
import type { AddressInfo, Socket } from 'node:net'
import { getRequestListener, RequestError } from '@hono/node-server'
import type { Config } from '../config/config.ts'
import type { Clock } from '../core/clock.ts'
import { RingbackError, StartupError } from '../core/errors.ts'
import type { Millis } from '../core/model.ts'
import { addSecurityHeaders, problemReply } from '../http/request/problem.ts'
import { limitConnections } from './connections.ts'

export type FetchHandler = (request: Request, bindings?: object) => Response | Promise<Response>

export interface HttpListener {
  readonly port: number
  /** Sets the handler of all requests, including those that wait. */
  setHandler(fetch: FetchHandler): void
  /** Stops listening. Connections close after their pending responses. */
  stopListening(): void
  /** Resolves when every connection has closed. The rest is closed after {@link LINGER_MS}. */
  drained(clock: Pick<Clock, 'after'>): Promise<void>
  /** Closes every connection at once. */
  closeNow(): void
}

const LINGER_MS: Millis = 1000
/** Timeouts for the headers, and for the whole request. A response has no timeout. */
const HEADERS_MS: Millis = 20_000
const REQUEST_MS: Millis = 120_000
/** How often Node checks the timeouts. */
const CHECK_TIMEOUTS_MS: Millis = 5_000
/** Longer than the usual idle timeout of load balancers (60 s), so that this side does not close a connection they still use. */
const KEEP_ALIVE_MS: Millis = 65_000

/** @throws StartupError when the address cannot be used */
export async function openListener(
  { host, port, maxConnections }: Pick<Config, 'host' | 'port' | 'maxConnections'>,
  clock: Pick<Clock, 'bytes'>,
): Promise<HttpListener> {
  const opened = Promise.withResolvers<FetchHandler>()
  // If the listener closes before it has a handler, nothing awaits this promise.
  opened.promise.catch(() => {})
  let handler: FetchHandler = async (request, bindings) => (await opened.promise)(request, bindings)
  const listen = getRequestListener((request, bindings) => handler(request, bindings), {
    errorHandler: (error) => refuseInvalid(error, clock),
  })
  const listener = (request: IncomingMessage, response: ServerResponse): void => {
    // Health checks of some load balancers use HTTP/1.0, which has no Host header.
    if (request.httpVersionMinor === 0) request.headers.host ??= 'localhost'
    if (namesTwoHosts(request)) {
      const { status, headers, body } = problemOf(malformed('The request has two Host headers.'), clock)
      return void response.writeHead(status, headers).end(body)
    }
    void listen(request, response)
  }
  // The listener itself refuses a missing Host, with a problem document.
  const timeouts = {
    headersTimeout: HEADERS_MS,
    requestTimeout: REQUEST_MS,
    keepAliveTimeout: KEEP_ALIVE_MS,
    connectionsCheckingInterval: CHECK_TIMEOUTS_MS,
  }
  const server = createServer({ requireHostHeader: false, ...timeouts }, listener)
  limitConnections(server, maxConnections, (socket) => refuseOn(socket, tooManyConnections(), clock))
  server.on('clientError', (error: NodeJS.ErrnoException, socket: Socket) => refuseUnparsed(error, socket, clock))
  // Node closes a CONNECT request without a response.
  server.on('connect', (_request, socket) => refuseOn(socket as Socket, parserErrors.HPE_INVALID_METHOD!(), clock))
  // An unknown expectation may be ignored (RFC 9110 §10.1.1). The app then answers the request.
  server.on('checkExpectation', (request, response) => void server.emit('request', request, response))
  server.listen(port, host)
  await once(server, 'listening').catch((error) => {
    throw startupError(error, host, port)
  })
  const ended = once(server, 'close')
  const stopListening = (): void => {
    if (!server.listening) return
    server.prependListener('request', (_request, response) => void response.setHeader('Connection', 'close'))
    server.close()
  }
  return {
    port: (server.address() as AddressInfo).port,
    setHandler(fetch) {
      handler = fetch
      opened.resolve(fetch)
    },
    stopListening,
    async drained(clock) {
      server.closeIdleConnections()
      const cancelTimer = clock.after(LINGER_MS, () => server.closeAllConnections())
      await ended
      cancelTimer()
    },
    closeNow() {
      stopListening()
      server.closeAllConnections()
    },
  }
}

/** RFC 9112 §3.2 requires a refusal. Node takes the first Host. */
function namesTwoHosts({ rawHeaders }: IncomingMessage): boolean {
  let hosts = 0
  for (let i = 0; i < rawHeaders.length; i += 2) if (rawHeaders[i]!.length === 4 && rawHeaders[i]!.toLowerCase() === 'host') hosts++
  return hosts > 1
}

/** A request that cannot become a Request: no Host, or a target that is not a path. */
function refuseInvalid(error: unknown, clock: Pick<Clock, 'bytes'>): Response {
  const { status, headers, body } = problemOf(
    error instanceof RequestError
      ? new RingbackError('malformed_header', `The request cannot be understood (${error.message}).`)
      : new RingbackError('internal', 'Something went wrong here.', { cause: error }),
    clock,
  )
  return new Response(body, { status, headers })
}

/** Answers what Node's parser refuses. */
function refuseUnparsed(error: NodeJS.ErrnoException, socket: Socket, clock: Pick<Clock, 'bytes'>): void {
  // Node stores the response in progress here. Writing now would corrupt it.
  const answering = '_httpMessage' in socket && socket._httpMessage
  if (!socket.writable || answering || error.code === 'ECONNRESET') return void socket.destroy()
  refuseOn(socket, parserErrors[error.code ?? '']?.() ?? malformed('The request is not HTTP/1.1.'), clock)
}

/** Answers on the bare socket, then closes it. */
function refuseOn(socket: Socket, refusal: RingbackError, clock: Pick<Clock, 'bytes'>): void {
  const { status, headers, body } = problemOf(refusal, clock)
  const head = { ...headers, 'Content-Length': String(Buffer.byteLength(body)), Connection: 'close' }
  const lines = Object.entries(head).map(([name, value]) => `${name}: ${value}`)
  socket.end([`HTTP/1.1 ${status} ${STATUS_CODES[status]}`, ...lines, '', body].join('\r\n'), () => socket.destroy())
}

const tooManyConnections = (): RingbackError =>
  new RingbackError('temporary_reduced_capacity', 'The node answers its maximum of connections; try again in a second.', {
    headers: { 'Retry-After': '1' },
  })
const malformed = (detail: string): RingbackError => new RingbackError('malformed_header', detail)
const METHODS = 'DELETE, GET, HEAD, OPTIONS, PATCH, POST'
const parserErrors: Readonly<Record<string, () => RingbackError>> = {
  HPE_INVALID_METHOD: () =>
    new RingbackError('method_not_allowed', `The method is not offered here; ${METHODS} are.`, { headers: { Allow: METHODS } }),
  HPE_HEADER_OVERFLOW: () => malformed(`The headers are longer than ${maxHeaderSize} bytes.`),
  ERR_HTTP_REQUEST_TIMEOUT: () => malformed('The request did not arrive in time.'),
}

function problemOf(error: RingbackError, clock: Pick<Clock, 'bytes'>): ReturnType<typeof problemReply> {
  const requestId = `request_${Buffer.from(clock.bytes(12)).toString('base64url')}`
  const reply = problemReply(error, { instance: '/', requestId })
  const headers = { ...reply.headers, 'X-Request-Id': requestId }
  addSecurityHeaders(headers)
  return { ...reply, headers }
}

function startupError(error: NodeJS.ErrnoException, host: string, port: number): StartupError {
  const where = `Port ${port} on ${host}`
  const why: Readonly<Record<string, string>> = {
    EADDRINUSE: `${where} is taken: stop what listens there, or set RINGBACK_PORT to another (0 takes any free one).`,
    EACCES: `${where} may not be used by this user: set RINGBACK_PORT to one from 1024 up.`,
    EADDRNOTAVAIL: `${where} cannot be used, because this machine has no such address: set RINGBACK_HOST to one it has.`,
    ENOTFOUND: `${where} cannot be used, because the name has no address: set RINGBACK_HOST to an address of this machine.`,
  }
  return new StartupError(why[error.code ?? ''] ?? `${where} cannot be used (${error.message}): set RINGBACK_HOST and RINGBACK_PORT.`)
}
