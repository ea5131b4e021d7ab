// Every public method of the official JavaScript SDK, against a server. Prints
// one line of JSON for each case, one for the methods that the package has, and
// one at the end.
import * as e2b from 'e2b'

import { Run, print } from './matrix/harness.mjs'
import { methodsOf } from './matrix/reflect.mjs'
import commands from './matrix/commands.mjs'
import pty from './matrix/pty.mjs'
import files from './matrix/files.mjs'
import git from './matrix/git.mjs'
import sandbox from './matrix/sandbox.mjs'
import lifecycle from './matrix/lifecycle.mjs'
import snapshots from './matrix/snapshots.mjs'

const sbx = await e2b.Sandbox.create({ timeoutMs: 600_000, envs: { GREETING: 'hello', WHO: 'all' } })
try {
  const methods = await methodsOf(sbx)
  print({ methods: [...methods] })
  const run = new Run(sbx, methods)
  for (const cases of [commands, pty, files, git, sandbox, lifecycle, snapshots]) await run.all(cases)
} finally {
  await sbx.kill()
}
print({ end: true })
process.exit(0) // connections that are kept alive would hold it up
