import assert from 'node:assert/strict'
import { AuthenticationError, FileNotFoundError, InvalidArgumentError, NotFoundError, SandboxError } from 'e2b'

import { fails, until } from './harness.mjs'

const bytes = (s) => new TextEncoder().encode(s)
const blob = new Uint8Array(300_000).map((_, i) => i % 251)
const chunked = (...chunks) => new ReadableStream({
  start(c) {
    for (const chunk of chunks) c.enqueue(chunk)
    c.close()
  },
})

async function collect(stream) {
  const chunks = []
  for await (const chunk of stream) chunks.push(chunk)
  return Buffer.concat(chunks)
}

// watch watches a directory and keeps what happens in it, as "type name".
async function watch(t, dir, opts = {}) {
  const events = []
  let ended
  const exit = new Promise((resolve) => { ended = resolve })
  const handle = await t.sbx.files.watchDir(dir, (e) => { events.push(e) }, { onExit: ended, ...opts })
  return {
    events,
    handle,
    exit,
    said: () => events.map((e) => `${e.type} ${e.name}`),
    async sees(...wanted) {
      try {
        await until(wanted.join(), () => wanted.every((w) => this.said().includes(w)))
      } catch (e) {
        throw new Error(`${e.message}; seen: ${this.said()}`)
      }
    },
  }
}

