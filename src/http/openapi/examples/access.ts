/** Examples of clients, keys and the audit log. */
import { at, CLIENT, KEY, named, page, REQUEST, SIGNING_KEY } from './story.ts'

const client = { id: CLIENT, name: 'The shop', status: 'active', createdAt: at(0) }

export const clientExamples = named({
  createClient: ['A client', { name: client.name }],
  client: ['A client', client],
  suspendedClient: ['A suspended client', { ...client, status: 'suspended' }],
  clientList: ['A page of clients', page(client)],
})

const createKey = { name: 'checkout', scopes: ['tasks:write', 'tasks:read'] }
const createOperatorKey = { name: 'deputy', scopes: ['admin'] }
const key = {
  ...createKey,
  id: KEY,
  clientId: CLIENT as string | null,
  taskTypes: null,
  hint: 'rb_…Q9r8',
  createdAt: at(0),
  expiresAt: null,
  revokedAt: null,
  lastUsedAt: null,
}
const operatorKey = { ...key, ...createOperatorKey, clientId: null }
const token = 'rb_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSwMfKQ9r8GKYqrTw'

export const keyExamples = named({
  createKey: ['A key that submits and reads tasks', createKey],
  createOperatorKey: ['A key for a second operator', createOperatorKey],
  createdKey: ['A new key, shown once', { ...key, key: token }],
  createdOperatorKey: ['A new key, shown once', { ...operatorKey, key: token }],
  keyList: ['Keys', page({ ...key, lastUsedAt: at(9) })],
  operatorKeyList: ['Keys', page(operatorKey)],
  rotateKey: ['Both keys work for an hour', { overlapSeconds: 3_600 }],
})

const auditEntry = {
  id: 'audit_01m82a2cn5e849zvhez4f4tdyb',
  at: at(9),
  actor: 'admin-token',
  action: 'key.revoke',
  target: KEY,
  clientId: CLIENT,
  details: {},
  requestId: REQUEST,
  remoteAddress: '192.0.2.7',
}
const activeKey = {
  id: SIGNING_KEY,
  state: 'active',
  alg: 'ES256',
  createdAt: at(0),
  publishedAt: at(0),
  activatedAt: at(0) as string | null,
  retiredAt: null,
  signsFrom: null,
  leavesAt: null,
}
const nextKey = { ...activeKey, id: 'NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs', state: 'next', activatedAt: null }

export const operatorExamples = named({
  auditLog: ['A page of the audit log', page(auditEntry)],
  signingKeyList: ['The active key and the next key', page(activeKey, nextKey)],
})
