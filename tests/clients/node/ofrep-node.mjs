/** @openfeature/ofrep-provider under @openfeature/server-sdk: one request an evaluation. */
import { OpenFeature } from '@openfeature/server-sdk'
import { OFREPProvider } from '@openfeature/ofrep-provider'
import { run } from './plan.mjs'

const METHODS = {
  boolean: 'getBooleanDetails',
  string: 'getStringDetails',
  number: 'getNumberDetails',
  object: 'getObjectDetails',
}

await run(async ({ host, key, evaluations }, report) => {
  const headers = [['Authorization', `Bearer ${key}`]]
  await OpenFeature.setProviderAndWait(new OFREPProvider({ baseUrl: host, headers }))
  const client = OpenFeature.getClient()
  report.details = []
  for (const { type, flag, default: fallback, context } of evaluations) {
    report.details.push(await client[METHODS[type]](flag, fallback, context))
  }
})
