/** Parsers for structured request headers: Accept, Prefer, entity tags, media types, trace context. */
import { RingbackError } from '../../core/errors.ts'

/** Whether `Accept` (RFC 9110 §12.5.1) admits one of `types`, e.g. `application/json`. Without the header, everything is admitted. */
export function acceptsAny(accept: string | undefined, types: readonly string[]): boolean {
  if (accept === undefined || accept === '*/*' || accept.trim() === '') return true
  const ranges = rangesOf(accept)
  return types.some((type) => {
    const family = `${type.slice(0, type.indexOf('/'))}/*`
    // The most specific range decides: "application/json;q=0, */*" refuses JSON.
    for (const name of [type, family, '*/*']) {
      const range = ranges.find((candidate) => candidate.name === name)
      if (range) return range.q > 0
    }
    return false
  })
}

function rangesOf(accept: string): { readonly name: string; readonly q: number }[] {
  return accept.split(',').map((range) => {
    const [name = '', ...parameters] = range.split(';').map((part) => part.trim().toLowerCase())
    const q = parameters.find((parameter) => parameter.startsWith('q='))
    return { name, q: q === undefined ? 1 : Number(q.slice(2)) || 0 }
  })
}

const EVENT_STREAM = 'text/event-stream'
/** Whether `Accept` names the event stream, and nothing of JSON before it: who takes anything gets JSON. */
export function prefersEventStream(accept: string | undefined): boolean {
  if (accept === undefined || !accept.toLowerCase().includes(EVENT_STREAM)) return false
  const ranges = rangesOf(accept)
  const weight = (name: string): number => ranges.find((range) => range.name === name)?.q ?? 0
  return weight(EVENT_STREAM) > 0 && weight(EVENT_STREAM) >= weight('application/json')
}

/** The media type without its parameters, in lower case. */
export const mediaType = (contentType: string): string => {
  const end = contentType.indexOf(';')
  return (end < 0 ? contentType : contentType.slice(0, end)).trim().toLowerCase()
}

/** The seconds of `Prefer: wait=N` (RFC 7240 §4.3), clamped to 1…60. Null without it. A malformed preference is ignored. */
export function preferredWait(prefer: string | undefined): number | null {
  if (prefer === undefined) return null
  for (const preference of prefer.split(',')) {
    const match = /^\s*wait\s*=\s*"?(\d{1,9})"?\s*(;.*)?$/i.exec(preference)
    if (match) return Math.min(60, Math.max(1, Number(match[1])))
  }
  return null
}

const TAGS = /^\s*(?:W\/)?"[\x21\x23-\x7e\x80-\xff]*"\s*(?:,\s*(?:W\/)?"[\x21\x23-\x7e\x80-\xff]*"\s*)*$/
const TAG = /(W\/)?"([\x21\x23-\x7e\x80-\xff]*)"/g

/** Whether `If-None-Match` matches the tag by weak comparison (RFC 9110 §13.1.2). `opaque` is the text within the quotes. */
export function ifNoneMatchHits(header: string | undefined, opaque: string): boolean {
  if (header === undefined) return false
  if (header.trim() === '*') return true
  for (const [, , tag] of header.matchAll(TAG)) if (tag === opaque) return true
  return false
}

type RequestHeaders = { header(name: string): string | undefined }

/** @throws RingbackError `malformed_header` when `If-Match` is neither `*` nor a list of entity tags */
export function checkIfMatch(call: RequestHeaders): void {
  const header = call.header('if-match')
  if (header !== undefined && header.trim() !== '*' && !TAGS.test(header))
    throw new RingbackError('malformed_header', `If-Match is ${JSON.stringify(header)}; give "*" or entity tags such as "7".`)
}

/**
 * Requires that `If-Match` matches the revision by strong comparison (RFC 9110 §13.1.1). Without the header, everything matches.
 * @throws RingbackError `precondition_failed`
 */
export function requireIfMatch(call: RequestHeaders, what: string, { revision }: { readonly revision: number }): void {
  const header = call.header('if-match')
  if (header === undefined || header.trim() === '*') return
  for (const [, weak, tag] of header.matchAll(TAG)) if (!weak && tag === String(revision)) return
  throw preconditionFailed(what, revision)
}

export const preconditionFailed = (what: string, revision: number): RingbackError =>
  new RingbackError('precondition_failed', `The ${what} has changed: its revision is ${revision} now. Read it again.`)

const TRACEPARENT = /^(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(-.*)?$/

/** The W3C trace context of the request. A malformed one is dropped (Trace Context §3.2.2). */
export function parseTraceContext(
  traceparent: string | undefined,
  tracestate: string | undefined,
): { traceparent: string | null; tracestate: string | null } {
  if (traceparent === undefined || traceparent.length > 512 || !TRACEPARENT.test(traceparent)) return NO_TRACE
  const kept = tracestate !== undefined && tracestate.length <= 512 && /^[\x20-\x7e]+$/.test(tracestate) ? tracestate : null
  return { traceparent, tracestate: kept }
}
const NO_TRACE = { traceparent: null, tracestate: null }

/** Whether a request id is echoed: short and safe in a log line. */
export const isValidRequestId = (id: string): boolean => /^[\w.:@+/=~-]{1,128}$/.test(id)
