/** Hanging receivers: they accept connections and read requests, but never respond. */
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { serveCommands } from './protocol.ts'

const server = createServer((request) => request.resume())
server.listen(0, '127.0.0.1', 4096, () => {
  serveCommands(() => true)
  process.send?.({ ok: (server.address() as AddressInfo).port })
})
