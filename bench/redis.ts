import { spawnSync } from 'node:child_process'
import { connect } from 'node:net'
import { waitUntil } from './clock.ts'
import { findFreePort, type Launched, launch, makeFolder } from './process.ts'

export interface RedisServer {
  readonly port: number
  readonly pid: number
  stop(): Promise<void>
}

/** The version of the `redis-server` on the path, or null. */
export function findRedis(): string | null {
  const found = spawnSync('redis-server', ['--version'], { encoding: 'utf8' })
  return found.status === 0 ? (/v=(\S+)/.exec(found.stdout)?.[1] ?? 'unknown') : null
}

/** An empty Redis with `appendonly yes`, `appendfsync everysec` and no snapshots. */
export async function startRedis(core: number | null): Promise<RedisServer> {
  const folder = makeFolder()
  const port = await findFreePort()
  const settings = ['--bind', '127.0.0.1', '--dir', folder.path, '--appendonly', 'yes', '--appendfsync', 'everysec', '--save', '']
  const server = launch(['redis-server', '--port', String(port), ...settings], { core, logFile: `${folder.path}/redis.log` })
  await waitUntil('Redis is ready', () => answers(server, port), 20, 10_000)
  return {
    port,
    pid: server.pid,
    async stop() {
      await server.stop()
      folder.remove()
    },
  }
}

async function answers(server: Launched, port: number): Promise<boolean> {
  if (server.child.exitCode !== null) throw new Error(`redis-server ended. ${server.logTail()}`)
  return await new Promise((resolve) => {
    const socket = connect(port, '127.0.0.1', () => socket.write('PING\r\n'))
    const finish = (yes: boolean): void => {
      socket.destroy()
      resolve(yes)
    }
    socket.once('data', (answer) => finish(answer.toString('latin1').startsWith('+PONG')))
    socket.once('error', () => finish(false))
  })
}
