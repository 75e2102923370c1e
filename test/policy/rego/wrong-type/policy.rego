package envoy.authz

default allow := "yes"

# METADATA
# entrypoint: true
allow := "no" if input.parsed_path == ["no"]
