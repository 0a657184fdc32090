/** Which endpoints are whose, remembered for a moment: an endpoint never changes its client, so that only a deletion can make this wrong. */
import type { Clock } from '../../core/clock.ts'
import type { Millis } from '../../core/model.ts'
import type { StoreWith } from '../../store/interfaces.ts'

export interface EndpointOwners {
  /** Whether the client has that endpoint. A deletion on another node is noticed within {@link REMEMBERED_MS}; until then nothing is owed to it. */
  owns(clientId: string, endpointId: string): boolean | Promise<boolean>
  /** The endpoint was deleted here. */
  invalidate(endpointId: string): void
}

/** As long as a revoked key may still work on another node. */
const REMEMBERED_MS: Millis = 5_000
const MAX_REMEMBERED = 10_000

export function createEndpointOwners({
  store,
  clock,
}: {
  store: StoreWith<{ endpoints: 'find' }>
  clock: Pick<Clock, 'now'>
}): EndpointOwners {
  const owners = new Map<string, { readonly clientId: string; readonly until: Millis }>()
  return {
    owns(clientId, endpointId) {
      const known = owners.get(endpointId)
      if (known && known.until > clock.now()) return known.clientId === clientId
      return store.endpoints.find(endpointId, clientId).then((endpoint) => {
        if (!endpoint) return false
        if (owners.size >= MAX_REMEMBERED) owners.clear()
        owners.set(endpointId, { clientId, until: clock.now() + REMEMBERED_MS })
        return true
      })
    },
    invalidate: (endpointId) => void owners.delete(endpointId),
  }
}
