import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { CommandExitError, GitAuthError, GitUpstreamError, InvalidArgumentError } from 'e2b'

import { fails, until } from './harness.mjs'

const author = { authorName: 'Ada', authorEmail: 'ada@example.com' }
const server = readFileSync(new URL('./git_server.py', import.meta.url), 'utf8')

// repository makes one with a first commit of the file a.
async function repository(t, name = 'repo') {
  const path = t.path(name)
  await t.sbx.git.init(path, { initialBranch: 'main' })
  await t.sbx.git.configureUser('Ada', 'ada@example.com', { scope: 'local', path })
  await commit(t, path, 'a', 'first')
  return path
}

async function commit(t, path, file, message) {
  await t.sbx.files.write(`${path}/${file}`, message)
  await t.sbx.git.add(path)
  await t.sbx.git.commit(path, message)
}

// shared makes a repository and a bare one that it has pushed to.
async function shared(t) {
  const path = await repository(t)
  const bare = t.path('shared.git')
  await t.sbx.git.init(bare, { bare: true, initialBranch: 'main' })
  await t.sbx.git.remoteAdd(path, 'origin', bare)
  await t.sbx.git.push(path, { remote: 'origin', branch: 'main' })
  return { path, bare }
}

// guarded serves the shared repository over HTTP, to those who know the word.
async function guarded(t) {
  const { path } = await shared(t)
  await t.sbx.files.write(t.path('server.py'), server)
  const handle = await t.sbx.commands.run(`exec python3 server.py ${t.path()} ada s3cret`, { background: true, cwd: t.path() })
  await until('the server says its port', () => handle.stdout.includes('\n'))
  const url = `http://127.0.0.1:${handle.stdout.trim()}/shared.git`
  return { path, url, login: { username: 'ada', password: 's3cret' }, stop: () => handle.kill() }
}

const log = (t, path) => t.sh('git log --format=%s', { cwd: path })

