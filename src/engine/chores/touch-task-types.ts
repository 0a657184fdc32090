/** Announces which task types this node runs: well within the minute after which a type counts as having no worker. */
import type { StoreWith } from '../../store/interfaces.ts'
import type { Registry } from '../../tasks/registry.ts'
import type { Chore } from './runner.ts'

export function touchTaskTypes(store: StoreWith<{ schedules: 'touchTaskTypes' }>, registry: Pick<Registry, 'list'>): Chore {
  const types = registry.list().flatMap(({ type, where }) => (where === 'worker' ? [] : [type]))
  return {
    name: 'touch task types',
    everyMs: 20_000,
    atStart: true,
    async run() {
      await store.schedules.touchTaskTypes({ types })
      return 0
    },
  }
}
