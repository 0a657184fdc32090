/** Who may hold how many of a node's slots. Pure. */
import { describe, expect, test } from 'vitest'
import { fairAllowance, SlotShares } from '../../src/core/fair-share.ts'
import { fc } from '../support/chance.ts'

/** A node, and who holds what of it. */
function node(total: number) {
  const slots = new SlotShares()
  const held: { clientId: string; laneId: string }[] = []
  const free = () => total - held.length
  return {
    slots,
    held,
    free,
    of: (id: string) => held.filter(({ clientId, laneId }) => clientId === id || laneId === id).length,
    take(clientId: string, laneId: string, n: number): number {
      const got = slots.allot(free()).take(clientId, laneId, n)
      for (let i = 0; i < got; i++) {
        slots.acquire({ clientId, laneId })
        held.push({ clientId, laneId })
      }
      return got
    },
    give(which: number): void {
      if (held.length > 0) slots.release(held.splice(which % held.length, 1)[0]!)
    },
  }
}

describe('of 1,024 slots', () => {
  test.each([
    { clients: 1, endpoints: 400, each: 768 },
    { clients: 2, endpoints: 400, each: 438 },
    { clients: 3, endpoints: 400, each: 307 },
    { clients: 1, endpoints: 1, each: 576 },
  ])('$clients busy clients with $endpoints endpoints each hold about $each each', ({ clients, endpoints, each }) => {
    const one = node(1_024)
    for (let got = 1; got > 0; ) {
      got = 0
      for (let e = 0; e < endpoints; e++) for (let c = 0; c < clients; c++) got += one.take(`client_${c}`, `endpoint_${c}_${e}`, 1)
    }
    for (let c = 0; c < clients; c++) expect(Math.abs(one.of(`client_${c}`) - each), `${one.of(`client_${c}`)}`).toBeLessThanOrEqual(2)
    expect(one.take('client_new', 'endpoint_new', 1)).toBe(1)
  })
})

test('a client without a slot gets one while any is free, even the last one', () => {
  expect(fairAllowance(0, 1)).toBe(1)
  expect(fairAllowance(0, 0)).toBe(0)
  const one = node(1)
  expect(one.take('client_a', 'endpoint_a', 5)).toBe(1)
  expect(one.take('client_b', 'endpoint_b', 5)).toBe(0)
})

const acts = fc.array(
  fc.oneof(
    { weight: 3, arbitrary: fc.record({ client: fc.nat({ max: 3 }), lane: fc.nat({ max: 3 }), n: fc.integer({ min: 1, max: 40 }) }) },
    { weight: 2, arbitrary: fc.record({ ends: fc.nat({ max: 100 }) }) },
  ),
  { maxLength: 80 },
)
const lanes = Array.from({ length: 4 }, (_, c) =>
  Array.from({ length: 4 }, (_, l) => ({ clientId: `c${c}`, laneId: `c${c}/l${l}` })),
).flat()

test('for any sequence, a client that gets another slot holds at most three times the free ones; only refused clients would get none', () => {
  fc.assert(
    fc.property(fc.integer({ min: 1, max: 64 }), acts, (total, all) => {
      const one = node(total)
      for (const act of all) {
        if ('ends' in act) one.give(act.ends)
        else {
          const [client, lane] = [`c${act.client}`, `c${act.client}/l${act.lane}`]
          const own = fairAllowance(one.of(client), one.free())
          const got = one.take(client, lane, act.n)
          if (got > 0) {
            expect(one.free()).toBeGreaterThanOrEqual(0)
            if (one.of(client) > 1) expect(one.of(client)).toBeLessThanOrEqual(3 * one.free())
            if (one.of(lane) > 1) expect(one.of(lane)).toBeLessThanOrEqual(3 * (own - got))
          }
          if (got < act.n) expect(one.take(client, lane, 1), 'it had all it may have').toBe(0)
        }
        const allotment = one.slots.allot(one.free())
        for (const { clientId, laneId } of lanes) {
          const refused = allotment.refused.some((it) => it.clientId === clientId && (it.laneId === null || it.laneId === laneId))
          const gets = one.slots.allot(one.free()).take(clientId, laneId, 1) > 0
          // When nothing is free nobody is asked.
          if (one.free() > 0 && one.of(laneId) > 0) expect(refused).toBe(!gets)
          expect(one.slots.canServeAny([{ clientId, laneId }], one.free())).toBe(gets)
        }
      }
    }),
  )
})

test('an allotment gives the same slots at once and one by one, and counts them', () => {
  fc.assert(
    fc.property(fc.integer({ min: 1, max: 64 }), acts, fc.integer({ min: 1, max: 64 }), (total, all, n) => {
      const one = node(total)
      for (const act of all) {
        if ('ends' in act) one.give(act.ends)
        else one.take(`c${act.client}`, `c${act.client}/l${act.lane}`, act.n)
      }
      const allotment = one.slots.allot(one.free())
      let gotByOne = 0
      for (let i = 0; i < n; i++) gotByOne += allotment.take('c0', 'c0/l0', 1)
      expect(gotByOne).toBe(one.slots.allot(one.free()).take('c0', 'c0/l0', n))
      const given = allotment.take('c1', 'c1/l1', n)
      one.take('c0', 'c0/l0', gotByOne)
      expect(one.take('c1', 'c1/l1', n)).toBe(given)
    }),
  )
})
