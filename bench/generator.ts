/**
 * The load generator: a process of its own that writes prepared HTTP/1.1 requests to raw sockets and reads as little
 * of each answer as it must, so that one core drives a server on another core to its limit.
 */
import { connect, type Socket } from 'node:net'
import { monotonicMs } from './clock.ts'
import { type ClosedLoad, type LoadReport, type OpenLoad, serveCommands, type Target } from './protocol.ts'
import { percentile } from './statistics.ts'

/** One keep-alive connection with at most one request open. */
interface Line {
  readonly socket: Socket
  /** Which request is open; −1: none. */
  request: number
  /** What came so far of an answer that did not come in one piece. */
  partial: Buffer | null
}

type OnAnswer = (line: Line, request: number, status: number) => void

/** Where the answer that begins at 0 ends, or −1 when there is more to come. */
export function answerEnd(bytes: Buffer): number {
  const headEnd = bytes.indexOf('\r\n\r\n')
  if (headEnd < 0) return -1
  const head = bytes.toString('latin1', 0, headEnd).toLowerCase()
  const bodyStart = headEnd + 4
  const at = head.indexOf('\r\ncontent-length:')
  if (at >= 0) {
    const end = bodyStart + Number.parseInt(head.slice(at + 17), 10)
    return bytes.length >= end ? end : -1
  }
  if (head.includes('\r\ntransfer-encoding: chunked')) {
    const end = bytes.indexOf('0\r\n\r\n', bodyStart)
    return end < 0 ? -1 : end + 5
  }
  return bodyStart
}

async function openLine(port: number, onAnswer: OnAnswer): Promise<Line> {
  const socket = connect({ port, host: '127.0.0.1', noDelay: true })
  const line: Line = { socket, request: -1, partial: null }
  const finish = (status: number): void => {
    const request = line.request
    if (request < 0) return
    line.request = -1
    onAnswer(line, request, status)
  }
  await new Promise((resolve, reject) => socket.once('connect', resolve).once('error', reject))
  socket.removeAllListeners('error')
  socket.on('error', () => finish(0))
  socket.on('close', () => finish(0))
  socket.on('data', (piece) => {
    const bytes = line.partial === null ? piece : Buffer.concat([line.partial, piece])
    if (answerEnd(bytes) < 0) {
      line.partial = bytes
      return
    }
    line.partial = null
    finish(Number.parseInt(bytes.toString('latin1', 9, 12), 10))
  })
  return line
}

/** Renders request `i` of a load; all bytes are ASCII. */
function requestWriter(target: Target): (i: number) => string {
  const { task } = target
  const headers = Object.entries({ host: `127.0.0.1:${target.port}`, 'content-type': 'application/json', ...target.headers })
  const head = `POST ${target.path} HTTP/1.1\r\n${headers.map(([name, value]) => `${name}: ${value}\r\n`).join('')}content-length: `
  const delay = task.delaySeconds === undefined ? '' : `,"delaySeconds":${task.delaySeconds}`
  const tails = task.endpointIds.map((id) => `,"callback":{"endpointId":"${id}"}${delay}}`)
  const padding = 'x'.repeat(task.inputBytes)
  return (i) => {
    const opening = `{"n":${task.firstNumber + i},"pad":"`
    const input = `${opening}${padding.slice(0, task.inputBytes - opening.length - 2)}"}`
    const body = `{"type":"${task.type}","input":${input}${tails[i % tails.length] ?? `${delay}}`}`
    return `${head}${body.length}\r\n\r\n${body}`
  }
}

/** Counts answers and their times. `fromAt` says from when a request's time counts. */
function startTally() {
  const answers: Record<string, number> = {}
  const answerMs: number[] = []
  return {
    answers,
    answerMs,
    add(status: number, ms: number): void {
      answers[status] = (answers[status] ?? 0) + 1
      answerMs.push(ms)
    },
  }
}

function report(
  startedAt: number,
  endedAt: number,
  sent: number,
  tally: ReturnType<typeof startTally>,
  lateMs: readonly number[],
): LoadReport {
  return {
    startedAt,
    endedAt,
    sent,
    accepted: tally.answers['202'] ?? 0,
    answers: tally.answers,
    answerMs: { p50: percentile(tally.answerMs, 0.5), p99: percentile(tally.answerMs, 0.99) },
    lateMs: { p50: percentile(lateMs, 0.5), p99: percentile(lateMs, 0.99) },
  }
}

async function runClosed({ target, count, durationMs }: ClosedLoad): Promise<LoadReport> {
  const write = requestWriter(target)
  const tally = startTally()
  const sentAt = new Map<number, number>()
  const limit = count ?? Number.POSITIVE_INFINITY
  let sent = 0
  let open = 0
  let endAt = Number.POSITIVE_INFINITY
  const ended = Promise.withResolvers<void>()

  const sendNext = (line: Line, now: number): void => {
    if (sent >= limit || now >= endAt || line.socket.destroyed) {
      if (open === 0) ended.resolve()
      return
    }
    const request = sent++
    open++
    line.request = request
    sentAt.set(request, now)
    line.socket.write(write(request), 'latin1')
  }
  const onAnswer: OnAnswer = (line, request, status) => {
    const now = monotonicMs()
    open--
    tally.add(status, now - sentAt.get(request)!)
    sentAt.delete(request)
    sendNext(line, now)
  }

  const lines = await Promise.all(Array.from({ length: target.connections }, () => openLine(target.port, onAnswer)))
  const startedAt = monotonicMs()
  if (durationMs !== undefined) endAt = startedAt + durationMs
  for (const line of lines) sendNext(line, startedAt)
  await ended.promise
  const endedAt = monotonicMs()
  for (const line of lines) line.socket.destroy()
  return report(startedAt, endedAt, sent, tally, [])
}

async function runOpen({ target, ratePerSecond, durationMs }: OpenLoad): Promise<LoadReport> {
  const write = requestWriter(target)
  const tally = startTally()
  const lateMs: number[] = []
  const total = Math.floor((ratePerSecond * durationMs) / 1e3)
  const everyMs = 1e3 / ratePerSecond
  // First in, first out, so that no connection idles long enough for a server to close it.
  const idle: Line[] = []
  let next = 0
  let answered = 0
  const ended = Promise.withResolvers<void>()
  let startedAt = 0
  const dueAt = (request: number): number => startedAt + request * everyMs

  const sendDue = (): void => {
    const now = monotonicMs()
    while (next < total && dueAt(next) <= now) {
      const line = idle.shift()
      if (line === undefined) return
      if (line.socket.destroyed) continue
      const request = next++
      lateMs.push(now - dueAt(request))
      line.request = request
      line.socket.write(write(request), 'latin1')
    }
  }
  const onAnswer: OnAnswer = (line, request, status) => {
    tally.add(status, monotonicMs() - dueAt(request))
    idle.push(line)
    if (++answered === total) ended.resolve()
    else sendDue()
  }
  const lines = await Promise.all(Array.from({ length: target.connections }, () => openLine(target.port, onAnswer)))
  idle.push(...lines)
  startedAt = monotonicMs() + 5
  const timer = setInterval(sendDue, 1)
  const giveUp = setTimeout(() => ended.resolve(), durationMs + 10_000)
  await ended.promise
  clearInterval(timer)
  clearTimeout(giveUp)
  for (const line of lines) line.socket.destroy()
  return report(startedAt, monotonicMs(), next, tally, lateMs)
}

serveCommands<ClosedLoad | OpenLoad>((load) => (load.command === 'closed' ? runClosed(load) : runOpen(load)))
