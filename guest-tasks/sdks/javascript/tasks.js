// Three tasks: the words of a text, the sum of numbers, and a picture turned into its negative.

import { result } from "./wasmpool.js";

export function countWords(text) {
  const times = new Map();
  for (const word of text.split(/\s+/).filter(Boolean)) times.set(word, (times.get(word) ?? 0) + 1);
  const counts = Array.from(times, ([word, times]) => ({ word, times }));
  return counts.sort((a, b) => b.times - a.times || (a.word < b.word ? -1 : 1));
}

// What is thrown is the error of a result.
export const total = result((values) => {
  if (values.length === 0) throw "total of no numbers";
  return values.reduce((sum, value) => sum + value, 0);
});

export const invert = result((picture) => {
  // The head is `P5`, width, height and maximum, and one space behind them.
  const head = /^P5\s+\d+\s+\d+\s+\d+\s/.exec(String.fromCharCode(...picture.subarray(0, 64)));
  if (!head) throw "not a PGM picture";
  return picture.map((grey, at) => (at < head[0].length ? grey : 255 - grey));
});
