import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { configDefaults, defineConfig } from 'vitest/config'

/** `vitest run` runs everything that is quick; `vitest run --mode long` runs test/long. */
export default defineConfig(({ mode }) => {
  const long = mode === 'long'
  return {
    test: {
      include: [long ? 'test/long/*.test.ts' : 'test/**/*.test.ts'],
      exclude: [...configDefaults.exclude, ...(long ? [] : ['test/long/**'])],
      globalSetup: 'test/support/postgres.ts',
      passWithNoTests: long,
      // Files wait for sockets, processes and clocks more than they compute: more of them at once than there are cores.
      ...(long ? {} : { maxWorkers: 4 }),
      // Failures in full and a summary, nothing about what passed; a simulation that is repeated by SEED prints its trace.
      reporters: long ? ['default'] : ['minimal'],
      silent: process.env.SEED ? false : 'passed-only',
      // Servers and commands that tests start compile `src` once, not once each.
      env: { NODE_COMPILE_CACHE: join(tmpdir(), 'ringback-tests-compile-cache') },
      fsModuleCache: true,
      // Bounds for what hangs, not for what is slow on a busy machine.
      testTimeout: long ? 300_000 : 120_000,
      hookTimeout: long ? 300_000 : 120_000,
      expect: { poll: { timeout: 30_000 } },
    },
  }
})
