# What is drawn by chance: the same wherever one evaluation asks for it.
package envoy.authz

# METADATA
# entrypoint: true
allow := {
	"allowed": true,
	"number": number,
	"identifier": uuid.rfc4122("k"),
	"same": [rand.intn("a", 1000000000) == number, uuid.rfc4122("k") == uuid.rfc4122("k")],
}

number := rand.intn("a", 1000000000)
