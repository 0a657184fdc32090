/** `ringback serve`: runs one node until a signal stops it. */
import { pathToFileURL } from 'node:url'
import { Command } from 'commander'
import { loadDevelopmentSecrets, parseConfig, withPort } from '../config/config.ts'
import type { Options } from '../config/settings.ts'
import { systemClock } from '../core/clock.ts'
import { openLog } from '../observe/log.ts'
import { openListener } from '../server/listener.ts'
import { loadTaskTypes } from './load-task-types.ts'
import { developmentKey, startupMessage } from './welcome.ts'

export function serveCommand(): Command {
  return new Command('serve')
    .description('serve the API, run tasks and deliver webhooks until SIGTERM or SIGINT')
    .option('--host <address>', 'the address to listen on')
    .option('--port <number>', 'the port to listen on; 0 takes any free one')
    .option('--database-url <url>', 'file:… or postgres://…')
    .option('--config-file <path>', 'the module with the task types')
    .action(serve)
}

/** Serves until SIGTERM or SIGINT, then drains once; a second signal ends the process at once. */
async function serve(options: Options): Promise<void> {
  const clock = systemClock()
  const given = loadDevelopmentSecrets(parseConfig({ env: process.env, options }), clock)
  const tasks = await loadTaskTypes(given.configFile)
  const { openRingback } = await import('../platform.ts')
  const stopSignal = waitForStopSignal()
  const listener = await openListener(given, clock)
  const { log, close } = openLog({ level: given.logLevel, clock })
  try {
    // A rejected promise that a handler left behind must not end the node and all its tasks.
    process.on('unhandledRejection', (error) => log.error({ err: error }, 'a promise was rejected and not handled'))
    const config = withPort(given, listener.port)
    const ringback = await openRingback({
      config,
      tasks,
      log,
      clock,
      taskTypesModule: pathToFileURL(config.configFile).href,
      isListening: true,
    })
    try {
      await ringback.start()
      listener.setHandler(ringback.app.fetch)
      log.info(
        {
          url: config.publicUrl,
          env: config.env,
          database: config.database.kind,
          taskTypes: tasks.length,
          host: config.host,
          port: config.port,
        },
        'listening',
      )
      // A closed reader must not end the server.
      process.stdout.on('error', () => {})
      if (config.env === 'development')
        process.stdout.write(startupMessage(config, await developmentKey(ringback.app.fetch, config, clock)))
      log.info({ signal: await stopSignal, graceMs: config.shutdownMs }, 'draining')
    } finally {
      listener.stopListening()
      await ringback.stop()
    }
    await listener.drained(clock)
    log.info('stopped')
  } finally {
    listener.closeNow()
    await close()
  }
}

/** Resolves with the first SIGTERM or SIGINT. The second exits with 128 + its number, as a shell reports it. */
function waitForStopSignal(): Promise<NodeJS.Signals> {
  return new Promise((resolve) => {
    let isStopping = false
    const signals = { SIGINT: 2, SIGTERM: 15 } as const
    for (const signal of ['SIGINT', 'SIGTERM'] as const)
      process.on(signal, () => {
        if (isStopping) process.exit(128 + signals[signal])
        isStopping = true
        resolve(signal)
      })
  })
}
