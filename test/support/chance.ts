/**
 * The chance of properties: the same in every run, so that nobody's change is refused for what it has not done. `RINGBACK_TEST_SEED=<number>` draws
 * others.
 */
import fc from 'fast-check'

fc.configureGlobal({ seed: Number(process.env.RINGBACK_TEST_SEED ?? 1) })

export { fc }
