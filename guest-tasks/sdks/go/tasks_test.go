package main

import (
	"slices"
	"testing"

	"tasks/wasmpool"
)

func TestWordsAreCountedTheCommonestFirst(t *testing.T) {
	if got := CountWords("a b a"); !slices.Equal(got, []Count{{"a", 2}, {"b", 1}}) {
		t.Fatal(got)
	}
}

func TestOfNoNumbersThereIsNoSum(t *testing.T) {
	if got, err := Total([]float64{1, 2.5}); got != 3.5 || err != nil {
		t.Fatal(got, err)
	}
	if _, err := Total(nil); err == nil {
		t.Fatal("there is one")
	}
}

func TestAPictureIsInvertedBehindItsHead(t *testing.T) {
	if got, err := Invert([]byte("P5 2 1 255\n\x01\xfe")); string(got) != "P5 2 1 255\n\xfe\x01" || err != nil {
		t.Fatalf("%q %v", got, err)
	}
}

func TestJSONInJSONOut(t *testing.T) {
	for input, wanted := range map[string]string{
		`[1, 2.5]`: "\x003.5",
		`[]`:       "\x01\"total of no numbers\"",
		`"one"`:    "\x02json: cannot unmarshal string into Go value of type []float64",
	} {
		if got := string(wasmpool.Run([]byte(input), Total)); got != wanted {
			t.Errorf("%s: %q", input, got)
		}
	}
}
