package envoy.authz

# METADATA
# entrypoint: true
default allow := true
