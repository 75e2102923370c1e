# One call of many builtins that the host supplies, through wasm and back: sets, numbers of any size,
# errors that are undefined. The answers of opa are in test/policy/builtins/module-answers.json.
package builtin.answers

# METADATA
# entrypoint: true
result := {"allowed": true, "answers": answers}

answers["array of sets"] := json.marshal_with_options([{3, 1}, {"a": {2}}], {"indent": " "})

answers["big numbers"] := numbers.range_step(18446744073709551615, 18446744073709551619, 2)

answers["digest"] := crypto.sha256("postern")

answers["error is undefined"] if not units.parse("ten")

answers["globs"] := [
	regex.globs_match("a.*b", "ax*b"),
	regex.globs_match("a+", "b"),
	glob.quote_meta("*.com"),
]

answers["graph"] := sort(graph.reachable_paths({"a": ["b", "c"], "b": ["a"], "c": []}, {"a"}))

answers["hex"] := hex.encode("\u00e9")

answers["networks"] := sort(net.cidr_merge(["10.0.0.0/25", "10.0.0.128/25", "::1/128"]))

answers["numbers as written"] := sprintf("%v %d %.2f", [12345678901234567890123, 7, .5])

answers["object subset"] := object.subset({"a": {1, 2}, "b": 1}, {"a": {1}})

answers["patch in a set"] := json.patch({"a": {1, {"x": 1}}}, [
	{"op": "remove", "path": ["a", 1]},
	{"op": "add", "path": ["a", {"x": 1}, "y"], "value": 2},
])

answers["random"] := rand.intn("a", 1000000) == rand.intn("a", 1000000)

answers["regex"] := [regex.replace("a1b22", "[0-9]+", "<$0>"), regex.find_n("[a-z]", "a1b2", -1)]

answers["regex template"] := regex.template_match("urn:{[a-z]+}:x", "urn:abc:x", "{", "}")

answers["same identifier"] := uuid.rfc4122("k") == uuid.rfc4122("k")

answers["schema"] := json.match_schema(
	{"id": "x", "list": [1, 1]},
	{"properties": {"id": {"type": "integer"}, "list": {"uniqueItems": true}}},
)

answers["semver"] := semver.compare("1.2.3-rc.1", "1.2.3")

answers["split"] := [strings.split_n("a,b,c", ",", 2), strings.split_n("a,b,c", ",", -1)]

answers["strings"] := [strings.any_prefix_match("abc", {"x", "ab"}), strings.count("aaa", "a")]

answers["template"] := strings.render_template("{{range .l}}<{{.}}>{{end}}", {"l": ["a", 1]})

answers["time"] := time.date(1700000000000000000)

answers["units"] := [units.parse("1.5Ki"), units.parse("200m"), units.parse_bytes("1.1GB")]

answers["uri"] := uri.parse("https://u@example.com:8443/a%2Fb?c=d#e")

answers["urlquery"] := urlquery.decode_object("a=1&b=2&a=3")

answers["uuid"] := uuid.parse("6ba7b810-9dad-11d1-80b4-00c04fd430c8")

answers["yaml"] := yaml.unmarshal(yaml.marshal({"a": [1, "yes", null], "b": {"c": 1.5}}))
