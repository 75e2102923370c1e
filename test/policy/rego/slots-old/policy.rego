# What slots-new is compared with: allows everything but /loosened.
package envoy.authz

default allow := true

# METADATA
# entrypoint: true
allow := false if input.parsed_path == ["loosened"]
