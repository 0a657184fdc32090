/** Request bodies: read as text within the limit, parsed, and scanned for the raw text of members that are stored as written. */
import { isUtf8 } from 'node:buffer'
import { RingbackError } from '../../core/errors.ts'

/** Maximum nesting of a body, so that recursion over it is safe. */
export const MAX_JSON_DEPTH = 100

/**
 * The whole body as text.
 * @throws RingbackError `payload_too_large` over `limitBytes`, by Content-Length or by the received bytes; `malformed_json` when it is not UTF-8 or
 * incomplete
 */
export function readBodyText(request: Request, contentLength: string | undefined, limitBytes: number): Promise<string> {
  const declared = contentLength === undefined ? Number.NaN : Number(contentLength)
  if (declared > limitBytes) throw tooLarge(limitBytes)
  // The HTTP parser enforces a declared length. Without one, the received bytes are counted.
  if (Number.isNaN(declared)) return readCounted(request, limitBytes).then(decode, rejectIncomplete)
  return request.text().then((text) => checkText(text, declared, limitBytes), rejectIncomplete)
}

function rejectIncomplete(cause: unknown): never {
  if (cause instanceof RingbackError) throw cause
  throw new RingbackError('malformed_json', 'The body ended before it was complete.', { cause })
}

function checkText(text: string, declared: number, limitBytes: number): string {
  // Invalid UTF-8 is decoded as U+FFFD (three bytes), so the length differs unless the body itself has U+FFFD.
  if (text.includes('\ufffd') && Buffer.byteLength(text) !== declared) throw notUtf8()
  // A Request that was constructed in code may declare less than it has.
  if (text.length > limitBytes) throw tooLarge(limitBytes)
  return text
}

function decode(bytes: Uint8Array): string {
  if (!isUtf8(bytes)) throw notUtf8()
  return Buffer.from(bytes).toString()
}

const notUtf8 = (): RingbackError => new RingbackError('malformed_json', 'The body is not UTF-8.')

async function readCounted(request: Request, limitBytes: number): Promise<Uint8Array> {
  const chunks: Uint8Array[] = []
  let length = 0
  const reader = request.body?.getReader()
  for (let part = await reader?.read(); part && !part.done; part = await reader?.read()) {
    length += part.value.byteLength
    if (length > limitBytes) {
      reader?.cancel().catch(() => {})
      throw tooLarge(limitBytes)
    }
    chunks.push(part.value)
  }
  return Buffer.concat(chunks)
}

const tooLarge = (limitBytes: number): RingbackError =>
  new RingbackError('payload_too_large', `The body is larger than ${limitBytes} bytes; send less, or send a URL to fetch it from.`)

const DIGITS_OF_HUGE = 300
const HUGE_EXPONENT = /^\+?\d{3}/
/**
 * Whether a number may exceed the range of a double: `1e400` would be parsed as Infinity and serialized as null. A loop, because a regular expression
 * doubled the cost of reading a body.
 */
function mayHoldHuge(text: string): boolean {
  for (let i = 0, digits = 0; i < text.length; i++) {
    const code = text.charCodeAt(i)
    if (code >= 48 && code <= 57) {
      if (++digits === DIGITS_OF_HUGE) return true
      continue
    }
    if (digits > 0 && (code === 101 || code === 69) && HUGE_EXPONENT.test(text.slice(i + 1, i + 5))) return true
    digits = 0
  }
  return false
}
function refuseInfinite(_key: string, value: unknown): unknown {
  if (value === Infinity || value === -Infinity)
    throw new RingbackError('malformed_json', 'The body holds a number beyond the range of a double (RFC 8259 §6); send it as text.')
  return value
}

/** @throws RingbackError `malformed_json` */
export function parseJson(text: string): unknown {
  try {
    return mayHoldHuge(text) ? JSON.parse(text, refuseInfinite) : JSON.parse(text)
  } catch (cause) {
    if (cause instanceof RingbackError) throw cause
    // The message of V8 quotes a few characters of the body, which only its sender sees.
    throw new RingbackError('malformed_json', `The body is not JSON: ${(cause as Error).message}.`, { cause })
  }
}

export interface JsonScan {
  /** The deepest nesting of objects and arrays. */
  readonly depth: number
  /** The raw values of the members named `member` in objects at depth `level`, in order. */
  readonly values: readonly string[]
}

const QUOTE = 0x22
const BACKSLASH = 0x5c
const COLON = 0x3a
const COMMA = 0x2c

/** One pass over valid JSON text. The raw text of a member keeps every digit of its numbers and need not be serialized again. */
export function scanJson(text: string, member: string, level: number): JsonScan {
  const values: string[] = []
  let depth = 0
  let deepest = 0
  let start = -1
  const end = text.length
  for (let i = 0; i < end; i++) {
    switch (text.charCodeAt(i)) {
      case QUOTE: {
        const close = closingQuote(text, i)
        if (depth === level && start < 0 && isName(text, i, close, member)) {
          const next = skipSpace(text, close + 1)
          if (text.charCodeAt(next) === COLON) start = next + 1
        }
        i = close
        break
      }
      case 0x7b:
      case 0x5b:
        if (++depth > deepest) deepest = depth
        break
      case 0x7d:
      case 0x5d:
      case COMMA:
        if (depth === level && start >= 0) {
          values.push(text.slice(start, i).trim())
          start = -1
        }
        if (text.charCodeAt(i) !== COMMA) depth--
        break
    }
  }
  return { depth: deepest, values }
}

/** Also matches names with escapes. Otherwise the validated value and the stored value could differ. */
function isName(text: string, open: number, close: number, name: string): boolean {
  const length = close - open - 1
  if (length === name.length) return text.startsWith(name, open + 1)
  // An escape has two to six characters.
  if (length < name.length || length > name.length * 6) return false
  return text.slice(open, close).includes('\\') && JSON.parse(text.slice(open, close + 1)) === name
}

function closingQuote(text: string, open: number): number {
  for (let at = text.indexOf('"', open + 1); ; at = text.indexOf('"', at + 1)) {
    let slashes = 0
    while (text.charCodeAt(at - 1 - slashes) === BACKSLASH) slashes++
    if (slashes % 2 === 0) return at
  }
}

function skipSpace(text: string, from: number): number {
  let at = from
  while (text.charCodeAt(at) <= 0x20) at++
  return at
}
