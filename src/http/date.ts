// The Date field (RFC 9110 section 5.6.7), made once a second at most.

let second = Number.NaN
let text = ''

export function httpDate(nowMs: number): string {
  const now = Math.floor(nowMs / 1000)
  if (now !== second) {
    second = now
    text = new Date(nowMs).toUTCString()
  }
  return text
}
