export function count(text) {
  const m = new Map();
  for (const w of text.toLowerCase().match(/[0-9A-Za-z_\u00C0-\uFFFF]+/g) ?? []) m.set(w, (m.get(w) ?? 0) + 1);
  return [...m].map(([word, times]) => ({ word, times }))
    .sort((a, b) => b.times - a.times || (a.word < b.word ? -1 : 1));
}
export function mean(xs) {
  if (xs.length === 0) throw "mean of no numbers";
  return Array.from(xs).reduce((a, b) => a + b, 0) / xs.length;
}
export function invert(picture) {
  return Uint8Array.from(picture, (b) => 255 - b);
}
