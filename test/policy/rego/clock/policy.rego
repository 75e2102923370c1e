# Looks at the clock on one path only.
package envoy.authz

default allow := false

# METADATA
# entrypoint: true
allow if input.parsed_path == ["always"]

allow if {
	input.parsed_path == ["before"]
	time.now_ns() < 1700000000123000000
}
