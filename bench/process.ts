import { type ChildProcess, spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, openSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { type AddressInfo, createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { waitUntil } from './clock.ts'

/** Which core a process is bound to; null: none (no `taskset`, or one core). */
export interface Placement {
  /** The server under test, and the database or Redis it uses. */
  readonly server: number | null
  /** The load generator, the receiver and the runner. */
  readonly load: number | null
}

export function findPlacement(cores: number): Placement {
  const usable = cores >= 2 && spawnSync('taskset', ['--version']).status === 0
  return usable ? { server: 0, load: 1 } : { server: null, load: null }
}

/** Binds a running process (all its threads) to a core. */
export function pinProcess(pid: number, core: number | null): void {
  if (core !== null) spawnSync('taskset', ['-acp', String(core), String(pid)])
}

/** Binds a process and everything it started. */
export function pinFamily(pid: number, core: number | null): void {
  for (const member of familyOf(pid)) pinProcess(member, core)
}

function familyOf(pid: number): number[] {
  const childrenOf = new Map<number, number[]>()
  for (const entry of readdirSync('/proc').filter((name) => /^\d+$/.test(name))) {
    const parent = parentOf(Number(entry))
    if (parent !== null) childrenOf.set(parent, [...(childrenOf.get(parent) ?? []), Number(entry)])
  }
  const family = [pid]
  for (const member of family) family.push(...(childrenOf.get(member) ?? []))
  return family
}

function statFields(pid: number): string[] | null {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'latin1')
    return stat.slice(stat.lastIndexOf(')') + 2).split(' ')
  } catch {
    return null
  }
}

function parentOf(pid: number): number | null {
  const fields = statFields(pid)
  return fields === null ? null : Number(fields[1])
}

/** CPU time a process has used, in milliseconds; 0 where `/proc` is absent. */
export function cpuMs(pid: number): number {
  const fields = statFields(pid)
  // Fields 14 and 15 of proc(5), in ticks of 10 ms; two fields stand before the slice.
  return fields === null ? 0 : (Number(fields[11]) + Number(fields[12])) * 10
}

/** CPU time of a process and of everything it started, the ended ones included, in milliseconds. */
export function familyCpuMs(pid: number): number {
  // Fields 14 to 17 of proc(5): its own ticks, and those of children it has waited for.
  const ticks = familyOf(pid).map((member) => (statFields(member) ?? []).slice(11, 15).reduce((sum, field) => sum + Number(field), 0))
  return ticks.reduce((sum, of) => sum + of, 0) * 10
}

/** Busy milliseconds of a core since boot, whoever used it. */
export function coreBusyMs(core: number): number {
  try {
    const line = readFileSync('/proc/stat', 'latin1')
      .split('\n')
      .find((text) => text.startsWith(`cpu${core} `))!
    const [user, nice, system, , , irq, softirq, steal] = line.trim().split(/\s+/).slice(1).map(Number)
    return (user! + nice! + system! + irq! + softirq! + steal!) * 10
  } catch {
    return 0
  }
}

export function residentMiB(pid: number): number {
  try {
    return Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, 'latin1'))![1]) / 1024
  } catch {
    return 0
  }
}

export async function findFreePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo
  server.close()
  await once(server, 'close')
  return port
}

/** A folder for one contestant's data and log, gone when `remove` is called. */
export function makeFolder(): { readonly path: string; remove(): void } {
  const path = mkdtempSync(join(process.env.RINGBACK_BENCH_DIR ?? tmpdir(), 'ringback-bench-'))
  return { path, remove: () => rmSync(path, { recursive: true, force: true }) }
}

export interface Launched {
  readonly pid: number
  readonly child: ChildProcess
  /** The end of what it printed, for error messages. */
  logTail(): string
  stop(): Promise<void>
}

/** Starts a command on a core, its output going to `logFile`. */
export function launch(
  command: readonly string[],
  options: { core: number | null; env?: Readonly<Record<string, string>>; logFile: string; ipc?: boolean; cwd?: string },
): Launched {
  const line = options.core === null ? command : ['taskset', '-c', String(options.core), ...command]
  const log = openSync(options.logFile, 'a')
  const child = spawn(line[0]!, line.slice(1), {
    stdio: options.ipc === true ? ['ignore', log, log, 'ipc'] : ['ignore', log, log],
    env: { ...process.env, ...options.env },
    serialization: 'advanced',
    ...(options.cwd === undefined ? {} : { cwd: options.cwd }),
  })
  child.on('error', () => {})
  const logTail = (): string => readFileSync(options.logFile, 'utf8').slice(-2000)
  const stop = async (): Promise<void> => {
    if (child.exitCode !== null || child.signalCode !== null) return
    const gone = once(child, 'exit')
    child.kill('SIGTERM')
    const timer = setTimeout(() => child.kill('SIGKILL'), 10_000)
    await gone
    clearTimeout(timer)
  }
  return { pid: child.pid ?? 0, child, logTail, stop }
}

/** A process of ours that answers commands, one at a time. */
export interface Commanded extends Launched {
  ask<R>(command: unknown): Promise<R>
}

export function launchCommanded(file: string, core: number | null, logFile: string): Commanded {
  const launched = launch([process.execPath, file], { core, logFile, ipc: true })
  return { ...launched, ask: (command) => askChild(launched, command) }
}

/** Sends a command (undefined: only waits for the next message) and returns the answer. */
export async function askChild<R>(launched: Launched, command: unknown): Promise<R> {
  const { child } = launched
  const answer = Promise.withResolvers<{ ok?: R; error?: string }>()
  const onExit = (): void => answer.resolve({ error: `The process ended. ${launched.logTail()}` })
  child.once('message', (message) => answer.resolve(message as { ok?: R; error?: string }))
  child.once('exit', onExit)
  if (command !== undefined) child.send(command as object)
  const { ok, error } = await answer.promise
  child.off('exit', onExit)
  if (error !== undefined) throw new Error(error)
  return ok as R
}

/** Waits until `GET /readyz` on the port answers 200. */
export async function awaitReady(launched: Launched, port: number): Promise<void> {
  const asked = async (): Promise<boolean> => {
    if (launched.child.exitCode !== null) throw new Error(`The server ended with ${launched.child.exitCode}. ${launched.logTail()}`)
    return await fetch(`http://127.0.0.1:${port}/readyz`).then(
      async (answer) => {
        await answer.arrayBuffer()
        return answer.status === 200
      },
      () => false,
    )
  }
  await waitUntil('The server is ready', asked, 50, 20_000).catch((error) => {
    throw new Error(`${error instanceof Error ? error.message : error} ${launched.logTail()}`)
  })
}
