/** @jitsu/js in a browser: one JSON request an event, to `/api/s/{type}`. */
import { jitsuAnalytics } from '@jitsu/js'

const METHODS = {
  identify: (jitsu, { userId, traits }) => jitsu.identify(userId, traits),
  track: (jitsu, { event, properties }) => jitsu.track(event, properties),
  page: (jitsu, { name, properties }) => jitsu.page(name, properties),
  group: (jitsu, { groupId, traits }) => jitsu.group(groupId, traits),
}

window.deliver = async ({ host, writeKey, options, calls }) => {
  const errors = []
  const errorPolicy = (message) => errors.push(String(message))
  const jitsu = jitsuAnalytics({ host, writeKey, errorPolicy, ...options })
  for (const call of calls) await METHODS[call.type](jitsu, call)
  return { errors }
}
