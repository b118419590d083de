/** Bundles every page script of `pages/` into the folder named by the plan, one file a client. */
import { readdirSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { build } from 'esbuild'
import { run } from './plan.mjs'

const pages = fileURLToPath(new URL('pages/', import.meta.url))

await run(async ({ folder }, report) => {
  report.pages = readdirSync(pages).filter((name) => name.endsWith('.mjs'))
  await build({
    entryPoints: report.pages.map((name) => pages + name),
    outdir: folder,
    bundle: true,
    format: 'iife',
    platform: 'browser',
    define: { 'process.env.NODE_ENV': '"production"' },
    logLevel: 'error',
  })
})
