package envoy.authz

default allow := true

# A thousand million comparisons and more, with next to no memory, on one path only.
# METADATA
# entrypoint: true
allow if {
	input.parsed_path == ["spin"]
	some_letters := concat("", ["aaaaaaaaaa" | some _ in numbers.range(1, 50000)])
	more_letters := concat("", [some_letters, some_letters])
	not contains(more_letters, concat("", [some_letters, "b"]))
}
