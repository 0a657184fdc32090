/**
 * The one way a task is shown: in a 202, a GET, a list, a stream and a webhook. Written as text, because input, result and
 * metadata are JSON text already: they go out as they came in, and nothing is parsed to be printed again.
 */

import type { Json, Millis, Task } from './model.ts'
import { parseStored } from './stored-json.ts'

/** Inputs and results above this many bytes of UTF-8 are null in every representation and fetched from their own URL. */
const INLINE_LIMIT_BYTES = 65_536
/** A character takes one to three bytes for each of its UTF-16 units: most texts need no counting. */
const fits = (text: Json): boolean =>
  text.length * 3 <= INLINE_LIMIT_BYTES || (text.length <= INLINE_LIMIT_BYTES && Buffer.byteLength(text) <= INLINE_LIMIT_BYTES)

export type WaitingFor = 'runAt' | 'retryBackoff' | 'limit' | 'noWorker' | 'paused'

/** What a representation shows that the task's row does not hold. */
export interface TaskDocumentContext {
  /** The base of every link, without a trailing slash. */
  readonly publicUrl: string
  /** Over the deliveries of the terminal event; null inside an event's own body. */
  readonly callbackStatus: 'none' | 'pending' | 'delivered' | 'failed' | null
  readonly waitingFor?: WaitingFor | null
  readonly estimatedCompletionAt?: Millis | null
  /** How long it is kept after its end. */
  readonly retentionMs: Millis
  /** Leaves out input, result and metadata: for data that must not leave by webhook. */
  readonly thin?: boolean
}

const text = JSON.stringify as (value: string) => string
const textOrNull = (value: string | null): string => (value === null ? 'null' : text(value))
const instant = (at: Millis): string => new Date(at).toISOString()
const time = (at: Millis | null): string => (at === null ? 'null' : `"${new Date(at).toISOString()}"`)

/** The task document of the HTTP contract, as JSON text. Every member is always there. */
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

function callbackJson(callback: Json | null, status: TaskDocumentContext['callbackStatus']): string {
  if (callback === null || callback === '{}') return `${NO_ENDPOINT}${textOrNull(status)}}`
  const {
    endpointId = null,
    url = null,
    events = null,
    retrySchedule = null,
  } = parseStored<Partial<Record<'endpointId' | 'url' | 'events' | 'retrySchedule', unknown>>>(callback, {})
  return JSON.stringify({ endpointId, url, events, retrySchedule, status })
}

/** The envelope of an event: the exact bytes that are signed and sent. `data` is JSON text. Without an id it tells of a state that is no event. */
export function envelopeJson(event: { id: string | null; type: string; at: Millis }, data: Json): string {
  return `{"type":"${event.type}","timestamp":"${instant(event.at)}","id":${textOrNull(event.id)},"data":${data}}`
}

/**
 * The same fact as a CloudEvents 1.0 event in structured mode. `sequence` is the revision, to be compared as a number within one
 * subject. An event of no task has none.
 */
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

/** The challenge in the bytes of a verification, whatever their format; null: they hold none. */
export const challengeOf = (body: Json): string | null => (JSON.parse(body) as { data: { challenge: string | null } }).data.challenge
