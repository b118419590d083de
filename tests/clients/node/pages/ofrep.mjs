/** @openfeature/ofrep-web-provider: all flags in one request, kept, and asked again by ETag. */
import { OpenFeature } from '@openfeature/web-sdk'
import { OFREPWebProvider } from '@openfeature/ofrep-web-provider'

const METHODS = {
  boolean: 'getBooleanDetails',
  string: 'getStringDetails',
  number: 'getNumberDetails',
  object: 'getObjectDetails',
}

/** Evaluates the plan's flags; `rounds` contexts are set one after the other, each a request. */
window.deliver = async ({ host, key, options, rounds, evaluations }) => {
  const provider = new OFREPWebProvider({
    baseUrl: host,
    headers: [['X-API-Key', key]],
    cacheMode: 'disabled',
    changeDetection: 'none',
    ...options,
  })
  await OpenFeature.setContext(rounds[0])
  await OpenFeature.setProviderAndWait(provider)
  const client = OpenFeature.getClient()
  const details = () =>
    evaluations.map(({ type, flag, default: fallback }) => client[METHODS[type]](flag, fallback))
  const answers = [details()]
  for (const context of rounds.slice(1)) {
    await OpenFeature.setContext(context)
    answers.push(details())
  }
  return { answers }
}
