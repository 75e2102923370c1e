# Lets clients without a principal read /public, and everybody else all of it; tells the workload what
# it saw of the client.
package envoy.authz

default allow := {"allowed": false}

# METADATA
# entrypoint: true
allow := {"allowed": true, "headers": {"x-seen": seen}} if may_read

may_read if object.get(input.attributes.source, "principal", "") != ""

may_read if input.attributes.request.http.path == "/public"

seen := sprintf("%s|%s", [
	input.attributes.request.http.scheme,
	object.get(input.attributes.source, "principal", "nobody"),
])
