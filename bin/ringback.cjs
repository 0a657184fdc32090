#!/usr/bin/env node
'use strict'
// Old syntax on purpose: whatever Node runs this must get as far as the sentence, before anything native or modern is loaded.
var fs = require('node:fs')
var path = require('node:path')

var found = process.versions.node
var parts = found.split('.')
var major = Number(parts[0])
var minor = Number(parts[1])

if (major < 22 || (major === 22 && minor < 19)) {
  console.error(
    `Ringback needs Node.js 22.19 or newer, and this is Node.js ${found}: install a newer one from https://nodejs.org and run it again.`,
  )
  process.exit(1)
}

// V8 lets the space for what is young grow to 192 MiB in a server that makes much and keeps little. Half of that saves 40 MiB, and costs
// collecting it some 2 % of a core under the heaviest intake. The flag is heard at the start of a process alone, so this one becomes another: same pid, same streams. Whoever sets a size
// of their own keeps it, and so does a process whose parent talks to it by a channel, which would not live through that.
var LEAN = '--max-semi-space-size=32'
var given = process.execArgv.concat(process.env.NODE_OPTIONS || '').join(' ')
if (
  process.argv[2] === 'serve' &&
  process.execve &&
  process.platform !== 'win32' &&
  !process.channel &&
  !/semi.space|max.heap/.test(given)
) {
  process.execve(process.execPath, [process.execPath, LEAN].concat(process.execArgv, process.argv.slice(1)), process.env)
}

// What Node compiles of all these modules is kept beside them for the next start, which takes a third less: as safe as the modules, where the
// directory for everybody's temporary files is not. Where nothing may be written there, every start is a first one.
require('node:module').enableCompileCache(path.join(__dirname, '..', 'node_modules', '.cache', 'ringback'))

// A clone has the sources, and its dist may be stale; a package has dist alone.
var source = path.join(__dirname, '..', 'src', 'cli', 'main.ts')
var main = fs.existsSync(source) ? source : path.join(__dirname, '..', 'dist', 'cli', 'main.js')

require(main)
  .runCli(process.argv.slice(2))
  .then(
    (code) => {
      process.exit(code)
    },
    (error) => {
      console.error(error)
      process.exit(1)
    },
  )
