// What a user of the official JavaScript SDK does first.
import assert from 'node:assert/strict'
import { Sandbox, CommandExitError, NotFoundError, SandboxNotFoundError, AuthenticationError, TimeoutError } from 'e2b'

const sbx = await Sandbox.create({ metadata: { run: 'compat js' }, envs: { GREETING: 'hello' } })
try {
  // Commands.
  assert.equal((await sbx.commands.run('python3 -c "print(1+1)"')).stdout, '2\n')
  const both = await sbx.commands.run('echo out; echo err >&2')
  assert.deepEqual([both.stdout, both.stderr, both.exitCode], ['out\n', 'err\n', 0])
  assert.equal((await sbx.commands.run('echo $GREETING $WHO', { envs: { WHO: 'you' } })).stdout, 'hello you\n')
  assert.equal((await sbx.commands.run('whoami; pwd')).stdout, 'user\n/home/user\n')
  assert.equal((await sbx.commands.run('whoami', { user: 'root' })).stdout, 'root\n')
  assert.equal((await sbx.commands.run('pwd', { cwd: '/tmp' })).stdout, '/tmp\n')
  assert.equal((await sbx.commands.run('sudo -n id -u')).stdout, '0\n')
  await assert.rejects(sbx.commands.run('exit 3'), (e) => e instanceof CommandExitError && e.exitCode === 3)
  await assert.rejects(sbx.commands.run('no-such-program'), (e) => e.exitCode === 127)
  await assert.rejects(sbx.commands.run('sleep 30', { timeoutMs: 1000 }), TimeoutError)

  let streamed = ''
  await sbx.commands.run('for i in 1 2 3; do echo $i; sleep 0.1; done', { onStdout: (s) => { streamed += s } })
  assert.equal(streamed, '1\n2\n3\n')

  const cat = await sbx.commands.run('cat', { background: true, stdin: true })
  await sbx.commands.sendStdin(cat.pid, 'typed\n')
  assert.ok((await sbx.commands.list()).some((p) => p.pid === cat.pid))
  await sbx.commands.closeStdin?.(cat.pid)
  assert.equal((await cat.wait()).stdout, 'typed\n')
  const sleeper = await sbx.commands.run('sleep 600', { background: true })
  assert.equal(await sbx.commands.kill(sleeper.pid), true)
  await assert.rejects(sbx.commands.run(`kill -0 ${sleeper.pid}`), CommandExitError)
  assert.equal(await sbx.commands.kill(999999), false)

  // Files.
  await sbx.files.write('notes/a.txt', 'first')
  assert.equal(await sbx.files.read('notes/a.txt'), 'first')
  assert.equal((await sbx.commands.run('stat -c "%U %a" notes/a.txt notes')).stdout, 'user 644\nuser 755\n')
  const bytes = new Uint8Array(300000).map((_, i) => i % 251)
  await sbx.files.write('blob', bytes.buffer)
  assert.deepEqual(await sbx.files.read('blob', { format: 'bytes' }), bytes)
  await sbx.files.write([{ path: 'm/1', data: 'one' }, { path: 'm/2', data: 'two' }])
  assert.deepEqual((await sbx.files.list('m')).map((e) => [e.name, e.type]), [['1', 'file'], ['2', 'file']])
  assert.equal(await sbx.files.exists('m/1'), true)
  assert.equal((await sbx.files.getInfo('m/1')).size, 3)
  await sbx.files.rename('m/1', 'm/3')
  assert.equal(await sbx.files.exists('m/1'), false)
  assert.equal(await sbx.files.makeDir('d/e'), true)
  assert.equal(await sbx.files.makeDir('d/e'), false)
  await sbx.files.remove('m')
  await assert.rejects(sbx.files.read('m/3'), NotFoundError)
  assert.equal(await sbx.files.read('/proc/sys/kernel/hostname'), sbx.sandboxId + '\n')

  // A terminal.
  let screen = ''
  const pty = await sbx.pty.create({ cols: 91, rows: 20, onData: (d) => { screen += new TextDecoder().decode(d) } })
  await sbx.pty.sendInput(pty.pid, new TextEncoder().encode('stty size; exit\n'))
  await pty.wait()
  assert.match(screen, /20 91/)

  // The sandbox itself.
  const info = await sbx.getInfo()
  assert.equal(info.sandboxId, sbx.sandboxId)
  assert.deepEqual(info.metadata, { run: 'compat js' })
  assert.equal(await sbx.isRunning(), true)
  await sbx.setTimeout(900_000)
  assert.ok((await sbx.getInfo()).endAt.getTime() > info.endAt.getTime())
  const listed = await Sandbox.list({ query: { metadata: { run: 'compat js' } } }).nextItems()
  assert.deepEqual(listed.map((s) => s.sandboxId), [sbx.sandboxId])
  const again = await Sandbox.connect(sbx.sandboxId)
  assert.equal((await again.commands.run('cat notes/a.txt')).stdout, 'first')
  await assert.rejects(Sandbox.connect('inosuchsandbox'), SandboxNotFoundError)
  await assert.rejects(Sandbox.create({ apiKey: 'e2b_' + '0'.repeat(40) }), AuthenticationError)
} finally {
  assert.equal(await sbx.kill(), true)
}
assert.equal(await sbx.isRunning(), false)
assert.equal(await Sandbox.kill(sbx.sandboxId), false)
console.log('ALL PASSED')
