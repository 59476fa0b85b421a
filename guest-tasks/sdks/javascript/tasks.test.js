// The tests of the tasks, which are ordinary functions: node --test

import assert from "node:assert/strict";
import { test } from "node:test";
import { countWords, invert, total } from "./tasks.js";

test("words are counted, the commonest first", () => {
  assert.deepEqual(countWords("a b a"), [{ word: "a", times: 2 }, { word: "b", times: 1 }]);
});

test("of no numbers there is no sum", () => {
  assert.equal(total(Float64Array.of(1, 2.5)), 3.5);
  assert.throws(() => total(new Float64Array()), (error) => error === "total of no numbers");
});

test("a picture is inverted behind its head", () => {
  const picture = Uint8Array.from(Buffer.from("P5 2 1 255\n\x01\xfe", "latin1"));
  assert.equal(Buffer.from(invert(picture)).toString("latin1"), "P5 2 1 255\n\xfe\x01");
});
