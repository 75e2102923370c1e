// Parses the part of Go's text/template that strings.render_template supplies: values, variables,
// if, with, range, and calls of functions, with pipes. What is not supplied is a syntax error.
import { BuiltinError } from './builtin.ts'

export type Node =
  | { readonly kind: 'text'; readonly text: string }
  | { readonly kind: 'action'; readonly pipe: Pipe }
  | {
      readonly kind: 'if' | 'with' | 'range'
      readonly pipe: Pipe
      readonly body: readonly Node[]
      readonly otherwise: readonly Node[]
    }

export interface Pipe {
  /** Variables that take the value; two of them in a range. */
  readonly names: readonly string[]
  readonly declares: boolean
  /** Each gets the value of the one before as its last argument. */
  readonly commands: readonly Command[]
}

export type Command = readonly Operand[]

export type Operand =
  | { readonly kind: 'dot'; readonly fields: readonly string[] }
  | { readonly kind: 'variable'; readonly name: string; readonly fields: readonly string[] }
  | { readonly kind: 'constant'; readonly value: string | number | boolean | null }
  | { readonly kind: 'function'; readonly name: string }
  | { readonly kind: 'pipe'; readonly pipe: Pipe; readonly fields: readonly string[] }

const TOKEN =
  /[ \t\r\n]+|"(?:[^"\\\n]|\\.)*"|`[^`]*`|-?[0-9]+(?![0-9.eExXoObB_])|:=|[|(),=]|\$?[\p{L}_][\p{L}\p{Nd}_]*|\$|(?:\.[\p{L}_][\p{L}\p{Nd}_]*)+|\./uy
const MAX_DEPTH = 50

/** @throws BuiltinError */
export function parseTemplate(text: string, functions: ReadonlySet<string>): readonly Node[] {
  return new Parser(text, functions).parse()
}

interface Piece {
  readonly text?: string
  readonly tokens?: readonly string[]
}

class Parser {
  readonly #pieces: readonly Piece[]
  readonly #functions: ReadonlySet<string>
  readonly #variables = new Set(['$'])
  #next = 0
  #tokens: readonly string[] = []
  #at = 0
  #depth = 0

  constructor(text: string, functions: ReadonlySet<string>) {
    this.#pieces = piecesOf(text)
    this.#functions = functions
  }

  parse(): readonly Node[] {
    const { nodes, end } = this.#list()
    if (end !== undefined) fail(`unexpected ${end}`)
    return nodes
  }

  /** Up to the end of the text, or an `else` or `end`, whose tokens are the present ones then. */
  #list(): { nodes: readonly Node[]; end: string | undefined } {
    if (++this.#depth > MAX_DEPTH) fail('nested too deep')
    const nodes: Node[] = []
    let end: string | undefined
    while (end === undefined && this.#next < this.#pieces.length) {
      const { text, tokens } = this.#pieces[this.#next++] as Piece
      if (text !== undefined) nodes.push({ kind: 'text', text })
      if (tokens === undefined) continue
      this.#tokens = tokens
      this.#at = 0
      const first = this.#peek()
      if (first === 'else' || first === 'end') {
        end = first
        this.#at++
      } else {
        nodes.push(this.#node(first))
      }
    }
    this.#depth--
    return { nodes, end }
  }

  #node(first: string | undefined): Node {
    if (first !== 'if' && first !== 'with' && first !== 'range') {
      const pipe = this.#wholePipe(false)
      return { kind: 'action', pipe }
    }
    this.#at++
    return this.#control(first)
  }

  #control(kind: 'if' | 'with' | 'range'): Node {
    const pipe = this.#wholePipe(kind === 'range')
    const { nodes: body, end } = this.#list()
    if (end === undefined) fail('unexpected end of the template')
    if (end === 'end') {
      this.#finish()
      return { kind, pipe, body, otherwise: [] }
    }
    // `else if` goes on as a node of its own, which the same `end` closes.
    const chained = this.#peek()
    if (chained === kind && kind !== 'range') {
      this.#at++
      return { kind, pipe, body, otherwise: [this.#control(kind)] }
    }
    this.#finish()
    const rest = this.#list()
    if (rest.end !== 'end') fail('expected end')
    this.#finish()
    return { kind, pipe, body, otherwise: rest.nodes }
  }

  #wholePipe(isRange: boolean): Pipe {
    const pipe = this.#pipe(isRange)
    this.#finish()
    return pipe
  }

