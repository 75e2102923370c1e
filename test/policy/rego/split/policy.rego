# The data comes in a bundle of its own.
package envoy.authz

# METADATA
# entrypoint: true
default allow := false

allow if input.method in data.teams[input.team]
