import { closeSync, fsyncSync, openSync, readFileSync, statfsSync, writeSync } from 'node:fs'
import { cpus, loadavg, release, totalmem, type } from 'node:os'
import { monotonicMs } from './clock.ts'
import { makeFolder, type Placement } from './process.ts'
import { percentile, round } from './statistics.ts'

export interface Machine {
  readonly system: string
  readonly cpu: string
  readonly cores: number
  readonly memoryGiB: number
  /** Of the folder the stores live in. */
  readonly fileSystem: string
  /** Median of 200 appends of 4 KiB, each with fsync. */
  readonly fsyncMs: number
  /** One-minute load average before the run: work of others makes every figure smaller. */
  readonly loadBefore: number
  readonly placement: string
}

export function describeMachine(placement: Placement): Machine {
  const folder = makeFolder()
  try {
    return {
      system: `${type()} ${release()}`,
      cpu: cpus()[0]?.model.trim() ?? 'unknown',
      cores: cpus().length,
      memoryGiB: Math.round(totalmem() / 2 ** 30),
      fileSystem: nameFileSystem(folder.path),
      fsyncMs: measureFsync(`${folder.path}/fsync`),
      loadBefore: round(loadavg()[0] ?? 0, 2),
      placement:
        placement.server === null
          ? 'not pinned (no taskset, or one core)'
          : `server under test and its PostgreSQL or Redis on core ${placement.server}; load generator, receiver and runner on core ${placement.load}`,
    }
  } finally {
    folder.remove()
  }
}

/** From the magic numbers of statfs(2). On tmpfs nothing is durable and every fsync is free. */
function nameFileSystem(path: string): string {
  const known: Record<number, string> = {
    61267: 'ext4',
    16914836: 'tmpfs',
    1481003842: 'xfs',
    2435016766: 'btrfs',
    2035054128: 'overlayfs',
  }
  const { type: magic } = statfsSync(path)
  return known[magic] ?? `0x${magic.toString(16)}`
}

function measureFsync(path: string): number {
  const file = openSync(path, 'w')
  const page = Buffer.alloc(4096)
  const times = Array.from({ length: 200 }, () => {
    const startedAt = monotonicMs()
    writeSync(file, page)
    fsyncSync(file)
    return monotonicMs() - startedAt
  })
  closeSync(file)
  return round(percentile(times, 0.5))
}

/** Version of a package as installed in a folder's node_modules, or null. */
export function readVersion(folder: URL, name: string): string | null {
  try {
    return (JSON.parse(readFileSync(new URL(`node_modules/${name}/package.json`, folder), 'utf8')) as { version: string }).version
  } catch {
    return null
  }
}
