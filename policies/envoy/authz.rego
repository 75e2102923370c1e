# METADATA
# title: Who may call what
# description: |
#   Decides about one HTTP request, in the terms of the OPA-Envoy plugin. Nothing is allowed unless
#   a role of the caller grants it; callers and roles stand in data.json. An allowed request carries
#   the roles that granted it to the workload in x-authz-roles.
package envoy.authz

import data.authz

default allow := {"allowed": false, "http_status": 403}

# METADATA
# entrypoint: true
allow := {"allowed": true, "headers": {"x-authz-roles": concat(",", granting)}} if {
	count(granting) > 0
}

# Roles of the caller that grant this request.
granting contains role if {
	some role in authz.callers[input.attributes.source.principal]
	some grant in authz.roles[role]
	method_matches(grant.methods)
	some template in grant.paths
	path_matches(split(trim_prefix(template, "/"), "/"))
}

# Every verified caller may ask whether the workload is well.
granting contains "health" if {
	input.attributes.request.http.method == "GET"
	input.parsed_path == ["healthz"]
}

method_matches(methods) if "*" in methods

method_matches(methods) if input.attributes.request.http.method in methods

# A template is compared segment by segment; `*` stands for one segment, a last `**` for one or more.
path_matches(template) if {
	count(template) == count(input.parsed_path)
	segments_match(template)
}

path_matches(template) if {
	last := count(template) - 1
	template[last] == "**"
	count(input.parsed_path) > last
	segments_match(array.slice(template, 0, last))
}

segments_match(template) if {
	every i, segment in template {
		segment_matches(segment, input.parsed_path[i])
	}
}

segment_matches("*", _)

segment_matches(segment, segment) if segment != "**"
