# Every way to read the input that we could think of, an entrypoint each: what a policy is given of
# the input must be enough for all of them.
package projection

import data.helpers
import data.names
import input.attributes.request.http as http_request
import input.parsed_query

# METADATA
# entrypoint: true
nothing := true

# METADATA
# entrypoint: true
plain if {
	input.attributes.request.http.method == "GET"
	input.parsed_path[0] == "api"
}

# METADATA
# entrypoint: true
brackets := input["attributes"]["source"].principal

# METADATA
# entrypoint: true
fixed_headers := [
	input.attributes.request.http.headers["x-a"],
	input.attributes.request.http.headers[":path"],
	input.attributes.request.http.headers[":method"],
]

# METADATA
# entrypoint: true
framing := {
	"length": object.get(input.attributes.request.http.headers, "content-length", ""),
	"coding": object.get(input.attributes.request.http.headers, "transfer-encoding", ""),
	"partial": object.get(input.attributes.request.http.headers, "x-envoy-auth-partial-body", ""),
	"size": object.get(input.attributes.request.http, "size", 0),
}

# METADATA
# entrypoint: true
any_header contains name if input.attributes.request.http.headers[name] == "1"

# METADATA
# entrypoint: true
listed_headers contains input.attributes.request.http.headers[name] if some name in names

# METADATA
# entrypoint: true
query_pairs contains [key, value] if {
	some key, values in input.parsed_query
	some value in values
}

# METADATA
# entrypoint: true
by_path := object.get(input, ["attributes", "request", "http", "headers", "x-a"], "none")

# METADATA
# entrypoint: true
by_key := object.get(object.get(input, "attributes", {}), "source", {})

# METADATA
# entrypoint: true
comprehension := {segment | some segment in input.parsed_path; segment != input.parsed_query.a[0]}

# METADATA
# entrypoint: true
branches := "get" if {
	input.attributes.request.http.method == "GET"
} else := "secret" if {
	input.attributes.request.http.headers["x-b"]
} else := input.attributes.request.http.host

# METADATA
# entrypoint: true
alias := {"method": http_request.method, "header": http_request.headers["x-a"], "query": parsed_query}

http := input.attributes.request.http

# METADATA
# entrypoint: true
rule_alias if http.method in {"GET", "POST"}

second(http) := http.source.principal

first(attributes) := [attributes.request.http.path, second(attributes)]

# METADATA
# entrypoint: true
passed_on := first(input.attributes)

# METADATA
# entrypoint: true
whole := count(json.marshal(input)) > 0

# METADATA
# entrypoint: true
walked contains path if walk(input, [path, "1"])

# METADATA
# entrypoint: true
replaced_part := value if {
	value := brackets with input.attributes.source.principal as input.attributes.request.http.path
}

# METADATA
# entrypoint: true
replaced := [inner, input.attributes.request.http.host] if {
	inner := plain with input as {"attributes": input.attributes, "parsed_path": ["api"]}
}

# METADATA
# entrypoint: true
replaced_by_part := {"a": deep, "b": shallow} if {
	shallow := object.get(input, "method", "none")
	deep := helpers.method_of_input with input as input.attributes.request.http
}

# METADATA
# entrypoint: true
absent if not input.attributes.request.http.headers["x-a"]

# METADATA
# entrypoint: true
absent_parent if not input.attributes.tlsSession

# METADATA
# entrypoint: true
present if input.attributes.tlsSession

# METADATA
# entrypoint: true
unknown_parts := [object.get(input, "nothing", 1), object.get(input.attributes, "nothing", 2)]

# METADATA
# entrypoint: true
all_segments if every i, segment in input.parsed_path {
	segment == input.parsed_path[i]
	segment != input.attributes.request.http.headers["x-a"]
}

# METADATA
# entrypoint: true
counted := count(input.attributes.request.http)

# METADATA
# entrypoint: true
types := [type_name(input.attributes), type_name(input.parsed_query.a), is_object(input.version)]

# METADATA
# entrypoint: true
into_array := input.parsed_query.a[1]

# METADATA
# entrypoint: true
into_string if not input.attributes.request.http.method.x

# METADATA
# entrypoint: true
dynamic := data.helpers.chosen[input.parsed_path[0]].fact

# METADATA
# entrypoint: true
variable := value if {
	some key in ["source", "destination"]
	value := input.attributes[key].principal
	endswith(value, "orders")
}

# METADATA
# entrypoint: true
destructured := [a, b] if {
	[a, b] := input.parsed_path
}

# METADATA
# entrypoint: true
matched := id if {
	{"principal": id, "address": _} = input.attributes.source
}

# METADATA
# entrypoint: true
helper := helpers.fact(input.attributes.request.http.headers)

# METADATA
# entrypoint: true
compared if input.attributes.source == input.attributes.source

# METADATA
# entrypoint: true
compared_parts if input.attributes.request.http.path == input.attributes.request.http.headers[":path"]

# METADATA
# entrypoint: true
stamped := [input.attributes.request.time.seconds, input.attributes.request.http.id]

# METADATA
# entrypoint: true
peer := [
	input.attributes.source.address.socketAddress.portValue,
	input.source_principal,
	input.version.ext_authz,
	input.attributes.tlsSession.sni,
]

# METADATA
# entrypoint: true
body := [input.parsed_body, input.truncated_body]

# METADATA
# entrypoint: true
shadowed := [attributes.method | attributes := input.attributes.request.http]

# METADATA
# entrypoint: true
nested contains [key, inner] if {
	some key, value in input.attributes
	some inner, _ in value
}

chosen["a"] := input.parsed_query.a

chosen["b"] := input.parsed_query.b

# METADATA
# entrypoint: true
partial_object := chosen

# METADATA
# entrypoint: true
partial_member := chosen[input.parsed_path[1]]
