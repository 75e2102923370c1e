# What a policy can say about its decision log, and the ways in which it can fail.
package system.log

# METADATA
# entrypoint: true
drop if input.input.parsed_path == ["health"]

# Neither true nor false: not what `drop` is for.
drop := "yes" if input.input.parsed_path == ["mistake"]

# METADATA
# entrypoint: true
mask contains "/input/attributes/source/principal"

mask contains {"op": "upsert", "path": "/input/attributes/request/http/headers/x-card", "value": "****"} if {
	input.input.attributes.request.http.headers["x-card"]
}

mask contains "/result" if input.result == false

# No rule of OPA.
mask contains {"op": "replace", "path": "/input", "value": 1} if input.input.parsed_path == ["oops"]
