package envoy.authz

# METADATA
# entrypoint: true
default allow := false

allow if semver.compare(input.attributes.request.http.headers["x-version"], "1.0.0") > 0

allow if uuid.rfc4122("a") != ""
