/** The listening socket. It opens before the platform does, so that a port of 0 is known in time; early requests wait. */
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
  /** Lets `fetch` answer from now on, beginning with the requests that wait. */
  setHandler(fetch: FetchHandler): void
  /** Listens no more; connections end with the answer they wait for. */
  stopListening(): void
  /** Resolves when every connection has ended; those that linger after their answer are cut after {@link LINGER_MS}. */
  drained(clock: Pick<Clock, 'after'>): Promise<void>
  /** Cuts whatever is left. */
  closeNow(): void
}

const LINGER_MS: Millis = 1000
/** For the headers of a request, from the connection or its first byte; and for all of it. Answers may take as long as they will. */
const HEADERS_MS: Millis = 20_000
const REQUEST_MS: Millis = 120_000
/** How often those who are late are looked for. */
const LATE_MS: Millis = 5_000
/** Longer than the idle timeout of usual load balancers (60 s), so that it is they who close a connection, never we under a request. */
const KEEP_ALIVE_MS: Millis = 65_000

/** @throws StartupError when that address cannot be listened on. */
export async function openListener(
  { host, port, maxConnections }: Pick<Config, 'host' | 'port' | 'maxConnections'>,
  clock: Pick<Clock, 'bytes'>,
): Promise<HttpListener> {
  const opened = Promise.withResolvers<FetchHandler>()
  // An abandoned door leaves nobody waiting who could mind.
  opened.promise.catch(() => {})
  let answer: FetchHandler = async (request, bindings) => (await opened.promise)(request, bindings)
  const listen = getRequestListener((request, bindings) => answer(request, bindings), {
    errorHandler: (error) => refuseUnmade(error, clock),
  })
  const listener = (request: IncomingMessage, response: ServerResponse): void => {
    // HTTP/1.0 knows no Host, and the health checks of some load balancers speak it. What they ask names no host anywhere else either.
    if (request.httpVersionMinor === 0) request.headers.host ??= 'localhost'
    if (namesTwoHosts(request)) {
      const { status, headers, body } = problemOf(malformed('The request has two Host headers.'), clock)
      return void response.writeHead(status, headers).end(body)
    }
    void listen(request, response)
  }
  // A missing Host is refused by the listener instead, in a problem document.
  const timeouts = {
    headersTimeout: HEADERS_MS,
    requestTimeout: REQUEST_MS,
    keepAliveTimeout: KEEP_ALIVE_MS,
    connectionsCheckingInterval: LATE_MS,
  }
  const server = createServer({ requireHostHeader: false, ...timeouts }, listener)
  limitConnections(server, maxConnections, (socket) => refuseOn(socket, crowded(), clock))
  server.on('clientError', (error: NodeJS.ErrnoException, socket: Socket) => refuseUnparsed(error, socket, clock))
  // Node hangs up on one without a word.
  server.on('connect', (_request, socket) => refuseOn(socket as Socket, unparsed.HPE_INVALID_METHOD!(), clock))
  // An expectation nobody knows may be ignored (RFC 9110 §10.1.1), and then the answer is the app's.
  server.on('checkExpectation', (request, response) => void server.emit('request', request, response))
  server.listen(port, host)
  await once(server, 'listening').catch((error) => {
    throw refusal(error, host, port)
  })
  const ended = once(server, 'close')
  const shut = (): void => {
    if (!server.listening) return
    server.prependListener('request', (_request, response) => void response.setHeader('Connection', 'close'))
    server.close()
  }
  return {
    port: (server.address() as AddressInfo).port,
    setHandler(fetch) {
      answer = fetch
      opened.resolve(fetch)
    },
    stopListening: shut,
    async drained(clock) {
      server.closeIdleConnections()
      const disarm = clock.after(LINGER_MS, () => server.closeAllConnections())
      await ended
      disarm()
    },
    closeNow() {
      shut()
      server.closeAllConnections()
    },
  }
}

/** Which RFC 9112 §3.2 wants refused; Node takes the first. */
function namesTwoHosts({ rawHeaders }: IncomingMessage): boolean {
  let hosts = 0
  for (let i = 0; i < rawHeaders.length; i += 2) if (rawHeaders[i]!.length === 4 && rawHeaders[i]!.toLowerCase() === 'host') hosts++
  return hosts > 1
}

/** What could not be made a Request of: no Host, or a target that is no path. */
function refuseUnmade(error: unknown, clock: Pick<Clock, 'bytes'>): Response {
  const { status, headers, body } = problemOf(
    error instanceof RequestError
      ? new RingbackError('malformed_header', `The request cannot be understood (${error.message}).`)
      : new RingbackError('internal', 'Something went wrong here.', { cause: error }),
    clock,
  )
  return new Response(body, { status, headers })
}

/** What Node's parser refuses never becomes a request. */
function refuseUnparsed(error: NodeJS.ErrnoException, socket: Socket, clock: Pick<Clock, 'bytes'>): void {
  // Node keeps the answer under way here, and writing into it would corrupt it.
  const answering = '_httpMessage' in socket && socket._httpMessage
  if (!socket.writable || answering || error.code === 'ECONNRESET') return void socket.destroy()
  refuseOn(socket, unparsed[error.code ?? '']?.() ?? malformed('The request is not HTTP/1.1.'), clock)
}

/** Answers on the bare connection, which ends with it. */
function refuseOn(socket: Socket, refusal: RingbackError, clock: Pick<Clock, 'bytes'>): void {
  const { status, headers, body } = problemOf(refusal, clock)
  const head = { ...headers, 'Content-Length': String(Buffer.byteLength(body)), Connection: 'close' }
  const lines = Object.entries(head).map(([name, value]) => `${name}: ${value}`)
  socket.end([`HTTP/1.1 ${status} ${STATUS_CODES[status]}`, ...lines, '', body].join('\r\n'), () => socket.destroy())
}

const crowded = (): RingbackError =>
  new RingbackError('temporary_reduced_capacity', 'As many connections are being answered here as there may be; try again in a second.', {
    headers: { 'Retry-After': '1' },
  })
const malformed = (detail: string): RingbackError => new RingbackError('malformed_header', detail)
const METHODS = 'DELETE, GET, HEAD, OPTIONS, PATCH, POST'
const unparsed: Readonly<Record<string, () => RingbackError>> = {
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

function refusal(error: NodeJS.ErrnoException, host: string, port: number): StartupError {
  const where = `Port ${port} on ${host}`
  const why: Readonly<Record<string, string>> = {
    EADDRINUSE: `${where} is taken: stop what listens there, or set RINGBACK_PORT to another (0 takes any free one).`,
    EACCES: `${where} may not be listened on by this user: set RINGBACK_PORT to one from 1024 up.`,
    EADDRNOTAVAIL: `${where} cannot be listened on, because this machine has no such address: set RINGBACK_HOST to one it has.`,
    ENOTFOUND: `${where} cannot be listened on, because that name has no address: set RINGBACK_HOST to an address of this machine.`,
  }
  return new StartupError(
    why[error.code ?? ''] ?? `${where} cannot be listened on (${error.message}): set RINGBACK_HOST and RINGBACK_PORT.`,
  )
}
