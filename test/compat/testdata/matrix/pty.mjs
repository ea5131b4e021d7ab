import assert from 'node:assert/strict'
import { CommandExitError, NotFoundError, TimeoutError } from 'e2b'

import { fails, until } from './harness.mjs'

const bytes = (s) => new TextEncoder().encode(s)

// open opens a terminal and keeps what appears on its screen.
async function open(t, opts = {}) {
  const screen = { text: '' }
  const show = (d) => { screen.text += new TextDecoder().decode(d) }
  const handle = await t.sbx.pty.create({ cols: 91, rows: 20, onData: show, ...opts })
  return { handle, screen, type: (s) => t.sbx.pty.sendInput(handle.pid, bytes(s)) }
}

export default [
  ['pty.create', 'size, environment, user, working directory', async (t) => {
    const { handle, screen, type } = await open(t, { user: 'root', cwd: '/tmp', envs: { MARK: 'here' } })
    await type('stty size; echo "<$TERM $LANG $MARK $(whoami) $(pwd)>"; exit\n')
    assert.equal((await handle.wait()).exitCode, 0)
    assert.match(screen.text, /20 91\r\n/)
    assert.match(screen.text, /<xterm-256color C\.UTF-8 here root \/tmp>/)
  }],
  ['pty.create', 'exit status', async (t) => {
    const { handle, type } = await open(t)
    await type('exit 3\n')
    assert.equal((await fails(CommandExitError, handle.wait())).exitCode, 3)
  }],
  ['pty.create', 'time limit', async (t) => {
    const { handle } = await open(t, { timeoutMs: 700 })
    await fails(TimeoutError, handle.wait())
  }],
  ['pty.send_stdin', 'keys, Ctrl+C too', async (t) => {
    const { handle, screen, type } = await open(t)
    await type('sleep 500; echo stat""us $?\n')
    await until('sleep runs', async () => (await t.sh('pgrep -fx "sleep 500" || true')) !== '')
    await type('\x03')
    await type('echo a""fter; exit 0\n')
    await handle.wait()
    assert.match(screen.text, /after\r\n/)
    await fails(NotFoundError, t.sbx.pty.sendInput(999999, bytes('x')))
  }],
  ['pty.resize', 'the size inside', async (t) => {
    await t.sbx.files.makeDir(t.path())
    const { handle, screen, type } = await open(t, { cwd: t.path() })
    // While bash edits a line, it may set the size itself, to what it last read.
    await type('touch ready; read -r _; stty size; tput cols; exit\n')
    await until('the line is being executed', () => t.sbx.files.exists(t.path('ready')))
    await t.sbx.pty.resize(handle.pid, { cols: 133, rows: 41 })
    await type('\n')
    await handle.wait()
    assert.match(screen.text, /41 133\r\n133\r\n/)
  }],
  ['pty.kill', 'running and unknown', async (t) => {
    const { handle } = await open(t)
    assert.equal(await t.sbx.pty.kill(handle.pid), true)
    await fails(CommandExitError, handle.wait())
    await fails(CommandExitError, t.sbx.commands.run(`kill -0 ${handle.pid}`))
    assert.equal(await t.sbx.pty.kill(999999), false)
  }],
  ['pty.connect', 'the terminal goes on', async (t) => {
    const { handle, type } = await open(t)
    await type('MARK=kept\n')
    await handle.disconnect()
    let text = ''
    const again = await t.sbx.pty.connect(handle.pid, { onData: (d) => { text += new TextDecoder().decode(d) } })
    await type('echo "<$MARK>"; exit 6\n')
    assert.equal((await fails(CommandExitError, again.wait())).exitCode, 6)
    assert.match(text, /<kept>/)
    await fails(NotFoundError, t.sbx.pty.connect(999999, { onData: () => {} }))
  }],
]
