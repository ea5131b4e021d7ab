// What pausing, resuming and forking keep, and what a paused sandbox answers.
import assert from 'node:assert/strict'
import { Sandbox, SandboxError, SandboxNotFoundError } from 'e2b'

import { fails, request, until } from './harness.mjs'

export const UNKNOWN = 'iaaaaaaaaaaaaaaaaaaaa'
const left = (info) => (info.endAt - Date.now()) / 1000

// A process that counts in its memory how often it was asked.
const COUNTER = `
import os
count = 0
os.mkfifo("ask"), os.mkfifo("answer")
open("ready", "w").close()
while True:
    open("ask").read()
    count += 1
    with open("answer", "w") as f:
        f.write(f"{os.getpid()} {count}")
`

export const sh = async (sbx, command, opts) => (await sbx.commands.run(command, opts)).stdout
export const boot = (sbx) => sh(sbx, 'cat /proc/sys/kernel/random/boot_id')
const state = async (sbx) => (await sbx.getInfo()).state
const comesToPause = (sbx) => until('the sandbox is paused', async () => (await state(sbx)) === 'paused')

export async function asked(sbx) {
  const answer = await sh(sbx, 'echo > ask && cat answer', { timeoutMs: 20_000 })
  return answer.split(' ').map(Number)
}

// counting starts the counter and returns its process.
export async function counting(sbx) {
  await sbx.files.write('counter.py', COUNTER)
  await sh(sbx, '(setsid python3 counter.py >/dev/null 2>&1 </dev/null &) ; until [ -e ready ]; do sleep 0.02; done')
  const [pid, count] = await asked(sbx)
  assert.equal(count, 1)
  return pid
}

// kept pauses and resumes, and looks whether everything is as it was.
async function kept(t, pause) {
  const sbx = await t.create({ envs: { MARK: 'x' } })
  const pid = await counting(sbx)
  const before = await boot(sbx)
  assert.equal(await pause(sbx), true)
  assert.equal(await state(sbx), 'paused')
  const other = await Sandbox.connect(sbx.sandboxId)
  assert.equal(await state(sbx), 'running')
  assert.deepEqual(await asked(other), [pid, 2])
  assert.deepEqual(await asked(sbx), [pid, 3]) // the old object has the right token still
  assert.equal(await boot(sbx), before)
  assert.equal(await sh(other, 'echo $MARK'), 'x\n')
}

// dropped pauses without memory and resumes, and looks at what is left.
async function dropped(t, opts) {
  const sbx = await t.create({ envs: { MARK: 'x' } })
  await counting(sbx)
  const before = await boot(sbx)
  await sbx.files.write('kept', 'kept')
  assert.equal(await sbx.pause({ keepMemory: false }), true)
  await sbx.connect(opts)
  assert.equal(await sbx.files.read('kept'), 'kept')
  assert.equal(await sh(sbx, "pgrep -fx 'python3 counter.py' || echo none"), 'none\n')
  assert.equal(await sh(sbx, 'echo $MARK'), 'x\n')
  assert.notEqual(await boot(sbx), before)
}

// listed returns the sandboxes that all pages have, by identifier.
async function listed(query, opts) {
  const pages = Sandbox.list({ query, ...opts })
  const seen = {}
  while (pages.hasNext) for (const s of await pages.nextItems()) seen[s.sandboxId] = s.state
  return seen
}

