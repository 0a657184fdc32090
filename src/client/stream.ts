/** One stream of server-sent events: the task as each frame shows it. */
import { createParser } from 'eventsource-parser'
import type { TaskDocument as Task } from '../core/documents.ts'
import { answerOf, type Calls } from './calls.ts'
import { RingbackClientError } from './errors.ts'

/** Within this the first frame of a new stream is here, or something holds it back. */
const FIRST_FRAME_MS = 5_000
/** The server says something every 15 s: after this silence the connection is dead. */
const SILENCE_MS = 25_000
/** A frame holds a task with 64 KiB of input and as much of a result; JSON may write a character as six. */
const MAX_CHARACTERS = 2 * 1024 * 1024

/** Streams do not come through here, or are not served. */
export class Unstreamable extends Error {
  override readonly name = 'Unstreamable'
}

/**
 * Yields what each frame shows, and returns when the stream ends, is cut or falls silent, and after `leftMs`. `resumeAfter` is the revision that is
 * known already; null begins a new stream.
 * @throws Unstreamable, RingbackClientError of a refusal or of no answer, and the reason of the signal
 */
export async function* openStream(
  { open, clock }: Calls,
  path: string,
  resumeAfter: number | null,
  leftMs: number,
  signal: AbortSignal | undefined,
): AsyncGenerator<Task, void, undefined> {
  const hangUp = new AbortController()
  const abort = (): void => hangUp.abort(signal?.reason)
  const endAt = clock.now() + leftMs
  let disarm = (): void => {}
  const listenFor = (ms: number): void => {
    disarm = clock.after(Math.max(0, Math.min(ms, endAt - clock.now())), () => hangUp.abort(new Unstreamable(`nothing came for ${ms} ms`)))
  }
  signal?.addEventListener('abort', abort, { once: true })
  // What is resumed came through before, and may begin with a comment only; a new stream begins with a frame.
  let cameThrough = resumeAfter !== null
  listenFor(cameThrough ? SILENCE_MS : FIRST_FRAME_MS)
  try {
    const headers = { Accept: 'text/event-stream', ...(resumeAfter !== null && { 'Last-Event-ID': String(resumeAfter) }) }
    for await (const text of textOf(await open(path, headers, hangUp.signal), path, hangUp.signal)) {
      disarm()
      cameThrough = true
      yield* text
      listenFor(SILENCE_MS)
    }
  } catch (error) {
    // Cut: who follows comes back, and is told what has changed.
    const useless = error instanceof Unstreamable && !cameThrough
    if (useless || signal?.aborted || error instanceof RingbackClientError) throw error
  } finally {
    disarm()
    signal?.removeEventListener('abort', abort)
    hangUp.abort()
  }
}

/** What the frames of each piece that comes in show. */
async function* textOf(response: Response, path: string, signal: AbortSignal): AsyncGenerator<readonly Task[], void, undefined> {
  const body = await bodyOf(response, path)
  const decoder = new TextDecoder()
  let frames: Task[] = []
  const parser = createParser({ maxBufferSize: MAX_CHARACTERS, onEvent: ({ data }) => frames.push(shownBy(data)) })
  const reader = body.getReader()
  // A platform that is called without a socket does not end its answer when a signal fires.
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

/** @throws Unstreamable when this is no stream, RingbackClientError when it is a refusal that says why. */
async function bodyOf(response: Response, path: string): Promise<ReadableStream<Uint8Array>> {
  const { status, headers, body } = response
  if (response.ok && body && headers.get('content-type')?.startsWith('text/event-stream')) return body
  try {
    answerOf(response, await response.text(), `GET ${path}`)
  } catch (error) {
    // As many streams are open as may be, or something on the way does not know of them: a call may be let through.
    const elsewhere =
      error instanceof RingbackClientError && (status === 429 || status === 503 || (error.code === 'unexpected_answer' && status < 500))
    if (!elsewhere) throw error
  }
  throw new Unstreamable(`GET ${path} was answered ${status}, and by no stream`)
}

function shownBy(data: string): Task {
  try {
    return (JSON.parse(data) as { data: Task }).data
  } catch (cause) {
    throw new Unstreamable('a frame is not what the server sends', { cause })
  }
}
