/** Reads streams of server-sent events. */
import { createParser } from 'eventsource-parser'

export interface Frame {
  /** `comment` stands for one. */
  readonly event: string
  readonly id: string | undefined
  /** As it came. */
  readonly text: string
  // biome-ignore lint/suspicious/noExplicitAny: tests look into envelopes of every shape
  readonly json: any
}

export interface Reader {
  /** The next frame; null: the stream has ended. Nothing is read ahead. */
  next(): Promise<Frame | null>
  /** What is left until the end. */
  rest(): Promise<Frame[]>
  hangUp(): Promise<void>
}

export function readFrames({ body }: Response): Reader {
  if (body === null) throw new Error('there is no stream to read')
  const reader = body.getReader()
  const decoder = new TextDecoder()
  const waiting: Frame[] = []
  const parser = createParser({
    onEvent: ({ event = 'message', id, data }) => waiting.push({ event, id, text: data, json: JSON.parse(data) }),
    onComment: () => waiting.push({ event: 'comment', id: undefined, text: '', json: null }),
  })
  const next = async (): Promise<Frame | null> => {
    while (waiting.length === 0) {
      const { done, value } = await reader.read()
      if (done) return null
      parser.feed(decoder.decode(value, { stream: true }))
    }
    return waiting.shift()!
  }
  return {
    next,
    async rest() {
      const frames: Frame[] = []
      for (let frame = await next(); frame !== null; frame = await next()) frames.push(frame)
      return frames
    },
    hangUp: () => reader.cancel(),
  }
}
