/** Clients, for the operator: create, list, suspend, resume, delete. */
import { newId } from '../../core/id.ts'
import type { Client, Millis } from '../../core/model.ts'
import { type AppContext, idParam, OPERATOR_SCOPE } from '../context.ts'
import { clientExamples as examples } from '../openapi/examples/access.ts'
import { cursorScope, pageReply, startPosition } from '../request/lists.ts'
import { emptyReply, jsonReply, notFound, toTimestamp } from '../request/replies.ts'
import { type ApiCall, type NamedExample, type Route, response, route } from '../request/route.ts'
import * as shapes from '../shapes/access.ts'
import * as fields from '../shapes/fields.ts'

const toClientDocument = ({ id, name, status, createdAt }: Client) => ({ id, name, status, createdAt: toTimestamp(createdAt) })

/** @throws RingbackError `not_found`, also for a deleted client */
export async function findClient(context: AppContext, call: ApiCall): Promise<Client> {
  const client = await context.store.access.findClient(idParam(call, 'client'))
  if (!client) throw notFound('client')
  return client
}

export function clientRoutes(context: AppContext): Route[] {
  const find = (call: ApiCall): Promise<Client> => findClient(context, call)
  const common = { tag: 'Clients', scope: OPERATOR_SCOPE } as const
  const one = (example: NamedExample) => ({ 200: response('The client.', shapes.client, [example]) })
  const change = (verb: 'suspend' | 'resume', summary: string, description: string): Route =>
    route.post(`/v1/clients/{id}/${verb}`, `${verb}Client`, {
      ...common,
      summary,
      description,
      responses: one(verb === 'suspend' ? examples.suspendedClient : examples.client),
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
    })
  return [
    route.post('/v1/clients', 'createClient', {
      ...common,
      summary: 'Create a client',
      description: 'A client owns tasks, endpoints and keys, and sees only its own. A new client has no key.',
      body: shapes.createClient,
      bodyExamples: [examples.createClient],
      responses: { 201: response('The client. Create a key for it next.', shapes.client, [examples.client], ['Location']) },
      async handle(call, { body }) {
        const client = await context.store.access.addClient({
          client: { id: newId(context.clock, 'client'), name: body.name },
          by: call.author,
        })
        return jsonReply(201, toClientDocument(client), { Location: `${context.publicUrl()}/v1/clients/${client.id}` })
      },
    }),
    route.get('/v1/clients', 'listClients', {
      ...common,
      summary: 'List clients',
      description: 'Oldest first, without deleted clients.',
      query: fields.pageQuery,
      responses: { 200: response('A page of clients.', shapes.clientList, [examples.clientList], ['Link']) },
      errorCodes: ['invalid_cursor'],
      async handle(call, { query }) {
        const scope = cursorScope(call, 'clients', {})
        const page = await context.store.access.listClients(query.limit, await startPosition(context, scope, query.cursor))
        return pageReply(context, call, scope, page, (client) => JSON.stringify(toClientDocument(client)), positionOf)
      },
    }),
    route.get('/v1/clients/{id}', 'getClient', {
      ...common,
      summary: 'Get a client',
      description: 'Its name and its status.',
      responses: one(examples.client),
      find,
      handle: (_call, { found }) => jsonReply(200, toClientDocument(found)),
    }),
    change(
      'suspend',
      'Suspend a client: its keys answer 403 until it is resumed',
      'Its tasks and webhooks continue. Its schedules do not tick.',
    ),
    change('resume', 'Resume a suspended client', 'Its keys work again: at once on this node, within 5 s on others.'),
    route.delete('/v1/clients/{id}', 'deleteClient', {
      ...common,
      summary: 'Delete a client and everything it owns',
      description:
        'At once, its keys and schedules are deleted, its webhooks stop and its open tasks are canceled. Then all its data is erased. The audit log keeps its entries.',
      responses: { 204: { description: 'Deleted.' } },
      find,
      async handle(call, { found }) {
        if (!(await context.store.access.removeClient({ id: found.id, by: call.author }))) throw notFound('client')
        return emptyReply()
      },
    }),
  ]
}

const positionOf = ({ createdAt, id }: { createdAt: Millis; id: string }) => ({ at: createdAt, id })
