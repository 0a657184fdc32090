/** Receivers that hang: connections are accepted, requests are read, nothing is ever answered. */
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { serveCommands } from './protocol.ts'

const server = createServer((request) => request.resume())
server.listen(0, '127.0.0.1', 4096, () => {
  serveCommands(() => true)
  process.send?.({ ok: (server.address() as AddressInfo).port })
})
