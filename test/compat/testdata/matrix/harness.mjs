// Runs cases and says how each went.
import assert from 'node:assert/strict'
import http from 'node:http'
import { Sandbox } from 'e2b'

import { declares } from './reflect.mjs'

const CASE_LIMIT_MS = 60_000

export const print = (line) => process.stdout.write(JSON.stringify(line) + '\n')

// until asks again until the answer is yes.
export async function until(what, ask) {
  const deadline = Date.now() + 20_000
  while (!(await ask())) {
    if (Date.now() > deadline) throw new Error(`it did not come to this: ${what}`)
    await new Promise((resolve) => setTimeout(resolve, 20))
  }
}

// fails returns the error that a call must end with.
export async function fails(kind, promise, message = '') {
  let error
  await assert.rejects(promise, (e) => ((error = e), true))
  assert.ok(error instanceof kind, `${error?.constructor?.name} instead of ${kind.name}: ${error?.message}`)
  assert.ok(error.message.includes(message), `the message lacks ${JSON.stringify(message)}: ${error.message}`)
  return error
}

// request makes a request to a host name that only the server knows: the
// connection goes where the URL points.
export function request(url, { host, method = 'GET', headers = {}, body } = {}) {
  return new Promise((resolve, reject) => {
    const req = http.request(url, { method, headers: { ...headers, host } }, (resp) => {
      const chunks = []
      resp.on('data', (chunk) => chunks.push(chunk))
      resp.on('end', () => resolve({ status: resp.statusCode, body: Buffer.concat(chunks).toString() }))
    })
    req.on('error', reject)
    req.end(body)
  })
}

// Run is one run of the cases, on a sandbox of its own. A case is an array: the
// method, what of it is examined, how, and what of the package it needs that not
// every version has: a name, or a question.
export class Run {
  constructor(sbx, methods) {
    this.sbx = sbx
    this.methods = methods
    this.count = 0
    this.others = []
    this.snapshots = []
  }

  async all(cases) {
    for (const [method, examined, examine, needs] of cases) {
      const line = { method, case: examined, result: 'pass' }
      if (!this.methods.has(method) || (needs && !(typeof needs === 'function' ? needs() : declares(needs)))) {
        print({ ...line, result: 'absent' })
        continue
      }
      this.dir = `/home/user/case-${++this.count}`
      let timer
      const limit = new Promise((_, reject) => {
        timer = setTimeout(() => reject(new Error('the case took too long')), CASE_LIMIT_MS)
      })
      try {
        await Promise.race([examine(this), limit])
      } catch (e) {
        Object.assign(line, { result: 'fail', detail: String(e?.stack ?? e) })
      }
      clearTimeout(timer)
      await Promise.all(this.others.splice(0).map((other) => other.kill().catch(() => {})))
      await Promise.all(this.snapshots.splice(0).map((id) => Sandbox.deleteSnapshot(id).catch(() => {})))
      print(line)
    }
  }

  // path names a file of the case's own, in a directory that need not exist.
  path(name = '') {
    return name ? `${this.dir}/${name}` : this.dir
  }

  // create creates one more sandbox, for as long as the case takes.
  async create(opts = {}) {
    const other = await Sandbox.create({ timeoutMs: 120_000, ...opts })
    this.others.push(other)
    return other
  }

  // sh runs a command and returns what it writes.
  async sh(command, opts) {
    return (await this.sbx.commands.run(command, opts)).stdout
  }
}
