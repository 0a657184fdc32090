/** Clients, for the operator: made, suspended, deleted. */
import { newId } from '../../core/id.ts'
import type { Client, Millis } from '../../core/model.ts'
import {
  type AppContext,
  cursorScope,
  emptyReply,
  idParam,
  jsonReply,
  notFound,
  OPERATOR_SCOPE,
  pageReply,
  startPosition,
  toTimestamp,
} from '../context.ts'
import { type ApiCall, type Route, route } from '../request/route.ts'
import * as shapes from '../shapes/access.ts'
import * as fields from '../shapes/fields.ts'

const toClientDocument = ({ id, name, status, createdAt }: Client) => ({ id, name, status, createdAt: toTimestamp(createdAt) })

/** @throws RingbackError `not_found`, for one that was deleted too. */
export async function findClient(context: AppContext, call: ApiCall): Promise<Client> {
  const client = await context.store.access.findClient(idParam(call, 'client'))
  if (!client) throw notFound('client')
  return client
}

export function clientRoutes(context: AppContext): Route[] {
  const find = (call: ApiCall): Promise<Client> => findClient(context, call)
  const common = { tag: 'Clients', scope: OPERATOR_SCOPE } as const
  const one = { 200: { description: 'The client.', schema: shapes.client } }
  const change = (verb: 'suspend' | 'resume', summary: string, description: string): Route =>
    route(
      { ...common, method: 'post', path: `/v1/clients/{id}/${verb}`, name: `${verb}Client`, summary, description, responses: one },
      {
        find,
        async handle(call, { found }) {
          const client = await context.store.access.changeClient({
            id: found.id,
            status: verb === 'suspend' ? 'suspended' : 'active',
            by: call.author,
          })
          if (!client) throw notFound('client')
          return jsonReply(200, toClientDocument(client))
        },
      },
    )
  return [
    route(
      {
        ...common,
        method: 'post',
        path: '/v1/clients',
        name: 'createClient',
        summary: 'Create a client',
        description: 'A client owns tasks, endpoints and keys, and sees nobody else’s. It has no key yet.',
        body: shapes.createClient,
        responses: { 201: { description: 'The client. Make it a key next.', schema: shapes.client, headers: ['Location'] } },
      },
      {
        async handle(call, { body }) {
          const client = await context.store.access.addClient({
            client: { id: newId(context.clock, 'client'), name: body.name },
            by: call.author,
          })
          return jsonReply(201, toClientDocument(client), { Location: `${context.publicUrl()}/v1/clients/${client.id}` })
        },
      },
    ),
    route(
      {
        ...common,
        method: 'get',
        path: '/v1/clients',
        name: 'listClients',
        summary: 'List clients',
        description: 'Oldest first. Deleted ones are left out.',
        query: fields.pageQuery,
        responses: { 200: { description: 'A page of clients.', schema: shapes.clientList, headers: ['Link'] } },
        errorCodes: ['invalid_cursor'],
      },
      {
        async handle(call, { query }) {
          const bound = cursorScope(call, 'clients', {})
          const page = await context.store.access.listClients(query.limit, await startPosition(context, bound, query.cursor))
          return pageReply(context, call, bound, page, (client) => JSON.stringify(toClientDocument(client)), positionOf)
        },
      },
    ),
    route(
      {
        ...common,
        method: 'get',
        path: '/v1/clients/{id}',
        name: 'getClient',
        summary: 'Read a client',
        description: 'Its name, and whether it is suspended.',
        responses: one,
      },
      { find, handle: (_call, { found }) => jsonReply(200, toClientDocument(found)) },
    ),
    change('suspend', 'Suspend a client: its keys answer 403 until it is resumed', 'Its tasks and webhooks go on, its schedules wait.'),
    change('resume', 'Resume a suspended client', 'Its keys are good again: at once on this node, within 5 s on others.'),
    route(
      {
        ...common,
        method: 'delete',
        path: '/v1/clients/{id}',
        name: 'deleteClient',
        summary: 'Delete a client and everything it owns',
        description:
          'Its keys and schedules go and its webhooks stop at once, its open tasks are canceled; then everything of it is erased. The audit log keeps that it was there.',
        responses: { 204: { description: 'Deleted.' } },
      },
      {
        find,
        async handle(call, { found }) {
          if (!(await context.store.access.removeClient({ id: found.id, by: call.author }))) throw notFound('client')
          return emptyReply()
        },
      },
    ),
  ]
}

const positionOf = ({ createdAt, id }: { createdAt: Millis; id: string }) => ({ at: createdAt, id })
