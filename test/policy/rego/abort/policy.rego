# Two rules that disagree: a conflict, which the module cannot catch.
package envoy.authz

default allow := true

# METADATA
# entrypoint: true
allow := {"allowed": true} if input.parsed_path[0] == "conflict"

allow := {"allowed": false} if input.parsed_path[_] == "conflict"
