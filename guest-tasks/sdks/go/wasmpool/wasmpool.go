// Package wasmpool makes tasks for wasmpool of Go functions (Go 1.24 and later).
//
//	//go:wasmexport total
//	func exportTotal(ptr, len uint32) uint64 { return wasmpool.Call(ptr, len, Total) }
//
//	func Total(values []float64) (float64, error) { … }
//
// The function has any number of parameters, and returns nothing, a value, an error, or both. The types stand in WIT
// in types.wit, which `wasmpool embed` puts into the module: the pool checks each input and each output by them. Values
// are those of encoding/json, with the names of the WIT text as tags: `json:"word-count"`. []byte is list<u8> where it
// is the only parameter, or the result.
package wasmpool

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"reflect"
	"runtime"
)

// Statuses of an envelope.
const (
	statusOK = iota
	statusError
	statusUndecodable
)

var (
	errorType = reflect.TypeFor[error]()
	bytesType = reflect.TypeFor[[]byte]()
)

// Run calls a function with an input in JSON. It returns the output in JSON with one byte before it: 0 the output,
// 1 the task's own error, 2 why the input could not be decoded.
func Run(input []byte, function any) []byte {
	task := reflect.ValueOf(function)
	arguments, err := decode(input, task.Type())
	if err != nil {
		return append([]byte{statusUndecodable}, err.Error()...)
	}
	var output any
	for _, result := range task.Call(arguments) {
		if result.Type() != errorType {
			output = result.Interface()
		} else if !result.IsNil() {
			return failure(result.Interface().(error))
		}
	}
	if all, ok := output.([]byte); ok {
		return append([]byte{statusOK}, all...)
	}
	return encode(statusOK, output)
}

func decode(input []byte, task reflect.Type) ([]reflect.Value, error) {
	arguments := make([]reflect.Value, task.NumIn())
	places := make([]any, len(arguments))
	for i := range arguments {
		place := reflect.New(task.In(i))
		places[i], arguments[i] = place.Interface(), place.Elem()
	}
	switch {
	case len(arguments) == 0:
		return arguments, nil
	case len(arguments) == 1 && task.In(0) == bytesType:
		arguments[0].SetBytes(input)
		return arguments, nil
	case len(arguments) == 1:
		return arguments, json.Unmarshal(input, places[0])
	}
	// An array takes no more than it has places for, so they are counted.
	var parts []json.RawMessage
	if err := json.Unmarshal(input, &parts); err != nil {
		return nil, err
	}
	if len(parts) != len(places) {
		return nil, fmt.Errorf("%d arguments for %d parameters", len(parts), len(places))
	}
	for i, part := range parts {
		if err := json.Unmarshal(part, places[i]); err != nil {
			return nil, fmt.Errorf("argument %d: %w", i+1, err)
		}
	}
	return arguments, nil
}

// The error's own JSON if it has one, else its text.
func failure(err error) []byte {
	if shaped, ok := err.(json.Marshaler); ok {
		return encode(statusError, shaped)
	}
	return encode(statusError, err.Error())
}

func encode(status byte, value any) []byte {
	envelope := bytes.NewBuffer([]byte{status})
	encoder := json.NewEncoder(envelope)
	encoder.SetEscapeHTML(false)
	// A nil slice is an empty list.
	if v := reflect.ValueOf(value); v.Kind() == reflect.Slice && v.IsNil() {
		value = []struct{}{}
	}
	if err := encoder.Encode(value); err != nil {
		return append([]byte{statusError}, fmt.Sprintf("failed to encode the output: %v", err)...)
	}
	return bytes.TrimSuffix(envelope.Bytes(), []byte("\n"))
}

// Shared is an input that the task shares with others.
type Shared struct {
	index uint32
	size  int64
}

// SharedInput returns the shared input of this number, from 0 in the order in which the caller gave them.
func SharedInput(index uint32) (*Shared, bool) {
	size := hostSharedLen(index)
	return &Shared{index, size}, size >= 0
}

// Size returns its length in bytes.
func (s *Shared) Size() int64 { return s.size }

// ReadAt is io.ReaderAt's: io.NewSectionReader makes an io.Reader of it.
func (s *Shared) ReadAt(into []byte, offset int64) (int, error) {
	filled := 0
	for filled < len(into) {
		copied := hostSharedRead(s.index, uint64(offset)+uint64(filled), into[filled:])
		if copied <= 0 {
			return filled, io.EOF
		}
		filled += int(copied)
	}
	return filled, nil
}

// Handler sends records to the log of the pool's host: slog.SetDefault(slog.New(wasmpool.Handler{})).
type Handler struct{ attributes []slog.Attr }

// Enabled is true for every level: the host filters.
func (h Handler) Enabled(context.Context, slog.Level) bool { return true }

// Handle sends one record, with its attributes as fields.
func (h Handler) Handle(_ context.Context, record slog.Record) error {
	level := uint32(5)
	switch {
	case record.Level >= slog.LevelError:
		level = 1
	case record.Level >= slog.LevelWarn:
		level = 2
	case record.Level >= slog.LevelInfo:
		level = 3
	case record.Level >= slog.LevelDebug:
		level = 4
	}
	fields := map[string]any{}
	add := func(attribute slog.Attr) bool {
		fields[attribute.Key] = attribute.Value.String()
		return true
	}
	for _, attribute := range h.attributes {
		add(attribute)
	}
	record.Attrs(add)
	text, err := json.Marshal(fields)
	if len(fields) == 0 || err != nil {
		text = nil
	}
	hostLog(level, "", record.Message, string(text))
	return nil
}

// WithAttrs returns a handler whose records have these attributes too.
func (h Handler) WithAttrs(attributes []slog.Attr) slog.Handler {
	return Handler{append(h.attributes[:len(h.attributes):len(h.attributes)], attributes...)}
}

// WithGroup returns the same handler: fields have no groups.
func (h Handler) WithGroup(string) slog.Handler { return h }

// Where the panic was that is being handled: the first function that is neither the runtime's nor this package's.
func panicPlace() (file string, line int) {
	var callers [32]uintptr
	frames := runtime.CallersFrames(callers[:runtime.Callers(3, callers[:])])
	for {
		frame, more := frames.Next()
		if frame.Function != "" && !bytes.HasPrefix([]byte(frame.Function), []byte("runtime.")) {
			return frame.File, frame.Line
		}
		if !more {
			return "", 0
		}
	}
}