export default [
  ['sandbox.pause', 'memory, processes, files and environment are kept', (t) => kept(t, (sbx) => sbx.pause())],
  ['sandbox.pause', 'by identifier, again, an unknown one', async (t) => {
    const sbx = await t.create()
    assert.equal(await Sandbox.pause(sbx.sandboxId), true)
    assert.equal(await Sandbox.pause(sbx.sandboxId), false)
    assert.equal(await sbx.pause(), false)
    await fails(SandboxNotFoundError, Sandbox.pause(UNKNOWN))
  }],
  ['sandbox.pause', 'without memory', (t) => dropped(t), 'SandboxPauseOpts.keepMemory'],
  ['sandbox.beta_pause', 'memory, processes, files and environment are kept', (t) => kept(t, (sbx) => sbx.betaPause())],
  ['sandbox.connect', 'a paused one, for a time', async (t) => {
    const sbx = await t.create({ timeoutMs: 60_000 })
    await sbx.pause()
    await sbx.connect({ timeoutMs: 500_000 })
    const seconds = left(await sbx.getInfo())
    assert.ok(450 < seconds && seconds <= 500, seconds)
    await sbx.connect({ timeoutMs: 50_000 }) // never shortens
    assert.ok(left(await sbx.getInfo()) > 450)
  }],
  ['sandbox.connect', 'a command of before the pause', async (t) => {
    const sbx = await t.create()
    const handle = await sbx.commands.run('read line; echo got $line', { background: true, stdin: true })
    await handle.disconnect()
    await sbx.pause()
    await sbx.connect()
    assert.ok((await sbx.commands.list()).some((p) => p.pid === handle.pid))
    const again = await sbx.commands.connect(handle.pid)
    await sbx.commands.sendStdin(handle.pid, 'it\n')
    assert.equal((await again.wait()).stdout, 'got it\n')
  }],
  ['sandbox.connect', 'a reboot', (t) => dropped(t, { onResume: 'reboot' }), 'SandboxConnectOpts.onResume'],
  ['sandbox.create', 'paused at the end of its time', async (t) => {
    const sbx = await t.create({ timeoutMs: 3000, envs: { MARK: 'x' }, lifecycle: { onTimeout: 'pause' } })
    const pid = await counting(sbx)
    await comesToPause(sbx)
    await sbx.connect({ timeoutMs: 60_000 })
    assert.deepEqual(await asked(sbx), [pid, 2])
    assert.deepEqual((await sbx.getInfo()).lifecycle, { onTimeout: 'pause', autoResume: false })
    await sbx.setTimeout(1000) // it is paused again, not killed
    await comesToPause(sbx)
  }],
  ['sandbox.create', 'paused without memory at the end of its time', async (t) => {
    const sbx = await t.create({ lifecycle: { onTimeout: { action: 'pause', keepMemory: false } } })
    const before = await boot(sbx)
    await sbx.files.write('kept', 'kept')
    await sbx.setTimeout(1000)
    await comesToPause(sbx)
    await sbx.connect()
    assert.equal(await sbx.files.read('kept'), 'kept')
    assert.notEqual(await boot(sbx), before)
  }, 'SandboxPauseOpts.keepMemory'],
  ['sandbox.create', 'resumed by what is sent to it', async (t) => {
    const sbx = await t.create({ lifecycle: { onTimeout: 'pause', autoResume: true } })
    assert.deepEqual((await sbx.getInfo()).lifecycle, { onTimeout: 'pause', autoResume: true })
    const pid = await counting(sbx)
    await sbx.pause()
    assert.deepEqual(await asked(sbx), [pid, 2]) // a call of the SDK is enough
    const server = await sbx.commands.run('exec python3 -m http.server 8123', { background: true, cwd: '/etc' })
    const ask = () => request(process.env.E2B_API_URL + '/hostname', { host: sbx.getHost(8123) })
    await until('the server answers', async () => (await ask()).status === 200)
    await server.disconnect()
    await sbx.pause()
    assert.equal((await ask()).status, 200) // and so is any request
    assert.equal(await state(sbx), 'running')
    assert.deepEqual(await asked(sbx), [pid, 3])
  }],
  ['sandbox.list', 'paused and running, page by page', async (t) => {
    const metadata = { run: t.sbx.sandboxId + '-states' }
    const [a, b, c] = (await Promise.all([1, 2, 3].map(() => t.create({ metadata })))).map((s) => s.sandboxId)
    await Sandbox.pause(a)
    await Sandbox.pause(b)
    const asleep = { [a]: 'paused', [b]: 'paused' }
    assert.deepEqual(await listed({ metadata, state: ['paused'] }), asleep)
    assert.deepEqual(await listed({ metadata, state: ['paused'] }, { limit: 1 }), asleep)
    assert.deepEqual(await listed({ metadata, state: ['running'] }), { [c]: 'running' })
    assert.deepEqual(await listed({ metadata, state: ['running', 'paused'] }, { limit: 2 }), { ...asleep, [c]: 'running' })
    assert.deepEqual(await listed({ metadata }), { ...asleep, [c]: 'running' }) // both, if not asked for either
  }],
  ['sandbox.get_info', 'of a paused one', async (t) => {
    const sbx = await t.create({ metadata: { a: 'b' } })
    const before = await sbx.getInfo()
    await sbx.pause()
    const info = await Sandbox.getInfo(sbx.sandboxId)
    assert.deepEqual([info.state, info.metadata, info.startedAt], ['paused', { a: 'b' }, before.startedAt])
    assert.ok(left(info) <= 1, info.endAt)
  }],
  ['sandbox.is_running', 'of a paused one', async (t) => {
    const sbx = await t.create()
    await sbx.pause()
    assert.equal(await sbx.isRunning(), false)
    await fails(SandboxError, sbx.commands.run('true'))
    assert.equal(await state(sbx), 'paused') // it has woken of neither
    await sbx.connect()
    assert.equal(await sbx.isRunning(), true)
  }],
  ['sandbox.set_timeout', 'of a paused one', async (t) => {
    const sbx = await t.create()
    await sbx.pause()
    await fails(SandboxNotFoundError, sbx.setTimeout(60_000))
    assert.equal(await state(sbx), 'paused')
  }],
  ['sandbox.kill', 'a paused one', async (t) => {
    const sbx = await t.create()
    await sbx.pause()
    assert.equal(await Sandbox.kill(sbx.sandboxId), true)
    assert.equal(await Sandbox.kill(sbx.sandboxId), false)
    await fails(SandboxNotFoundError, sbx.getInfo())
    await fails(SandboxNotFoundError, sbx.connect())
  }],
  ['sandbox.fork', 'copies with memory, each on its own', async (t) => {
    const sbx = await t.create({ timeoutMs: 100_000, envs: { MARK: 'x' }, metadata: { a: 'b' } })
    const pid = await counting(sbx)
    const { endAt } = await sbx.getInfo()
    const copies = await sbx.fork({ count: 2, timeoutMs: 200_000 })
    t.others.push(...copies)
    assert.equal(new Set([sbx, ...copies].map((s) => s.sandboxId)).size, 3)
    for (const copy of copies) {
      assert.deepEqual(await asked(copy), [pid, 2])
      assert.equal(await sh(copy, 'echo $MARK $E2B_SANDBOX_ID; echo only here > mine'), `x ${copy.sandboxId}\n`)
      const info = await copy.getInfo()
      assert.deepEqual(info.metadata, { a: 'b' })
      assert.ok(150 < left(info) && left(info) <= 200, info.endAt)
    }
    assert.deepEqual(await asked(sbx), [pid, 2])
    assert.equal(await sbx.files.exists('mine'), false)
    assert.deepEqual((await sbx.getInfo()).endAt, endAt)
  }],
  ['sandbox.fork', 'by identifier, a paused one, an unknown one', async (t) => {
    const sbx = await t.create()
    const copies = await Sandbox.fork(sbx.sandboxId)
    t.others.push(...copies)
    assert.equal(copies.length, 1)
    assert.equal(await copies[0].isRunning(), true)
    await sbx.pause()
    await fails(SandboxError, Sandbox.fork(sbx.sandboxId), 'paused')
    await fails(SandboxNotFoundError, Sandbox.fork(UNKNOWN))
  }],
]
