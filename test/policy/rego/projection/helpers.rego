package helpers

fact(headers) := object.union({"x-a": "default"}, {name: value |
	some name in ["x-a", "x-b"]
	value := headers[name]
})

method_of_input := input.method
