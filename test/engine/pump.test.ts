/** The pump: when it claims, how it renews, how it stops. */

import { describe, expect, onTestFinished, test } from 'vitest'
import { SlotShares } from '../../src/core/fair-share.ts'
import type { Work } from '../../src/core/model.ts'
import { type Interrupted, Pump, type WorkSource } from '../../src/engine/pump.ts'
import type { EventName } from '../../src/observe/events.ts'
import type { ClaimResult, LeaseRef, Renewal } from '../../src/store/interfaces.ts'
import { turns, until } from '../support/engine.ts'
import { troubleInto } from '../support/events.ts'
import { type ManualClock, manualClock } from '../support/manual-clock.ts'

const LEASE_MS = 30_000

/** A source whose claims are scripted, and whose work runs until it is ended. */
function source(
  given: {
    claims?: ((limit: number) => Partial<ClaimResult<Work>> | Error)[]
    renew?: (held: readonly LeaseRef[]) => readonly Renewal[]
  } = {},
) {
  const limits: number[] = []
  const renewals: (readonly LeaseRef[])[] = []
  const running = new Map<string, { signal: AbortSignal; end: (error?: Error) => void }>()
  const made: WorkSource<Work> = {
    async claim(limit) {
      limits.push(limit)
      await turns(1)
      const answer = given.claims?.shift()?.(limit) ?? {}
      if (answer instanceof Error) throw answer
      return { items: [], nextInMs: null, more: false, ...answer }
    },
    process: (item, signal) =>
      new Promise((resolve, reject) => {
        const end = (error?: Error): void => {
          running.delete(item.id)
          if (error) reject(error)
          else resolve()
        }
        running.set(item.id, { signal, end })
      }),
    async renew(held) {
      renewals.push(held)
      return given.renew?.(held) ?? held.map(({ id }) => ({ id, renewed: true, cancelRequested: false }))
    },
  }
  return { made, limits, renewals, running }
}
/** All of one client, each of the lane its id begins with. */
const items = (...ids: string[]): Work[] => ids.map((id) => ({ id, fence: 1, clientId: 'client_a', laneId: id[0] }) as Work)

function start(given: Parameters<typeof source>[0] & { concurrency?: number; slots?: SlotShares } = {}) {
  const clock: ManualClock = manualClock()
  const errors: unknown[] = []
  const facts: [EventName, unknown][] = []
  const events = troubleInto(errors)
  for (const name of ['work.claimed', 'work.renewed', 'work.lost'] as const) events.on(name, (fact) => facts.push([name, fact]))
  const parts = source(given)
  const pump = new Pump(parts.made, {
    concurrency: given.concurrency ?? 10,
    ...(given.slots && { slotShares: given.slots }),
    leaseMs: LEASE_MS,
    clock,
    kind: 'task',
    events,
  })
  onTestFinished(async () => {
    for (const { end } of parts.running.values()) end()
    await pump.stop(0)
  })
  pump.start()
  return { pump, clock, errors, facts, ...parts }
}

