package envoy.authz

default allow := true

# METADATA
# entrypoint: true
allow := count(concat("", [p | some _ in numbers.range(1, 2000); p := input.attributes.request.http.path])) > 0 if {
	input.parsed_path[0] == "memory"
}
