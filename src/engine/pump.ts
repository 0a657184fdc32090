/**
 * Claims work, runs it, renews its leases, drains. The same for tasks and for deliveries.
 *
 *   idle ──start──▶ pumping ──stop──▶ draining ──held is empty, or the grace is over──▶ stopped
 *
 * While pumping it claims as many rows as it has free slots: when woken, when a slot frees and more waits, and when the next row
 * falls due. Polling only repairs wake-ups that were lost.
 */
import type { Clock } from '../core/clock.ts'
import { type Allotment, type SlotRefusal, type SlotShares, unlimitedAllotment } from '../core/fair-share.ts'
import type { Millis, Work, WorkKind } from '../core/model.ts'
import type { EventSink } from '../observe/events.ts'
import type { ClaimResult, LeaseRef, Renewal, SettleResult, SlotLender } from '../store/interfaces.ts'

export interface WorkSource<W extends Work> {
  claim(limit: number, allot: () => Allotment): Promise<ClaimResult<W>>
  /** Works one item up to its settlement. Rejecting means: it stays leased, and the lease will end. */
  process(item: W, signal: AbortSignal): Promise<void>
  renew(held: readonly LeaseRef[]): Promise<readonly Renewal[]>
}

export interface PumpOptions {
  /** At once on this node. */
  readonly concurrency: number
  /** Who may hold how many of them. Left out: whoever comes. */
  readonly slotShares?: SlotShares
  readonly leaseMs: Millis
  readonly clock: Clock
  readonly kind: WorkKind
  readonly events: EventSink
}

/** Why a run's signal fired: `signal.reason` of what a pump runs. */
export type InterruptReason = 'canceled' | 'leaseLost' | 'shutdown'
export class Interrupted extends Error {
  override readonly name = 'Interrupted'
  readonly reason: InterruptReason
  constructor(why: InterruptReason) {
    super({ canceled: 'the client asked to cancel', leaseLost: 'the lease was lost', shutdown: 'the node shuts down' }[why])
    this.reason = why
  }
}

/** Rows one claim asks for at most. */
const MAX_CLAIMED = 500
/** How often an idle pump looks although nobody woke it. */
const POLL_MS = 15_000
/** How soon a claim that failed is repeated. */
const CLAIM_RETRY_MS = 1_000
/** After its signal fired, how long a drain still waits for settlements. */
const FINAL_SETTLE_MS = 5_000

interface Running {
  readonly fence: number
  readonly abort: AbortController
}

export class Pump<W extends Work> {
  readonly #source: WorkSource<W>
  readonly #options: PumpOptions
  readonly #held = new Map<string, Running>()
  #state: 'idle' | 'pumping' | 'draining' | 'stopped' = 'idle'
  #claiming = false
  /** Slots lent to the store, or asked for by the claim under way. */
  #lent = 0
  /** Somebody asked while a claim ran, or slots were the limit: claim again. */
  #again = false
  #hungry = false
  /** Those in line whom the last claim passed by. */
  #refused: readonly SlotRefusal[] = []
  #cancelTimer = (): void => {}
  #cancelRenewal = (): void => {}
  #emptied: () => void = () => {}
  /** When the last claim came back, or was not needed since all slots are taken: what readiness looks at. */
  lastClaimAt: Millis = 0

  constructor(source: WorkSource<W>, options: PumpOptions) {
    this.#source = source
    this.#options = options
  }

  get running(): number {
    return this.#held.size
  }

  /** Whether as many run as may. */
  get full(): boolean {
    return this.#held.size >= this.#options.concurrency
  }

