package wasmpool

import (
	"fmt"
	"log/slog"
	"unsafe"
)

//go:wasmimport wasmpool log
func importLog(level uint32, target unsafe.Pointer, targetLen uint32, message unsafe.Pointer, messageLen uint32, fields unsafe.Pointer, fieldsLen uint32)

//go:wasmimport wasmpool panic
func importPanic(message unsafe.Pointer, messageLen uint32, file unsafe.Pointer, fileLen, line, column uint32)

//go:wasmimport wasmpool shared_len
func hostSharedLen(index uint32) int64

//go:wasmimport wasmpool shared_read
func importSharedRead(index uint32, offset uint64, into unsafe.Pointer, size uint32) int32

// trap is the instruction `unreachable`.
func trap()

func at(text string) unsafe.Pointer { return unsafe.Pointer(unsafe.StringData(text)) }

func hostLog(level uint32, target, message, fields string) {
	importLog(level, at(target), uint32(len(target)), at(message), uint32(len(message)), at(fields), uint32(len(fields)))
}

func hostSharedRead(index uint32, offset uint64, into []byte) int32 {
	return importSharedRead(index, offset, unsafe.Pointer(unsafe.SliceData(into)), uint32(len(into)))
}

func init() { slog.SetDefault(slog.New(Handler{})) }

// What the host holds pointers to, so that it stays: the input until the call, the output until the next one.
var input, output []byte

const inputAlign = 16

//go:wasmexport wasmpool_abi_v1
func abiV1() {}

//go:wasmexport wasmpool_alloc
func alloc(size uint32) uint32 {
	input = make([]byte, int(size)+inputAlign)
	return aligned(input)
}

func aligned(buffer []byte) uint32 {
	start := uint32(uintptr(unsafe.Pointer(unsafe.SliceData(buffer))))
	return (start + inputAlign - 1) &^ (inputAlign - 1)
}

// Call runs a function with the input that the host has written, for an export of this shape.
func Call(ptr, size uint32, function any) uint64 {
	var bytes []byte
	if ptr != 0 {
		begin := ptr - uint32(uintptr(unsafe.Pointer(unsafe.SliceData(input))))
		bytes, input = input[begin:begin+size], nil
	}
	defer func() {
		if reason := recover(); reason != nil {
			message := fmt.Sprint(reason)
			file, line := panicPlace()
			// The host says where; the trap has the functions, which are still on the stack.
			importPanic(at(message), uint32(len(message)), at(file), uint32(len(file)), uint32(line), 0)
			trap()
		}
	}()
	output = Run(bytes, function)
	return uint64(uintptr(unsafe.Pointer(unsafe.SliceData(output))))<<32 | uint64(len(output))
}
