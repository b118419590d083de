/** @jitsu/js from a back end: one request an event, to `/api/s/s2s/{type}`. */
import { jitsuAnalytics } from '@jitsu/js'
import { describe, run } from './plan.mjs'

const METHODS = {
  identify: (jitsu, { userId, traits }) => jitsu.identify(userId, traits),
  track: (jitsu, { event, properties }) => jitsu.track(event, properties),
  page: (jitsu, { name, properties }) => jitsu.page(name, properties),
  group: (jitsu, { groupId, traits }) => jitsu.group(groupId, traits),
}

await run(async ({ host, writeKey, options, calls }, report) => {
  const errorPolicy = (message) => report.errors.push(describe(message))
  const jitsu = jitsuAnalytics({ host, writeKey, s2s: true, fetch, errorPolicy, ...options })
  for (const call of calls) {
    const errors = report.errors.length
    await METHODS[call.type](jitsu, call)
    if (report.errors.length === errors) report.delivered += 1
  }
})
