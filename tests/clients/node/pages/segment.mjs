/** @segment/analytics-next from npm: settings from `cdnURL`, then one text/plain request an event. */
import { AnalyticsBrowser } from '@segment/analytics-next'

const METHODS = {
  identify: (client, { userId, traits }) => client.identify(userId, traits),
  track: (client, { event, properties }) => client.track(event, properties),
  page: (client, { category, name, properties }) => client.page(category, name, properties),
  screen: (client, { category, name, properties }) => client.screen(category, name, properties),
  group: (client, { groupId, traits }) => client.group(groupId, traits),
  alias: (client, { userId, previousId }) => client.alias(userId, previousId),
}

window.deliver = async ({ host, writeKey, options, calls }) => {
  const analytics = AnalyticsBrowser.load({ writeKey, cdnURL: host }, options)
  const failures = []
  analytics.on('delivery_failure', (_, error) => failures.push(String(error)))
  const contexts = []
  for (const call of calls) contexts.push(await METHODS[call.type](analytics, call))
  const user = await analytics.user()
  return {
    messageIds: contexts.map((context) => context.event.messageId),
    errors: failures,
    anonymousId: user.anonymousId(),
  }
}
