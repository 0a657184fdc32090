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

// A clone has the sources, and its dist may be stale; a package has dist alone.
var source = path.join(__dirname, '..', 'src', 'cli', 'main.ts')
var main = fs.existsSync(source) ? source : path.join(__dirname, '..', 'dist', 'cli', 'main.js')

require(main)
  .run(process.argv.slice(2))
  .then(
    (code) => {
      process.exit(code)
    },
    (error) => {
      console.error(error)
      process.exit(1)
    },
  )
