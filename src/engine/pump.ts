/**
 * Claims work, runs it, renews its leases and drains. One pump runs tasks, another one deliveries.
 *
 *                start               stop                all settled, or the grace has passed
 *   #phase:  idle ─────▶ pumping ──────────▶ draining ────────────────────────────────▶ stopped
 *
 * While pumping, `#claim` says what it does about its free slots:
 *
 *               wake, a slot is free           wake
 *   waiting ───────────────────▶ claiming ◀─────────▶ claimingAgain
 *      ▲  ▲                         │  │    next claim
 *      │  └── nothing more to claim ┘  │ no slot is free
 *      │                               ▼
 *      └────────────────────────── starved ── a slot frees ──▶ claiming
 *
 * `waiting` claims again when woken, when the next row falls due, and after at most 16.5 s, which repairs lost notifications. `starved` does too,
 * and claims as soon as a slot frees. The last claim may have passed by work of clients that already had their share (`#refused`): a freed slot
 * that one of them may use causes a claim as well.
 *
 * A slot is free unless an item runs in it (`#running`) or it is reserved: by the claim in flight, or by the store, which starts new work in it.
 */
import type { Clock } from '../core/clock.ts'
import { type Allotment, type SlotRefusal, type SlotShares, unlimitedAllotment } from '../core/fair-share.ts'
import type { Millis, Work, WorkKind } from '../core/model.ts'
import type { EventSink } from '../observe/events.ts'
import type { ClaimResult, LeaseRef, Renewal, SettleResult, SlotLender } from '../store/interfaces.ts'

export interface WorkSource<W extends Work> {
  claim(limit: number, allot: () => Allotment): Promise<ClaimResult<W>>
  /** Runs one item and settles it. After a rejection the item stays leased until its lease expires. */
  process(item: W, signal: AbortSignal): Promise<void>
  renew(held: readonly LeaseRef[]): Promise<readonly Renewal[]>
}

export interface PumpOptions {
  /** Slots of this node. */
  readonly concurrency: number
  /** How many slots each client may use. Default: all. */
  readonly slotShares?: SlotShares
  readonly leaseMs: Millis
  readonly clock: Clock
  readonly kind: WorkKind
  readonly events: EventSink
}

/** Why a run's signal fired: the `reason` of {@link Interrupted}, which is `signal.reason`. */
export type InterruptReason = 'canceled' | 'leaseLost' | 'shutdown'
export class Interrupted extends Error {
  override readonly name = 'Interrupted'
  readonly reason: InterruptReason
  constructor(reason: InterruptReason) {
    super({ canceled: 'the client asked to cancel', leaseLost: 'the lease was lost', shutdown: 'the node shuts down' }[reason])
    this.reason = reason
  }
}

/** Rows of one claim, and of one renewal. */
const MAX_CLAIMED = 500
/** How often an idle pump claims without being woken. */
const POLL_MS = 15_000
/** After a claim that failed. */
const CLAIM_RETRY_MS = 1_000
/** How long a drain waits for settlements after it interrupted the runs. */
const FINAL_SETTLE_MS = 5_000

interface Running {
  readonly fence: number
  readonly abort: AbortController
}

export class Pump<W extends Work> {
  readonly #source: WorkSource<W>
  readonly #options: PumpOptions
  readonly #running = new Map<string, Running>()
  #phase: 'idle' | 'pumping' | 'draining' | 'stopped' = 'idle'
  #claim: 'waiting' | 'claiming' | 'claimingAgain' | 'starved' = 'waiting'
  /** Slots reserved by the store or by the claim in flight. */
  #reserved = 0
  /** Clients and lanes that the last claim refused because of their share. */
  #refused: readonly SlotRefusal[] = []
  #cancelTimer = (): void => {}
  #cancelRenewal = (): void => {}
  /** Called when `#isEmpty` may have become true. */
  #onRelease: () => void = () => {}
  /** When the last claim returned, or was not needed because all slots were taken. For the readiness check. */
  lastClaimAt: Millis = 0

  constructor(source: WorkSource<W>, options: PumpOptions) {
    this.#source = source
    this.#options = options
  }

