/**
 * The frame of every client script: a JSON plan comes in on standard input, and one line of JSON,
 * the last of standard output, says what the client library itself reported.
 */
import { text } from 'node:stream/consumers'

/**
 * @typedef {object} Plan
 * @property {string} host Where the server is: `http://127.0.0.1:8080`.
 * @property {string} writeKey
 * @property {object} [options] Given to the client's constructor as they are.
 * @property {object[]} [calls] Calls in Segment's fields, `type` naming the method.
 */

/**
 * Run one client by the plan and print `{"delivered": count, "errors": [text, ...]}`.
 *
 * @param {(plan: Plan, report: {delivered: number, errors: string[]}) => Promise<void>} deliver
 */
export async function run(deliver) {
  const report = { delivered: 0, errors: [] }
  await deliver(JSON.parse(await text(process.stdin)), report)
  // A client that still waits, say to try again, may not outlive its report.
  process.stdout.write(`\n${JSON.stringify(report)}\n`, () => process.exit())
}

/**
 * A callback for the last argument of a call: it counts what arrived and keeps what did not.
 *
 * @param {{delivered: number, errors: string[]}} report
 * @returns {(error?: unknown) => void}
 */
export function counting(report) {
  return (error) => {
    if (error) report.errors.push(describe(error))
    else report.delivered += 1
  }
}

/** @param {unknown} error @returns {string} */
export function describe(error) {
  return error?.reason ? describe(error.reason) : String(error?.message ?? error)
}
