import { configDefaults, defineConfig } from 'vitest/config'

/** `vitest run` is everything that is quick; `vitest run --mode long` is test/long. */
export default defineConfig(({ mode }) => {
  const long = mode === 'long'
  return {
    test: {
      include: [long ? 'test/long/*.test.ts' : 'test/**/*.test.ts'],
      exclude: [...configDefaults.exclude, ...(long ? [] : ['test/long/**'])],
      globalSetup: 'test/support/postgres.ts',
      passWithNoTests: long,
      testTimeout: long ? 300_000 : 20_000,
      hookTimeout: long ? 300_000 : 20_000,
    },
  }
})
