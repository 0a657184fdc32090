/**
 * Limits the connections of a server. At the limit, a new connection closes the longest-idle connection from the same IP address, otherwise the
 * longest-idle of all. A connection is idle unless a complete request of it is being answered: it may send nothing, send slowly, not read, or be kept
 * alive. So a flood from one address displaces its own connections. If no connection is idle, the new one is refused.
 */
import type { IncomingMessage, Server, ServerResponse } from 'node:http'
import type { Socket } from 'node:net'

/** Unread response bytes of all connections. Above it, connections that do not read are closed, chosen as above. */
const MAX_UNREAD_BYTES = 256 * 1024 * 1024

interface TrackedConnection {
  readonly socket: Socket
  readonly address: string
  /** Requests without a complete response. More than one with pipelining. */
  pendingResponses: number
  /** The last of these requests. */
  request: IncomingMessage | null
  /** Response bytes that the peer has not read. */
  unreadBytes: number
}

/** `refuse` gets the new connections that cannot be admitted. */
export function limitConnections(server: Server, max: number, refuse: (socket: Socket) => void, maxUnreadBytes = MAX_UNREAD_BYTES): void {
  const open = new Map<Socket, TrackedConnection>()
  /** Idle connections, longest idle first: all, and by address. May contain busy ones, which `longestIdle` removes. */
  const idle = new Set<TrackedConnection>()
  const idleAt = new Map<string, Set<TrackedConnection>>()
  /** Connections with unread response bytes, oldest first. */
  const unread = new Set<TrackedConnection>()
  let unreadBytes = 0

  /** Moves a connection to the end of the idle lists, after a request or a response. */
  const markIdle = (connection: TrackedConnection): void => {
    idle.delete(connection)
    idle.add(connection)
    const same = idleAt.get(connection.address)
    if (same === undefined) return void idleAt.set(connection.address, new Set([connection]))
    same.delete(connection)
    same.add(connection)
  }
  const removeIdle = (connection: TrackedConnection): void => {
    const same = idleAt.get(connection.address)
    idle.delete(connection)
    if (same?.delete(connection) && same.size === 0) idleAt.delete(connection.address)
  }
  /** The first idle connection. Busy connections leave the list until their response. */
  const longestIdle = (list: Iterable<TrackedConnection>): TrackedConnection | undefined => {
    for (const connection of list) {
      if (!isBusy(connection)) return connection
      removeIdle(connection)
    }
    return undefined
  }
  const clearUnread = (connection: TrackedConnection): void => {
    unreadBytes -= connection.unreadBytes
    connection.unreadBytes = 0
    unread.delete(connection)
  }
  const remove = (connection: TrackedConnection): void => {
    removeIdle(connection)
    clearUnread(connection)
    open.delete(connection.socket)
  }
  const close = (connection: TrackedConnection): void => {
    remove(connection)
    connection.socket.destroy()
  }
  /** The response is written. Bytes that the system did not take wait for the peer. */
  const onResponse = (connection: TrackedConnection, response: ServerResponse): void => {
    if (--connection.pendingResponses === 0) connection.request = null
    if (!open.has(connection.socket)) return
    markIdle(connection)
    clearUnread(connection)
    const bytes = connection.socket.writableLength
    if (bytes === 0) return
    response.once('finish', () => clearUnread(connection))
    connection.unreadBytes = bytes
    unread.add(connection)
    unreadBytes += bytes
    while (unreadBytes > maxUnreadBytes && unread.size > 1) {
      const others = [...unread].filter((other) => other !== connection)
      close(others.find(({ address }) => address === connection.address) ?? others[0]!)
    }
  }

  server.on('connection', (socket: Socket) => {
    const address = socket.remoteAddress ?? ''
    if (open.size >= max) {
      const victim = longestIdle(idleAt.get(address) ?? []) ?? longestIdle(idle)
      if (victim === undefined) return refuse(socket)
      close(victim)
    }
    const connection: TrackedConnection = { socket, address, pendingResponses: 0, request: null, unreadBytes: 0 }
    open.set(socket, connection)
    socket.once('close', () => remove(connection))
    markIdle(connection)
  })
  server.prependListener('request', (request, response) => {
    const connection = open.get(request.socket)
    if (connection === undefined) return
    connection.request = request
    connection.pendingResponses++
    markIdle(connection)
    response.on('prefinish', () => onResponse(connection, response))
  })
}

/** Whether a complete request is being answered. */
const isBusy = ({ pendingResponses, request }: TrackedConnection): boolean =>
  pendingResponses > 1 || (pendingResponses === 1 && request?.complete === true)
