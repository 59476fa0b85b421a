;; What no program for preview 1 asks of WASI 0.2: as many open files as there may be (its adapter has room for fewer),
;; and the calls on a file's streams that do not wait. The first directory is the one that is used.
(module
  (import "wasi:filesystem/preopens@0.2.0" "get-directories" (func $directories (param i32)))
  (import "wasi:filesystem/types@0.2.0" "[method]descriptor.open-at"
    (func $open_at (param i32 i32 i32 i32 i32 i32 i32)))
  (import "wasi:filesystem/types@0.2.0" "[method]descriptor.read-directory" (func $read_directory (param i32 i32)))
  (import "wasi:filesystem/types@0.2.0" "[method]descriptor.read-via-stream" (func $reader (param i32 i64 i32)))
  (import "wasi:filesystem/types@0.2.0" "[method]descriptor.write-via-stream" (func $writer (param i32 i64 i32)))
  (import "wasi:filesystem/types@0.2.0" "[method]descriptor.append-via-stream" (func $appender (param i32 i32)))
  (import "wasi:io/streams@0.2.0" "[method]input-stream.read" (func $read (param i32 i64 i32)))
  (import "wasi:io/streams@0.2.0" "[method]input-stream.skip" (func $skip (param i32 i64 i32)))
  (import "wasi:io/streams@0.2.0" "[method]input-stream.subscribe" (func $readable (param i32) (result i32)))
  (import "wasi:io/streams@0.2.0" "[method]output-stream.check-write" (func $check_write (param i32 i32)))
  (import "wasi:io/streams@0.2.0" "[method]output-stream.write" (func $write (param i32 i32 i32 i32)))
  (import "wasi:io/streams@0.2.0" "[method]output-stream.write-zeroes" (func $write_zeroes (param i32 i64 i32)))
  (import "wasi:io/streams@0.2.0" "[method]output-stream.splice" (func $splice (param i32 i32 i64 i32)))
  (import "wasi:io/streams@0.2.0" "[method]output-stream.flush" (func $flush (param i32 i32)))
  (import "wasi:io/streams@0.2.0" "[method]output-stream.subscribe" (func $writable (param i32) (result i32)))
  (import "wasi:io/poll@0.2.0" "[method]pollable.block" (func $block (param i32)))

  ;; 16: a call's result; 64: paths; from 4096 on: what is given to the guest.
  (memory (export "memory") 4)
  (data (i32.const 64) "inout")
  (global $end (mut i32) (i32.const 4096))
  (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32)
    (global.get $end)
    (global.set $end
      (i32.add (global.get $end) (i32.and (i32.add (local.get 3) (i32.const 15)) (i32.const -16)))))

  (func $dir (result i32)
    (call $directories (i32.const 16))
    (i32.load (i32.load (i32.const 16))))

  ;; The last result is no error.
  (func $well (if (i32.load8_u (i32.const 16)) (then (unreachable))))

  ;; What a call that went well has returned.
  (func $returned (result i32) (call $well) (i32.load (i32.const 20)))

  ;; How often a file can be opened, times 100, and the number of the error that came then.
  (func (export "hoard") (result i32) (local $dir i32) (local $count i32)
    (local.set $dir (call $dir))
    (loop $again
      (call $open_at (local.get $dir) (i32.const 0) (i32.const 64) (i32.const 2)
        (i32.const 0) (i32.const 1) (i32.const 16))
      (if (i32.eqz (i32.load8_u (i32.const 16)))
        (then
          (local.set $count (i32.add (local.get $count) (i32.const 1)))
          (br_if $again (i32.lt_u (local.get $count) (i32.const 5000))))))
    (i32.add (i32.mul (local.get $count) (i32.const 100)) (i32.load8_u (i32.const 20))))

  ;; The same of lists of the directory's entries.
  (func (export "hoard-lists") (result i32) (local $dir i32) (local $count i32)
    (local.set $dir (call $dir))
    (loop $again
      (call $read_directory (local.get $dir) (i32.const 16))
      (if (i32.eqz (i32.load8_u (i32.const 16)))
        (then
          (local.set $count (i32.add (local.get $count) (i32.const 1)))
          (br $again))))
    (i32.add (i32.mul (local.get $count) (i32.const 100)) (i32.load8_u (i32.const 20))))

  ;; From the file `in` to the file `out`, and once more to its end; how long a write may have been.
  (func (export "copy") (result i64)
    (local $dir i32) (local $in i32) (local $out i32) (local $from i32) (local $to i32) (local $at i32)
    (local $max i64)
    (local.set $dir (call $dir))
    (call $open_at (local.get $dir) (i32.const 0) (i32.const 64) (i32.const 2)
      (i32.const 0) (i32.const 1) (i32.const 16))
    (local.set $in (call $returned))
    (call $open_at (local.get $dir) (i32.const 0) (i32.const 66) (i32.const 3)
      (i32.const 1) (i32.const 2) (i32.const 16))
    (local.set $out (call $returned))
    (call $reader (local.get $in) (i64.const 0) (i32.const 16))
    (local.set $from (call $returned))
    (call $writer (local.get $out) (i64.const 0) (i32.const 16))
    (local.set $to (call $returned))

    (call $block (call $readable (local.get $from)))
    (call $skip (local.get $from) (i64.const 1) (i32.const 16))
    (call $well)
    (call $read (local.get $from) (i64.const 4) (i32.const 16))
    (local.set $at (call $returned))
    (call $check_write (local.get $to) (i32.const 16))
    (call $well)
    (local.set $max (i64.load (i32.const 24)))
    (call $write (local.get $to) (local.get $at) (i32.const 4) (i32.const 16))
    (call $well)
    (call $flush (local.get $to) (i32.const 16))
    (call $well)
    (call $block (call $writable (local.get $to)))
    (call $splice (local.get $to) (local.get $from) (i64.const 1000) (i32.const 16))
    (call $well)
    (call $write_zeroes (local.get $to) (i64.const 2) (i32.const 16))
    (call $well)
    ;; The file has come to its end.
    (call $read (local.get $from) (i64.const 4) (i32.const 16))
    (if (i32.eqz (i32.load8_u (i32.const 16))) (then (unreachable)))

    (call $appender (local.get $out) (i32.const 16))
    (local.set $to (call $returned))
    (call $write (local.get $to) (local.get $at) (i32.const 4) (i32.const 16))
    (call $well)
    (local.get $max)))
