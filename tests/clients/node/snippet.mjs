/**
 * Segment's classic snippet as a shop would paste it: rendered by Segment's own package for the host
 * given in the plan. The snippet insists on https; loopback has none, so the scheme is changed.
 */
import { createRequire } from 'node:module'
import { run } from './plan.mjs'

const snippet = createRequire(import.meta.url)('@segment/snippet')

await run(async ({ host, writeKey }, report) => {
  const script = snippet.max({
    apiKey: writeKey,
    host: new URL(host).host,
    useHostForBundles: true,
    page: false,
  })
  report.script = script.replaceAll('https://', 'http://')
})