describe('a pump', () => {
  test('asks for as many as it has free slots', async () => {
    const { pump, limits, running } = start({ concurrency: 5, claims: [() => ({ items: items('a', 'b') })] })
    await until(() => running.size === 2)
    pump.wake()
    await until(() => limits.length === 2)
    expect(limits).toEqual([5, 3])
    expect(pump.running).toBe(2)
  })

  test('asks again at once while there is more, and when a slot frees that was lacking', async () => {
    const { limits, running } = start({
      concurrency: 3,
      claims: [() => ({ items: items('a', 'b'), more: true }), () => ({ items: items('c'), more: true }), () => ({ items: items('d') })],
    })
    await until(() => running.size === 3)
    await turns(5)
    expect(limits).toEqual([3, 1])
    running.get('a')!.end()
    await until(() => running.has('d'))
    expect(limits).toEqual([3, 1, 1])
  })

  test('merges wakes while it claims into one claim', async () => {
    const { pump, limits } = start()
    for (let i = 0; i < 10; i++) pump.wake()
    await turns(10)
    expect(limits.length).toBeLessThanOrEqual(2)
  })

  test('looks again when the next row falls due', async () => {
    const { clock, limits } = start({ claims: [() => ({ nextInMs: 700 })] })
    await until(() => limits.length === 1)
    await turns(3)
    clock.advance(699)
    await turns(3)
    expect(limits).toHaveLength(1)
    clock.advance(1)
    await until(() => limits.length === 2)
  })

  test('asks less than once in ten seconds when nothing wakes it', async () => {
    const { clock, limits } = start()
    await turns(5)
    for (let i = 0; i < 60; i++) {
      clock.advance(1_000)
      await turns(3)
    }
    expect(limits.length).toBeGreaterThanOrEqual(3)
    expect(limits.length).toBeLessThanOrEqual(6)
  })

  test('asks again a second after a claim that failed, and tells of it', async () => {
    const { clock, limits, errors, running } = start({ claims: [() => new Error('store down'), () => ({ items: items('a') })] })
    await until(() => errors.length === 1)
    await turns(3)
    expect(limits).toHaveLength(1)
    clock.advance(1_000)
    await until(() => running.size === 1)
  })

  test('survives work that rejects, and frees its slot', async () => {
    const { pump, running, errors } = start({ claims: [() => ({ items: items('a') })] })
    await until(() => running.size === 1)
    running.get('a')!.end(new Error('broke'))
    await until(() => pump.running === 0)
    expect(errors).toMatchObject([{ message: 'broke' }])
  })

  test('renews every third of a lease what it holds, and interrupts what it lost or was asked to cancel', async () => {
    const { clock, renewals, running } = start({
      claims: [() => ({ items: items('kept', 'lost', 'unwanted') })],
      renew: (held) => held.map(({ id }) => ({ id, renewed: id !== 'lost', cancelRequested: id === 'unwanted' })),
    })
    await until(() => running.size === 3)
    const signals = Object.fromEntries([...running].map(([id, { signal }]) => [id, signal]))
    clock.advance(LEASE_MS / 3)
    await until(() => renewals.length === 1)
    await turns(2)
    expect(renewals[0]!.map(({ id, fence }) => [id, fence])).toEqual([
      ['kept', 1],
      ['lost', 1],
      ['unwanted', 1],
    ])
    expect(signals.kept!.aborted).toBe(false)
    expect((signals.lost!.reason as Interrupted).reason).toBe('leaseLost')
    expect((signals.unwanted!.reason as Interrupted).reason).toBe('canceled')
    clock.advance(LEASE_MS / 3)
    await until(() => renewals.length === 2)
  })

  test('reports what it claimed, renewed and lost', async () => {
    const { clock, facts, running } = start({
      concurrency: 5,
      claims: [() => ({ items: items('kept', 'lost') })],
      renew: (held) => held.map(({ id }) => ({ id, renewed: id !== 'lost', cancelRequested: false })),
    })
    await until(() => running.size === 2)
    clock.advance(LEASE_MS / 3)
    await turns(5)
    expect(facts).toEqual([
      ['work.claimed', { kind: 'task', claimed: 2, limit: 5 }],
      ['work.lost', { kind: 'task', id: 'lost' }],
      ['work.renewed', { kind: 'task', renewed: 1, lost: 1 }],
    ])
  })

  test('renews large numbers in parts, and goes on after a renewal that failed', async () => {
    let down = true
    const ids = Array.from({ length: 700 }, (_, i) => `task ${i}`)
    const { clock, renewals, errors, running } = start({
      concurrency: 700,
      claims: [() => ({ items: items(...ids.slice(0, 500)), more: true }), () => ({ items: items(...ids.slice(500)) })],
      renew(held) {
        if (down) throw new Error('store down')
        return held.map(({ id }) => ({ id, renewed: true, cancelRequested: false }))
      },
    })
    await until(() => running.size === 700)
    clock.advance(LEASE_MS / 3)
    await until(() => errors.length === 1)
    down = false
    await turns(3)
    clock.advance(LEASE_MS / 3)
    await until(() => renewals.length === 3)
    expect(renewals.slice(1).map(({ length }) => length)).toEqual([500, 200])
    expect([...running.values()].some(({ signal }) => signal.aborted)).toBe(false)
  })

  test('interrupts one item, and no other', async () => {
    const { pump, running } = start({ claims: [() => ({ items: items('a', 'b') })] })
    await until(() => running.size === 2)
    pump.interrupt('a', 'canceled')
    pump.interrupt('unknown', 'canceled')
    expect((running.get('a')!.signal.reason as Interrupted).reason).toBe('canceled')
    expect(running.get('b')!.signal.aborted).toBe(false)
  })

  test('stops: it claims no more, waits for its grace, interrupts, and keeps leases until the end', async () => {
    const { pump, clock, limits, renewals, running } = start({ claims: [() => ({ items: items('a', 'b') })] })
    await until(() => running.size === 2)
    let stopped = false
    const stopping = pump.stop(25_000).then(() => {
      stopped = true
    })
    pump.wake()
    clock.advance(LEASE_MS / 3)
    await until(() => renewals.length === 1)
    running.get('a')!.end()
    await turns(3)
    clock.advance(14_999)
    expect(running.get('b')!.signal.aborted).toBe(false)
    clock.advance(1)
    await until(() => running.get('b')!.signal.aborted)
    expect((running.get('b')!.signal.reason as Interrupted).reason).toBe('shutdown')
    await turns(3)
    expect(stopped).toBe(false)
    running.get('b')!.end()
    await stopping
    expect(limits).toHaveLength(1)
    expect(clock.armed).toBe(0)
  })

  test('stops although work never ends, a few seconds after it was interrupted', async () => {
    const { pump, clock, running } = start({ claims: [() => ({ items: items('a') })] })
    await until(() => running.size === 1)
    const stopping = pump.stop(1_000)
    clock.advance(1_000)
    await turns(3)
    clock.advance(5_000)
    await stopping
  })

  test('stops in the middle of a claim: what it brings is run and waited for', async () => {
    const { pump, running } = start({ claims: [() => ({ items: items('late') })] })
    const stopping = pump.stop(25_000)
    await until(() => running.size === 1)
    running.get('late')!.end()
    await stopping
    expect(pump.running).toBe(0)
  })

  test('stopped before it ran, or twice, is stopped', async () => {
    const { pump, clock } = start()
    await Promise.all([pump.stop(10), pump.stop(10)])
    await pump.stop(10)
    expect(clock.armed).toBe(0)
  })

  test('turned away while all its slots were lent, asks again once they come back unused', async () => {
    const { pump, limits } = start({ concurrency: 2 })
    await until(() => limits.length === 1)
    await turns(3)
    expect(pump.reserve(5)).toBe(2)
    pump.wake()
    await turns(3)
    expect(limits).toHaveLength(1)
    pump.release(2)
    await until(() => limits.length === 2)
  })

  describe('whose slots are apportioned', () => {
    const refused = [{ clientId: 'client_a', laneId: null }]

    test('does not ask in vain for whom it refuses, and asks as soon as one of them may have a slot', async () => {
      const { limits, running } = start({
        concurrency: 8,
        slots: new SlotShares(),
        claims: [() => ({ items: items('a', 'b', 'c', 'd', 'e', 'f'), refused }), () => ({ items: items('g'), refused })],
      })
      await until(() => running.size === 6)
      await turns(5)
      expect(limits).toEqual([8])
      running.get('a')!.end()
      await until(() => running.has('g'))
      await turns(5)
      expect(limits).toEqual([8, 3])
    })

    test('asks for them too when slots that were lent come back', async () => {
      const { pump, limits, running } = start({
        concurrency: 8,
        slots: new SlotShares(),
        claims: [() => ({ items: items('a', 'b', 'c') }), () => ({ items: items('d'), refused })],
      })
      await until(() => running.size === 3)
      await turns(3)
      expect(pump.reserve(3)).toBe(3)
      pump.wake()
      await until(() => running.size === 4)
      await turns(3)
      expect(limits).toEqual([8, 2])
      pump.release(3)
      await until(() => limits.length === 3)
    })

    test('asks again when a slot came free for them while it asked', async () => {
      const end: (() => void)[] = []
      const { limits, running } = start({
        concurrency: 8,
        slots: new SlotShares(),
        claims: [
          () => ({ items: items('a', 'b', 'c', 'd', 'e', 'f'), more: true }),
          () => {
            for (const each of end) each()
            return { refused }
          },
        ],
      })
      await until(() => running.size === 6)
      end.push(running.get('a')!.end)
      await until(() => limits.length === 3)
      await turns(5)
      expect(limits).toEqual([8, 2, 3])
    })
  })

  test('is well while it is full', async () => {
    const { pump, clock, running } = start({ concurrency: 1, claims: [() => ({ items: items('a'), more: true })] })
    await until(() => running.size === 1)
    const claimedAt = pump.lastClaimAt
    for (let i = 0; i < 20; i++) {
      clock.advance(1_000)
      await turns(2)
    }
    expect(pump.lastClaimAt).toBeGreaterThan(claimedAt)
  })

  test('takes the loss of an earlier lease for no loss of the one it has', async () => {
    let answer = (_: readonly Renewal[]): void => {}
    const { pump, clock, running } = start({
      claims: [() => ({ items: items('a') }), () => ({ items: [{ ...items('a')[0]!, fence: 2 }] })],
      renew: () => new Promise<readonly Renewal[]>((resolve) => (answer = resolve)) as never,
    })
    await until(() => running.size === 1)
    clock.advance(LEASE_MS / 3)
    running.get('a')!.end()
    await until(() => pump.running === 0)
    pump.wake()
    await until(() => running.size === 1)
    answer([{ id: 'a', renewed: false, cancelRequested: false }])
    await turns(3)
    expect(running.get('a')!.signal.aborted).toBe(false)
    answer([])
  })

  test('that claims anew what it still runs under a lost lease interrupts the earlier run', async () => {
    const { pump, running } = start({
      claims: [() => ({ items: items('a') }), () => ({ items: [{ ...items('a')[0]!, fence: 2 }] })],
    })
    await until(() => running.size === 1)
    const earlier = running.get('a')!
    pump.wake()
    await until(() => running.get('a') !== earlier)
    expect((earlier.signal.reason as Interrupted).reason).toBe('leaseLost')
    const later = running.get('a')!
    expect(later.signal.aborted).toBe(false)
    earlier.end()
    later.end()
  })

  test('stopped during a renewal arms no other', async () => {
    let answer = (): void => {}
    const { pump, clock, running } = start({
      claims: [() => ({ items: items('a') })],
      renew: () => new Promise<readonly Renewal[]>((resolve) => (answer = () => resolve([]))) as never,
    })
    await until(() => running.size === 1)
    clock.advance(LEASE_MS / 3)
    running.get('a')!.end()
    await pump.stop(0)
    answer()
    await turns(3)
    expect(clock.armed).toBe(0)
  })
})
