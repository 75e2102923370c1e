package system.log

# METADATA
# entrypoint: true
mask contains "/input" if {
	some i in numbers.range(1, 50000000)
	i == input.nothing
}
