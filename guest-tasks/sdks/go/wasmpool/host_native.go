//go:build !wasm

package wasmpool

import (
	"fmt"
	"os"
)

// A native test has a host that writes logs to stderr, and no shared inputs.

func hostLog(level uint32, target, message, fields string) {
	fmt.Fprintln(os.Stderr, level, target, message, fields)
}

func hostSharedLen(uint32) int64 { return -1 }

func hostSharedRead(uint32, uint64, []byte) int32 { return -1 }

// Call is for exports, which a native test does not call.
func Call(uint32, uint32, any) uint64 { panic("natively, call the function itself") }
