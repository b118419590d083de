/** @rudderstack/rudder-sdk-node: gzip under a form content type, the first event in a batch of its own. */
import RudderAnalytics from '@rudderstack/rudder-sdk-node'
import { counting, describe, run } from './plan.mjs'

await run(async ({ host, writeKey, options, calls }, report) => {
  const client = new RudderAnalytics(writeKey, { dataPlaneUrl: host, logLevel: 'error', ...options })
  for (const { type, ...fields } of calls) client[type](fields, counting(report))
  await client.flush().catch((error) => report.errors.push(describe(error)))
  await new Promise(setImmediate) // The callbacks of a flush run one turn of the loop after it.
})
