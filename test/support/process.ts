/** Child processes of a test that print lines of JSON. */
import { type ChildProcess, spawn } from 'node:child_process'
import { createInterface } from 'node:readline'
import { onTestFinished } from 'vitest'

export interface Started {
  readonly child: ChildProcess
  /** The next line it prints; rejects when the process ends first. */
  line(): Promise<unknown>
  /** Resolves when it has ended. */
  readonly ended: Promise<number | null>
}

/** Runs a module of the tests in a process of its own, by way of `wrapper` when given; killed when the test is over. */
export function startProcess(module: URL, args: readonly string[], wrapper: readonly string[] = []): Started {
  const [file, ...rest] = [...wrapper, process.execPath, module.pathname, ...args] as [string, ...string[]]
  const child = spawn(file, rest, { stdio: ['pipe', 'pipe', 'inherit'] })
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]()
  const ended = new Promise<number | null>((resolve) => {
    child.once('exit', (code) => resolve(code))
  })
  onTestFinished(async () => {
    child.kill('SIGKILL')
    await ended
  })
  return {
    child,
    ended,
    async line() {
      const { value, done } = await lines.next()
      if (done) throw new Error(`${module.pathname} ended without output`)
      return JSON.parse(value)
    },
  }
}
