// Host: who the client wants to talk to. Promises a value that every recipient splits the same way.

/**
 * `host` or `host:port`, where host is a name, an IPv4 address or an IPv6 address in brackets. The
 * names are narrower than RFC 3986 reg-name: unreserved characters only. No percent-encoding and no
 * sub-delims, above all no comma, in which some recipients see a list of hosts. No user information,
 * no empty host, no empty port, no IPv6 zone.
 */
export function isHost(text: string): boolean {
  let i = 0
  if (text.charCodeAt(0) === 0x5b) {
    const close = text.indexOf(']')
    if (!IPV6.test(text.slice(1, close === -1 ? 0 : close))) return false
    i = close + 1
  } else {
    while (HOST_CHARACTERS[text.charCodeAt(i)] === 1) i++
    if (i === 0) return false
  }
  return i === text.length || (text.charCodeAt(i) === 0x3a && isPort(text, i + 1))
}

function isPort(text: string, from: number): boolean {
  const digits = text.length - from
  if (digits < 1 || digits > 5) return false
  let port = 0
  for (let i = from; i < text.length; i++) {
    const digit = text.charCodeAt(i) - 0x30
    if (digit < 0 || digit > 9) return false
    port = port * 10 + digit
  }
  return port <= 65535
}

/** The characters of an address with at least two colons; whether it exists is for no one to tell. */
const IPV6 = /^(?=.*:.*:)[0-9A-Fa-f:.]{2,45}$/

const HOST_CHARACTERS: Uint8Array = Uint8Array.from({ length: 256 }, (_, code) =>
  /[A-Za-z0-9\-._~]/.test(String.fromCharCode(code)) ? 1 : 0,
)
