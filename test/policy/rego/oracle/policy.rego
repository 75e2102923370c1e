# Many native builtins over one input: what the host's own reading and writing must not change.
package envoy.authz

import data.limits

default allow := {"allowed": false}

# METADATA
# entrypoint: true
allow := {"allowed": count(deny) == 0, "headers": {"x-facts": facts}}

facts := json.marshal({
	"path": input.parsed_path,
	"query": input.parsed_query,
	"method": lower(input.attributes.request.http.method),
	"headers": count(input.attributes.request.http.headers),
	"words": [upper(w) | some w in split(input.attributes.request.http.path, "/")],
	"numbers": [sum(numbers.range(1, 5)), round(2.5), 7 % 3, 1 / 4],
	"cidr": net.cidr_contains("10.0.0.0/8", object.get(input.attributes.source.address.socketAddress, "address", "")),
	"agent": regex.match(`^[a-z]+/[0-9.]+$`, object.get(input.attributes.request.http.headers, "user-agent", "")),
	"glob": glob.match("/api/*", ["/"], input.attributes.request.http.path),
	"encoded": base64.encode(input.attributes.request.http.path),
})

deny contains "method" if not input.attributes.request.http.method in limits.methods

deny contains "depth" if count(input.parsed_path) > limits.depth

deny contains sprintf("query %s", [key]) if {
	some key, _ in input.parsed_query
	startswith(key, limits.forbidden_prefix)
}
