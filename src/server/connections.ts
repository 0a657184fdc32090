/**
 * The connections of a server: how many there may be, and who gives way when there are more. Whoever comes is let in as long as there is one
 * that nobody works for, whether it says nothing, sends its request byte by byte, does not read its answer, or is merely kept: the one of its
 * own address that has been so for longest is cut, else the one of all. So a crowd that comes again and again displaces itself.
 */
import type { IncomingMessage, Server, ServerResponse } from 'node:http'
import type { Socket } from 'node:net'

/** Of answers that are ready and not taken, on all connections: over it, who does not read gives way, as above. */
const MOST_UNREAD_BYTES = 256 * 1024 * 1024

/** One that is open. */
interface Visitor {
  readonly socket: Socket
  /** Where it comes from. */
  readonly address: string
  /** Requests whose answer is not written yet: more than one where they are sent ahead. */
  answers: number
  /** The last of those. */
  request: IncomingMessage | null
  /** What of an answer waits for its reader. */
  unreadBytes: number
}

/** `refuse` is given those who come while all are being worked for. */
export function limitConnections(
  server: Server,
  most: number,
  refuse: (socket: Socket) => void,
  mostUnreadBytes = MOST_UNREAD_BYTES,
): void {
  const open = new Map<Socket, Visitor>()
  /** Those whose next byte may be waited for, the one that has been for longest first: all of them, and of each address. */
  const idle = new Set<Visitor>()
  const idleAt = new Map<string, Set<Visitor>>()
  /** Those who have not taken their answer, the one that has not for longest first. */
  const unread = new Set<Visitor>()
  let unreadBytes = 0

  /** It said something, or was answered: the last in line now. */
  const rest = (visitor: Visitor): void => {
    idle.delete(visitor)
    idle.add(visitor)
    const same = idleAt.get(visitor.address)
    if (same === undefined) return void idleAt.set(visitor.address, new Set([visitor]))
    same.delete(visitor)
    same.add(visitor)
  }
  const wake = (visitor: Visitor): void => {
    const same = idleAt.get(visitor.address)
    idle.delete(visitor)
    if (same?.delete(visitor) && same.size === 0) idleAt.delete(visitor.address)
  }
  /** Of those, who has waited for longest; whoever is being worked for leaves the line, and comes back with the answer. */
  const longest = (line: Iterable<Visitor>): Visitor | undefined => {
    for (const visitor of line) {
      if (!isBusy(visitor)) return visitor
      wake(visitor)
    }
    return undefined
  }
  const read = (visitor: Visitor): void => {
    unreadBytes -= visitor.unreadBytes
    visitor.unreadBytes = 0
    unread.delete(visitor)
  }
  const forget = (visitor: Visitor): void => {
    wake(visitor)
    read(visitor)
    open.delete(visitor.socket)
  }
  const cut = (visitor: Visitor): void => {
    forget(visitor)
    visitor.socket.destroy()
  }
  /** All of an answer is written, and nobody works for it any more: what the system did not take of it waits for its reader. */
  const answered = (visitor: Visitor, response: ServerResponse): void => {
    if (--visitor.answers === 0) visitor.request = null
    if (!open.has(visitor.socket)) return
    rest(visitor)
    read(visitor)
    const bytes = visitor.socket.writableLength
    if (bytes === 0) return
    response.once('finish', () => read(visitor))
    visitor.unreadBytes = bytes
    unread.add(visitor)
    unreadBytes += bytes
    while (unreadBytes > mostUnreadBytes && unread.size > 1) {
      const others = [...unread].filter((other) => other !== visitor)
      cut(others.find(({ address }) => address === visitor.address) ?? others[0]!)
    }
  }

  server.on('connection', (socket: Socket) => {
    const address = socket.remoteAddress ?? ''
    if (open.size >= most) {
      const weakest = longest(idleAt.get(address) ?? []) ?? longest(idle)
      if (weakest === undefined) return refuse(socket)
      cut(weakest)
    }
    const visitor: Visitor = { socket, address, answers: 0, request: null, unreadBytes: 0 }
    open.set(socket, visitor)
    socket.once('close', () => forget(visitor))
    rest(visitor)
  })
  server.prependListener('request', (request, response) => {
    const visitor = open.get(request.socket)
    if (visitor === undefined) return
    visitor.request = request
    visitor.answers++
    rest(visitor)
    response.on('prefinish', () => answered(visitor, response))
  })
}

/** Whether a request of it has come whole, and is being answered. */
const isBusy = ({ answers, request }: Visitor): boolean => answers > 1 || (answers === 1 && request?.complete === true)
