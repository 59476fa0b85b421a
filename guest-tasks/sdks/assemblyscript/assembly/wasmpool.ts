// Tasks for wasmpool in AssemblyScript: the byte ABI, with JSON by json-as.
//
//     import { input, output, fail } from "./wasmpool";
//     export { wasmpool_abi_v1, wasmpool_alloc } from "./wasmpool";
//
//     export function total(ptr: usize, len: usize): u64 {
//       const values = input<f64[]>(ptr, len);
//       if (values.length == 0) return fail("total of no numbers");
//       return output(values.reduce((sum, value) => sum + value, 0.0));
//     }
//
// The types stand in WIT in types.wit, which `wasmpool embed` puts into the module: the pool checks each input and each
// output by them. `--use abort=assembly/wasmpool/abort` tells the pool why a task trapped.

import { JSON } from "json-as";

// @ts-ignore: the decorator is the compiler's
@external("wasmpool", "log")
declare function hostLog(level: u32, target: usize, targetLen: usize, message: usize, messageLen: usize, fields: usize, fieldsLen: usize): void;

// @ts-ignore: the decorator is the compiler's
@external("wasmpool", "panic")
declare function hostPanic(message: usize, messageLen: usize, file: usize, fileLen: usize, line: u32, column: u32): void;

// @ts-ignore: the decorator is the compiler's
@external("wasmpool", "shared_len")
declare function hostSharedLen(index: u32): i64;

// @ts-ignore: the decorator is the compiler's
@external("wasmpool", "shared_read")
declare function hostSharedRead(index: u32, offset: u64, into: usize, len: usize): i32;

export function wasmpool_abi_v1(): void {}

// The blocks of the heap are aligned to 16, and the collector does not know of those that are asked for by hand.
export function wasmpool_alloc(len: usize): usize {
  return heap.alloc(max<usize>(len, 1));
}

// What the host reads stays here until the next output.
let envelope: ArrayBuffer = new ArrayBuffer(0);

function answer(status: u8, payload: ArrayBuffer): u64 {
  const len = payload.byteLength;
  envelope = new ArrayBuffer(1 + len);
  store<u8>(changetype<usize>(envelope), status);
  memory.copy(changetype<usize>(envelope) + 1, changetype<usize>(payload), len);
  return ((<u64>changetype<usize>(envelope)) << 32) | <u64>(1 + len);
}

// The whole input as bytes: for a task whose only parameter is `list<u8>`.
export function inputBytes(ptr: usize, len: usize): Uint8Array {
  const bytes = new Uint8Array(<i32>len);
  if (ptr != 0) {
    memory.copy(bytes.dataStart, ptr, len);
    heap.free(ptr);
  }
  return bytes;
}

// The only parameter of a task.
export function input<T>(ptr: usize, len: usize): T {
  return JSON.parse<T>(String.UTF8.decode(inputBytes(ptr, len).buffer));
}

// The parameters of a task that has several: `const all = inputs(ptr, len)`, then `argument<u32>(all, 0)`.
export function inputs(ptr: usize, len: usize): JSON.Raw[] {
  return input<JSON.Raw[]>(ptr, len);
}
export function argument<T>(all: JSON.Raw[], index: i32): T {
  return JSON.parse<T>(all[index].data);
}

export function output<T>(value: T): u64 {
  // JSON has no number for these.
  if (isFloat<T>()) {
    if (isNaN(value)) return output("NaN");
    if (!isFinite(value)) return output(value > 0 ? "inf" : "-inf");
  }
  return answer(0, String.UTF8.encode(JSON.stringify<T>(value)));
}

// The whole output as bytes: for a task that returns `list<u8>`.
export function outputBytes(bytes: Uint8Array): u64 {
  return answer(0, bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.byteLength));
}

// The task's own error, with a text; `failWith` has an error of another type.
export function fail(text: string): u64 {
  return failWith<string>(text);
}
export function failWith<T>(error: T): u64 {
  return answer(1, String.UTF8.encode(JSON.stringify<T>(error)));
}

export enum Level { Error = 1, Warn, Info, Debug, Trace }

// A record for the log of the pool's host. `fields` is the text of a JSON object, or empty.
export function log(level: Level, message: string, fields: string = ""): void {
  const text = String.UTF8.encode(message);
  const json = String.UTF8.encode(fields);
  hostLog(level, 0, 0, changetype<usize>(text), text.byteLength, changetype<usize>(json), json.byteLength);
}

// The size of a shared input, from 0 in the order in which the caller gave them; -1 if there is none.
export function sharedLen(index: u32): i64 {
  return hostSharedLen(index);
}

// Copies what stands at `offset`, and returns how many bytes that were: fewer than there is room only where it ends.
export function sharedRead(index: u32, offset: u64, into: Uint8Array): i32 {
  let filled = 0;
  while (filled < into.length) {
    const copied = hostSharedRead(index, offset + filled, into.dataStart + filled, into.length - filled);
    if (copied <= 0) break;
    filled += copied;
  }
  return filled;
}

// What `throw`, a failed assertion and the runtime itself call.
export function abort(message: string | null, file: string | null, line: u32, column: u32): void {
  const text = String.UTF8.encode(message == null ? "abort" : message);
  const name = String.UTF8.encode(file == null ? "" : file);
  hostPanic(changetype<usize>(text), text.byteLength, changetype<usize>(name), name.byteLength, line, column);
  unreachable();
}
