// Snapshots that are kept, and the sandboxes that are made from them.
import assert from 'node:assert/strict'
import { Sandbox, SandboxError, SandboxNotFoundError } from 'e2b'

import { fails } from './harness.mjs'
import { UNKNOWN, asked, boot, counting, sh } from './lifecycle.mjs'

// unique returns a name that no other client of the server uses.
const unique = (t, sbx) => `snap-${sbx.sandboxId}-${t.count}`

// identifiers returns what all pages of a list name.
async function identifiers(paginator) {
  const items = []
  while (paginator.hasNext) items.push(...(await paginator.nextItems()))
  return items.map((s) => s.snapshotId)
}

// made creates a sandbox from a template, for as long as the case takes.
async function made(t, template, opts = {}) {
  const sbx = await Sandbox.create(template, { timeoutMs: 120_000, ...opts })
  t.others.push(sbx)
  return sbx
}

// kept keeps a snapshot until the case is over.
async function kept(t, sbx, opts) {
  const snapshot = await sbx.createSnapshot(opts)
  t.snapshots.push(snapshot.snapshotId)
  return snapshot
}

export default [
  ['sandbox.create_snapshot', 'memory, processes and files go on in what is made from it', async (t) => {
    const sbx = await t.create({ envs: { MARK: 'x' } })
    const [pid, before] = [await counting(sbx), await boot(sbx)]
    const snapshot = await kept(t, sbx)
    assert.deepEqual(snapshot.names, [])
    assert.deepEqual(await asked(sbx), [pid, 2]) // the origin has gone on
    for (let i = 0; i < 2; i++) {
      const copy = await made(t, snapshot.snapshotId, { envs: { MARK: 'y' } })
      assert.deepEqual(await asked(copy), [pid, 2])
      assert.equal(await boot(copy), before)
      assert.equal(await sh(copy, 'echo $MARK $E2B_SANDBOX_ID'), `y ${copy.sandboxId}\n`)
    }
  }],
  ['sandbox.create_snapshot', 'under a name, by identifier, outlives its sandbox', async (t) => {
    const sbx = await t.create()
    const name = unique(t, sbx)
    await sbx.files.write('version', 'one')
    const first = await kept(t, sbx, { name })
    await sbx.files.write('version', 'two')
    const second = await Sandbox.createSnapshot(sbx.sandboxId, { name: `${name}:v2` })
    t.snapshots.push(second.snapshotId)
    assert.ok(first.snapshotId.endsWith(`/${name}:default`), first.snapshotId)
    assert.ok(second.snapshotId.endsWith(`/${name}:v2`), second.snapshotId)
    assert.ok(first.names.length === 1 && first.names[0].includes(name), first.names)
    await sbx.kill()
    for (const [template, want] of [[first.snapshotId, 'one'], [name, 'one'], [second.snapshotId, 'two'], [`${name}:v2`, 'two']]) {
      const copy = await made(t, template)
      assert.equal(await copy.files.read('version'), want)
    }
    await fails(SandboxError, Sandbox.create(`${name}:v3`), '404')
  }],
  ['sandbox.create_snapshot', 'the files alone', async (t) => {
    const sbx = await t.create()
    const before = await boot(sbx)
    await sbx.files.write('kept', 'yes')
    const snapshot = await kept(t, sbx, { mode: 'filesystem' })
    const copy = await made(t, snapshot.snapshotId)
    assert.equal(await copy.files.read('kept'), 'yes')
    assert.notEqual(await boot(copy), before)
  }, 'CreateSnapshotOpts.mode'],
  ['sandbox.create_snapshot', 'of a paused one, of an unknown one', async (t) => {
    const sbx = await t.create()
    await sbx.pause()
    await fails(SandboxError, sbx.createSnapshot(), 'paused')
    await fails(SandboxNotFoundError, Sandbox.createSnapshot(UNKNOWN))
  }],
  ['sandbox.list_snapshots', 'of a sandbox, newest first, page by page', async (t) => {
    const sbx = await t.create()
    assert.deepEqual(await identifiers(sbx.listSnapshots()), [])
    const mine = []
    for (let i = 0; i < 3; i++) mine.unshift((await kept(t, sbx)).snapshotId)
    assert.deepEqual(await identifiers(sbx.listSnapshots()), mine)
    assert.deepEqual(await identifiers(Sandbox.listSnapshots({ sandboxId: sbx.sandboxId, limit: 1 })), mine)
    const page = Sandbox.listSnapshots({ sandboxId: sbx.sandboxId, limit: 2 })
    assert.deepEqual((await page.nextItems()).map((s) => s.snapshotId), mine.slice(0, 2))
    assert.ok(page.hasNext && page.nextToken)
    const everything = await identifiers(Sandbox.listSnapshots())
    assert.ok(mine.every((id) => everything.includes(id)), everything)
  }],
  ['sandbox.list_snapshots', 'of a name', async (t) => {
    const sbx = await t.create()
    const name = unique(t, sbx)
    const [one, two] = [await kept(t, sbx, { name }), await kept(t, sbx, { name: `${name}:v2` })]
    assert.deepEqual(await identifiers(Sandbox.listSnapshots({ name })), [two.snapshotId, one.snapshotId])
    assert.deepEqual(await identifiers(Sandbox.listSnapshots({ name: `${name}:v2` })), [two.snapshotId])
    assert.deepEqual(await identifiers(Sandbox.listSnapshots({ name: `${name}-nobody` })), [])
  }, 'SnapshotListOpts.name'],
  ['sandbox.delete_snapshot', 'once; what was made from it goes on', async (t) => {
    const sbx = await t.create()
    const pid = await counting(sbx)
    const snapshot = await kept(t, sbx, { name: unique(t, sbx) })
    const copy = await made(t, snapshot.snapshotId)
    assert.equal(await Sandbox.deleteSnapshot(snapshot.snapshotId), true)
    assert.equal(await Sandbox.deleteSnapshot(snapshot.snapshotId), false)
    assert.equal(await Sandbox.deleteSnapshot('nobodys:default'), false)
    assert.deepEqual(await identifiers(sbx.listSnapshots()), [])
    await fails(SandboxError, Sandbox.create(snapshot.snapshotId), '404')
    assert.deepEqual(await asked(copy), [pid, 2])
    await copy.pause()
    await Sandbox.connect(copy.sandboxId)
    assert.deepEqual(await asked(copy), [pid, 3])
  }],
  ['sandbox.connect', 'a reboot of one whose memory was saved', async (t) => {
    const sbx = await t.create({ envs: { MARK: 'x' } })
    const before = await boot(sbx)
    await counting(sbx)
    await sbx.pause()
    await Sandbox.connect(sbx.sandboxId, { onResume: 'reboot' })
    assert.notEqual(await boot(sbx), before)
    assert.equal(await sh(sbx, `test -e counter.py && pgrep -x python3 || echo $MARK`), 'x\n')
  }, 'SandboxConnectOpts.onResume'],
]
