/** What the operator does: clients, their keys, and operators' own. */
import { generateApiKey } from '../apikey.ts'
import { newId } from '../id.ts'
import { type Client, clientScopes, type Key, type Millis } from '../model.ts'
import {
  boundTo,
  empty,
  type House,
  idParam,
  jsonReply,
  notFound,
  OPERATOR,
  pageReply,
  shownTime,
  shownTimeOrNull,
  startOf,
} from './house.ts'
import { invalid, type Reply } from './problem.ts'
import { type Call, type Route, route } from './route.ts'
import * as shapes from './shapes.ts'

export function adminRoutes(house: House): Route[] {
  return [...clientRoutes(house), ...clientKeyRoutes(house), ...operatorKeyRoutes(house)]
}

const shownClient = ({ id, name, status, createdAt }: Client) => ({ id, name, status, createdAt: shownTime(createdAt) })

const shownKey = (key: Key) => ({
  id: key.id,
  clientId: key.clientId,
  name: key.name,
  scopes: JSON.parse(key.scopes) as string[],
  hint: key.hint,
  createdAt: shownTime(key.createdAt),
  expiresAt: shownTimeOrNull(key.expiresAt),
  revokedAt: shownTimeOrNull(key.revokedAt),
  lastUsedAt: shownTimeOrNull(key.lastUsedAt),
})

async function findClient(house: House, call: Call): Promise<Client> {
  const client = await house.store.findClient(idParam(call, 'client'))
  if (!client) throw notFound('client')
  return client
}

