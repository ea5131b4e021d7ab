// What of the package is public. Types are gone at run time, so that a method is
// private stands in the declarations beside the code.
import { readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { dirname, join } from 'node:path'
import * as e2b from 'e2b'

const entry = createRequire(import.meta.url).resolve('e2b')
const declarations = readFileSync(join(dirname(entry), 'index.d.ts'), 'utf8')

// Names are written as the Python SDK writes them, so that one table has both.
const renamed = { 'pty.send_input': 'pty.send_stdin', 'commands.supports_stdin_close': null }
const snake = (name) => name.replace(/[A-Z]/g, (c) => '_' + c.toLowerCase())

// hidden names what a class keeps to itself. Bundlers number names that clash.
function hidden(bundledName) {
  const className = bundledName.replace(/^_|\d+$/g, '')
  const body = new RegExp(`^(?:export )?declare (?:abstract )?class ${className}\\b[^]*?^}`, 'm').exec(declarations)
  if (!body) throw new Error(`the package declares no class ${className}`)
  return new Set([...body[0].matchAll(/^\s+(?:private|protected) (?:static )?(?:readonly )?(\w+)/gm)].map((m) => m[1]))
}

// declares says whether a type has a member, "Type.member": an option of a
// method, or the part of a class that a behaviour rests on.
export function declares(what) {
  const [type, name] = what.split('.')
  const body = new RegExp(`^(?:export )?(?:declare )?(?:interface|class|type) ${type}\\b[^]*?^}`, 'm').exec(declarations)
  return body !== null && new RegExp(`^\\s+(?:private |protected |readonly )*${name}\\??[:;]`, 'm').test(body[0])
}

function publicOf(start, end) {
  const found = []
  for (let p = start; p && p !== end; p = Object.getPrototypeOf(p)) {
    const className = typeof p === 'function' ? p.name : p.constructor.name
    const secret = hidden(className)
    for (const [name, property] of Object.entries(Object.getOwnPropertyDescriptors(p))) {
      if (name !== 'constructor' && typeof property.value === 'function' && !secret.has(name)) found.push(name)
    }
  }
  return found
}

// methodsOf names every public method that a sandbox offers, with those of its
// modules and handles, and the classes of the package that serve other things.
export async function methodsOf(sbx) {
  const handle = await sbx.commands.run('exec sleep 60', { background: true })
  const watch = await sbx.files.watchDir('/tmp', () => {})
  const groups = { commands: sbx.commands, handle, pty: sbx.pty, files: sbx.files, watch, git: sbx.git, sandbox: sbx }
  const names = new Set()
  for (const [group, object] of Object.entries(groups)) {
    const found = publicOf(Object.getPrototypeOf(object), Object.prototype)
    if (group === 'sandbox') found.push(...publicOf(e2b.Sandbox, Function.prototype))
    for (const method of found) {
      const name = `${group}.${snake(method)}`
      names.add(renamed[name] ?? name)
    }
  }
  for (const name of ['Template', 'Volume', 'Secret']) if (name in e2b) names.add(name)
  await watch.stop()
  await handle.kill()
  await handle.wait().catch(() => {})
  return names
}
