/** The client of each endpoint, cached for a moment. An endpoint never changes its client, so only a deletion makes an entry wrong. */
import { LRUCache } from 'lru-cache'
import type { Clock } from '../../core/clock.ts'
import type { Millis } from '../../core/model.ts'
import type { StoreWith } from '../../store/interfaces.ts'

export interface EndpointOwners {
  /** Whether the client has the endpoint. A deletion on another node is noticed within {@link CACHED_MS}. Until then nothing is sent to it. */
  owns(clientId: string, endpointId: string): boolean | Promise<boolean>
  /** To call when the endpoint was deleted on this node. */
  invalidate(endpointId: string): void
}

/** As long as a revoked key may still work on another node. */
const CACHED_MS: Millis = 5_000
const MAX_CACHED = 10_000

export function createEndpointOwners(options: { store: StoreWith<{ endpoints: 'find' }>; clock: Pick<Clock, 'now'> }): EndpointOwners {
  const { store, clock } = options
  const owners = new LRUCache<string, string>({ max: MAX_CACHED, ttl: CACHED_MS, ttlResolution: 0, perf: clock })
  return {
    owns(clientId, endpointId) {
      const owner = owners.get(endpointId)
      if (owner !== undefined) return owner === clientId
      return store.endpoints.find(endpointId, clientId).then((endpoint) => {
        if (endpoint) owners.set(endpointId, clientId)
        return endpoint !== null
      })
    },
    invalidate: (endpointId) => void owners.delete(endpointId),
  }
}
