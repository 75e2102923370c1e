package builtin

# METADATA
# entrypoint: true
answer := [sprintf(one[0], one[1]) | some one in input.cases]
