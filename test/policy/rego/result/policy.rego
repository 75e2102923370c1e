# Answers with what stands behind the last slash of the path: every field of the result document.
package envoy.authz

default allow := {"allowed": true}

# METADATA
# entrypoint: true
allow := answers[input.parsed_path[0]]

answers := {
	"allow": {
		"allowed": true,
		"headers": {"x-role": "reader", "x-many": ["a", "b"]},
		"request_headers_to_remove": ["authorization"],
		"response_headers_to_add": [{"x-policy": "sample"}, {"set-cookie": ["a=1", "b=2"]}],
		"query_parameters_to_remove": ["token"],
		"query_parameters_to_set": {"tenant": "one", "tag": ["x", "y"]},
		"dynamic_metadata": {"team": "orders"},
		"body": 7,
		"http_status": "ignored",
	},
	"deny": {
		"allowed": false,
		"headers": {"WWW-Authenticate": "Bearer"},
		"body": "not you",
		"http_status": 401,
		"response_headers_to_add": 7,
	},
	"host": {"allowed": true, "headers": {"Host": "elsewhere"}},
	"identity": {"allowed": true, "headers": {"x-forwarded-client-cert": "forged"}},
	"split": {"allowed": true, "response_headers_to_add": {"x-a": "b\r\nx-c: d"}},
	"interim": {"allowed": false, "http_status": 100},
	"number": {"allowed": 1},
	"missing": {},
	"list": [{"allowed": true}],
}
