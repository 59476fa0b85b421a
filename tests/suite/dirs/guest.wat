;; Untyped tasks that do one thing each to a file. Input: the directory's descriptor, the length of a
;; first text, that text, a second text. Output: an errno of WASI, and what was read.
(module
  (import "wasi_snapshot_preview1" "path_open"
    (func $path_open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "path_filestat_get"
    (func $path_filestat_get (param i32 i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "path_filestat_set_times"
    (func $path_filestat_set_times (param i32 i32 i32 i32 i64 i64 i32) (result i32)))
  (import "wasi_snapshot_preview1" "path_create_directory"
    (func $path_create_directory (param i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "path_remove_directory"
    (func $path_remove_directory (param i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "path_unlink_file"
    (func $path_unlink_file (param i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "path_rename"
    (func $path_rename (param i32 i32 i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "path_symlink"
    (func $path_symlink (param i32 i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "path_link"
    (func $path_link (param i32 i32 i32 i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "path_readlink"
    (func $path_readlink (param i32 i32 i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_read" (func $fd_read (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_pwrite" (func $fd_pwrite (param i32 i32 i32 i64 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_readdir" (func $fd_readdir (param i32 i32 i32 i64 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_seek" (func $fd_seek (param i32 i64 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_sync" (func $fd_sync (param i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_datasync" (func $fd_datasync (param i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_advise" (func $fd_advise (param i32 i64 i64 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_allocate" (func $fd_allocate (param i32 i64 i64) (result i32)))
  (import "wasi_snapshot_preview1" "fd_close" (func $fd_close (param i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_fdstat_get" (func $fd_fdstat_get (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_filestat_get" (func $fd_filestat_get (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_filestat_set_size"
    (func $fd_filestat_set_size (param i32 i64) (result i32)))
  (import "wasi_snapshot_preview1" "fd_filestat_set_times"
    (func $fd_filestat_set_times (param i32 i64 i64 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_prestat_get" (func $fd_prestat_get (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_prestat_dir_name"
    (func $fd_prestat_dir_name (param i32 i32 i32) (result i32)))

  ;; 1024: what calls write; 2048: one iovec; 4096: the input; 65534: the output.
  (memory (export "memory") 4)
  (global $len (mut i32) (i32.const 0))
  (func (export "wasmpool_abi_v1"))
  (func (export "wasmpool_alloc") (param i32) (result i32) (i32.const 4096))

  (func $dir (result i32) (i32.load8_u (i32.const 4096)))
  (func $first_len (result i32) (i32.load8_u (i32.const 4097)))
  (func $second (result i32) (i32.add (i32.const 4098) (call $first_len)))
  (func $second_len (result i32) (i32.sub (i32.sub (global.get $len) (i32.const 2)) (call $first_len)))
  (func $number (result i32) (i32.load (i32.const 1024)))

  (func $answer (param $errno i32) (param $bytes i32) (result i64)
    (i32.store8 (i32.const 65534) (i32.const 0))
    (i32.store8 (i32.const 65535) (local.get $errno))
    (if (local.get $errno) (then (local.set $bytes (i32.const 0))))
    (i64.or (i64.shl (i64.const 65534) (i64.const 32))
            (i64.extend_i32_u (i32.add (local.get $bytes) (i32.const 2)))))

  ;; The first text as a path; the descriptor goes to 1024.
  (func $open (param $flags i32) (param $rights i64) (param $how i32) (result i32)
    (call $path_open (call $dir) (i32.const 1) (i32.const 4098) (call $first_len) (local.get $flags)
      (local.get $rights) (i64.const 0) (local.get $how) (i32.const 1024)))

  ;; The second text, to the descriptor at 1024.
  (func $write_second (result i32)
    (i32.store (i32.const 2048) (call $second))
    (i32.store (i32.const 2052) (call $second_len))
    (call $fd_write (call $number) (i32.const 2048) (i32.const 1) (i32.const 1028)))

  (func (export "read") (param $at i32) (param $size i32) (result i64) (local $errno i32)
    (global.set $len (local.get $size))
    (local.set $errno (call $open (i32.const 0) (i64.const 2) (i32.const 0)))
    (if (local.get $errno) (then (return (call $answer (local.get $errno) (i32.const 0)))))
    (i32.store (i32.const 2048) (i32.const 65536))
    (i32.store (i32.const 2052) (i32.const 60000))
    (local.set $errno (call $fd_read (call $number) (i32.const 2048) (i32.const 1) (i32.const 1028)))
    (call $answer (local.get $errno) (i32.load (i32.const 1028))))

  (func (export "write") (param $at i32) (param $size i32) (result i64) (local $errno i32)
    (global.set $len (local.get $size))
    (local.set $errno (call $open (i32.const 9) (i64.const 64) (i32.const 0)))
    (if (i32.eqz (local.get $errno)) (then (local.set $errno (call $write_second))))
    (call $answer (local.get $errno) (i32.const 0)))

  (func (export "append") (param $at i32) (param $size i32) (result i64) (local $errno i32)
    (global.set $len (local.get $size))
    (local.set $errno (call $open (i32.const 1) (i64.const 64) (i32.const 1)))
    (if (i32.eqz (local.get $errno)) (then (local.set $errno (call $write_second))))
    (call $answer (local.get $errno) (i32.const 0)))

  (func (export "list") (param $at i32) (param $size i32) (result i64) (local $errno i32)
    (global.set $len (local.get $size))
    (local.set $errno (call $open (i32.const 2) (i64.const 16384) (i32.const 0)))
    (if (local.get $errno) (then (return (call $answer (local.get $errno) (i32.const 0)))))
    (local.set $errno
      (call $fd_readdir (call $number) (i32.const 65536) (i32.const 60000) (i64.const 0) (i32.const 1028)))
    (call $answer (local.get $errno) (i32.load (i32.const 1028))))

  ;; Without following a link at its end.
  (func (export "stat") (param $at i32) (param $size i32) (result i64)
    (global.set $len (local.get $size))
    (call $answer
      (call $path_filestat_get (call $dir) (i32.const 0) (i32.const 4098) (call $first_len) (i32.const 65536))
      (i32.const 64)))

  (func (export "stat_followed") (param $at i32) (param $size i32) (result i64)
    (global.set $len (local.get $size))
    (call $answer
      (call $path_filestat_get (call $dir) (i32.const 1) (i32.const 4098) (call $first_len) (i32.const 65536))
      (i32.const 64)))

  (func (export "make_dir") (param $at i32) (param $size i32) (result i64)
    (global.set $len (local.get $size))
    (call $answer (call $path_create_directory (call $dir) (i32.const 4098) (call $first_len)) (i32.const 0)))

  (func (export "remove_dir") (param $at i32) (param $size i32) (result i64)
    (global.set $len (local.get $size))
    (call $answer (call $path_remove_directory (call $dir) (i32.const 4098) (call $first_len)) (i32.const 0)))

  (func (export "unlink") (param $at i32) (param $size i32) (result i64)
    (global.set $len (local.get $size))
    (call $answer (call $path_unlink_file (call $dir) (i32.const 4098) (call $first_len)) (i32.const 0)))

  (func (export "rename") (param $at i32) (param $size i32) (result i64)
    (global.set $len (local.get $size))
    (call $answer
      (call $path_rename (call $dir) (i32.const 4098) (call $first_len)
        (call $dir) (call $second) (call $second_len))
      (i32.const 0)))

  ;; From the first directory into the second.
  (func (export "carry") (param $at i32) (param $size i32) (result i64)
    (global.set $len (local.get $size))
    (call $answer
      (call $path_rename (i32.const 3) (i32.const 4098) (call $first_len)
        (i32.const 4) (call $second) (call $second_len))
      (i32.const 0)))

  (func (export "symlink") (param $at i32) (param $size i32) (result i64)
    (global.set $len (local.get $size))
    (call $answer
      (call $path_symlink (i32.const 4098) (call $first_len) (call $dir) (call $second) (call $second_len))
      (i32.const 0)))

  (func (export "link") (param $at i32) (param $size i32) (result i64)
    (global.set $len (local.get $size))
    (call $answer
      (call $path_link (call $dir) (i32.const 0) (i32.const 4098) (call $first_len)
        (call $dir) (call $second) (call $second_len))
      (i32.const 0)))

  (func (export "read_link") (param $at i32) (param $size i32) (result i64) (local $errno i32)
    (global.set $len (local.get $size))
    (local.set $errno
      (call $path_readlink (call $dir) (i32.const 4098) (call $first_len)
        (i32.const 65536) (i32.const 4096) (i32.const 1028)))
    (call $answer (local.get $errno) (i32.load (i32.const 1028))))

  ;; Both times to one second after 1970, by path.
  (func (export "touch") (param $at i32) (param $size i32) (result i64)
    (global.set $len (local.get $size))
    (call $answer
      (call $path_filestat_set_times (call $dir) (i32.const 1) (i32.const 4098) (call $first_len)
        (i64.const 1000000000) (i64.const 1000000000) (i32.const 5))
      (i32.const 0)))

  (func (export "touch_link") (param $at i32) (param $size i32) (result i64)
    (global.set $len (local.get $size))
    (call $answer
      (call $path_filestat_set_times (call $dir) (i32.const 0) (i32.const 4098) (call $first_len)
        (i64.const 1000000000) (i64.const 1000000000) (i32.const 5))
      (i32.const 0)))

  ;; Each of the calls on a descriptor, and none of their answers but the first's.
  (func $all_calls (param $rights i64) (param $flags i32) (result i64) (local $errno i32) (local $fd i32)
    (local.set $errno (call $open (local.get $flags) (local.get $rights) (i32.const 0)))
    (if (local.get $errno) (then (return (call $answer (local.get $errno) (i32.const 0)))))
    (local.set $fd (call $number))
    (drop (call $fd_fdstat_get (local.get $fd) (i32.const 1024)))
    (drop (call $fd_filestat_get (local.get $fd) (i32.const 1024)))
    (drop (call $fd_advise (local.get $fd) (i64.const 0) (i64.const 0) (i32.const 3)))
    (drop (call $fd_allocate (local.get $fd) (i64.const 0) (i64.const 10)))
    (drop (call $fd_filestat_set_times (local.get $fd) (i64.const 0) (i64.const 0) (i32.const 10)))
    (drop (call $fd_filestat_set_size (local.get $fd) (i64.const 3)))
    (drop (call $fd_seek (local.get $fd) (i64.const 0) (i32.const 2) (i32.const 1024)))
    (i32.store (i32.const 2048) (i32.const 4096))
    (i32.store (i32.const 2052) (i32.const 1))
    (drop (call $fd_pwrite (local.get $fd) (i32.const 2048) (i32.const 1) (i64.const 0) (i32.const 1024)))
    (drop (call $fd_read (local.get $fd) (i32.const 2048) (i32.const 1) (i32.const 1024)))
    (drop (call $fd_readdir (local.get $fd) (i32.const 65536) (i32.const 100) (i64.const 0) (i32.const 1024)))
    (drop (call $fd_sync (local.get $fd)))
    (drop (call $fd_datasync (local.get $fd)))
    (call $answer (call $fd_close (local.get $fd)) (i32.const 0)))
  (func (export "all_calls_reading") (param $at i32) (param $size i32) (result i64)
    (global.set $len (local.get $size))
    (call $all_calls (i64.const 2) (i32.const 0)))
  (func (export "all_calls_writing") (param $at i32) (param $size i32) (result i64)
    (global.set $len (local.get $size))
    (call $all_calls (i64.const 66) (i32.const 1)))

  ;; Three GiB, by a hole and by a byte at its end.
  (func (export "enlarge") (param $at i32) (param $size i32) (result i64) (local $errno i32)
    (global.set $len (local.get $size))
    (local.set $errno (call $open (i32.const 1) (i64.const 64) (i32.const 0)))
    (if (i32.eqz (local.get $errno))
      (then (local.set $errno (call $fd_filestat_set_size (call $number) (i64.const 3221225472)))))
    (call $answer (local.get $errno) (i32.const 0)))
  (func (export "write_far") (param $at i32) (param $size i32) (result i64) (local $errno i32)
    (global.set $len (local.get $size))
    (local.set $errno (call $open (i32.const 1) (i64.const 64) (i32.const 0)))
    (i32.store (i32.const 2048) (i32.const 4096))
    (i32.store (i32.const 2052) (i32.const 1))
    (if (i32.eqz (local.get $errno))
      (then
        (local.set $errno
          (call $fd_pwrite (call $number) (i32.const 2048) (i32.const 1) (i64.const 3221225472) (i32.const 1028)))))
    (call $answer (local.get $errno) (i32.const 0)))

  ;; Opens a file again and again; what came of the last time, and as the data how often it went well.
  (func (export "hoard") (param $at i32) (param $size i32) (result i64) (local $errno i32)
    (global.set $len (local.get $size))
    (i32.store (i32.const 65537) (i32.const 0))
    (block $full
      (loop $again
        (local.set $errno (call $open (i32.const 0) (i64.const 2) (i32.const 0)))
        (br_if $full (local.get $errno))
        (i32.store (i32.const 65537) (i32.add (i32.load (i32.const 65537)) (i32.const 1)))
        (br_if $again (i32.lt_u (i32.load (i32.const 65537)) (i32.const 5000)))))
    (i32.store8 (i32.const 65536) (local.get $errno))
    (call $answer (i32.const 0) (i32.const 5)))

  ;; The names of all directories that were given, a zero byte behind each.
  (func (export "given") (param $at i32) (param $size i32) (result i64) (local $fd i32) (local $end i32)
    (local.set $fd (i32.const 3))
    (local.set $end (i32.const 65536))
    (block $none
      (loop $next
        (br_if $none (call $fd_prestat_get (local.get $fd) (i32.const 1024)))
        (drop (call $fd_prestat_dir_name (local.get $fd) (local.get $end) (i32.load (i32.const 1028))))
        (local.set $end (i32.add (local.get $end) (i32.load (i32.const 1028))))
        (i32.store8 (local.get $end) (i32.const 0))
        (local.set $end (i32.add (local.get $end) (i32.const 1)))
        (local.set $fd (i32.add (local.get $fd) (i32.const 1)))
        (br $next)))
    (call $answer (i32.const 0) (i32.sub (local.get $end) (i32.const 65536)))))
