/** When two callback URLs are one, and when one lies under another. */

import { describe, expect, test } from 'vitest'
import { canonicalUrl, isUnder } from '../../src/core/callback-url.ts'
import { fc } from '../support/chance.ts'

describe('two callback URLs are equal', () => {
  test.each([
    'https://app.example.net/hooks?a=1',
    'HTTPS://APP.example.net/hooks?a=1',
    'https://app.example.net:443/hooks?a=1',
    'https://app.example.net./hooks?a=1',
    'https://app.example.net/x/../hooks?a=1',
    'https://app.example.net/%2e/hooks?a=1',
    'https://app.example.net/%68ooks?a=%31',
  ])('when only the spelling differs: %s', (url) => {
    expect(canonicalUrl(url)).toBe('https://app.example.net/hooks?a=1')
  })

  test.each([
    ['https://app.example.net/hooks', 'https://app.example.net/Hooks'],
    ['https://app.example.net/hooks', 'https://app.example.net/hooks/'],
    ['https://app.example.net/hooks', 'https://app.example.net/hooks?a=1'],
    ['https://app.example.net/hooks', 'http://app.example.net/hooks'],
    ['https://app.example.net/hooks', 'https://app.example.net:8443/hooks'],
    ['https://app.example.net/a/b', 'https://app.example.net/a%2fb'],
  ])('but not when a receiver may distinguish them: %s, %s', (one, other) => {
    expect(canonicalUrl(one)).not.toBe(canonicalUrl(other))
  })

  test('and a canonical URL is its own canonical URL', () => {
    fc.assert(
      fc.property(fc.webUrl({ withQueryParameters: true }), (url) => {
        expect(canonicalUrl(canonicalUrl(url))).toBe(canonicalUrl(url))
      }),
    )
  })
})

describe('a callback URL lies under an endpoint', () => {
  const base = 'https://app.example.net/hooks'
  test.each(['', '/', '?t=1', '/7', '/7/8?t=1', '/a;v=1', '/.well-known', '/%252e'])(
    'where it continues its path by whole segments: %j',
    (more) => {
      expect(isUnder(base + more, base)).toBe(true)
      expect(isUnder(base + more, `${base}/`)).toBe(more.startsWith('/'))
    },
  )

  test.each([
    'https://app.example.net/hooksx',
    'https://app.example.net/',
    'https://app.example.net/HOOKS/7',
    'https://app.example.net/hooks/../admin',
    'https://app.example.net/hooks/%2e%2e/admin',
    'https://app.example.net/hooks/..%2fadmin',
    'https://app.example.net/hooks/..%5cadmin',
    'https://app.example.net/hooks/..;/admin',
    'https://app.example.net/hooks/..;v=1/admin',
    'https://app.example.net/hooks/.%2E;/admin',
    'https://app.example.net:8443/hooks',
    'http://app.example.net/hooks',
    'https://app.example.net.evil.example/hooks',
    'https://evil.example/https://app.example.net/hooks',
    'no URL',
  ])('but not when a receiver may resolve it elsewhere: %s', (url) => {
    expect(isUnder(url, base)).toBe(false)
  })
})
