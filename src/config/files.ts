/** Files that are created once or replaced at once, and never seen half written. */
import { closeSync, fsyncSync, linkSync, mkdirSync, openSync, readFileSync, renameSync, rmSync, writeSync } from 'node:fs'
import { dirname } from 'node:path'
import type { Clock } from '../core/clock.ts'

/** The content of the file at `path`. A missing file is created with `make()` and flushed to disk first; an existing one is never replaced. */
export function createFileOnce(path: string, make: () => string, clock: Pick<Clock, 'bytes'>): string {
  const present = readFileIfExists(path)
  if (present !== null) return present
  const draft = draftOf(path, clock)
  try {
    writeAndFlush(draft, make())
    linkOnce(draft, path)
  } finally {
    rmSync(draft, { force: true })
  }
  flushFolder(dirname(path))
  return readFileSync(path, 'utf8')
}

/** Replaces the content of the file at `path`. A reader sees all of the old content or all of the new. */
export function replaceFileAtomically(path: string, text: string, clock: Pick<Clock, 'bytes'>): void {
  const draft = draftOf(path, clock)
  try {
    writeAndFlush(draft, text)
    renameSync(draft, path)
  } finally {
    rmSync(draft, { force: true })
  }
}

function draftOf(path: string, clock: Pick<Clock, 'bytes'>): string {
  mkdirSync(dirname(path), { recursive: true })
  return `${path}.${Buffer.from(clock.bytes(6)).toString('hex')}`
}

/** Renames `draft` to `path` unless that file exists. `rename` alone would replace a key that another process already uses. */
function linkOnce(draft: string, path: string): void {
  try {
    linkSync(draft, path)
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException
    if (code === 'EEXIST') return
    // This file system has no hard links.
    if (code !== 'EPERM' && code !== 'ENOTSUP' && code !== 'ENOSYS') throw error
    renameSync(draft, path)
  }
}

export function readFileIfExists(path: string): string | null {
  try {
    return readFileSync(path, 'utf8')
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return null
    throw error
  }
}

function writeAndFlush(path: string, text: string): void {
  const file = openSync(path, 'wx', 0o600)
  try {
    writeSync(file, `${text}\n`)
    fsyncSync(file)
  } finally {
    closeSync(file)
  }
}

function flushFolder(folder: string): void {
  const file = openSync(folder, 'r')
  try {
    fsyncSync(file)
  } finally {
    closeSync(file)
  }
}
