package envoy.authz

default allow := true

# Says yes when it has counted as far as the path says, each time anew: no verdict with a random number
# in it is remembered. 10,000 take some milliseconds.
# METADATA
# entrypoint: true
allow := count(numbers.range(1, steps)) > rand.intn("", 1) if {
	input.parsed_path[0] == "slow"
	steps := to_number(input.parsed_path[1])
}
