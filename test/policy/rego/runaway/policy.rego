package envoy.authz

default allow := false

# METADATA
# entrypoint: true
allow if count(numbers.range(1, 50000000)) > 0