  /** Lends free slots: see `Starter`. */
  reserve(most: number): number {
    if (this.#state !== 'pumping') return 0
    const slots = Math.max(0, Math.min(most, this.#free))
    this.#lent += slots
    return slots
  }
  /** Slots lent come back, used or not. */
  release(slots: number): void {
    this.#lent -= slots
    // Who asked while all free slots were lent was turned away.
    if (slots > 0 && this.#awaited) this.wake()
    this.#emptied()
  }
  /** Shares out what is free and what was `lent`. */
  allot(lent: number): Allotment {
    return this.#options.slotShares?.allot(this.#free + lent) ?? unlimitedAllotment
  }
  /** Runs what the store started with lent slots. */
  runStarted(items: readonly W[]): void {
    for (const item of items) this.#run(item)
  }
  get #free(): number {
    return this.#options.concurrency - this.#held.size - this.#lent
  }
  /** Whether somebody waits for a slot that has come free. */
  get #awaited(): boolean {
    return this.#hungry || this.#opens
  }
  get #opens(): boolean {
    return this.#refused.length > 0 && this.#options.slotShares!.canServeAny(this.#refused, this.#free)
  }

  start(): void {
    if (this.#state !== 'idle') return
    this.#state = 'pumping'
    this.#renewLater()
    this.wake()
  }

  /** Work may be claimable. Cheap; repeats are merged. */
  wake(): void {
    if (this.#state !== 'pumping') return
    this.#again = true
    if (!this.#claiming) void this.#claim()
  }

  /** Tells a running item that its client wants it to end, if it runs here. */
  interrupt(id: string, why: InterruptReason): void {
    this.#held.get(id)?.abort.abort(new Interrupted(why))
  }

  /** Stops claiming, lets work finish for `graceMs`, then interrupts it and waits for its settlement. Twice is fine. */
  async stop(graceMs: Millis): Promise<void> {
    if (this.#state !== 'stopped') this.#state = 'draining'
    this.#cancelTimer()
    await this.#empty(graceMs)
    for (const { abort } of this.#held.values()) abort.abort(new Interrupted('shutdown'))
    await this.#empty(FINAL_SETTLE_MS)
    this.#state = 'stopped'
    this.#cancelRenewal()
  }

  get #idle(): boolean {
    return this.#held.size === 0 && this.#lent === 0 && !this.#claiming
  }
  #empty(withinMs: Millis): Promise<void> {
    if (this.#idle) return Promise.resolve()
    return new Promise((resolve) => {
      const cancel = this.#options.clock.after(withinMs, resolve)
      const others = this.#emptied
      this.#emptied = () => {
        if (!this.#idle) return
        cancel()
        resolve()
        others()
      }
    })
  }

  async #claim(): Promise<void> {
    this.#claiming = true
    this.#cancelTimer()
    let nextInMs: Millis | null = null
    try {
      while (this.#again && this.#state === 'pumping') {
        this.#again = false
        const free = Math.min(this.#free, MAX_CLAIMED)
        this.#hungry = free <= 0
        if (free <= 0) {
          // A full node is healthy.
          this.lastClaimAt = this.#options.clock.now()
          break
        }
        this.#lent += free
        const claimed = await this.#source.claim(free, () => this.allot(free)).finally(() => (this.#lent -= free))
        this.lastClaimAt = this.#options.clock.now()
        this.#options.events.emit('work.claimed', { kind: this.#options.kind, claimed: claimed.items.length, limit: free })
        nextInMs = claimed.nextInMs
        for (const item of claimed.items) this.#run(item)
        this.#refused = claimed.refused ?? []
        // Slots may have come free for them since the claim was made.
        if (claimed.more || this.#opens) this.#again = true
      }
    } catch (error) {
      this.#trouble(error)
      nextInMs = CLAIM_RETRY_MS
    }
    this.#claiming = false
    this.#emptied()
    if (this.#state !== 'pumping') return
    if (this.#again && !this.#hungry) return void this.#claim()
    const spread = POLL_MS * (0.9 + this.#options.clock.random() / 5)
    this.#cancelTimer = this.#options.clock.after(Math.min(nextInMs ?? spread, spread), () => this.wake())
  }

  #run(item: W): void {
    const running: Running = { fence: item.fence, abort: new AbortController() }
    this.interrupt(item.id, 'leaseLost')
    this.#held.set(item.id, running)
    this.#options.slotShares?.acquire(item)
    this.#source.process(item, running.abort.signal).then(
      () => this.#ended(item, running),
      (error) => {
        this.#trouble(error)
        this.#ended(item, running)
      },
    )
  }

  #ended(item: W, running: Running): void {
    // A row given back and claimed anew runs under another fence: its entry is not ours.
    if (this.#held.get(item.id) === running) this.#held.delete(item.id)
    this.#options.slotShares?.release(item)
    if (this.#awaited) this.wake()
    this.#emptied()
  }

  #renewLater(): void {
    // A renewal under way when the pump stopped arms no other.
    if (this.#state === 'stopped') return
    this.#cancelRenewal = this.#options.clock.after(this.#options.leaseMs / 3, () => void this.renew().then(() => this.#renewLater()))
  }

  /** Renews every lease held here. A node that stalled does so before it sweeps, lest it rescue its own work. */
  async renew(): Promise<void> {
    const running = new Map(this.#held)
    const held = [...running].map(([id, { fence }]) => ({ id, fence }))
    let lost = 0
    try {
      for (let i = 0; i < held.length; i += MAX_CLAIMED) {
        for (const renewal of await this.#source.renew(held.slice(i, i + MAX_CLAIMED))) {
          // Given back and claimed anew meanwhile: what was asked about has ended.
          if (this.#held.get(renewal.id) !== running.get(renewal.id)) continue
          if (!renewal.renewed) {
            lost++
            this.#options.events.emit('work.lost', { kind: this.#options.kind, id: renewal.id })
            this.interrupt(renewal.id, 'leaseLost')
          } else if (renewal.cancelRequested) this.interrupt(renewal.id, 'canceled')
        }
      }
      if (held.length > 0) this.#options.events.emit('work.renewed', { kind: this.#options.kind, renewed: held.length - lost, lost })
    } catch (error) {
      this.#trouble(error)
    }
  }

  #trouble(error: unknown): void {
    this.#options.events.emit('trouble', { error })
  }
}

/** A pump as the store sees it. */
export const toSlotLender = <W extends Work>(pump: Pump<W>, by: string, leaseMs: Millis): SlotLender<W> => ({
  leasedBy: by,
  leaseMs,
  reserve: (most) => pump.reserve(most),
  release: (slots) => pump.release(slots),
  allot: (lent) => pump.allot(lent),
  start: (items) => pump.runStarted(items),
})

/** First delay before a settlement that the store refused is repeated; it doubles. */
const SETTLE_RETRY_MS = 200
const SETTLE_RETRY_MAX_MS = 5_000
/** A store that refuses to settle does not change how the try ended: the settlement is repeated while the lease lasts. */
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
