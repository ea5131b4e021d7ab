import assert from 'node:assert/strict'
import { AuthenticationError, CommandExitError, InvalidArgumentError, NotFoundError, SandboxError, TimeoutError } from 'e2b'

import { fails, until } from './harness.mjs'

const start = (t, command, opts) => t.sbx.commands.run(command, { background: true, ...opts })
const listed = async (t, pid) => (await t.sbx.commands.list()).find((p) => p.pid === pid)

// killedDuring starts a command in a sandbox of its own, and kills the sandbox.
async function killedDuring(t) {
  const other = await t.create()
  const handle = await other.commands.run('echo started; exec sleep 600', { background: true, timeoutMs: 0 })
  await other.kill()
  return handle
}

export default [
  ['commands.run', 'output and exit status', async ({ sbx }) => {
    const r = await sbx.commands.run('echo out; echo err >&2')
    assert.deepEqual([r.stdout, r.stderr, r.exitCode], ['out\n', 'err\n', 0])
  }],
  ['commands.run', 'a failure is an error', async ({ sbx }) => {
    const e = await fails(CommandExitError, sbx.commands.run('echo out; echo err >&2; exit 3'))
    assert.deepEqual([e.stdout, e.stderr, e.exitCode], ['out\n', 'err\n', 3])
  }],
  ['commands.run', 'a death by signal is an error', async ({ sbx }) => {
    const e = await fails(CommandExitError, sbx.commands.run('kill -9 $$'))
    assert.deepEqual([e.exitCode, e.error], [-1, 'signal: killed'])
  }],
  ['commands.run', 'unknown command', async ({ sbx }) => {
    const e = await fails(CommandExitError, sbx.commands.run('no-such-program'))
    assert.equal(e.exitCode, 127)
    assert.match(e.stderr, /no-such-program: command not found/)
  }],
  ['commands.run', 'output while it runs', async (t) => {
    const seen = { out: '', err: '' }
    // It goes on only after what it wrote has arrived.
    await t.sbx.commands.run(`echo one; echo two >&2; until [ -e ${t.path('go')} ]; do sleep 0.02; done; echo three`, {
      onStdout: async (s) => {
        seen.out += s
        await t.sbx.files.write(t.path('go'), '')
      },
      onStderr: (s) => { seen.err += s },
    })
    assert.deepEqual(seen, { out: 'one\nthree\n', err: 'two\n' })
  }],
  ['commands.run', 'environment', async (t) => {
    assert.equal(await t.sh('echo $GREETING $WHO $HOME $USER $LOGNAME'), 'hello all /home/user user user\n')
    assert.equal(await t.sh('echo $GREETING $WHO', { envs: { WHO: 'you' } }), 'hello you\n')
  }],
  ['commands.run', 'user', async (t) => {
    assert.equal(await t.sh('whoami; id -u'), 'user\n1000\n')
    assert.equal(await t.sh('whoami; echo ~', { user: 'root' }), 'root\n/root\n')
    await fails(AuthenticationError, t.sbx.commands.run('true', { user: 'nobody-here' }), "invalid username: 'nobody-here'")
  }],
  ['commands.run', 'working directory', async (t) => {
    await t.sbx.files.makeDir(t.path())
    assert.equal(await t.sh('pwd'), '/home/user\n')
    assert.equal(await t.sh('pwd', { cwd: '/tmp' }), '/tmp\n')
    assert.equal(await t.sh('pwd', { cwd: t.path().replace('/home/user/', '') }), t.path() + '\n')
    await fails(InvalidArgumentError, t.sbx.commands.run('true', { cwd: '/nowhere' }), "cwd '/nowhere' does not exist")
  }],
  ['commands.run', 'time limit', async (t) => {
    await fails(TimeoutError, t.sbx.commands.run('exec sleep 54321', { timeoutMs: 700 }))
    await until('the command is killed', async () => (await t.sh('pgrep -fx "sleep 54321" || true')) === '')
    assert.equal(await t.sh('echo no limit', { timeoutMs: 0 }), 'no limit\n')
  }],
  ['commands.run', 'much output', async (t) => {
    const r = await t.sbx.commands.run('head -c 3000000 /dev/zero | tr "\\0" x; head -c 100000 /dev/zero | tr "\\0" y >&2')
    assert.ok(r.stdout === 'x'.repeat(3000000) && r.stderr === 'y'.repeat(100000), `${r.stdout.length}, ${r.stderr.length}`)
  }],
  ['commands.run', 'letters of several bytes', async (t) => {
    assert.ok((await t.sh(`python3 -c "print('ač€🙂' * 30000)"`)) === 'ač€🙂'.repeat(30000) + '\n')
  }, 'CommandHandle.stdoutDecoder'],
  ['commands.run', 'several at once', async (t) => {
    const out = await Promise.all([...Array(10).keys()].map((i) => t.sh(`echo ${i}`)))
    assert.deepEqual(out, [...Array(10).keys()].map((i) => `${i}\n`))
  }],
  ['commands.run', 'in the background', async (t) => {
    const handle = await start(t, 'echo started; exec sleep 600')
    assert.ok(await listed(t, handle.pid))
    assert.equal(await handle.kill(), true)
    await fails(CommandExitError, handle.wait())
  }],
  ['commands.run', 'the sandbox is killed meanwhile', async (t) => {
    await fails(SandboxError, (await killedDuring(t)).wait())
  }],
  ['commands.run', 'the error says that the sandbox was killed', async (t) => {
    await fails(TimeoutError, (await killedDuring(t)).wait(), 'sandbox was killed or reached its end of life')
  }, 'CommandHandle.checkHealth'],
  ['commands.list', 'commands and terminals', async (t) => {
    const handle = await start(t, 'exec sleep 600', { cwd: '/tmp', envs: { MARK: 'x' } })
    const pty = await t.sbx.pty.create({ cols: 80, rows: 24, onData: () => {} })
    const p = await listed(t, handle.pid)
    assert.deepEqual([p.cmd, p.args, p.cwd, p.envs.MARK], ['/bin/bash', ['-l', '-c', 'exec sleep 600'], '/tmp', 'x'])
    assert.ok(await listed(t, pty.pid))
    await Promise.all([handle.kill(), pty.kill()])
    await until('both are gone', async () => !(await listed(t, handle.pid)) && !(await listed(t, pty.pid)))
  }],
  ['commands.kill', 'a running command', async (t) => {
    const handle = await start(t, 'exec sleep 600')
    assert.equal(await t.sbx.commands.kill(handle.pid), true)
    await fails(CommandExitError, t.sbx.commands.run(`kill -0 ${handle.pid}`))
    await fails(CommandExitError, handle.wait())
  }],
  ['commands.kill', 'an unknown one', async (t) => {
    assert.equal(await t.sbx.commands.kill(999999), false)
  }],
  ['commands.send_stdin', 'text and bytes', async (t) => {
    const handle = await start(t, 'head -2', { stdin: true })
    await t.sbx.commands.sendStdin(handle.pid, 'one\n')
    await t.sbx.commands.sendStdin(handle.pid, new TextEncoder().encode('two\n'))
    assert.equal((await handle.wait()).stdout, 'one\ntwo\n')
  }],
  ['commands.send_stdin', 'unknown command, or without input', async (t) => {
    await fails(NotFoundError, t.sbx.commands.sendStdin(999999, 'x'))
    const handle = await start(t, 'exec sleep 600')
    await fails(SandboxError, t.sbx.commands.sendStdin(handle.pid, 'x'), 'stdin not enabled or closed')
    await handle.kill()
    assert.equal(await t.sh('cat'), '')
  }],
  ['commands.close_stdin', 'the command reads to the end', async (t) => {
    const handle = await start(t, 'cat; echo end', { stdin: true })
    await t.sbx.commands.sendStdin(handle.pid, 'typed\n')
    await t.sbx.commands.closeStdin(handle.pid)
    assert.equal((await handle.wait()).stdout, 'typed\nend\n')
    await fails(NotFoundError, t.sbx.commands.closeStdin(999999))
  }],
  ['commands.connect', 'output from then on', async (t) => {
    const first = await start(t, 'read -r line; echo got $line', { stdin: true })
    await first.disconnect()
    let seen = ''
    const again = await t.sbx.commands.connect(first.pid, { onStdout: (s) => { seen += s } })
    assert.equal(again.pid, first.pid)
    await t.sbx.commands.sendStdin(first.pid, 'it\n')
    assert.equal((await again.wait()).stdout, 'got it\n')
    assert.equal(seen, 'got it\n')
  }],
  ['commands.connect', 'two listeners', async (t) => {
    const one = await start(t, 'read -r line; echo got $line; exit 4', { stdin: true })
    const two = await t.sbx.commands.connect(one.pid)
    await t.sbx.commands.sendStdin(one.pid, 'it\n')
    for (const handle of [one, two]) {
      const e = await fails(CommandExitError, handle.wait())
      assert.deepEqual([e.stdout, e.exitCode], ['got it\n', 4])
    }
  }],
  ['commands.connect', 'time limit', async (t) => {
    const first = await start(t, 'exec sleep 600')
    const again = await t.sbx.commands.connect(first.pid, { timeoutMs: 500 })
    await fails(TimeoutError, again.wait())
    assert.ok(await listed(t, first.pid), 'the limit of a listener ended the command')
    await first.kill()
  }],
  ['commands.connect', 'one that has ended', async (t) => {
    const first = await start(t, 'exit 5')
    await fails(CommandExitError, first.wait())
    const again = await t.sbx.commands.connect(first.pid)
    assert.equal((await fails(CommandExitError, again.wait())).exitCode, 5)
    await fails(NotFoundError, t.sbx.commands.connect(999999), 'process with pid 999999 not found')
  }],
  ['handle.wait', 'result', async (t) => {
    const handle = await start(t, 'echo out; echo err >&2')
    const r = await handle.wait()
    assert.deepEqual([r.stdout, r.stderr, r.exitCode], ['out\n', 'err\n', 0])
    assert.deepEqual([handle.stdout, handle.stderr, handle.exitCode], ['out\n', 'err\n', 0])
  }],
  ['handle.wait', 'time limit', async (t) => {
    const handle = await start(t, 'exec sleep 600', { timeoutMs: 700 })
    await fails(TimeoutError, handle.wait())
    await until('the command is killed', async () => !(await listed(t, handle.pid)))
  }],
  ['handle.kill', 'running and ended', async (t) => {
    const handle = await start(t, 'exec sleep 600')
    assert.equal(await handle.kill(), true)
    assert.deepEqual((await fails(CommandExitError, handle.wait())).exitCode, -1)
    assert.equal(await handle.kill(), false)
  }],
  ['handle.disconnect', 'the command goes on', async (t) => {
    const handle = await start(t, `until [ -e ${t.path('go')} ]; do sleep 0.02; done; touch ${t.path('done')}`)
    await handle.disconnect()
    await t.sbx.files.write(t.path('go'), '')
    await until('the command is done', () => t.sbx.files.exists(t.path('done')))
  }],
  ['handle.send_stdin', 'text', async (t) => {
    const handle = await start(t, 'head -1', { stdin: true })
    await handle.sendStdin('one\n')
    assert.equal((await handle.wait()).stdout, 'one\n')
  }],
  ['handle.close_stdin', 'the command reads to the end', async (t) => {
    const handle = await start(t, 'cat', { stdin: true })
    await handle.sendStdin('one')
    await handle.closeStdin()
    assert.equal((await handle.wait()).stdout, 'one')
  }],
]
