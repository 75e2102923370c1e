package envoy.authz

default allow := true

# METADATA
# entrypoint: true
allow := count(numbers.range(1, 50000000)) > 0 if input.parsed_path == ["runaway"]
