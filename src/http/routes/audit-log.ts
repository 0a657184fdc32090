/** The audit log, for the operator. */
import type { AuditEntry } from '../../core/model.ts'
import { type AppContext, cursorScope, OPERATOR_SCOPE, omitUndefined, pageReply, startPosition, toTimestamp } from '../context.ts'
import { type Route, route } from '../request/route.ts'
import * as shapes from '../shapes/access.ts'

export function auditLogRoute(context: AppContext): Route {
  return route(
    {
      tag: 'Operators',
      scope: OPERATOR_SCOPE,
      method: 'get',
      path: '/v1/audit-log',
      name: 'listAuditLog',
      summary: 'List what was done that needed a privilege, newest first',
      description: 'A page may hold fewer entries than match, or none: go on while `hasMore` says so.',
      query: shapes.auditLogQuery,
      responses: { 200: { description: 'A page of entries.', schema: shapes.auditLog, headers: ['Link'] } },
      errorCodes: ['invalid_cursor'],
    },
    {
      async handle(call, { query: { limit, cursor, ...rest } }) {
        const filters = omitUndefined(rest)
        const bound = cursorScope(call, 'audit-log', filters)
        const page = await context.store.access.listAuditLog({ ...filters, limit, after: await startPosition(context, bound, cursor) })
        return pageReply(
          context,
          call,
          bound,
          page,
          (entry) => JSON.stringify(toAuditEntryDocument(entry)),
          ({ at, id }) => ({ at, id }),
        )
      },
    },
  )
}

const toAuditEntryDocument = ({ id, at, actor, action, target, clientId, details, requestId, remoteAddress }: AuditEntry) => ({
  id,
  at: toTimestamp(at),
  actor,
  action,
  target,
  clientId,
  details: JSON.parse(details) as object,
  requestId,
  remoteAddress,
})
