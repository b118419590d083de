/** @segment/analytics-node: all calls go out in batches to `/v1/batch`. */
import { Analytics } from '@segment/analytics-node'
import { counting, run } from './plan.mjs'

await run(async ({ host, writeKey, options, calls }, report) => {
  const analytics = new Analytics({ host, writeKey, flushInterval: 100, ...options })
  analytics.on('error', () => {}) // Told to each call's own callback as well.
  for (const { type, ...fields } of calls) analytics[type](fields, counting(report))
  await analytics.closeAndFlush({ timeout: 20_000 })
})
