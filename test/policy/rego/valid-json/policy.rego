# What a client says is JSON is asked of OPA's own code, and a constant is compared afterwards.
package envoy.authz

# METADATA
# entrypoint: true
default allow := false

allow if {
	json.is_valid(input.attributes.request.http.headers["x-json"])
	not blocked
}

blocked if input.attributes.request.http.headers["x-role"] == "blocked"
