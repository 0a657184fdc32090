/** The task type `system.replay`: sends the deliveries that match a filter again. */
import type { EventType, State } from '../../core/model.ts'
import type { ReplayCheckpoint, ReplayFilter, StoreWith } from '../../store/interfaces.ts'
import type { TaskType } from '../define.ts'
import { pagedJobType } from './paged-job.ts'

export const REPLAY_TYPE = 'system.replay'

/** The input: the filter of the request. `until` and `asOf` are always set, so that a replay does not match its own deliveries. */
export interface ReplayInput {
  readonly endpointId: string | null
  /** RFC 3339. */
  readonly since: string | null
  readonly until: string
  readonly asOf: string
  readonly states: readonly State[]
  readonly eventTypes: readonly EventType[] | null
}
export const toReplayFilter = (clientId: string, { endpointId, since, until, asOf, states, eventTypes }: ReplayInput): ReplayFilter => ({
  clientId,
  endpointId,
  since: since === null ? null : Date.parse(since),
  until: Date.parse(until),
  asOf: Date.parse(asOf),
  states,
  eventTypes,
})

export const createReplayType = (store: StoreWith<{ deliveries: 'runReplayPage' }>): TaskType =>
  pagedJobType<ReplayInput, ReplayCheckpoint>({
    type: REPLAY_TYPE,
    description: 'Sends deliveries again.',
    runPage: (lease, clientId, input) => store.deliveries.runReplayPage({ lease, filter: toReplayFilter(clientId, input) }),
    timeRange: ({ since, until }) => ({ since: since === null ? 0 : Date.parse(since), until: Date.parse(until) }),
    progressMessage: ({ replayed }) => `${replayed} sent again`,
    resultOf: ({ replayed, skipped }) => ({ matched: replayed + skipped, replayed, skipped }),
  })
