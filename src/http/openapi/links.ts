/** Where an answer leads: what may be asked next, and with which of its members. */

export interface OpenApiLink {
  readonly operationId: string
  readonly description: string
  /** Runtime expressions (OpenAPI 3.1 §4.8.20) by the parameter that takes them. */
  readonly parameters: Readonly<Record<string, string>>
}

const link = (
  operationId: string,
  description: string,
  parameters: OpenApiLink['parameters'] = { id: '$response.body#/id' },
): OpenApiLink => ({
  operationId,
  description,
  parameters,
})
const next = (operationId: string, parameter = 'cursor'): Record<string, OpenApiLink> => ({
  nextPage: link(operationId, 'The next page, while `hasMore` is true.', { [parameter]: '$response.body#/nextCursor' }),
})

/** By the name of the schema an answer has. */
export const linksBySchema: Readonly<Record<string, Readonly<Record<string, OpenApiLink>>>> = {
  Task: {
    status: link('getTask', 'The task as it is now; with `wait`, when it has ended.'),
    cancel: link('cancelTask', 'Stop it.'),
    events: link('listTaskEvents', 'What became of it, as a list or as a stream.'),
    result: link('getTaskResult', 'Its result, once it has completed.'),
    deliveries: link('listDeliveries', 'The webhooks that are owed for it.', { taskId: '$response.body#/id' }),
    retry: link('retryTask', 'Run it again, once it has failed or was canceled.'),
    erase: link('deleteTask', 'Erase it, once it has ended.'),
  },
  Batch: { tasks: link('listTasks', 'The tasks of the batch as they are now.', { batchId: '$response.body#/id' }) },
  Schedule: {
    self: link('getSchedule', 'The schedule as it is now.'),
    change: link('changeSchedule', 'Change it, or pause it.'),
    delete: link('deleteSchedule', 'Delete it.'),
  },
  Endpoint: {
    self: link('getEndpoint', 'The endpoint as it is now.'),
    change: link('changeEndpoint', 'Change it.'),
    verify: link('verifyEndpoint', 'Ask it for a proof again, or show that the challenge came.'),
    ping: link('pingEndpoint', 'Try it out.'),
    pause: link('pauseEndpoint', 'Hold what would be sent to it.'),
    rotateSecret: link('rotateSecret', 'Give it a new secret.'),
    deliveries: link('listDeliveries', 'What was sent to it.', { endpointId: '$response.body#/id' }),
    delete: link('deleteEndpoint', 'Delete it.'),
  },
  Delivery: {
    self: link('getDelivery', 'The delivery as it is now.'),
    redeliver: link('redeliver', 'Send it again.'),
    endpoint: link('getEndpoint', 'The endpoint it goes to.', { id: '$response.body#/endpointId' }),
  },
  Client: {
    self: link('getClient', 'The client as it is now.'),
    createKey: link('createKey', 'Make it a key.'),
    keys: link('listKeys', 'Its keys.'),
    suspend: link('suspendClient', 'Let its keys do nothing for now.'),
    delete: link('deleteClient', 'Delete it and everything it owns.'),
  },
}

/** By operation, where the schema alone does not say it. */
export const linksByOperation: Readonly<Record<string, Readonly<Record<string, OpenApiLink>>>> = {
  createKey: {
    revoke: link('revokeKey', 'Revoke the key.', { id: '$request.path.id', keyId: '$response.body#/id' }),
  },
  createOperatorKey: { revoke: link('revokeOperatorKey', 'Revoke the key.') },
  listTasks: next('listTasks'),
  listSchedules: next('listSchedules'),
  listEvents: next('listEvents', 'after'),
  listTaskEvents: next('listTaskEvents', 'after'),
  listEndpoints: next('listEndpoints'),
  listDeliveries: next('listDeliveries'),
  listClients: next('listClients'),
  listAuditLog: next('listAuditLog'),
}
