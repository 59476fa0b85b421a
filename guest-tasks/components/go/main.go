package main

func main() {}

//go:wasmexport gcd
func gcd(a, b int64) int64 {
	for b != 0 {
		a, b = b, a%b
	}
	return a
}

//go:wasmexport divide
func divide(a, b int32) int32 { return a / b }
