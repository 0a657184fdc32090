/**
 * Writes the task document and events, the same for a 202, a GET, a list, a stream and a webhook. They are written as text, because input,
 * result and metadata are stored as JSON text and need no parsing.
 */
import type { CallbackDocument, CallbackStatus, WaitingFor } from './documents.ts'
import type { Json, Millis, Task } from './model.ts'
import { parseStored } from './stored-json.ts'

/** Inputs and results above this many bytes of UTF-8 are null in documents and fetched from their own URL. */
const INLINE_LIMIT_BYTES = 65_536
/** A UTF-16 unit takes one to three bytes, so most texts need no counting. */
const fits = (text: Json): boolean =>
  text.length * 3 <= INLINE_LIMIT_BYTES || (text.length <= INLINE_LIMIT_BYTES && Buffer.byteLength(text) <= INLINE_LIMIT_BYTES)

/** Members of the document that the task's row does not hold. */
export interface TaskDocumentContext {
  /** The base of every link, without a trailing slash. */
  readonly publicUrl: string
  /** Of the deliveries of the terminal event; null inside an event's own body. */
  readonly callbackStatus: CallbackStatus | null
  readonly waitingFor?: WaitingFor | null
  readonly estimatedCompletionAt?: Millis | null
  /** How long the task is kept after its end. */
  readonly retentionMs: Millis
  /** Leaves out input, result and metadata: data that must not leave by webhook. */
  readonly thin?: boolean
}

const text = JSON.stringify as (value: string) => string
const textOrNull = (value: string | null): string => (value === null ? 'null' : text(value))
const instant = (at: Millis): string => new Date(at).toISOString()
const time = (at: Millis | null): string => (at === null ? 'null' : `"${new Date(at).toISOString()}"`)

/** The task document as JSON text. Every member is always present. */
export function taskDocumentJson(task: Task, view: TaskDocumentContext): string {
  const self = `${view.publicUrl}/v1/tasks/${task.id}`
  const thin = view.thin === true
  const inputInline = !thin && fits(task.input)
  const resultInline = task.result !== null && !thin && fits(task.result)
  const created = instant(task.createdAt)
  const due = task.dueAt === task.createdAt ? created : instant(task.dueAt)
  const updated = task.updatedAt === task.createdAt ? created : instant(task.updatedAt)
  return `{"id":"${task.id}","type":"${task.type}","status":"${task.state}","progress":${task.progress},"progressMessage":${textOrNull(task.progressMessage)},"result":${resultInline ? task.result : 'null'},"resultUrl":${task.result === null || resultInline ? 'null' : text(`${self}/result`)},"error":${task.error ?? 'null'},"lastError":${task.lastError ?? 'null'},"input":${inputInline ? task.input : 'null'},"inputUrl":${inputInline ? 'null' : text(`${self}/input`)},"metadata":${thin ? 'null' : task.metadata},"priority":${task.priority},"concurrencyKey":${textOrNull(task.concurrencyKey)},"tries":${task.tries},"maxTries":${task.maxTries},"generation":${task.generation},"revision":${task.revision},"batchId":${textOrNull(task.batchId)},"scheduleId":${textOrNull(task.scheduleId)},"createdAt":"${created}","runAt":"${due}","startedAt":${time(task.startedAt)},"updatedAt":"${updated}","finishedAt":${time(task.finishedAt)},"startBy":${time(task.startBy)},"deadlineAt":${time(task.deadlineAt)},"timeoutSeconds":${task.timeoutSeconds},"cancelRequestedAt":${time(task.cancelRequestedAt)},"expiresAt":${time(task.finishedAt === null ? null : task.finishedAt + view.retentionMs)},"estimatedCompletionAt":${time(view.estimatedCompletionAt ?? null)},"waitingFor":${textOrNull(view.waitingFor ?? null)},"callback":${callbackJson(task.callback, view.callbackStatus)},"links":{"self":"${self}","events":"${self}/events","cancel":"${self}/cancel","deliveries":"${view.publicUrl}/v1/deliveries?taskId=${task.id}"}}`
}

const NO_ENDPOINT = '{"endpointId":null,"url":null,"events":null,"retrySchedule":null,"status":'

function callbackJson(callback: Json | null, status: CallbackStatus | null): string {
  if (callback === null || callback === '{}') return `${NO_ENDPOINT}${textOrNull(status)}}`
  const { endpointId = null, url = null, events = null, retrySchedule = null } = parseStored<Partial<CallbackDocument>>(callback, {})
  return JSON.stringify({ endpointId, url, events, retrySchedule, status })
}

/** The envelope of an event: the exact bytes that are signed and sent. `data` is JSON text. A null id: a state that is not an event. */
export function envelopeJson(event: { id: string | null; type: string; at: Millis }, data: Json): string {
  return `{"type":"${event.type}","timestamp":"${instant(event.at)}","id":${textOrNull(event.id)},"data":${data}}`
}

/** The same event as CloudEvents 1.0 in structured mode. `sequence` is the revision, a number to compare within one subject; events of no task have none. */
export function cloudEventJson(
  event: {
    id: string
    type: string
    at: Millis
    source: string
    subject: string | null
    sequence: number | null
    traceparent?: string | null
    tracestate?: string | null
  },
  data: Json,
): string {
  const subject = event.subject === null ? '' : `"subject":"${event.subject}",`
  const order = event.sequence === null ? '' : `"sequence":"${event.sequence}",`
  const trace = event.traceparent ? `"traceparent":"${event.traceparent}",` : ''
  const state = event.tracestate ? `"tracestate":${text(event.tracestate)},` : ''
  return `{"specversion":"1.0","id":"${event.id}","source":${text(event.source)},"type":"${event.type}",${subject}"time":"${instant(event.at)}","datacontenttype":"application/json",${trace}${state}${order}"data":${data}}`
}

/** The challenge in the body of a verification, in either format; null: it holds none. */
export const challengeOf = (body: Json): string | null => (JSON.parse(body) as { data: { challenge: string | null } }).data.challenge
