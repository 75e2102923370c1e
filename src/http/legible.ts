// What a log can say of a request that is refused: whoever is asked why needs to know which one it was. Only visible
// characters, only the beginning of it, and no query, which may hold secrets.

export interface LegibleRequest {
  readonly method: string
  readonly path: string
}

const MOST_METHOD = 32
const MOST_PATH = 256
const LINE = /^([A-Za-z-]+) (\/[^ ]*)/
const METHOD = /^[A-Za-z-]+$/
const VISIBLE = /^[!-~]*$/

/** @param bytes that a request begins with, or some of them */
export function legibleLine(bytes: Buffer): LegibleRequest | undefined {
  const text = bytes.toString('latin1', 0, Math.min(bytes.length, MOST_METHOD + MOST_PATH + 2))
  const [, method, target] = LINE.exec(text.split('\r', 1)[0]!) ?? []
  return legible(method, target)
}

/** @param list of an HTTP/2 request, as received */
export function legibleList(list: readonly string[]): LegibleRequest | undefined {
  const field = (name: string): string | undefined => {
    const at = list.findIndex((one, i) => i % 2 === 0 && one === name)
    return at === -1 ? undefined : list[at + 1]
  }
  return legible(field(':method'), field(':path'))
}

function legible(
  method: string | undefined,
  target: string | undefined,
): LegibleRequest | undefined {
  if (method === undefined || target === undefined) return undefined
  const [path = ''] = target.slice(0, MOST_PATH).split(/[?#]/, 1)
  if (method.length > MOST_METHOD || !METHOD.test(method)) return undefined
  return path.startsWith('/') && VISIBLE.test(path) ? { method, path } : undefined
}
