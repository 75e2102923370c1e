package envoy.authz

# METADATA
# entrypoint: true
default allow := false

allow := {"allowed": valid, "headers": {"x-subject": object.get(payload, "sub", "")}} if {
	[scheme, token] := split(input.attributes.request.http.headers.authorization, " ")
	scheme == "Bearer"
	[valid, _, payload] := io.jwt.decode_verify(token, {"secret": "sample secret", "alg": "HS256", "iss": "example"})
}
