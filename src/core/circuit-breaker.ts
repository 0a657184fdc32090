/** The health of a lane of deliveries: how many may be in flight, and when a lane that only fails is tried again. Pure. */
import type { DisabledReason, Endpoint, HealthSignal, Millis } from './model.ts'

/** What a lane remembers of its attempts. */
export interface LaneHealth {
  /** What slow start lets run; null: the lane has no such limit. */
  readonly windowSize: number | null
  /** When an attempt last succeeded, to the second. */
  readonly succeededAt: Millis
  /** Failed attempts in a row. */
  readonly failures: number
  /** The pause between probes while the breaker is tripped; 0: it is not. */
  readonly probeMs: Millis
  /** Attempts in a row that a forbidden address stopped, and since when. */
  readonly blocked: number
  readonly blockedSince: Millis | null
  /** Nothing is claimed before. */
  readonly heldUntil: Millis
}

/** In flight at the start of a lane, and while nothing of it has succeeded for {@link QUIET_MS}. */
export const INITIAL_WINDOW = 2
const QUIET_MS: Millis = 10_000
/** `succeededAt` is moved on in steps of this, so that a busy lane's row is not rewritten with every batch. */
const STEP_MS: Millis = 1_000
const FAILURES_TO_TRIP = 10
const FIRST_PROBE_MS: Millis = 5_000
const LAST_PROBE_MS: Millis = 60_000
/** How often an endpoint that was disabled for failing is probed. */
export const DISABLED_PROBE_MS: Millis = 3_600_000
const BLOCKED_ATTEMPTS = 3
const BLOCKED_MS: Millis = 600_000

/** How many of a lane may run at once now; null: any number. */
export function concurrencyLimitOf(
  lane: Pick<LaneHealth, 'windowSize' | 'succeededAt' | 'probeMs'> & { cap: number | null },
  now: Millis,
): number | null {
  if (lane.windowSize === null || lane.cap === null) return lane.cap
  if (lane.probeMs > 0) return 1
  const reached = Math.min(lane.cap, lane.windowSize)
  return now - lane.succeededAt > QUIET_MS ? Math.min(reached, INITIAL_WINDOW) : reached
}

/** A lane after what its attempts said, in the order they ended; `askedMs`: how long the receiver asked to wait, null: it did not;
 * `tookMs`: how long the attempt lasted. */
export function applySignals<L extends LaneHealth & { readonly cap: number | null }>(
  lane: L,
  signals: readonly { readonly signal: HealthSignal | null; readonly retryAfterMs: Millis | null; readonly durationMs: Millis }[],
  now: Millis,
): L {
  let after = lane
  for (const { signal, retryAfterMs: askedMs, durationMs: tookMs } of signals) {
    if (signal !== null) after = applySignal(after, signal, now, now - tookMs)
    // Whoever asked for a pause is not met with a crowd after it.
    if (askedMs !== null) after = { ...after, windowSize: after.windowSize && 1, heldUntil: Math.max(after.heldUntil, now + askedMs) }
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
    // Those that were in flight when a pause began do not widen what comes after it.
    const wider = windowSize && (probeMs > 0 || lane.heldUntil > now ? 1 : Math.min(lane.cap ?? windowSize, windowSize * 2))
    const succeededAt = now - lane.succeededAt >= STEP_MS ? now : lane.succeededAt
    return { ...lane, windowSize: wider, succeededAt, failures: 0, probeMs: 0, blocked: 0, blockedSince: null }
  }
  const blocked =
    signal === 'blocked' ? { blocked: lane.blocked + 1, blockedSince: lane.blockedSince ?? now } : { blocked: 0, blockedSince: null }
  const failures = signal === 'failure' || signal === 'timeout' ? lane.failures + 1 : lane.failures
  const after = { ...lane, ...blocked, failures }
  if (probeMs > 0) {
    // Those that were in flight when the breaker tripped may end long after: only what began behind its pause was a probe.
    if (lane.heldUntil > Math.min(now, startedAt)) return after
    const next = signal === 'neutral' || probeMs >= LAST_PROBE_MS ? probeMs : Math.min(LAST_PROBE_MS, probeMs * 2)
    return { ...after, probeMs: next, heldUntil: now + next }
  }
  if (failures >= FAILURES_TO_TRIP && windowSize !== null)
    return { ...after, windowSize: 1, probeMs: FIRST_PROBE_MS, heldUntil: Math.max(lane.heldUntil, now + FIRST_PROBE_MS) }
  return signal === 'timeout' ? { ...after, windowSize: windowSize && Math.max(1, Math.floor(windowSize / 2)) } : after
}

/** Whether what stopped a lane is no passing trouble of its name: its address is forbidden. */
export const isAddressForbidden = ({ blocked, blockedSince }: Pick<LaneHealth, 'blocked' | 'blockedSince'>, now: Millis): boolean =>
  blocked >= BLOCKED_ATTEMPTS && blockedSince !== null && now - blockedSince >= BLOCKED_MS

/** What an endpoint's status lets through: everything, a probe an hour, or nothing. */
export type DeliveryGate = 'open' | 'probing' | 'shut'
export function deliveryGateOf(endpoint: Pick<Endpoint, 'verifiedAt' | 'pausedAt' | 'disabledAt' | 'disabledReason'>): DeliveryGate {
  if (endpoint.verifiedAt === null || endpoint.pausedAt !== null) return 'shut'
  if (endpoint.disabledAt === null) return 'open'
  return endpoint.disabledReason === ('failing' satisfies DisabledReason) ? 'probing' : 'shut'
}
