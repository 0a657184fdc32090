/** The contract of the store: one suite that runs on each database. */
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest'
import { toSqlFile } from '../../support/statements.ts'
import { type Engine, type Ground, openGround } from '../../support/stores.ts'
import { access } from './access.ts'
import { callbacks } from './callbacks.ts'
import { claims } from './claims.ts'
import { endings } from './endings.ts'
import { endpoints } from './endpoints.ts'
import { intake } from './intake.ts'
import { leases } from './leases.ts'
import { lists } from './lists.ts'
import { quotas } from './quotas.ts'
import { schedules } from './schedules.ts'
import { verification } from './verification.ts'

/** The database of the tests that run. */
export type Current = () => Ground

export function storeContract(engine: Engine): void {
  describe(`a store on ${engine}`, () => {
    let ground: Ground
    const texts = new Set<string>()
    beforeAll(async () => {
      ground = await openGround(engine, { texts })
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
    // Runs last, after every test above.
    test(`the statements of the suite are those of test/store/sql/${engine}.sql`, async () => {
      await expect(toSqlFile(texts)).toMatchFileSnapshot(`./sql/${engine}.sql`)
    })
  })
}
