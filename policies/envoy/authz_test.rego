package envoy.authz_test

import data.envoy.authz

request(service, method, path) := {
	"attributes": {
		"source": {"principal": sprintf("spiffe://example.org/ns/default/sa/%s", [service])},
		"request": {"http": {"method": method, "path": path}},
	},
	"parsed_path": split(trim_left(path, "/"), "/"),
}

allowed(service, method, path) if authz.allow.allowed == true with input as request(service, method, path)

denied(service, method, path) if authz.allow.allowed == false with input as request(service, method, path)

test_web_reads_the_api if {
	allowed("web", "GET", "/api/orders")
	allowed("web", "HEAD", "/api/orders/7/lines")
}

test_web_writes_nothing if {
	denied("web", "POST", "/api/orders")
	denied("web", "DELETE", "/api/orders/7")
}

test_web_reads_nothing_else if {
	denied("web", "GET", "/")
	denied("web", "GET", "/api")
	denied("web", "GET", "/admin/people")
	denied("web", "GET", "//admin/people")
}

test_checkout_writes_orders_only if {
	allowed("checkout", "POST", "/api/orders")
	allowed("checkout", "PUT", "/api/orders/7")
	denied("checkout", "PUT", "/api/orders/7/lines")
	denied("checkout", "POST", "/api/customers")
}

test_admin_does_everything if {
	allowed("admin", "DELETE", "/api/orders/7")
	allowed("admin", "GET", "/")
}

test_unknown_callers_do_nothing if {
	denied("batch", "GET", "/api/orders")
	denied("", "GET", "/api/orders")
}

test_everyone_asks_for_health if {
	allowed("batch", "GET", "/healthz")
	denied("batch", "POST", "/healthz")
	denied("batch", "GET", "/healthz/../api")
}

test_a_caller_without_identity_does_nothing if {
	authz.allow.allowed == false with input as {"parsed_path": ["api", "orders"]}
}

test_workload_learns_the_granting_roles if {
	authz.allow.headers == {"x-authz-roles": "reader"} with input as request("web", "GET", "/api/orders")
}

test_a_literal_star_is_no_template if {
	denied("web", "GET", "/**")
}

test_denial_is_a_403 if {
	authz.allow.http_status == 403 with input as request("web", "POST", "/api/orders")
}