export default [
  ['git.init', 'working and bare', async (t) => {
    await t.sbx.git.init(t.path('r'), { initialBranch: 'trunk' })
    await t.sbx.git.init(t.path('b'), { bare: true })
    assert.equal(await t.sh('git -C r symbolic-ref --short HEAD; git -C b rev-parse --is-bare-repository', { cwd: t.path() }), 'trunk\ntrue\n')
  }],
  ['git.configure_user', 'global and local', async (t) => {
    await t.sbx.git.init(t.path())
    await t.sbx.git.configureUser('Grace', 'grace@example.com')
    await t.sbx.git.configureUser('Ada', 'ada@example.com', { scope: 'local', path: t.path() })
    assert.equal(await t.sh('git config user.name; cd /; git config user.email', { cwd: t.path() }), 'Ada\ngrace@example.com\n')
  }],
  ['git.set_config', 'global and local', async (t) => {
    await t.sbx.git.init(t.path())
    await t.sbx.git.setConfig('pull.rebase', 'false')
    await t.sbx.git.setConfig('pull.rebase', 'true', { scope: 'local', path: t.path() })
    assert.equal(await t.sh('git config pull.rebase; cd /; git config pull.rebase', { cwd: t.path() }), 'true\nfalse\n')
  }],
  ['git.get_config', 'set and not set', async (t) => {
    await t.sbx.git.init(t.path())
    const local = { scope: 'local', path: t.path() }
    await t.sbx.git.setConfig('some.key', 'a value', local)
    assert.equal(await t.sbx.git.getConfig('some.key', local), 'a value')
    assert.equal(await t.sbx.git.getConfig('no.such', local), undefined)
  }],
  ['git.add', 'some and all files', async (t) => {
    const path = await repository(t)
    await t.sh('touch b c', { cwd: path })
    await t.sbx.git.add(path, { files: ['b'] })
    assert.equal(await t.sh('git status --short', { cwd: path }), 'A  b\n?? c\n')
    await t.sbx.git.add(path)
    assert.equal(await t.sh('git status --short', { cwd: path }), 'A  b\nA  c\n')
  }],
  ['git.commit', 'author, empty', async (t) => {
    const path = await repository(t)
    await t.sbx.git.commit(path, "it's \"quoted\" $HOME", { authorName: 'Bob', authorEmail: 'bob@example.com', allowEmpty: true })
    assert.equal(await t.sh('git log -1 --format="%an %ae %s"', { cwd: path }), 'Bob bob@example.com it\'s "quoted" $HOME\n')
    await fails(CommandExitError, t.sbx.git.commit(path, 'nothing', author))
  }],
  ['git.status', 'changes and branch', async (t) => {
    const path = await repository(t)
    assert.equal((await t.sbx.git.status(path)).isClean, true)
    await t.sh('echo x > a; touch b c; git add b; git mv a d', { cwd: path })
    const s = await t.sbx.git.status(path)
    assert.deepEqual([s.currentBranch, s.isClean, s.hasStaged, s.hasUntracked, s.hasConflicts], ['main', false, true, true, false])
    const files = s.fileStatus.map((f) => [f.name, f.status, f.staged]).sort()
    assert.deepEqual(files, [['b', 'added', true], ['c', 'untracked', false], ['d', 'renamed', true]])
  }],
  ['git.status', 'ahead of its remote', async (t) => {
    const { path } = await shared(t)
    await commit(t, path, 'b', 'second')
    const s = await t.sbx.git.status(path)
    assert.deepEqual([s.upstream, s.ahead, s.behind], ['origin/main', 1, 0])
  }],
  ['git.branches', 'all and the current one', async (t) => {
    const path = await repository(t)
    await t.sh('git branch other', { cwd: path })
    const b = await t.sbx.git.branches(path)
    assert.deepEqual([b.branches.sort(), b.currentBranch], [['main', 'other'], 'main'])
  }],
  ['git.create_branch', 'and check it out', async (t) => {
    const path = await repository(t)
    await t.sbx.git.createBranch(path, 'topic')
    assert.equal((await t.sbx.git.branches(path)).currentBranch, 'topic')
  }],
  ['git.checkout_branch', 'known and unknown', async (t) => {
    const path = await repository(t)
    await t.sbx.git.createBranch(path, 'topic')
    await t.sbx.git.checkoutBranch(path, 'main')
    assert.equal((await t.sbx.git.branches(path)).currentBranch, 'main')
    await fails(CommandExitError, t.sbx.git.checkoutBranch(path, 'none'))
  }],
  ['git.delete_branch', 'merged, and by force', async (t) => {
    const path = await repository(t)
    await t.sh('git branch merged; git checkout -q -b topic', { cwd: path })
    await commit(t, path, 'b', 'second')
    await t.sbx.git.checkoutBranch(path, 'main')
    await t.sbx.git.deleteBranch(path, 'merged')
    await fails(CommandExitError, t.sbx.git.deleteBranch(path, 'topic'))
    await t.sbx.git.deleteBranch(path, 'topic', { force: true })
    assert.deepEqual((await t.sbx.git.branches(path)).branches, ['main'])
  }],
  ['git.reset', 'modes and paths', async (t) => {
    const path = await repository(t)
    await commit(t, path, 'b', 'second')
    await t.sbx.git.reset(path, { mode: 'soft', target: 'HEAD~1' })
    assert.equal(await t.sh('git status --short', { cwd: path }), 'A  b\n')
    await t.sbx.git.reset(path, { paths: ['b'] })
    assert.equal(await t.sh('git status --short', { cwd: path }), '?? b\n')
    await t.sh('echo changed > a', { cwd: path })
    await t.sbx.git.reset(path, { mode: 'hard' })
    assert.equal(await t.sbx.files.read(path + '/a'), 'first')
  }],
  ['git.restore', 'files, staged or not', async (t) => {
    const path = await repository(t)
    await t.sh('echo changed > a; git add a', { cwd: path })
    await t.sbx.git.restore(path, { paths: ['a'], staged: true })
    assert.equal(await t.sh('git status --short', { cwd: path }), ' M a\n')
    await t.sbx.git.restore(path, { paths: ['a'] })
    assert.equal(await t.sbx.files.read(path + '/a'), 'first')
  }],
  ['git.remote_add', 'new, again, and fetched', async (t) => {
    const { path, bare } = await shared(t)
    await t.sbx.git.remoteAdd(path, 'other', '/nowhere')
    await fails(CommandExitError, t.sbx.git.remoteAdd(path, 'other', bare))
    await t.sbx.git.remoteAdd(path, 'other', bare, { overwrite: true, fetch: true })
    assert.equal(await t.sh('git branch -r', { cwd: path }), '  origin/main\n  other/main\n')
  }],
  ['git.remote_get', 'known and unknown', async (t) => {
    const { path, bare } = await shared(t)
    assert.equal(await t.sbx.git.remoteGet(path, 'origin'), bare)
    assert.equal(await t.sbx.git.remoteGet(path, 'none'), undefined)
  }],
  ['git.push', 'to a bare repository', async (t) => {
    const { path, bare } = await shared(t)
    await commit(t, path, 'b', 'second')
    await t.sbx.git.push(path)
    assert.equal(await log(t, bare), 'second\nfirst\n')
  }],
  ['git.push', 'nowhere to push to', async (t) => {
    const { path } = await shared(t)
    await t.sbx.git.createBranch(path, 'topic')
    await fails(GitUpstreamError, t.sbx.git.push(path, { setUpstream: false }), 'no upstream branch is configured')
  }],
  ['git.push', 'with a password', async (t) => {
    const { path, url, login, stop } = await guarded(t)
    await t.sbx.git.remoteAdd(path, 'web', url)
    await commit(t, path, 'b', 'second')
    await t.sbx.git.push(path, { remote: 'web', branch: 'main', ...login })
    assert.equal(await log(t, t.path('shared.git')), 'second\nfirst\n')
    assert.equal(await t.sbx.git.remoteGet(path, 'web'), url)
    await fails(GitAuthError, t.sbx.git.push(path, { remote: 'web', branch: 'main' }))
    await stop()
  }],
  ['git.pull', 'from a bare repository', async (t) => {
    const { path, bare } = await shared(t)
    await t.sbx.git.clone(bare, { path: t.path('copy') })
    await commit(t, path, 'b', 'second')
    await t.sbx.git.push(path)
    await t.sbx.git.pull(t.path('copy'))
    assert.equal(await log(t, t.path('copy')), 'second\nfirst\n')
    await t.sbx.git.createBranch(path, 'topic')
    await fails(GitUpstreamError, t.sbx.git.pull(path), 'no upstream branch is configured')
  }],
  ['git.pull', 'with a password', async (t) => {
    const { path, url, login, stop } = await guarded(t)
    await t.sbx.git.clone(url, { path: t.path('copy'), ...login })
    await commit(t, path, 'b', 'second')
    await t.sbx.git.push(path)
    await fails(GitAuthError, t.sbx.git.pull(t.path('copy')))
    await t.sbx.git.pull(t.path('copy'), login)
    assert.equal(await log(t, t.path('copy')), 'second\nfirst\n')
    await stop()
  }],
  ['git.clone', 'branch and depth', async (t) => {
    const { path, bare } = await shared(t)
    await t.sbx.git.createBranch(path, 'topic')
    await commit(t, path, 'b', 'second')
    await t.sbx.git.push(path, { remote: 'origin', branch: 'topic' })
    await t.sbx.git.clone(`file://${bare}`, { path: t.path('copy'), branch: 'topic', depth: 1 })
    assert.equal(await log(t, t.path('copy')), 'second\n')
    await t.sbx.git.clone(bare, { cwd: t.path('copy') })
    assert.equal(await log(t, t.path('copy/shared')), 'first\n')
  }],
  ['git.clone', 'with a password', async (t) => {
    const { url, login, stop } = await guarded(t)
    await fails(GitAuthError, t.sbx.git.clone(url, { path: t.path('none') }))
    await fails(GitAuthError, t.sbx.git.clone(url, { path: t.path('none'), ...login, password: 'wrong' }))
    await fails(InvalidArgumentError, t.sbx.git.clone(url, { password: 'x' }))
    await t.sbx.git.clone(url, { path: t.path('copy'), ...login })
    assert.equal(await t.sbx.git.remoteGet(t.path('copy'), 'origin'), url)
    await t.sbx.git.clone(url, { path: t.path('kept'), ...login, dangerouslyStoreCredentials: true })
    assert.equal(await t.sbx.git.remoteGet(t.path('kept'), 'origin'), url.replace('//', '//ada:s3cret@'))
    await stop()
  }],
  ['git.dangerously_authenticate', 'the password is remembered', async (t) => {
    const { url, login, stop } = await guarded(t)
    await t.sbx.git.dangerouslyAuthenticate({ ...login, host: new URL(url).host, protocol: 'http' })
    await t.sbx.git.clone(url, { path: t.path('copy') })
    assert.equal(await log(t, t.path('copy')), 'first\n')
    await stop()
  }],
]
