// Why there is no input document for a request: what the client sent cannot be put into one.

/** For the operator; the client gets 400 and no reason. */
export class InputError extends Error {
  override readonly name = 'InputError'
}
