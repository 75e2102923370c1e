// A JSON body as it goes into the input document. Promises one JSON value that every reader takes for
// the same, with numbers as they were written and within bounds that are harmless in wasm.

import { readJson, writeValue } from '../builtins/value.ts'
import { InputError } from '../input-error.ts'

/** OPA reads and walks by recursion, on a stack of 64 KiB. */
const MAX_DEPTH = 100
/** OPA's objects are chained hash tables without a seed. */
const MAX_KEYS = 1_000
/** Wasm traps at numbers of a thousand digits and at exponents of eight (measured, OPA 1.22). */
const MAX_NUMBER_LENGTH = 100
const MAX_EXPONENT = 400

/**
 * Strict JSON (RFC 8259), nothing behind it. Of equal keys the last counts and half a surrogate pair
 * is U+FFFD, as in Go's decoder.
 * @throws InputError
 */
export function jsonForInput(text: string): string {
  const scanner = new Scanner(text)
  scanner.scan()
  // Seldom: so the text itself goes on, and only what must be written anew is.
  return scanner.ambiguous ? writeValue(readJson(text)) : text
}

class Scanner {
  /** Keys occur twice, or there is half a surrogate pair. */
  ambiguous = false
  readonly #text: string
  #at = 0

  constructor(text: string) {
    this.#text = text
  }

  scan(): void {
    this.#value(0)
    this.#next()
    if (this.#at < this.#text.length) this.#fail()
  }

  #value(depth: number): void {
    if (depth > MAX_DEPTH) throw new InputError(`JSON nested deeper than ${MAX_DEPTH}`)
    switch (this.#next()) {
      case 0x7b:
        return this.#object(depth)
      case 0x5b:
        return this.#array(depth)
      case 0x22:
        this.#string()
        return
      case 0x74:
        return this.#word('true')
      case 0x66:
        return this.#word('false')
      case 0x6e:
        return this.#word('null')
      default:
        return this.#number()
    }
  }

  #object(depth: number): void {
    this.#at++
    if (this.#next() === 0x7d) {
      this.#at++
      return
    }
    const keys = new Set<string>()
    for (;;) {
      if (this.#next() !== 0x22) this.#fail()
      const key = this.#string()
      if (keys.has(key)) this.ambiguous = true
      else if (keys.add(key).size > MAX_KEYS) {
        throw new InputError(`a JSON object with more than ${MAX_KEYS} keys`)
      }
      if (this.#next() !== 0x3a) this.#fail()
      this.#at++
      this.#value(depth + 1)
      if (this.#closes(0x7d)) return
    }
  }

  #array(depth: number): void {
    this.#at++
    if (this.#next() === 0x5d) {
      this.#at++
      return
    }
    do this.#value(depth + 1)
    while (!this.#closes(0x5d))
  }

  /** Takes the closing bracket, or the comma before another item. */
  #closes(bracket: number): boolean {
    const code = this.#next()
    if (code !== bracket && code !== 0x2c) this.#fail()
    this.#at++
    return code === bracket
  }

  /** @returns what it stands for, for comparison with other keys */
  #string(): string {
    const text = this.#text
    const start = this.#at
    let escaped = false
    let at = start + 1
    for (; ; at++) {
      const code = text.charCodeAt(at)
      if (code === 0x22) break
      // NaN, at the end of the text, is neither.
      if (!(code >= 0x20)) this.#fail()
      if (code === 0x5c) {
        escaped = true
        at++
      }
    }
    this.#at = at + 1
    if (!escaped) return text.slice(start + 1, at)
    return this.#unescaped(text.slice(start, at + 1))
  }

  #unescaped(literal: string): string {
    let value: string
    try {
      value = JSON.parse(literal) as string
    } catch {
      return this.#fail()
    }
    if (value.isWellFormed()) return value
    this.ambiguous = true
    return value.toWellFormed()
  }

  #number(): void {
    const start = this.#at
    if (this.#code() === 0x2d) this.#at++
    if (this.#code() === 0x30) this.#at++
    else this.#digits()
    if (this.#code() === 0x2e) {
      this.#at++
      this.#digits()
    }
    if ((this.#code() | 0x20) === 0x65) this.#exponent()
    if (this.#at - start > MAX_NUMBER_LENGTH) {
      throw new InputError(`a JSON number of more than ${MAX_NUMBER_LENGTH} characters`)
    }
  }

  #exponent(): void {
    this.#at++
    if (this.#code() === 0x2b || this.#code() === 0x2d) this.#at++
    const start = this.#at
    this.#digits()
    if (Number(this.#text.slice(start, this.#at)) > MAX_EXPONENT) {
      throw new InputError(`a JSON number with an exponent beyond ${MAX_EXPONENT}`)
    }
  }

  #digits(): void {
    const start = this.#at
    while (this.#code() >= 0x30 && this.#code() <= 0x39) this.#at++
    if (this.#at === start) this.#fail()
  }

  #word(word: string): void {
    if (!this.#text.startsWith(word, this.#at)) this.#fail()
    this.#at += word.length
  }

  #code(): number {
    return this.#text.charCodeAt(this.#at)
  }

  /** The next character that is no white space. */
  #next(): number {
    for (;;) {
      const code = this.#text.charCodeAt(this.#at)
      if (code !== 0x20 && code !== 0x0a && code !== 0x0d && code !== 0x09) return code
      this.#at++
    }
  }

  #fail(): never {
    throw new InputError(`the body is not JSON, at character ${this.#at}`)
  }
}
