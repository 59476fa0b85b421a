// Three tasks: the words of a text, the sum of numbers, and a picture turned into its negative.

import { fail, input, inputBytes, output, outputBytes } from "./wasmpool";
export { wasmpool_abi_v1, wasmpool_alloc } from "./wasmpool";

@json
class Count {
  word: string = "";
  times: u32 = 0;
}

function isSpace(code: i32): bool {
  return code == 0x20 || (code >= 0x09 && code <= 0x0d);
}

export function count_words(ptr: usize, len: usize): u64 {
  const text = input<string>(ptr, len);
  const counts: Count[] = [];
  const places = new Map<string, i32>();
  let at = 0;
  while (at < text.length) {
    while (at < text.length && isSpace(text.charCodeAt(at))) at++;
    const begin = at;
    while (at < text.length && !isSpace(text.charCodeAt(at))) at++;
    if (at == begin) break;
    const word = text.substring(begin, at);
    if (!places.has(word)) {
      places.set(word, counts.length);
      counts.push({ word, times: 0 });
    }
    counts[places.get(word)].times++;
  }
  counts.sort((a, b) => (a.times != b.times ? <i32>b.times - <i32>a.times : a.word < b.word ? -1 : 1));
  return output(counts);
}

export function total(ptr: usize, len: usize): u64 {
  const values = input<f64[]>(ptr, len);
  if (values.length == 0) return fail("total of no numbers");
  let sum = 0.0;
  for (let i = 0; i < values.length; i++) sum += values[i];
  return output(sum);
}

export function invert(ptr: usize, len: usize): u64 {
  const picture = inputBytes(ptr, len);
  // The head is `P5`, width, height and maximum, and one space behind them.
  if (picture.length < 2 || picture[0] != 0x50 || picture[1] != 0x35) return fail("not a PGM picture");
  let at = 0;
  for (let words = 0; words < 4; words++) {
    while (at < picture.length && isSpace(picture[at])) at++;
    while (at < picture.length && !isSpace(picture[at])) at++;
  }
  for (let i = at + 1; i < picture.length; i++) picture[i] = 255 - picture[i];
  return outputBytes(picture);
}
