/**
 * The connections of a server: how many there may be, and who gives way when there are more. Whoever comes is let in as long as there is one
 * that nobody works for, whether it says nothing, sends its request byte by byte, does not read its answer, or is merely kept: the one of its
 * own address that has been so for longest is cut, else the one of all. So a crowd that comes again and again displaces itself.
 */
import type { IncomingMessage, Server } from 'node:http'
import type { Socket } from 'node:net'

/** Of answers that are ready and not taken, on all connections: over it, who does not read gives way, as above. */
const MOST_UNREAD_BYTES = 256 * 1024 * 1024

/** `refuse` is given those who come while all are being worked for. */
export function limitConnections(
  server: Server,
  most: number,
  refuse: (socket: Socket) => void,
  mostUnreadBytes = MOST_UNREAD_BYTES,
): void {
  /** Where each open one comes from. */
  const open = new Map<Socket, string>()
  /** Those whose next byte is waited for, the one that has been for longest first: all of them, and of each address. */
  const idle = new Set<Socket>()
  const idleAt = new Map<string, Set<Socket>>()
  /** Requests that came whole and are being answered: more than one where they are sent ahead. */
  const busy = new Map<Socket, number>()
  /** What of an answer waits for its reader, in bytes; the one that has waited for longest first. */
  const unread = new Map<Socket, number>()
  let unreadBytes = 0

  const rest = (socket: Socket): void => {
    const address = open.get(socket)
    if (address === undefined) return
    idle.add(socket)
    const same = idleAt.get(address) ?? new Set()
    idleAt.set(address, same.add(socket))
  }
  const wake = (socket: Socket): void => {
    const address = open.get(socket) ?? ''
    const same = idleAt.get(address)
    idle.delete(socket)
    if (same?.delete(socket) && same.size === 0) idleAt.delete(address)
  }
  const read = (socket: Socket): void => {
    unreadBytes -= unread.get(socket) ?? 0
    unread.delete(socket)
  }
  const forget = (socket: Socket): void => {
    wake(socket)
    read(socket)
    busy.delete(socket)
    open.delete(socket)
  }
  const cut = (socket: Socket): void => {
    forget(socket)
    socket.destroy()
  }
  /** An answer is written: what the system did not take of it waits for its reader. */
  const handOver = (socket: Socket): void => {
    read(socket)
    const bytes = socket.writableLength
    if (bytes === 0) return
    unread.set(socket, bytes)
    unreadBytes += bytes
    while (unreadBytes > mostUnreadBytes && unread.size > 1) {
      const others = [...unread.keys()].filter((other) => other !== socket)
      cut(others.find((other) => open.get(other) === open.get(socket)) ?? others[0]!)
    }
  }

  server.on('connection', (socket: Socket) => {
    const address = socket.remoteAddress ?? ''
    if (open.size >= most) {
      const [longest] = idleAt.get(address) ?? idle
      if (longest === undefined) return refuse(socket)
      cut(longest)
    }
    open.set(socket, address)
    socket.once('close', () => forget(socket))
    rest(socket)
  })
  server.prependListener('request', (request, response) => {
    const { socket } = request
    let begun = false
    let over = false
    const begin = (): void => {
      begun = true
      busy.set(socket, (busy.get(socket) ?? 0) + 1)
      wake(socket)
    }
    if (!hasBody(request)) begin()
    else if (idle.has(socket)) {
      // It said something, and is waited for anew.
      wake(socket)
      rest(socket)
      request.once('end', begin)
    }
    const end = (): void => {
      request.removeListener('end', begin)
      if (over || !begun) return
      over = true
      const left = (busy.get(socket) ?? 1) - 1
      if (left > 0) return void busy.set(socket, left)
      busy.delete(socket)
      rest(socket)
    }
    // All of the answer is written, and nobody works for it any more: whoever does not read it is waited for.
    response.once('prefinish', () => {
      end()
      if (open.has(socket)) handOver(socket)
    })
    response.once('finish', () => read(socket))
    response.once('close', end)
  })
}

const hasBody = ({ headers }: IncomingMessage): boolean =>
  headers['transfer-encoding'] !== undefined || Number(headers['content-length'] ?? 0) > 0
