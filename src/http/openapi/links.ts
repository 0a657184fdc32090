/** Links of a response: the operations that may follow, and which of its members they take. */
import type { z } from '@hono/zod-openapi'
import { client } from '../shapes/access.ts'
import { delivery } from '../shapes/deliveries.ts'
import { endpoint } from '../shapes/endpoints.ts'
import { schedule } from '../shapes/schedules.ts'
import { batch, task } from '../shapes/tasks.ts'

export interface OpenApiLink {
  readonly operationId: string
  readonly description: string
  /** A runtime expression (OpenAPI 3.1 §4.8.20) for each parameter of the operation. */
  readonly parameters: Readonly<Record<string, string>>
}
type Links = Readonly<Record<string, OpenApiLink>>

const link = (
  operationId: string,
  description: string,
  parameters: OpenApiLink['parameters'] = { id: '$response.body#/id' },
): OpenApiLink => ({ operationId, description, parameters })

const linksBySchema = new Map<z.ZodType | undefined, { readonly prefix: string; readonly links: Links }>()
/** Sets the links of every response with the schema. The ids of the links begin with `prefix`. */
const linkSchema = (prefix: string, schema: z.ZodType, links: Links): void => void linksBySchema.set(schema, { prefix, links })

linkSchema('Task', task, {
  status: link('getTask', 'Get the task as it is now. With `wait`: when it has ended.'),
  cancel: link('cancelTask', 'Cancel the task.'),
  events: link('listTaskEvents', 'List the events of the task, or follow them as a stream.'),
  result: link('getTaskResult', 'Get the result of the task, once it has completed.'),
  deliveries: link('listDeliveries', 'List the webhooks of the task.', { taskId: '$response.body#/id' }),
  retry: link('retryTask', 'Run the task again, if it has failed or was canceled.'),
  erase: link('deleteTask', 'Erase the task, once it has ended.'),
})
linkSchema('Batch', batch, { tasks: link('listTasks', 'List the tasks of the batch.', { batchId: '$response.body#/id' }) })
linkSchema('Schedule', schedule, {
  self: link('getSchedule', 'Get the schedule as it is now.'),
  change: link('changeSchedule', 'Change or pause the schedule.'),
  delete: link('deleteSchedule', 'Delete the schedule.'),
})
linkSchema('Endpoint', endpoint, {
  self: link('getEndpoint', 'Get the endpoint as it is now.'),
  change: link('changeEndpoint', 'Change the endpoint.'),
  verify: link('verifyEndpoint', 'Send the challenge again, or return the challenge that the endpoint received.'),
  ping: link('pingEndpoint', 'Send a test event to the endpoint.'),
  pause: link('pauseEndpoint', 'Hold the events for the endpoint.'),
  rotateSecret: link('rotateSecret', 'Give the endpoint a new secret.'),
  deliveries: link('listDeliveries', 'List the deliveries to the endpoint.', { endpointId: '$response.body#/id' }),
  delete: link('deleteEndpoint', 'Delete the endpoint.'),
})
linkSchema('Delivery', delivery, {
  self: link('getDelivery', 'Get the delivery as it is now.'),
  redeliver: link('redeliver', 'Send the event again.'),
  endpoint: link('getEndpoint', 'Get the endpoint of the delivery.', { id: '$response.body#/endpointId' }),
})
linkSchema('Client', client, {
  self: link('getClient', 'Get the client as it is now.'),
  createKey: link('createKey', 'Create a key for the client.'),
  keys: link('listKeys', 'List the keys of the client.'),
  suspend: link('suspendClient', 'Suspend the client: its keys answer 403.'),
  delete: link('deleteClient', 'Delete the client and everything it owns.'),
})

const nextPage = (operationId: string, parameter = 'cursor'): Links => ({
  nextPage: link(operationId, 'Get the next page, while `hasMore` is true.', { [parameter]: '$response.body#/nextCursor' }),
})
/** By operation, in addition to those of the schema. */
const linksByOperation: Readonly<Record<string, Links>> = {
  createKey: { revoke: link('revokeKey', 'Revoke the key.', { id: '$request.path.id', keyId: '$response.body#/id' }) },
  createOperatorKey: { revoke: link('revokeOperatorKey', 'Revoke the key.') },
  listTasks: nextPage('listTasks'),
  listSchedules: nextPage('listSchedules'),
  listEvents: nextPage('listEvents', 'after'),
  listTaskEvents: nextPage('listTaskEvents', 'after'),
  listEndpoints: nextPage('listEndpoints'),
  listDeliveries: nextPage('listDeliveries'),
  listClients: nextPage('listClients'),
  listAuditLog: nextPage('listAuditLog'),
}

/** The links of a successful response: name, id of the component, link. */
export function linksOf(operationId: string, schema: z.ZodType | undefined): (readonly [name: string, id: string, OpenApiLink])[] {
  const shared = linksBySchema.get(schema)
  const withIds = (prefix: string, links: Links = {}) =>
    Object.entries(links).map(([name, link]) => [name, `${prefix}.${name}`, link] as const)
  return [...withIds(operationId, linksByOperation[operationId]), ...withIds(shared?.prefix ?? '', shared?.links)]
}
