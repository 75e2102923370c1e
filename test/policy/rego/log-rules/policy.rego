# Decides by path alone; the rules about its log are in log.rego.
package envoy.authz

default allow := false

# METADATA
# entrypoint: true
allow if input.parsed_path[0] in {"open", "health", "oops", "mistake", "many"}