  #pipe(isRange: boolean): Pipe {
    const names: string[] = []
    let declares = false
    const assignment = this.#tokens.findIndex(
      (one, i) => i >= this.#at && (one === ':=' || one === '='),
    )
    if (assignment >= 0) {
      const left = this.#tokens
        .slice(this.#at, assignment)
        .filter((one) => !/^[, \t\r\n]/.test(one))
      declares = this.#tokens[assignment] === ':='
      if (left.length === 0 || left.length > (isRange ? 2 : 1)) fail('too many declarations')
      for (const name of left) {
        if (!name.startsWith('$')) fail(`unexpected ${name}`)
        if (!declares && !this.#variables.has(name)) fail(`undefined variable ${name}`)
        names.push(name)
      }
      this.#at = assignment + 1
    }
    const commands = [this.#command()]
    while (this.#peek() === '|') {
      this.#at++
      commands.push(this.#command())
    }
    for (const name of names) this.#variables.add(name)
    return { names, declares, commands }
  }

  #command(): Command {
    const operands: Operand[] = []
    for (;;) {
      const token = this.#peek()
      if (token === undefined || token === '|' || token === ')') break
      operands.push(this.#operand(token))
    }
    if (operands.length === 0) fail('missing value for command')
    if (operands[0]?.kind === 'constant' && operands[0].value === null) fail('nil is not a command')
    return operands
  }

  #operand(token: string): Operand {
    this.#at++
    if (token === '(') {
      if (++this.#depth > MAX_DEPTH) fail('nested too deep')
      const pipe = this.#pipe(false)
      this.#depth--
      if (this.#tokens[this.#at++] !== ')') fail('unclosed left paren')
      return { kind: 'pipe', pipe, fields: this.#fields() }
    }
    if (token === '.') return { kind: 'dot', fields: [] }
    if (token.startsWith('.')) return { kind: 'dot', fields: token.slice(1).split('.') }
    if (token.startsWith('$')) {
      if (!this.#variables.has(token)) fail(`undefined variable ${token}`)
      return { kind: 'variable', name: token, fields: this.#fields() }
    }
    const constant = constantOf(token)
    if (constant !== undefined) return { kind: 'constant', value: constant }
    if (!this.#functions.has(token)) fail(`function ${token} not defined`)
    return { kind: 'function', name: token }
  }

  /** Only what stands right behind it; tokens of space are kept apart for this. */
  #fields(): readonly string[] {
    const token = this.#tokens[this.#at]
    if (token === undefined || !/^\../.test(token)) return []
    this.#at++
    return token.slice(1).split('.')
  }

  #peek(): string | undefined {
    while (/^[ \t\r\n]/.test(this.#tokens[this.#at] ?? '')) this.#at++
    return this.#tokens[this.#at]
  }

  #finish(): void {
    const token = this.#peek()
    if (token !== undefined) fail(`unexpected ${token}`)
  }
}

function piecesOf(template: string): Piece[] {
  const pieces: Piece[] = []
  let at = 0
  let trimNext = false
  for (;;) {
    const open = template.indexOf('{{', at)
    const raw = template.slice(at, open < 0 ? undefined : open)
    const trimsBefore = open >= 0 && /^-[ \t\r\n]/.test(template.slice(open + 2, open + 4))
    const started = trimNext ? raw.trimStart() : raw
    const text = trimsBefore ? started.trimEnd() : started
    if (text !== '') pieces.push({ text })
    if (open < 0) return pieces
    const inside = open + 2 + (trimsBefore ? 1 : 0)
    const comment = /^\s*\/\*/.test(template.slice(inside, inside + 20))
    const { tokens, end } = comment ? skipComment(template, inside) : tokensFrom(template, inside)
    if (tokens.length > 0) pieces.push({ tokens })
    else if (!comment) fail('missing value for command')
    trimNext = /[ \t\r\n]-$/.test(template.slice(end - 2, end))
    at = end + 2
  }
}

function skipComment(template: string, from: number): { tokens: string[]; end: number } {
  const close = template.indexOf('*/', from)
  const end = template.indexOf('}}', close)
  if (close < 0 || end < 0 || !/^(?:\s-)?$/.test(template.slice(close + 2, end))) {
    fail('unclosed comment')
  }
  return { tokens: [], end }
}

function tokensFrom(template: string, from: number): { tokens: string[]; end: number } {
  const tokens: string[] = []
  let at = from
  for (;;) {
    if (template.startsWith('}}', at)) return { tokens: meaningful(tokens), end: at }
    if (/^-\}\}/.test(template.slice(at, at + 3)) && /[ \t\r\n]$/.test(tokens.at(-1) ?? '')) {
      return { tokens: meaningful(tokens), end: at + 1 }
    }
    TOKEN.lastIndex = at
    const token = TOKEN.exec(template)?.[0]
    if (token === undefined) fail('unexpected character in an action, or no end of it')
    tokens.push(token)
    at += token.length
  }
}

/** Without space at the beginning and the end. */
function meaningful(tokens: readonly string[]): string[] {
  const isSpace = (token: string | undefined) => /^[ \t\r\n]/.test(token ?? '')
  const start = isSpace(tokens[0]) ? 1 : 0
  return tokens.slice(start, isSpace(tokens.at(-1)) ? -1 : undefined)
}

function constantOf(token: string): string | number | boolean | null | undefined {
  if (token.startsWith('`')) return token.slice(1, -1)
  if (/^-?[0-9]/.test(token)) return Number(token)
  if (token === 'true' || token === 'false') return token === 'true'
  if (token === 'nil') return null
  if (!token.startsWith('"')) return undefined
  try {
    return JSON.parse(token) as string
  } catch {
    return fail('a string that is not understood')
  }
}

function fail(reason: string): never {
  throw new BuiltinError(`template: ${reason}`)
}
