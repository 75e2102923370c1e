# Decides otherwise than slots-old on some paths, and as it does on all others.
package envoy.authz

default allow := true

# METADATA
# entrypoint: true
allow := false if input.parsed_path == ["tightened"]

allow := {"allowed": true, "headers": {"x-new": "secret-token"}} if input.parsed_path == ["changed"]

# The same in other words.
allow := {"allowed": true} if input.parsed_path == ["reworded"]

allow := {"allowed": true} if input.parsed_path[0] == "conflict"

allow := {"allowed": false} if input.parsed_path[_] == "conflict"

allow := count(numbers.range(1, 50000000)) > 0 if input.parsed_path == ["runaway"]