function clientRoutes(house: House): Route[] {
  const find = (call: Call): Promise<Client> => findClient(house, call)
  const common = { tag: 'Clients', scope: OPERATOR } as const
  const one = { 200: { description: 'The client.', schema: shapes.client } }
  const change = (verb: 'suspend' | 'resume', summary: string): Route =>
    route(
      { ...common, method: 'post', path: `/v1/clients/{id}/${verb}`, name: `${verb}Client`, summary, answers: one },
      {
        find,
        async handle(_call, { found }) {
          const client = await house.store.changeClient(found.id, verb === 'suspend' ? 'suspended' : 'active')
          if (!client) throw notFound('client')
          house.gate.forget({ clientId: client.id })
          return jsonReply(200, shownClient(client))
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
        body: shapes.createClient,
        answers: { 201: { description: 'The client. Make it a key next.', schema: shapes.client, headers: ['Location'] } },
      },
      {
        async handle(_call, { body }) {
          const client = await house.store.addClient({ id: newId(house.clock, 'client'), name: body.name })
          return jsonReply(201, shownClient(client), { Location: `${house.publicUrl()}/v1/clients/${client.id}` })
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
        query: shapes.pageQuery,
        answers: { 200: { description: 'A page of clients.', schema: shapes.clientList, headers: ['Link'] } },
        refusals: ['invalid_cursor'],
      },
      {
        async handle(call, { query }) {
          const bound = boundTo(call, 'clients', {})
          const page = await house.store.listClients(query.limit, await startOf(house, bound, query.cursor))
          return pageReply(house, call, bound, page, (client) => JSON.stringify(shownClient(client)), positionOf)
        },
      },
    ),
    route(
      { ...common, method: 'get', path: '/v1/clients/{id}', name: 'getClient', summary: 'Read a client', answers: one },
      { find, handle: (_call, { found }) => jsonReply(200, shownClient(found)) },
    ),
    change('suspend', 'Suspend a client: its keys answer 403 until it is resumed'),
    change('resume', 'Resume a suspended client'),
    route(
      {
        ...common,
        method: 'delete',
        path: '/v1/clients/{id}',
        name: 'deleteClient',
        summary: 'Delete a client and everything it owns',
        answers: { 204: { description: 'Deleted.' } },
      },
      {
        find,
        async handle(_call, { found }) {
          const removed = await house.store.changeClient(found.id, 'deleted')
          house.gate.forget({ clientId: found.id })
          if (!removed) throw notFound('client')
          return empty()
        },
      },
    ),
  ]
}

const positionOf = ({ createdAt, id }: { createdAt: Millis; id: string }) => ({ at: createdAt, id })

function clientKeyRoutes(house: House): Route[] {
  const find = (call: Call): Promise<Client> => findClient(house, call)
  const common = { tag: 'Clients', scope: OPERATOR } as const
  return [
    route(
      {
        ...common,
        method: 'post',
        path: '/v1/clients/{id}/keys',
        name: 'createKey',
        summary: 'Make a key for a client',
        description: 'All scopes of a client when none are named.',
        body: shapes.createKey,
        bodyOptional: true,
        answers: { 201: { description: 'The key, shown this once.', schema: shapes.createdKey } },
      },
      {
        find,
        handle: (_call, { body, found }) =>
          addKey(house, found.id, {
            name: body?.name ?? '',
            scopes: [...new Set(body?.scopes ?? clientScopes)],
            expiresAt: body?.expiresAt ?? null,
          }),
      },
    ),
    route(
      {
        ...common,
        method: 'get',
        path: '/v1/clients/{id}/keys',
        name: 'listKeys',
        summary: 'List the keys of a client, revoked ones too',
        answers: { 200: { description: 'The keys.', schema: shapes.keyList } },
      },
      { find, handle: async (_call, { found }) => listedKeys(await house.store.listKeys(found.id)) },
    ),
    route(
      {
        ...common,
        method: 'delete',
        path: '/v1/clients/{id}/keys/{keyId}',
        name: 'revokeKey',
        summary: 'Revoke a key: at once on this node, within 5 s on others',
        answers: { 204: { description: 'Revoked.' } },
      },
      {
        async find(call) {
          const client = await findClient(house, call)
          return ownKey(await house.store.listKeys(client.id), idParam(call, 'key', 'keyId'), client.id)
        },
        handle: (_call, { found }) => revoke(house, found),
      },
    ),
  ]
}

function operatorKeyRoutes(house: House): Route[] {
  const common = { tag: 'Operators', scope: OPERATOR } as const
  return [
    route(
      {
        ...common,
        method: 'post',
        path: '/v1/operator-keys',
        name: 'createOperatorKey',
        summary: 'Make a key for an operator or a worker',
        body: shapes.createOperatorKey,
        answers: { 201: { description: 'The key, shown this once.', schema: shapes.createdKey } },
      },
      {
        handle: (_call, { body }) =>
          addKey(house, null, { name: body.name, scopes: [...new Set(body.scopes)], expiresAt: body.expiresAt ?? null }),
      },
    ),
    route(
      {
        ...common,
        method: 'get',
        path: '/v1/operator-keys',
        name: 'listOperatorKeys',
        summary: 'List the keys of operators and workers',
        answers: { 200: { description: 'The keys.', schema: shapes.keyList } },
      },
      { handle: async () => listedKeys((await house.store.listKeys(null)).filter((key) => key.clientId === null)) },
    ),
    route(
      {
        ...common,
        method: 'delete',
        path: '/v1/operator-keys/{id}',
        name: 'revokeOperatorKey',
        summary: 'Revoke the key of an operator or a worker',
        answers: { 204: { description: 'Revoked.' } },
      },
      {
        find: async (call) => ownKey(await house.store.listKeys(null), idParam(call, 'key'), null),
        handle: (_call, { found }) => revoke(house, found),
      },
    ),
  ]
}

interface KeyWish {
  readonly name: string
  readonly scopes: readonly string[]
  readonly expiresAt: Millis | null
}

async function addKey(house: House, clientId: string | null, wish: KeyWish): Promise<Reply> {
  if (wish.expiresAt !== null && wish.expiresAt <= house.clock.now()) throw invalid([{ pointer: '#/expiresAt', detail: 'has passed' }])
  const { key, hash, hint } = generateApiKey(house.clock)
  const { name, expiresAt } = wish
  const scopes = JSON.stringify(wish.scopes)
  const added = await house.store.addKey({ id: newId(house.clock, 'key'), clientId, name, hash, hint, scopes, expiresAt })
  if (!added) throw notFound('client')
  return jsonReply(201, { ...shownKey(added), key })
}

const listedKeys = (keys: readonly Key[]): Reply =>
  jsonReply(200, { data: keys.map(shownKey), hasMore: false, nextCursor: null }, { 'Cache-Control': 'private, no-cache' })

function ownKey(keys: readonly Key[], id: string, clientId: string | null): Key {
  const key = keys.find((candidate) => candidate.id === id && candidate.clientId === clientId)
  if (!key) throw notFound('key')
  return key
}

async function revoke(house: House, key: Key): Promise<Reply> {
  await house.store.revokeKey(key.id, key.clientId)
  house.gate.forget({ keyId: key.id })
  return empty()
}
