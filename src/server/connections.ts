/**
 * The connections of a server: how many there may be, and who gives way when there are more. Whoever comes is let in as long as there is one
 * that nobody works for, whether it says nothing, sends its request byte by byte, does not read its answer, or is merely kept: the one of its
 * own address that has been so for longest is cut, else the one of all. So a crowd that comes again and again displaces itself.
 */
import type { IncomingMessage, Server, ServerResponse } from 'node:http'
import type { Socket } from 'node:net'

/** Of answers that are ready and not taken, on all connections: over it, who does not read gives way, as above. */
const MAX_UNREAD_BYTES = 256 * 1024 * 1024

/** One that is open. */
interface TrackedConnection {
  readonly socket: Socket
  /** Where it comes from. */
  readonly address: string
  /** Requests whose answer is not written yet: more than one where they are sent ahead. */
  pendingResponses: number
  /** The last of those. */
  request: IncomingMessage | null
  /** What of an answer waits for its reader. */
  unreadBytes: number
}

/** `refuse` is given those who come while all are being worked for. */
export function limitConnections(server: Server, most: number, refuse: (socket: Socket) => void, mostUnreadBytes = MAX_UNREAD_BYTES): void {
  const open = new Map<Socket, TrackedConnection>()
  /** Those whose next byte may be waited for, the one that has been for longest first: all of them, and of each address. */
  const idle = new Set<TrackedConnection>()
  const idleAt = new Map<string, Set<TrackedConnection>>()
  /** Those who have not taken their answer, the one that has not for longest first. */
  const unread = new Set<TrackedConnection>()
  let unreadBytes = 0

  /** It said something, or was answered: the last in line now. */
  const rest = (connection: TrackedConnection): void => {
    idle.delete(connection)
    idle.add(connection)
    const same = idleAt.get(connection.address)
    if (same === undefined) return void idleAt.set(connection.address, new Set([connection]))
    same.delete(connection)
    same.add(connection)
  }
  const wake = (connection: TrackedConnection): void => {
    const same = idleAt.get(connection.address)
    idle.delete(connection)
    if (same?.delete(connection) && same.size === 0) idleAt.delete(connection.address)
  }
  /** Of those, who has waited for longest; whoever is being worked for leaves the line, and comes back with the answer. */
  const longest = (line: Iterable<TrackedConnection>): TrackedConnection | undefined => {
    for (const connection of line) {
      if (!isBusy(connection)) return connection
      wake(connection)
    }
    return undefined
  }
  const read = (connection: TrackedConnection): void => {
    unreadBytes -= connection.unreadBytes
    connection.unreadBytes = 0
    unread.delete(connection)
  }
  const forget = (connection: TrackedConnection): void => {
    wake(connection)
    read(connection)
    open.delete(connection.socket)
  }
  const cut = (connection: TrackedConnection): void => {
    forget(connection)
    connection.socket.destroy()
  }
  /** All of an answer is written, and nobody works for it any more: what the system did not take of it waits for its reader. */
  const answered = (connection: TrackedConnection, response: ServerResponse): void => {
    if (--connection.pendingResponses === 0) connection.request = null
    if (!open.has(connection.socket)) return
    rest(connection)
    read(connection)
    const bytes = connection.socket.writableLength
    if (bytes === 0) return
    response.once('finish', () => read(connection))
    connection.unreadBytes = bytes
    unread.add(connection)
    unreadBytes += bytes
    while (unreadBytes > mostUnreadBytes && unread.size > 1) {
      const others = [...unread].filter((other) => other !== connection)
      cut(others.find(({ address }) => address === connection.address) ?? others[0]!)
    }
  }

  server.on('connection', (socket: Socket) => {
    const address = socket.remoteAddress ?? ''
    if (open.size >= most) {
      const weakest = longest(idleAt.get(address) ?? []) ?? longest(idle)
      if (weakest === undefined) return refuse(socket)
      cut(weakest)
    }
    const connection: TrackedConnection = { socket, address, pendingResponses: 0, request: null, unreadBytes: 0 }
    open.set(socket, connection)
    socket.once('close', () => forget(connection))
    rest(connection)
  })
  server.prependListener('request', (request, response) => {
    const connection = open.get(request.socket)
    if (connection === undefined) return
    connection.request = request
    connection.pendingResponses++
    rest(connection)
    response.on('prefinish', () => answered(connection, response))
  })
}

/** Whether a request of it has come whole, and is being answered. */
const isBusy = ({ pendingResponses: answers, request }: TrackedConnection): boolean =>
  answers > 1 || (answers === 1 && request?.complete === true)
