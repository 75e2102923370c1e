# Allows what is asked before 2025.
package envoy.authz

default allow := false

# METADATA
# entrypoint: true
allow if time.now_ns() < 1735689600000000000
