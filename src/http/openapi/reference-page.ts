/** The API reference page: Swagger UI over the document of this node. It serves its own files, so it works offline and loads nothing from other hosts. */
import { existsSync } from 'node:fs'
import { readFile } from 'node:fs/promises'
import { createRequire } from 'node:module'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { RingbackError } from '../../core/errors.ts'
import type { ApiReply } from '../request/problem.ts'
import { notFound } from '../request/replies.ts'
import { type Route, route } from '../request/route.ts'
import * as shapes from '../shapes/system.ts'

/** Its URLs are relative, so it works under any mount path. */
const PAGE = `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Ringback: API reference</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="docs/swagger-ui.css">
</head>
<body>
<div id="reference"></div>
<noscript>This page needs JavaScript. The document it shows is at <a href="openapi.json">openapi.json</a>.</noscript>
<script src="docs/swagger-ui-bundle.js"></script>
<script src="docs/start.js"></script>
</body>
</html>
`

const START = `SwaggerUIBundle({
  url: 'openapi.json',
  dom_id: '#reference',
  deepLinking: true,
  docExpansion: 'list',
  defaultModelsExpandDepth: 0,
  displayRequestDuration: true,
  validatorUrl: null,
})
`

const HTML = 'text/html; charset=utf-8'
const SCRIPT = 'text/javascript; charset=utf-8'
const STYLE = 'text/css; charset=utf-8'

/** The files of the page and their media types. No other file is read. */
const FILES: ReadonlyMap<string, string> = new Map([
  ['swagger-ui-bundle.js', SCRIPT],
  ['swagger-ui.css', STYLE],
])

/** Scripts, styles and requests of this server only, nothing inline, no frames. */
const POLICY = [
  "default-src 'none'",
  "script-src 'self'",
  "style-src 'self'",
  "img-src 'self' data:",
  "connect-src 'self'",
  "base-uri 'none'",
  "form-action 'none'",
  "frame-ancestors 'none'",
].join('; ')
const SECURITY_HEADERS = {
  'Content-Security-Policy': POLICY,
  'X-Content-Type-Options': 'nosniff',
  'Referrer-Policy': 'no-referrer',
} as const

export function referenceRoutes(): Route[] {
  const common = { tag: 'Operations', scope: 'public' } as const
  return [
    route.get('/docs', 'getReference', {
      ...common,
      summary: 'Get the API reference page',
      description: 'Swagger UI over `/openapi.json`. It loads nothing from other hosts, sets no cookies and keeps no key.',
      responses: {
        200: { description: 'The page.', schema: shapes.browserText, type: HTML, headers: ['Cache-Control', 'Content-Security-Policy'] },
      },
      handle: () => file(PAGE, HTML),
    }),
    route.get('/docs/{file}', 'getReferenceFile', {
      ...common,
      summary: 'Get a script or style of the API reference page',
      description: 'Answers 404 when the node runs from a clone without development dependencies. The package includes the files.',
      responses: {
        200: {
          description: 'The file.',
          schema: shapes.browserText,
          type: SCRIPT,
          alternative: { type: STYLE, schema: shapes.browserText },
          headers: ['Cache-Control', 'Content-Security-Policy'],
        },
      },
      async handle(call) {
        const name = call.param('file')
        if (name === 'start.js') return file(START, SCRIPT)
        const type = FILES.get(name)
        if (type === undefined) throw notFound('file of the reference')
        return file(await read(name), type)
      },
    }),
  ]
}

const file = (body: string, type: string): ApiReply => ({
  status: 200,
  headers: { 'Content-Type': type, 'Cache-Control': 'public, max-age=3600', ...SECURITY_HEADERS },
  body,
})

/** @throws RingbackError `not_found` */
async function read(name: string): Promise<string> {
  const folder = folderOfFiles()
  if (folder === null)
    throw new RingbackError('not_found', 'The API reference is not part of this installation; GET /openapi.json is the document it shows.')
  return readFile(join(folder, name), 'utf8')
}

/** In the package, the build puts the files next to this one. In a clone they are in `node_modules`. */
function folderOfFiles(): string | null {
  const beside = fileURLToPath(new URL('./reference/', import.meta.url))
  if (existsSync(beside)) return beside
  try {
    return dirname(createRequire(import.meta.url).resolve('swagger-ui-dist/package.json'))
  } catch {
    return null
  }
}
