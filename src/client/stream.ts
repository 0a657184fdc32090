/** One stream of server-sent events; each frame holds the task. */
import { createParser } from 'eventsource-parser'
import type { TaskDocument as Task } from '../core/documents.ts'
import { type Calls, parseResponse } from './calls.ts'
import { RingbackClientError } from './errors.ts'

/** The first frame of a new stream arrives within this time, unless a proxy buffers it. */
const FIRST_FRAME_MS = 5_000
/** The server sends something every 15 s, so after this silence the connection is dead. */
const SILENCE_MS = 25_000
/** Maximum frame: a task with 64 KiB each of input and result, whose characters JSON may escape with six. */
const MAX_CHARACTERS = 2 * 1024 * 1024

/** Streams do not come through, or are not served. */
export class Unstreamable extends Error {
  override readonly name = 'Unstreamable'
}

/**
 * Yields the task of each frame. Returns when the stream ends, is cut or falls silent, or after `leftMs`. `resumeAfter` is the known revision;
 * null begins a new stream.
 * @throws Unstreamable, RingbackClientError of a refusal or without an answer, and the reason of the signal
 */
export async function* openStream(
  { open, clock }: Calls,
  path: string,
  resumeAfter: number | null,
  leftMs: number,
  signal: AbortSignal | undefined,
): AsyncGenerator<Task, void, undefined> {
  const stop = new AbortController()
  const abort = (): void => stop.abort(signal?.reason)
  const endAt = clock.now() + leftMs
  let disarm = (): void => {}
  const expectWithin = (ms: number): void => {
    disarm = clock.after(Math.max(0, Math.min(ms, endAt - clock.now())), () => stop.abort(new Unstreamable(`nothing came for ${ms} ms`)))
  }
  signal?.addEventListener('abort', abort, { once: true })
  // A resumed stream came through before, and may begin with a comment only; a new one begins with a frame.
  let received = resumeAfter !== null
  expectWithin(received ? SILENCE_MS : FIRST_FRAME_MS)
  try {
    const headers = { Accept: 'text/event-stream', ...(resumeAfter !== null && { 'Last-Event-ID': String(resumeAfter) }) }
    for await (const text of readTasks(await open(path, headers, stop.signal), path, stop.signal)) {
      disarm()
      received = true
      yield* text
      expectWithin(SILENCE_MS)
    }
  } catch (error) {
    // The stream was cut: the follower opens another one, which begins with the changes.
    const useless = error instanceof Unstreamable && !received
    if (useless || signal?.aborted || error instanceof RingbackClientError) throw error
  } finally {
    disarm()
    signal?.removeEventListener('abort', abort)
    stop.abort()
  }
}

/** Yields the tasks in each chunk of the response. */
async function* readTasks(response: Response, path: string, signal: AbortSignal): AsyncGenerator<readonly Task[], void, undefined> {
  const body = await streamOf(response, path)
  const decoder = new TextDecoder()
  let frames: Task[] = []
  const parser = createParser({ maxBufferSize: MAX_CHARACTERS, onEvent: ({ data }) => frames.push(parseFrame(data)) })
  const reader = body.getReader()
  // An app that is called without a socket does not end its response when the signal fires.
  const cancel = (): void => void reader.cancel(signal.reason).catch(() => {})
  signal.addEventListener('abort', cancel, { once: true })
  try {
    for (;;) {
      const { done, value } = await reader.read()
      signal.throwIfAborted()
      if (done) return
      parser.feed(decoder.decode(value, { stream: true }))
      yield frames
      frames = []
    }
  } finally {
    signal.removeEventListener('abort', cancel)
    cancel()
  }
}

/** @throws Unstreamable when the response is not a stream, RingbackClientError when it is an error of the API. */
async function streamOf(response: Response, path: string): Promise<ReadableStream<Uint8Array>> {
  const { status, headers, body } = response
  if (response.ok && body && headers.get('content-type')?.startsWith('text/event-stream')) return body
  try {
    parseResponse(response, await response.text(), `GET ${path}`)
  } catch (error) {
    // Too many streams are open, or a proxy does not let them through: other calls may succeed.
    const onlyStreams =
      error instanceof RingbackClientError && (status === 429 || status === 503 || (error.code === 'unexpected_answer' && status < 500))
    if (!onlyStreams) throw error
  }
  throw new Unstreamable(`GET ${path} was answered ${status} without a stream`)
}

function parseFrame(data: string): Task {
  try {
    return (JSON.parse(data) as { data: Task }).data
  } catch (cause) {
    throw new Unstreamable('a frame does not hold a task', { cause })
  }
}