  get running(): number {
    return this.#running.size
  }
  get full(): boolean {
    return this.#running.size >= this.#options.concurrency
  }
  get #free(): number {
    return this.#options.concurrency - this.#running.size - this.#reserved
  }
  get #isClaiming(): boolean {
    return this.#claim === 'claiming' || this.#mustClaimAgain
  }
  get #mustClaimAgain(): boolean {
    return this.#claim === 'claimingAgain'
  }
  get #isEmpty(): boolean {
    return this.#running.size === 0 && this.#reserved === 0 && !this.#isClaiming
  }
  /** Whether the free slots can serve work that the last claim refused. */
  get #canServeRefused(): boolean {
    return this.#refused.length > 0 && this.#options.slotShares!.canServeAny(this.#refused, this.#free)
  }

  /** Reserves free slots for the store, see `SlotLender`. */
  reserve(max: number): number {
    if (this.#phase !== 'pumping') return 0
    const slots = Math.max(0, Math.min(max, this.#free))
    this.#reserved += slots
    return slots
  }
  /** Returns reserved slots, used or not. */
  release(slots: number): void {
    this.#reserved -= slots
    this.#slotsFreed(slots)
  }
  /** Shares out the free slots and `reserved` ones. */
  allot(reserved: number): Allotment {
    return this.#options.slotShares?.allot(this.#free + reserved) ?? unlimitedAllotment
  }
  /** Runs what the store started in reserved slots. */
  runStarted(items: readonly W[]): void {
    for (const item of items) this.#run(item)
  }

  start(): void {
    if (this.#phase !== 'idle') return
    this.#phase = 'pumping'
    this.#renewLater()
    this.wake()
  }

  /** Work may be claimable. Wakes during a claim cause one more claim. */
  wake(): void {
    if (this.#phase !== 'pumping') return
    if (this.#isClaiming) this.#claim = 'claimingAgain'
    else void this.#claimWork()
  }

  /** Aborts the signal of an item, if it runs here. */
  interrupt(id: string, reason: InterruptReason): void {
    this.#running.get(id)?.abort.abort(new Interrupted(reason))
  }

  /** Stops claiming, lets work finish for `graceMs`, then interrupts it and waits for its settlement. Idempotent. */
  async stop(graceMs: Millis): Promise<void> {
    if (this.#phase !== 'stopped') this.#phase = 'draining'
    this.#cancelTimer()
    await this.#waitUntilEmpty(graceMs)
    for (const { abort } of this.#running.values()) abort.abort(new Interrupted('shutdown'))
    await this.#waitUntilEmpty(FINAL_SETTLE_MS)
    this.#phase = 'stopped'
    this.#cancelRenewal()
  }

  #waitUntilEmpty(timeoutMs: Millis): Promise<void> {
    if (this.#isEmpty) return Promise.resolve()
    return new Promise((resolve) => {
      const cancel = this.#options.clock.after(timeoutMs, resolve)
      const previous = this.#onRelease
      this.#onRelease = () => {
        if (!this.#isEmpty) return
        cancel()
        resolve()
        previous()
      }
    })
  }

  /** Claims until nothing is left or no slot is free, then arms the timer for the next claim. */
  async #claimWork(): Promise<void> {
    this.#cancelTimer()
    this.#claim = 'claimingAgain'
    let nextInMs: Millis | null = null
    try {
      while (this.#mustClaimAgain && this.#phase === 'pumping') {
        const limit = Math.min(this.#free, MAX_CLAIMED)
        if (limit <= 0) {
          // A full node is healthy.
          this.lastClaimAt = this.#options.clock.now()
          this.#claim = 'starved'
          break
        }
        this.#claim = 'claiming'
        const { nextInMs: dueInMs, more } = await this.#claimOnce(limit)
        nextInMs = dueInMs
        // Slots may have freed since the claim began.
        if (more || this.#canServeRefused) this.#claim = 'claimingAgain'
      }
    } catch (error) {
      this.#trouble(error)
      nextInMs = CLAIM_RETRY_MS
    }
    // Still set: woken during a claim that failed.
    const claimsAtOnce = this.#mustClaimAgain
    if (this.#isClaiming) this.#claim = 'waiting'
    this.#onRelease()
    if (this.#phase !== 'pumping') return
    if (claimsAtOnce) return void this.#claimWork()
    const pollMs = POLL_MS * (0.9 + this.#options.clock.random() / 5)
    this.#cancelTimer = this.#options.clock.after(Math.min(nextInMs ?? pollMs, pollMs), () => this.wake())
  }

  async #claimOnce(limit: number): Promise<ClaimResult<W>> {
    const { clock, events, kind } = this.#options
    this.#reserved += limit
    const claimed = await this.#source.claim(limit, () => this.allot(limit)).finally(() => (this.#reserved -= limit))
    this.lastClaimAt = clock.now()
    events.emit('work.claimed', { kind, claimed: claimed.items.length, limit })
    for (const item of claimed.items) this.#run(item)
    this.#refused = claimed.refused ?? []
    return claimed
  }

  #run(item: W): void {
    const running: Running = { fence: item.fence, abort: new AbortController() }
    this.interrupt(item.id, 'leaseLost')
    this.#running.set(item.id, running)
    this.#options.slotShares?.acquire(item)
    this.#source
      .process(item, running.abort.signal)
      .catch((error: unknown) => this.#trouble(error))
      .then(() => {
        // A row that was released and claimed again runs under another fence, in another entry.
        if (this.#running.get(item.id) === running) this.#running.delete(item.id)
        this.#options.slotShares?.release(item)
        this.#slotsFreed(1)
      })
  }

  #slotsFreed(slots: number): void {
    if (slots > 0 && (this.#claim === 'starved' || this.#canServeRefused)) this.wake()
    this.#onRelease()
  }

  #renewLater(): void {
    // The pump may have stopped during a renewal.
    if (this.#phase === 'stopped') return
    this.#cancelRenewal = this.#options.clock.after(this.#options.leaseMs / 3, () => void this.renew().then(() => this.#renewLater()))
  }

  /** Renews every lease held here. A node that stalled must do so before it reclaims expired leases, or it would reclaim its own. */
  async renew(): Promise<void> {
    const { events, kind } = this.#options
    const before = new Map(this.#running)
    const held = [...before].map(([id, { fence }]) => ({ id, fence }))
    let lost = 0
    try {
      for (let i = 0; i < held.length; i += MAX_CLAIMED) {
        for (const { id, renewed, cancelRequested } of await this.#source.renew(held.slice(i, i + MAX_CLAIMED))) {
          // Released and claimed again meanwhile: the answer is about the earlier lease.
          if (this.#running.get(id) !== before.get(id)) continue
          if (!renewed) {
            lost++
            events.emit('work.lost', { kind, id })
            this.interrupt(id, 'leaseLost')
          } else if (cancelRequested) this.interrupt(id, 'canceled')
        }
      }
      if (held.length > 0) events.emit('work.renewed', { kind, renewed: held.length - lost, lost })
    } catch (error) {
      this.#trouble(error)
    }
  }

  #trouble(error: unknown): void {
    this.#options.events.emit('trouble', { error })
  }
}

/** The pump as the store uses it. */
export const toSlotLender = <W extends Work>(pump: Pump<W>, leasedBy: string, leaseMs: Millis): SlotLender<W> => ({
  leasedBy,
  leaseMs,
  reserve: (max) => pump.reserve(max),
  release: (slots) => pump.release(slots),
  allot: (reserved) => pump.allot(reserved),
  start: (items) => pump.runStarted(items),
})

/** First delay before a failed settlement is repeated. It doubles up to the second. */
const SETTLE_RETRY_MS = 200
const SETTLE_RETRY_MAX_MS = 5_000
/** Repeats a failed settlement while the lease lasts: a store error must not change how the try ended. */
export async function settleWithRetry<W>(
  settle: () => Promise<SettleResult<W>>,
  signal: AbortSignal,
  clock: Clock,
  events: EventSink,
): Promise<SettleResult<W>> {
  for (let delayMs = SETTLE_RETRY_MS; ; delayMs = Math.min(delayMs * 2, SETTLE_RETRY_MAX_MS)) {
    try {
      return await settle()
    } catch (error) {
      events.emit('trouble', { error })
      if (signal.aborted && signal.reason instanceof Interrupted && signal.reason.reason !== 'canceled') return { kind: 'stale' }
      await new Promise<void>((resolve) => {
        clock.after(delayMs, resolve)
      })
    }
  }
}
