package envoy.authz

# METADATA
# entrypoint: true
allow if input.parsed_path == ["defined"]
