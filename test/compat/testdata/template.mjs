// Templates, as a user of the official JavaScript SDK builds and uses them.
import assert from 'node:assert/strict'
import { mkdtempSync, cpSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Sandbox, Template, waitForPort, waitForFile, waitForTimeout, waitForProcess, waitForURL, BuildError } from 'e2b'

const context = mkdtempSync(join(tmpdir(), 'context-'))
cpSync(process.env.CONTEXT, context, { recursive: true })
symlinkSync('app.py', join(context, 'site', 'relative'))
symlinkSync('/etc/hostname', join(context, 'site', 'absolute'))

const lines = []
const onBuildLogs = (entry) => lines.push(entry.message)
const timed = async (do_) => {
  const begun = performance.now()
  const result = await do_()
  return [result, performance.now() - begun]
}

// The whole of what the builder offers, and a server as start command.
const full = (extra) => Template({ fileContextPath: context })
  .fromBaseImage()
  .copy('site', 'app')
  .copy(['one.txt', 'two.txt'], '/srv/texts/', { user: 'root', mode: 0o640 })
  .copyItems([{ src: 'one.txt', dest: 'renamed.txt' }, { src: 'site/*', dest: '/opt/site/' }])
  .setEnvs({ MODE: 'built', WHERE: '$HOME/x' })
  .runCmd('echo "$MODE" > mode.txt')
  .runCmd(['echo a > both', 'echo b >> both'], { user: 'root' })
  .makeDir('made/deep', { mode: 0o700 })
  .makeSymlink('made/deep', 'link')
  .rename('both', 'moved')
  .makeDir('gone')
  .remove('gone', { recursive: true })
  .runCmd('git init -q repo && cd repo && git -c user.name=a -c user.email=a@b.c commit -q --allow-empty -m first')
  .gitClone('/home/user/repo', 'cloned', { depth: 1 })
  .pipInstall('flask')
  .aptInstall(['tree'])
  .npmInstall('left-pad')
  .setWorkdir('/home/user/app')
  .runCmd(`echo ${extra} > extra.txt`)
  .setStartCmd('python app.py', waitForPort(8000))

const [info, took] = await timed(() => Template.build(full('first'), 'js-full:v1', { cpuCount: 1, memoryMB: 768, onBuildLogs }))
console.log(`built in ${Math.round(took)} ms`)
assert.equal(info.name, 'js-full:v1')
assert.ok(lines.some((l) => l.includes('[builder 1/')) && lines.some((l) => l.includes('Running start command')), lines.join('\n'))

const sbx = await Sandbox.create('js-full:v1')
try {
  // The server answers at once: it was running when the template was saved.
  const [page, wait] = await timed(() => fetch(`${process.env.E2B_SANDBOX_URL}/`, { headers: { 'E2b-Sandbox-Id': sbx.sandboxId, 'E2b-Sandbox-Port': '8000' } }))
  const body = await page.json()
  assert.deepEqual([page.status, body.hello, body.mode], [200, 'from the template', 'built'])
  console.log(`first answer after ${Math.round(wait)} ms`)
  const out = async (cmd, opts) => (await sbx.commands.run(cmd, opts)).stdout
  assert.equal(await out('pwd; whoami; cat extra.txt'), '/home/user/app\nuser\nfirst\n')
  assert.equal(await out('cat ~/mode.txt ~/moved; cat deep/er/file.txt; ls'), 'built\na\nb\ndeep\nabsolute\napp.py\ndeep\nextra.txt\nrelative\nstatic\n')
  assert.equal(await out('readlink relative absolute; stat -c "%U %a" ~/made/deep app.py'), 'app.py\n/etc/hostname\nuser 700\nuser 644\n')
  assert.equal(await out('stat -c "%U:%G %a" /srv/texts/one.txt; cat ~/renamed.txt; ls /opt/site ~/cloned/.git/HEAD; readlink ~/link'),
    'root:root 640\none\n/home/user/cloned/.git/HEAD\n\n/opt/site:\nabsolute\napp.py\ndeep\nrelative\nstatic\nmade/deep\n')
  assert.equal(await out('test ! -e ~/gone && which tree && test -d ~/node_modules/left-pad && echo yes'), '/usr/bin/tree\nyes\n')
  assert.equal(await out('echo "[$MODE]"'), '[]\n') // variables of the template are for its build and its start command
  const got = await sbx.getInfo()
  assert.deepEqual([got.cpuCount, got.memoryMB, got.name], [1, 768, 'js-full'])
} finally {
  await sbx.kill()
}

