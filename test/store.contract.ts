/** What every store promises: one suite, run on each database. */
import { afterAll, afterEach, beforeAll, describe } from 'vitest'
import { access } from './contract/access.ts'
import { callbacks } from './contract/callbacks.ts'
import { claims } from './contract/claims.ts'
import { endings } from './contract/endings.ts'
import { endpoints } from './contract/endpoints.ts'
import { intake } from './contract/intake.ts'
import { leases } from './contract/leases.ts'
import { lists } from './contract/lists.ts'
import { quotas } from './contract/quotas.ts'
import { schedules } from './contract/schedules.ts'
import { verification } from './contract/verification.ts'
import { type Engine, type Ground, openGround } from './support/stores.ts'

/** The database of the tests that run. */
export type Current = () => Ground

export function storeContract(engine: Engine): void {
  describe(`a store on ${engine}`, () => {
    let ground: Ground
    beforeAll(async () => {
      ground = await openGround(engine)
    })
    afterEach(() => ground.clear())
    afterAll(() => ground.close())
    const current: Current = () => ground
    describe('access', () => access(current))
    describe('claims and settlements', () => claims(current))
    describe('endings', () => endings(current))
    describe('callbacks', () => callbacks(current))
    describe('intake', () => intake(current))
    describe('leases', () => leases(current))
    describe('endpoints', () => endpoints(current))
    describe('verification', () => verification(current))
    describe('schedules', () => schedules(current))
    describe('lists and feeds', () => lists(current))
    describe('quotas', () => quotas(current))
  })
}
