# Functions that call each other twice: 67 million calls without a loop.
package envoy.authz

default allow := true

# METADATA
# entrypoint: true
allow := f26(input.parsed_path[0]) == "calls" if input.parsed_path[0] == "calls"

f0(x) := x

f1(x) := f0(f0(x))

f2(x) := f1(f1(x))

f3(x) := f2(f2(x))

f4(x) := f3(f3(x))

f5(x) := f4(f4(x))

f6(x) := f5(f5(x))

f7(x) := f6(f6(x))

f8(x) := f7(f7(x))

f9(x) := f8(f8(x))

f10(x) := f9(f9(x))

f11(x) := f10(f10(x))

f12(x) := f11(f11(x))

f13(x) := f12(f12(x))

f14(x) := f13(f13(x))

f15(x) := f14(f14(x))

f16(x) := f15(f15(x))

f17(x) := f16(f16(x))

f18(x) := f17(f17(x))

f19(x) := f18(f18(x))

f20(x) := f19(f19(x))

f21(x) := f20(f20(x))

f22(x) := f21(f21(x))

f23(x) := f22(f22(x))

f24(x) := f23(f23(x))

f25(x) := f24(f24(x))

f26(x) := f25(f25(x))
