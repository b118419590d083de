/** @rudderstack/analytics-js/bundled: sourceConfig first, then one JSON request an event. */
import { RudderAnalytics } from '@rudderstack/analytics-js/bundled'

const METHODS = {
  identify: (client, { userId, traits }) => client.identify(userId, traits),
  track: (client, { event, properties }) => client.track(event, properties),
  page: (client, { category, name, properties }) => client.page(category, name, properties),
  group: (client, { groupId, traits }) => client.group(groupId, traits),
  alias: (client, { userId, previousId }) => client.alias(userId, previousId),
}

window.deliver = async ({ host, writeKey, options, calls }) => {
  const analytics = new RudderAnalytics()
  analytics.load(writeKey, host, { configUrl: host, logLevel: 'ERROR', ...options })
  await new Promise((resolve) => analytics.ready(resolve))
  for (const call of calls) METHODS[call.type](analytics, call)
  return { anonymousId: analytics.getAnonymousId() }
}
