/** `ringback serve`: one node, from its settings to the end of its drain. */
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
    .description('serve the API, run tasks and deliver webhooks until told to stop')
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
  // Loaded here, so that --help and --version need nothing native.
  const { openRingback } = await import('../platform.ts')
  const told = untilToldToStop()
  const door = await openListener(given, clock)
  const { log, close } = openLog({ level: given.logLevel, clock })
  try {
    // A promise that a handler left behind must not end the node, and with it everybody's tasks.
    process.on('unhandledRejection', (error) => log.error({ err: error }, 'a promise was rejected, and nobody awaited it'))
    const config = withPort(given, door.port)
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
      door.setHandler(ringback.app.fetch)
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
      // A reader that went away costs the lines, never the server.
      process.stdout.on('error', () => {})
      if (config.env === 'development')
        process.stdout.write(startupMessage(config, await developmentKey(ringback.app.fetch, config, clock)))
      log.info({ signal: await told, graceMs: config.shutdownMs }, 'draining')
    } finally {
      door.stopListening()
      await ringback.stop()
    }
    await door.drained(clock)
    log.info('stopped')
  } finally {
    door.closeNow()
    await close()
  }
}

/** Resolves with the first SIGTERM or SIGINT. The second ends the process with 128 and the signal's number, as a shell would say it. */
function untilToldToStop(): Promise<NodeJS.Signals> {
  return new Promise((resolve) => {
    let told = false
    const signals = { SIGINT: 2, SIGTERM: 15 } as const
    for (const signal of ['SIGINT', 'SIGTERM'] as const)
      process.on(signal, () => {
        if (told) process.exit(128 + signals[signal])
        told = true
        resolve(signal)
      })
  })
}
