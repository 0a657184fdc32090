/** The audit log, for the operator. */
import type { AuditEntry } from '../../core/model.ts'
import { type AppContext, OPERATOR_SCOPE } from '../context.ts'
import { operatorExamples } from '../openapi/examples/access.ts'
import { cursorScope, omitUndefined, pageReply, startPosition } from '../request/lists.ts'
import { toTimestamp } from '../request/replies.ts'
import { type Route, response, route } from '../request/route.ts'
import * as shapes from '../shapes/access.ts'

export function auditLogRoute(context: AppContext): Route {
  return route.get('/v1/audit-log', 'listAuditLog', {
    tag: 'Operators',
    scope: OPERATOR_SCOPE,
    summary: 'List privileged actions, newest first',
    description: 'A page may be shorter than `limit`, or empty. Continue while `hasMore` is true.',
    query: shapes.auditLogQuery,
    responses: { 200: response('A page of entries.', shapes.auditLog, [operatorExamples.auditLog], ['Link']) },
    errorCodes: ['invalid_cursor'],
    async handle(call, { query: { limit, cursor, ...rest } }) {
      const filters = omitUndefined(rest)
      const scope = cursorScope(call, 'audit-log', filters)
      const page = await context.store.access.listAuditLog({ ...filters, limit, after: await startPosition(context, scope, cursor) })
      return pageReply(
        context,
        call,
        scope,
        page,
        (entry) => JSON.stringify(toAuditEntryDocument(entry)),
        ({ at, id }) => ({ at, id }),
      )
    },
  })
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
