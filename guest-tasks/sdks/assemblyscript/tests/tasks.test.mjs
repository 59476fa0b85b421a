// The tests of the tasks: what the module makes of bytes, in the engine of node.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";

const module = new WebAssembly.Module(readFileSync(new URL("../tasks.wasm", import.meta.url)));
let memory;
const text = (ptr, len) => Buffer.from(memory.buffer, ptr, len).toString();
const wasmpool = {
  log: (level, target, targetLen, message, len) => console.log(level, text(message, len)),
  panic: (message, len, file, fileLen, line) => {
    throw new Error(`${text(message, len)} at ${text(file, fileLen)}:${line}`);
  },
  shared_len: () => -1n,
  shared_read: () => -1,
};
const { exports } = new WebAssembly.Instance(module, { wasmpool });
memory = exports.memory;

function call(task, input) {
  const bytes = Buffer.from(input);
  const ptr = exports.wasmpool_alloc(bytes.length);
  bytes.copy(Buffer.from(memory.buffer, ptr, bytes.length));
  const packed = BigInt.asUintN(64, exports[task](ptr, bytes.length));
  const [status, ...payload] = Buffer.from(memory.buffer, Number(packed >> 32n), Number(packed & 0xffffffffn));
  return { status, output: Buffer.from(payload).toString("latin1") };
}

test("words are counted, the commonest first", () => {
  const output = '[{"word":"a","times":2},{"word":"b","times":1}]';
  assert.deepEqual(call("count_words", '"a b a"'), { status: 0, output });
});

test("of no numbers there is no sum", () => {
  assert.deepEqual(call("total", "[1, 2.5]"), { status: 0, output: "3.5" });
  assert.deepEqual(call("total", "[]"), { status: 1, output: '"total of no numbers"' });
});

test("a picture is inverted behind its head", () => {
  const picture = Buffer.from("P5 2 1 255\n\x01\xfe", "latin1");
  assert.deepEqual(call("invert", picture), { status: 0, output: "P5 2 1 255\n\xfe\x01" });
});
