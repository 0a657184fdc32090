/**
 * The seed of property tests. It is the same in every run, so that a change fails only for its own faults. `RINGBACK_TEST_SEED=<number>` sets
 * another.
 */
import fc from 'fast-check'

fc.configureGlobal({ seed: Number(process.env.RINGBACK_TEST_SEED ?? 1) })

export { fc }
