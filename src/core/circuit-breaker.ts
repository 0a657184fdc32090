/** Health of a delivery lane: slow start limits what is in flight, a circuit breaker pauses a lane that only fails. Pure. */
import type { DisabledReason, Endpoint, HealthSignal, Millis } from './model.ts'

export interface LaneHealth {
  /** Concurrency that slow start allows; null: no limit. */
  readonly windowSize: number | null
  /** Time of the latest success, to the second. */
  readonly succeededAt: Millis
  /** Consecutive failed attempts. */
  readonly failures: number
  /** The pause between probes while the breaker is open; 0: it is closed. */
  readonly probeMs: Millis
  /** Consecutive attempts blocked by a forbidden address, and since when. */
  readonly blocked: number
  readonly blockedSince: Millis | null
  /** Nothing of this lane is claimed before this time. */
  readonly heldUntil: Millis
}

/** Concurrency of a new lane, and of one without success for {@link QUIET_MS}. */
export const INITIAL_WINDOW = 2
const QUIET_MS: Millis = 10_000
/** Granularity of `succeededAt`, so that a busy lane's row is not rewritten with every batch. */
const STEP_MS: Millis = 1_000
const FAILURES_TO_TRIP = 10
const FIRST_PROBE_MS: Millis = 5_000
const LAST_PROBE_MS: Millis = 60_000
/** Pause between probes of an endpoint that was disabled for failing. */
export const DISABLED_PROBE_MS: Millis = 3_600_000
const BLOCKED_ATTEMPTS = 3
const BLOCKED_MS: Millis = 600_000

/** Deliveries of a lane that may run at once now; null: no limit. */
export function concurrencyLimitOf(
  lane: Pick<LaneHealth, 'windowSize' | 'succeededAt' | 'probeMs'> & { cap: number | null },
  now: Millis,
): number | null {
  if (lane.windowSize === null || lane.cap === null) return lane.cap
  if (lane.probeMs > 0) return 1
  const reached = Math.min(lane.cap, lane.windowSize)
  return now - lane.succeededAt > QUIET_MS ? Math.min(reached, INITIAL_WINDOW) : reached
}

/** The lane after some attempts, in the order they ended. `retryAfterMs`: the wait that the receiver asked for; null: none. */
export function applySignals<L extends LaneHealth & { readonly cap: number | null }>(
  lane: L,
  signals: readonly { readonly signal: HealthSignal | null; readonly retryAfterMs: Millis | null; readonly durationMs: Millis }[],
  now: Millis,
): L {
  let after = lane
  for (const { signal, retryAfterMs, durationMs } of signals) {
    if (signal !== null) after = applySignal(after, signal, now, now - durationMs)
    // After a pause that the receiver asked for, slow start begins again with one delivery at a time.
    if (retryAfterMs !== null)
      after = { ...after, windowSize: after.windowSize && 1, heldUntil: Math.max(after.heldUntil, now + retryAfterMs) }
  }
  return after
}

function applySignal<L extends LaneHealth & { readonly cap: number | null }>(
  lane: L,
  signal: HealthSignal,
  now: Millis,
  startedAt: Millis,
): L {
  const { windowSize, probeMs } = lane
  if (signal === 'success') {
    // While the breaker is open or the lane is held, the window stays 1: such a success may be of an attempt that began before the pause.
    const wider = windowSize && (probeMs > 0 || lane.heldUntil > now ? 1 : Math.min(lane.cap ?? windowSize, windowSize * 2))
    const succeededAt = now - lane.succeededAt >= STEP_MS ? now : lane.succeededAt
    return { ...lane, windowSize: wider, succeededAt, failures: 0, probeMs: 0, blocked: 0, blockedSince: null }
  }
  const blocked =
    signal === 'blocked' ? { blocked: lane.blocked + 1, blockedSince: lane.blockedSince ?? now } : { blocked: 0, blockedSince: null }
  const failures = signal === 'failure' || signal === 'timeout' ? lane.failures + 1 : lane.failures
  const after = { ...lane, ...blocked, failures }
  if (probeMs > 0) {
    // Attempts that began before the breaker opened may end long after: only one that began after the pause is a probe.
    if (lane.heldUntil > Math.min(now, startedAt)) return after
    const next = signal === 'neutral' || probeMs >= LAST_PROBE_MS ? probeMs : Math.min(LAST_PROBE_MS, probeMs * 2)
    return { ...after, probeMs: next, heldUntil: now + next }
  }
  if (failures >= FAILURES_TO_TRIP && windowSize !== null)
    return { ...after, windowSize: 1, probeMs: FIRST_PROBE_MS, heldUntil: Math.max(lane.heldUntil, now + FIRST_PROBE_MS) }
  return signal === 'timeout' ? { ...after, windowSize: windowSize && Math.max(1, Math.floor(windowSize / 2)) } : after
}

/** Whether the forbidden address of a lane has lasted long enough to disable its endpoint. */
export const isAddressForbidden = ({ blocked, blockedSince }: Pick<LaneHealth, 'blocked' | 'blockedSince'>, now: Millis): boolean =>
  blocked >= BLOCKED_ATTEMPTS && blockedSince !== null && now - blockedSince >= BLOCKED_MS

/** What may be sent to an endpoint: everything, a probe an hour, or nothing. */
export type DeliveryGate = 'open' | 'probing' | 'shut'
export function deliveryGateOf(endpoint: Pick<Endpoint, 'verifiedAt' | 'pausedAt' | 'disabledAt' | 'disabledReason'>): DeliveryGate {
  if (endpoint.verifiedAt === null || endpoint.pausedAt !== null) return 'shut'
  if (endpoint.disabledAt === null) return 'open'
  return endpoint.disabledReason === ('failing' satisfies DisabledReason) ? 'probing' : 'shut'
}
