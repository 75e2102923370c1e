# Allows what the body asks for, and tells in base64 what it saw of it: the workload when it allows, else
# the client.
package envoy.authz

# METADATA
# entrypoint: true
allow := {"allowed": permitted, "http_status": status, "headers": {"x-seen": base64.encode(json.marshal(seen))}}

http := input.attributes.request.http

default permitted := false

permitted if input.parsed_body.allow == true

permitted if input.parsed_body.allow[_] == "true"

permitted if input.parsed_body.oneString == "allow"

permitted if input.parsed_path == ["truncated", "allowed"]

status := 413 if {
	input.truncated_body
} else := 403

seen := {
	"parsed": input.parsed_body,
	"truncated": input.truncated_body,
	"partial": object.get(http.headers, "x-envoy-auth-partial-body", null),
	"size": object.get(http, "size", null),
	"text": object.get(http, "body", null),
	"raw": object.get(http, "rawBody", null),
}
