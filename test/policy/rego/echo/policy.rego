# Gives the whole input and every kind of Rego value back, through a builtin of the host.
package builtin

# METADATA
# entrypoint: true
answer := {"input": input, "text": sprintf("%v", [values])}

values := {
	"set": {3, 1, 2, "b", "a"},
	"empty": set(),
	"nested": {{1, 2}, {[1, {"a": null}]}},
	"number": 12345678901234567890123,
	"float": 1.5,
	"object": {1: "one", "two": 2, [3]: {true}},
	"text": "quote \" backslash \\ newline \n unicode é 😀",
}