export default [
  ['files.read', 'text', async (t) => {
    await t.sbx.files.write(t.path('a'), 'grüße\n')
    assert.equal(await t.sbx.files.read(t.path('a')), 'grüße\n')
  }],
  ['files.read', 'bytes', async (t) => {
    await t.sbx.files.write(t.path('a'), blob.buffer)
    assert.deepEqual(await t.sbx.files.read(t.path('a'), { format: 'bytes' }), blob)
  }],
  ['files.read', 'blob', async (t) => {
    await t.sbx.files.write(t.path('a'), blob.buffer)
    const read = await t.sbx.files.read(t.path('a'), { format: 'blob' })
    assert.deepEqual(new Uint8Array(await read.arrayBuffer()), blob)
  }],
  ['files.read', 'stream', async (t) => {
    await t.sbx.files.write(t.path('a'), blob.buffer)
    assert.ok((await collect(await t.sbx.files.read(t.path('a'), { format: 'stream' }))).equals(blob))
  }],
  ['files.read', 'compressed', async (t) => {
    await t.sbx.files.write(t.path('a'), blob.buffer)
    assert.deepEqual(await t.sbx.files.read(t.path('a'), { format: 'bytes', gzip: true }), blob)
  }],
  ['files.read', 'empty file', async (t) => {
    await t.sbx.files.write(t.path('a'), '')
    assert.equal(await t.sbx.files.read(t.path('a')), '')
    assert.equal((await t.sbx.files.read(t.path('a'), { format: 'bytes' })).length, 0)
  }],
  ['files.read', 'file of the kernel', async ({ sbx }) => {
    assert.equal(await sbx.files.read('/proc/sys/kernel/hostname'), sbx.sandboxId + '\n')
  }],
  ['files.read', 'as another user', async (t) => {
    await t.sh('echo secret > /root/only && chmod 600 /root/only', { user: 'root' })
    assert.equal(await t.sbx.files.read('only', { user: 'root' }), 'secret\n')
    await fails(AuthenticationError, t.sbx.files.read('only', { user: 'nobody-here' }))
  }],
  ['files.read', 'missing file, directory', async (t) => {
    await fails(FileNotFoundError, t.sbx.files.read(t.path('none')), `path '${t.path('none')}' does not exist`)
    await fails(NotFoundError, t.sbx.files.read(t.path('none'), { format: 'stream' }))
    await fails(InvalidArgumentError, t.sbx.files.read('/tmp'), "path '/tmp' is a directory")
  }],

  ['files.write', 'text, with its directories', async (t) => {
    const info = await t.sbx.files.write(t.path('d/e/a'), 'first, and longer')
    assert.deepEqual([info.name, info.type, info.path], ['a', 'file', t.path('d/e/a')])
    await t.sbx.files.write(t.path('d/e/a'), 'second')
    assert.equal(await t.sbx.files.read(t.path('d/e/a')), 'second')
    assert.equal(await t.sh('stat -c "%U %G %a" a .', { cwd: t.path('d/e') }), 'user user 644\nuser user 755\n')
  }],
  ['files.write', 'relative to the home directory', async (t) => {
    assert.equal((await t.sbx.files.write('case-home/a', '1')).path, '/home/user/case-home/a')
    assert.equal((await t.sbx.files.write('~/case-home/b', '2')).path, '/home/user/case-home/b')
    assert.equal(await t.sh('cat case-home/*'), '12')
  }],
  ['files.write', 'bytes', async (t) => {
    await t.sbx.files.write(t.path('a'), blob.buffer)
    await t.sbx.files.write(t.path('b'), new Blob([blob]))
    assert.match(await t.sh('stat -c %s a b; cmp a b', { cwd: t.path() }), /^300000\n300000\n$/)
  }],
  ['files.write', 'stream', async (t) => {
    await t.sbx.files.write(t.path('a'), chunked(bytes('one '), blob, bytes(' two')))
    assert.equal(await t.sh(`stat -c %s ${t.path('a')}; tail -c 4 ${t.path('a')}`), '300008\n two')
  }],
  ['files.write', 'as application/octet-stream', async (t) => {
    await t.sbx.files.write(t.path('a'), 'plain', { useOctetStream: true })
    assert.equal(await t.sbx.files.read(t.path('a')), 'plain')
  }],
  ['files.write', 'compressed', async (t) => {
    await t.sbx.files.write(t.path('a'), 'x'.repeat(100_000), { gzip: true })
    assert.equal(await t.sbx.files.read(t.path('a')), 'x'.repeat(100_000))
  }],
  ['files.write', 'as another user', async (t) => {
    assert.equal((await t.sbx.files.write('case-root/a', 'x', { user: 'root' })).path, '/root/case-root/a')
    assert.equal(await t.sh('stat -c "%U %a" /root/case-root/a', { user: 'root' }), 'root 644\n')
  }],
  ['files.write', 'metadata', async (t) => {
    const metadata = { Kind: 'report', 'page-count': '3' }
    const lower = { kind: 'report', 'page-count': '3' }
    const info = await t.sbx.files.write(t.path('a'), 'x', { metadata })
    assert.deepEqual(info.metadata, lower)
    assert.deepEqual((await t.sbx.files.getInfo(t.path('a'))).metadata, lower)
    assert.deepEqual((await t.sbx.files.list(t.path()))[0].metadata, lower)
    assert.deepEqual((await t.sbx.files.rename(t.path('a'), t.path('b'))).metadata, lower)
    await t.sh(`python3 -c 'import os; os.setxattr("${t.path('b')}", "user.e2b.more", b"m")'`)
    assert.deepEqual((await t.sbx.files.getInfo(t.path('b'))).metadata, { ...lower, more: 'm' })
    await t.sbx.files.write(t.path('b'), 'y')
    assert.ok(!(await t.sbx.files.getInfo(t.path('b'))).metadata, 'a new upload keeps the old metadata')
  }],
  ['files.write', 'over a directory', async (t) => {
    await fails(InvalidArgumentError, t.sbx.files.write('/tmp', 'x'), 'path is a directory: /tmp')
  }],

  ['files.write_files', 'several at once', async (t) => {
    const infos = await t.sbx.files.writeFiles([{ path: t.path('m/1'), data: 'one' }, { path: t.path('m/2'), data: blob.buffer }])
    assert.deepEqual(infos.map((i) => i.path), [t.path('m/1'), t.path('m/2')])
    await t.sbx.files.write([{ path: t.path('n/1'), data: 'one' }, { path: t.path('n/2'), data: new Blob([blob]) }])
    assert.equal(await t.sh('cat m/1; diff -r m n; stat -c %s n/2', { cwd: t.path() }), 'one300000\n')
    assert.deepEqual(await t.sbx.files.writeFiles([]), [])
  }],
  ['files.write_files', 'as application/octet-stream, compressed', async (t) => {
    const some = [{ path: t.path('1'), data: 'one' }, { path: t.path('2'), data: chunked(bytes('two')) }]
    await t.sbx.files.writeFiles(some, { useOctetStream: true, gzip: true })
    assert.equal(await t.sh('cat 1 2', { cwd: t.path() }), 'onetwo')
  }],

  ['files.list', 'what there is to know of entries', async (t) => {
    await t.sbx.files.write(t.path('b.txt'), 'four')
    await t.sh('mkdir a && chmod 700 a && chmod 640 b.txt', { cwd: t.path() })
    const [a, b] = await t.sbx.files.list(t.path())
    assert.deepEqual([a.name, a.type, a.path, a.permissions], ['a', 'dir', t.path('a'), 'drwx------'])
    assert.deepEqual([b.name, b.type, b.path, b.permissions], ['b.txt', 'file', t.path('b.txt'), '-rw-r-----'])
    assert.deepEqual([b.size, b.mode, b.owner, b.group], [4, 0o640, 'user', 'user'])
    assert.ok(Math.abs(b.modifiedTime.getTime() - Date.now()) < 60_000)
  }],
  ['files.list', 'depth', async (t) => {
    await t.sh(`mkdir -p ${t.path('a/b/c')} && touch ${t.path('a/b/f')} ${t.path('z')}`)
    const names = async (depth) => (await t.sbx.files.list(t.path(), { depth })).map((e) => e.path.slice(t.path().length + 1))
    assert.deepEqual(await names(), ['a', 'z'])
    assert.deepEqual(await names(2), ['a', 'a/b', 'z'])
    assert.deepEqual(await names(9), ['a', 'a/b', 'a/b/c', 'a/b/f', 'z'])
    await fails(InvalidArgumentError, t.sbx.files.list(t.path(), { depth: 0 }))
  }],
  ['files.list', 'missing directory, file', async (t) => {
    await fails(FileNotFoundError, t.sbx.files.list(t.path('none')))
    await fails(InvalidArgumentError, t.sbx.files.list('/etc/passwd'), 'path is not a directory')
  }],
  ['files.exists', 'file, directory, nothing', async (t) => {
    await t.sbx.files.write(t.path('a'), '')
    for (const [path, there] of [[t.path('a'), true], [t.path(), true], [t.path('b'), false]]) {
      assert.equal(await t.sbx.files.exists(path), there, path)
    }
  }],
  ['files.get_info', 'file, directory, nothing', async (t) => {
    await t.sbx.files.write(t.path('a'), 'four')
    const f = await t.sbx.files.getInfo(t.path('a'))
    assert.deepEqual([f.name, f.type, f.path, f.size, f.mode, f.permissions, f.owner, f.group, f.symlinkTarget],
      ['a', 'file', t.path('a'), 4, 0o644, '-rw-r--r--', 'user', 'user', undefined])
    const d = await t.sbx.files.getInfo(t.path())
    assert.deepEqual([d.type, d.mode, d.permissions], ['dir', 0o755, 'drwxr-xr-x'])
    await fails(FileNotFoundError, t.sbx.files.getInfo(t.path('none')))
  }],
  ['files.get_info', 'symbolic link', async (t) => {
    await t.sbx.files.write(t.path('a'), 'four')
    await t.sh('ln -s a link', { cwd: t.path() })
    const l = await t.sbx.files.getInfo(t.path('link'))
    assert.deepEqual([l.name, l.type, l.symlinkTarget], ['link', 'file', t.path('a')])
    assert.match(l.permissions, /^Lrwxrwxrwx$/)
  }],
  ['files.remove', 'file, directory, nothing', async (t) => {
    await t.sh(`mkdir -p ${t.path('d/e')} && touch ${t.path('d/e/f')} ${t.path('a')}`)
    for (const name of ['a', 'd', 'none']) {
      await t.sbx.files.remove(t.path(name))
      assert.equal(await t.sbx.files.exists(t.path(name)), false)
    }
  }],
  ['files.rename', 'file, directory, nothing', async (t) => {
    await t.sbx.files.write(t.path('a'), 'x')
    const info = await t.sbx.files.rename(t.path('a'), t.path('new/b'))
    assert.deepEqual([info.name, info.type, info.path], ['b', 'file', t.path('new/b')])
    await t.sbx.files.rename(t.path('new'), t.path('newer'))
    assert.equal(await t.sbx.files.read(t.path('newer/b')), 'x')
    assert.equal(await t.sbx.files.exists(t.path('new')), false)
    await fails(FileNotFoundError, t.sbx.files.rename(t.path('none'), t.path('c')))
  }],
  ['files.make_dir', 'new and there already', async (t) => {
    assert.equal(await t.sbx.files.makeDir(t.path('d/e')), true)
    assert.equal(await t.sbx.files.makeDir(t.path('d/e')), false)
    assert.equal(await t.sh('stat -c "%U %a" d d/e', { cwd: t.path() }), 'user 755\nuser 755\n')
    await t.sbx.files.write(t.path('f'), '')
    await fails(InvalidArgumentError, t.sbx.files.makeDir(t.path('f')))
  }],

  ['files.watch_dir', 'what happens to a file', async (t) => {
    await t.sbx.files.makeDir(t.path('sub'))
    const w = await watch(t, t.path())
    await t.sbx.files.write(t.path('a'), 'x')
    await w.sees('write a')
    assert.deepEqual(w.said(), ['create a', 'chmod a', 'write a'])
    await t.sbx.files.write(t.path('sub/unseen'), 'x')
    await t.sbx.files.rename(t.path('a'), t.path('b'))
    await t.sbx.files.remove(t.path('b'))
    await w.sees('rename a', 'create b', 'remove b')
    assert.ok(!w.said().some((s) => s.includes('unseen')))
    await w.handle.stop()
  }],
  ['files.watch_dir', 'with everything below', async (t) => {
    await t.sbx.files.makeDir(t.path('old'))
    const w = await watch(t, t.path(), { recursive: true })
    await t.sbx.files.write(t.path('old/a'), 'x')
    await w.sees('create old/a', 'write old/a')
    await t.sbx.files.write(t.path('new/deep/b'), 'x')
    await w.sees('create new', 'create new/deep', 'create new/deep/b')
    await w.handle.stop()
  }],
  ['files.watch_dir', 'with entries', async (t) => {
    await t.sbx.files.makeDir(t.path())
    const w = await watch(t, t.path(), { includeEntry: true })
    await t.sbx.files.write(t.path('a'), 'four')
    await w.sees('write a')
    const { entry } = w.events.find((e) => e.type === 'write')
    assert.deepEqual([entry.name, entry.path, entry.type, entry.size], ['a', t.path('a'), 'file', 4])
    await w.handle.stop()
  }],
  ['files.watch_dir', 'network mounts allowed', async (t) => {
    await t.sbx.files.makeDir(t.path())
    const w = await watch(t, t.path(), { allowNetworkMounts: true })
    await t.sbx.files.write(t.path('a'), 'x')
    await w.sees('create a')
    await w.handle.stop()
  }, 'WatchOpts.allowNetworkMounts'],
  ['files.watch_dir', 'missing directory, file', async (t) => {
    await fails(FileNotFoundError, t.sbx.files.watchDir(t.path('none'), () => {}))
    await fails(SandboxError, t.sbx.files.watchDir('/etc/passwd', () => {}))
  }],
  ['watch.stop', 'nothing is told any more', async (t) => {
    await t.sbx.files.makeDir(t.path())
    const w = await watch(t, t.path())
    await w.handle.stop()
    await w.exit
    await t.sbx.files.write(t.path('a'), 'x')
    assert.deepEqual(w.said(), [])
  }],
]