// The same again costs nothing; a change at the end runs the end alone.
lines.length = 0
const [same, again] = await timed(() => Template.build(full('first'), 'js-full:v1', { cpuCount: 1, memoryMB: 768, onBuildLogs }))
assert.equal(same.templateId, info.templateId)
assert.notEqual(same.buildId, info.buildId)
assert.ok(again < 1000, `an unchanged build took ${again} ms`)
assert.ok(lines.filter((l) => l.startsWith('CACHED [builder')).length > 15, lines.join('\n'))
console.log(`unchanged: ${Math.round(again)} ms`)
lines.length = 0
const [, last] = await timed(() => Template.build(full('second'), 'js-full:v2', { cpuCount: 1, memoryMB: 768, onBuildLogs }))
console.log(`last step changed: ${Math.round(last)} ms`)
const ran = lines.filter((l) => /^\[builder \d+\/\d+\] (RUN|COPY|ENV|USER|WORKDIR)/.test(l))
assert.equal(ran.length, 1, ran.join('\n'))
assert.ok(ran[0].includes('second'))

// Two at once, of the same name; one begins with another template.
const from = (n) => Template().fromTemplate('js-full:v1').runCmd(`echo ${n} > ~/n`)
const [one, two] = await Promise.all([1, 2].map((n) => Template.build(from(n), `js-two:n${n}`)))
assert.equal(one.templateId, two.templateId)
for (const n of [1, 2]) {
  const s = await Sandbox.create(`js-two:n${n}`)
  // What it begins with hands on its start command too.
  assert.equal((await s.commands.run('cat ~/n extra.txt; curl -s localhost:8000 | grep -c template')).stdout, `${n}\nfirst\n1\n`)
  await s.kill()
}

// The other ready commands.
const ready = {
  file: ['sleep 0.3; touch /tmp/ready; sleep 600', waitForFile('/tmp/ready')],
  process: ['sleep 599', waitForProcess('sleep')],
  timeout: ['sleep 598', waitForTimeout(1000)],
  url: ['python3 -m http.server 9000', waitForURL('http://localhost:9000/')],
}
for (const [name, [start, ready_]] of Object.entries(ready)) {
  await Template.build(Template().fromTemplate('base').setStartCmd(start, ready_), `js-ready:${name}`)
}
const served = await Sandbox.create('js-ready:url')
assert.equal((await served.commands.run('curl -s -o /dev/null -w "%{http_code}" localhost:9000/')).stdout, '200')
await served.kill()

// Failures say what happened, and where.
const fails = async (template, ...texts) => {
  let error
  try {
    await Template.build(template, 'js-fails')
  } catch (e) {
    error = e
  }
  assert.ok(error instanceof BuildError, String(error))
  for (const text of texts) assert.ok(error.message.includes(text), `${error.message} has no ${text}`)
  return error
}
const failed = await fails(Template().fromBaseImage().runCmd('true').runCmd('echo last words >&2; exit 7'), 'exit status 7', 'last words')
assert.ok(failed.stack.includes('template.mjs'), failed.stack) // the line of the user's own source
await fails(Template().fromBaseImage().runCmd('whoami', { user: 'root123' }),
  "failed to run command 'whoami': command failed: unauthenticated: invalid username: 'root123'")
await fails(Template().fromBaseImage().setStartCmd('echo broken; exit 3', waitForPort(1)), 'start command', 'exit status 3')
await fails(Template().fromImage('127.0.0.1:1/none'), 'cannot be reached')

// In the background, with tags.
const back = await Template.buildInBackground(Template().fromBaseImage().runCmd('sleep 1'), 'js-back', { tags: ['a', 'b'] })
assert.equal((await Template.getBuildStatus(back)).status, 'building')
while ((await Template.getBuildStatus(back)).status === 'building') await new Promise((r) => setTimeout(r, 200))
assert.equal((await Template.getBuildStatus(back)).status, 'ready')
assert.deepEqual((await Template.getTags('js-back')).map((t) => t.tag).sort(), ['a', 'b'])
const assigned = await Template.assignTags('js-back:a', ['c', 'default'])
assert.deepEqual([assigned.buildId, assigned.tags.sort()], [back.buildId, ['c', 'default']])
await Template.removeTags('js-back', ['b', 'c'])
assert.deepEqual((await Template.getTags('js-back')).map((t) => t.tag).sort(), ['a', 'default'])
await assert.rejects(Template.assignTags('js-back:a', [':invalid-tag']))
await assert.rejects(Template.removeTags('js-back', ['nothing']))
assert.deepEqual([await Template.exists('js-back'), await Template.exists('js-never')], [true, false])

// A Dockerfile.
writeFileSync(join(context, 'Dockerfile'), `FROM e2bdev/base
ARG NAME=world
ENV GREETING=hello
WORKDIR /app
COPY one.txt two.txt ./
RUN echo "$GREETING there" > said
USER user
CMD ["python3", "-m", "http.server", "8080"]
`)
await Template.build(Template({ fileContextPath: context }).fromDockerfile(join(context, 'Dockerfile')).setReadyCmd(waitForPort(8080)), 'js-docker')
const docker = await Sandbox.create('js-docker')
assert.equal((await docker.commands.run('pwd; cat said one.txt; curl -s localhost:8080/two.txt')).stdout, '/app\nhello there\none\ntwo\n')
await docker.kill()
console.log('ALL PASSED')
