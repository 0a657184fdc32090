/** `store.endpoints`: the callback URLs of clients. */
import type { Endpoint } from '../../core/model.ts'
import type { EndpointStore } from '../interfaces.ts'
import { first } from '../script.ts'
import * as audit from '../scripts/audit-log.ts'
import * as deliveries from '../scripts/deliveries.ts'
import * as endpoints from '../scripts/endpoints.ts'
import * as lists from '../scripts/lists.ts'
import type { Binding } from './binding.ts'

export function bindEndpoints({ read, audited, render }: Binding): EndpointStore {
  return {
    add: ({ endpoint, max, by }) =>
      audited(
        by,
        () => endpoints.addEndpoint(endpoint, max, render),
        (answer) => audit.endpointRecord('endpoint.create')(answer.kind === 'added' ? answer.value : null),
      ),
    find: (id, clientId) => read(() => first<Endpoint>(endpoints.readEndpoint({ id, clientId }))),
    findMany: (ids) => read(() => endpoints.findEndpoints(ids)),
    list: (clientId, limit, after) => read(() => lists.listEndpoints(clientId, limit, after)),
    change: ({ id, clientId, patch, revision, by }) =>
      audited(by, () => endpoints.changeEndpoint(id, clientId, patch, revision, render), audit.endpointChangeRecord(patch)),
    async remove({ id, clientId, by }) {
      const remove = () => endpoints.removeEndpoint(id, clientId)
      return (await audited(by, remove, audit.removalRecord('endpoint.delete', id))) !== null
    },
    addPing: ({ ping, by }) => audited(by, () => deliveries.addPing(ping, render), audit.deliveryRecord('endpoint.ping', ping.endpointId)),
  }
}
