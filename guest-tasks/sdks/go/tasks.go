// Three tasks: the words of a text, the sum of numbers, and a picture turned into its negative.
package main

import (
	"cmp"
	"errors"
	"slices"
	"strings"

	"tasks/wasmpool"
)

func main() {}

//go:wasmexport count_words
func exportCountWords(ptr, len uint32) uint64 { return wasmpool.Call(ptr, len, CountWords) }

//go:wasmexport total
func exportTotal(ptr, len uint32) uint64 { return wasmpool.Call(ptr, len, Total) }

//go:wasmexport invert
func exportInvert(ptr, len uint32) uint64 { return wasmpool.Call(ptr, len, Invert) }

type Count struct {
	Word  string `json:"word"`
	Times uint32 `json:"times"`
}

// CountWords says how often each word occurs, the commonest first.
func CountWords(text string) []Count {
	times := map[string]uint32{}
	for _, word := range strings.Fields(text) {
		times[word]++
	}
	counts := []Count{}
	for word, n := range times {
		counts = append(counts, Count{word, n})
	}
	slices.SortFunc(counts, func(a, b Count) int {
		return cmp.Or(cmp.Compare(b.Times, a.Times), cmp.Compare(a.Word, b.Word))
	})
	return counts
}

// Total is the sum of the numbers; of none there is an error.
func Total(values []float64) (float64, error) {
	if len(values) == 0 {
		return 0, errors.New("total of no numbers")
	}
	sum := 0.0
	for _, value := range values {
		sum += value
	}
	return sum, nil
}

// Invert makes the negative of a grey picture (PGM, P5).
func Invert(picture []byte) ([]byte, error) {
	// The head is `P5`, width, height and maximum, and one space behind them.
	head := 0
	if !strings.HasPrefix(string(picture), "P5") {
		return nil, errors.New("not a PGM picture")
	}
	for range 4 {
		for head < len(picture) && strings.IndexByte(" \t\r\n", picture[head]) >= 0 {
			head++
		}
		for head < len(picture) && strings.IndexByte(" \t\r\n", picture[head]) < 0 {
			head++
		}
	}
	negative := slices.Clone(picture)
	for i := head + 1; i < len(negative); i++ {
		negative[i] = 255 - negative[i]
	}
	return negative, nil
}
