/** Examples of events: in the feed, on a stream and in a webhook. */
import type { EventType } from '../../../core/model.ts'
import { at, CHALLENGE, ENDPOINT, ENDPOINT_URL, EVENT, named, page } from './story.ts'
import { canceled, completed, failed, pending, running, started } from './tasks.ts'

const event = (type: string, data: unknown) => ({ type, timestamp: at(9), id: EVENT as string | null, data })
/** In an event, a task has no callback status. */
const taskEvent = (type: string, task: typeof pending) => event(type, { ...task, callback: { ...pending.callback, status: null } })
const trouble = { endpointId: ENDPOINT, url: ENDPOINT_URL, reason: null, failingSince: at(0) }
const completedEvent = taskEvent('task.completed', completed)
const verification = { endpointId: ENDPOINT, challenge: CHALLENGE, expiresAt: '2026-11-23T10:00:00.000Z' }

export const eventExamples = named({
  eventList: ['A page of the feed', { ...page(completedEvent), nextCursor: 'Wzcd' }],
  snapshot: ['The first frame', { ...event('task.snapshot', running), id: null }],
})

/** By event type. */
export const webhookExamples = named<EventType>({
  'task.created': ['`task.created`', taskEvent('task.created', pending)],
  'task.started': ['`task.started`', taskEvent('task.started', started)],
  'task.progress': ['`task.progress`', taskEvent('task.progress', { ...running, estimatedCompletionAt: null })],
  'task.completed': ['`task.completed`', completedEvent],
  'task.failed': ['`task.failed`', taskEvent('task.failed', failed)],
  'task.canceled': ['`task.canceled`', taskEvent('task.canceled', canceled)],
  'endpoint.ping': ['`endpoint.ping`', event('endpoint.ping', { endpointId: ENDPOINT })],
  'endpoint.verification': ['`endpoint.verification`', event('endpoint.verification', verification)],
  'endpoint.failing': ['`endpoint.failing`', event('endpoint.failing', trouble)],
  'endpoint.disabled': ['`endpoint.disabled`', event('endpoint.disabled', { ...trouble, reason: 'failing' })],
})
