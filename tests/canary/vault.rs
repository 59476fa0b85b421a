//! A guest that fills all it can write with a canary, and counts what it finds where nothing
//! has been written yet. One text, many modules: they differ in memories, sizes and images.

/// The byte that a task leaves wherever it can: `Z`, so that logs and texts keep it.
pub(crate) const CANARY: u8 = b'Z';

/// The byte of the data segments that make a memory's first image.
const IMAGE: u8 = 0x69;

/// The parts that a module is made of. Memory 0 is the byte ABI's; its first page is for input and output.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shape {
    pub(crate) name: &'static str,
    /// Pages of each memory at the start, of 64 KiB. Every second one has 64-bit addresses.
    pub(crate) memories: &'static [u32],
    /// Pages at the start of each memory that come from data segments.
    pub(crate) image_pages: u32,
    /// Pages that a task adds to each memory before it fills or scans it.
    pub(crate) grown_pages: u32,
    pub(crate) table_entries: u32,
    /// The module imports WASI, and so runs on a fiber.
    pub(crate) wasi: bool,
    /// The module uses the heap of collected objects.
    pub(crate) gc: bool,
}

/// The ends of a task that has filled everything. The numbers are the guest's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Ending {
    Ok = 0,
    OwnError = 1,
    Unreachable = 2,
    OutOfBounds = 3,
    StackOverflow = 4,
    Panic = 5,
    Exception = 6,
    OutputTooLarge = 7,
    Spin = 8,
    /// The last two need WASI.
    Exit = 9,
    Sleep = 10,
}

pub(crate) const ENDINGS: [Ending; 11] = [
    Ending::Ok,
    Ending::OwnError,
    Ending::Unreachable,
    Ending::OutOfBounds,
    Ending::StackOverflow,
    Ending::Panic,
    Ending::Exception,
    Ending::OutputTooLarge,
    Ending::Spin,
    Ending::Exit,
    Ending::Sleep,
];

/// The part of its memory that a task fills: what is reset differs by how much was written, and where.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Filling {
    Everything = 0,
    /// One word of every third page of 4 KiB: more regions than one scan reports.
    Sparse = 1,
    /// The last page of each memory.
    End = 2,
    /// The pages of the image, and no others.
    Image = 3,
}

pub(crate) const FILLINGS: [Filling; 4] =
    [Filling::Everything, Filling::Sparse, Filling::End, Filling::Image];

/// The places of what `scan` answers: how many words, entries or bytes are not as they began.
pub(crate) const FOUND: [&str; 9] = [
    "words of memory as it began",
    "words of grown memory",
    "bytes of a passive data segment",
    "entries of tables as they began",
    "entries of grown tables",
    "globals",
    "elements of new objects",
    "bytes of stdin, arguments and environment",
    "words of the image",
];

impl Shape {
    fn is_64(index: usize) -> bool {
        index % 2 == 1
    }

    pub(crate) fn text(&self) -> String {
        let Shape { table_entries, .. } = *self;
        let grown_entries = table_entries * 2;
        let memories: String = (0..self.memories.len()).map(|index| self.memory(index)).collect();
        let wasi_imports = if self.wasi { WASI_IMPORTS } else { "" };
        let gc_parts = if self.gc { GC_PARTS } else { "" };
        format!(
            r#"(module
            (import "wasmpool" "log" (func $log (param i32 i32 i32 i32 i32 i32 i32)))
            (import "wasmpool" "panic" (func $panic (param i32 i32 i32 i32 i32 i32)))
            {wasi_imports}
            {memories}
            (data $passive "passive!")
            (table $functions {table_entries} {grown_entries} funcref)
            (table $numbers {table_entries} {grown_entries} anyref)
            (global $word (mut i64) (i64.const 0))
            (global $half (mut i32) (i32.const 0))
            (global $real (mut f64) (f64.const 0))
            (global $lanes (mut v128) (v128.const i64x2 0 0))
            (global $function (mut funcref) (ref.null func))
            (global $number (mut anyref) (ref.null any))
            (tag $thrown (param i64))
            {gc_parts}
            (elem declare func $spin)
            (func (export "wasmpool_abi_v1"))
            (func (export "wasmpool_alloc") (param i32) (result i32) (i32.const 16))
            (func $spin (loop (br 0)))
            (func $descend (param i64 i64) (result i64)
                (i64.xor (call $descend (local.get 1) (local.get 0)) (i64.const {CANARY_WORD})))
            {fill}
            {scan}
            ;; The same instance fills and scans: what is there must be found.
            (func (export "fill_and_scan") (param $at i32) (param $len i32) (result i64)
                (i32.store16 (i32.const 16) (i32.const 0))
                (drop (call $fill (i32.const 16) (i32.const 2)))
                (call $scan (i32.const 16) (i32.const 0)))
            {helpers})"#,
            fill = self.fill_function(),
            scan = self.scan_function(),
            helpers = self.each(Shape::helpers) + HELPERS,
        )
    }

    fn memory(&self, index: usize) -> String {
        let pages = self.memories[index];
        let max = pages + self.grown_pages;
        let width = if Self::is_64(index) { "i64 " } else { "" };
        let export = if index == 0 { "(export \"memory\") " } else { "" };
        let image = segment(index, self.image_pages.min(pages));
        format!("(memory $m{index} {export}{width}{pages} {max})\n{image}\n")
    }

    /// Joins what is to be said of each memory.
    fn each(&self, part: fn(&Shape, usize) -> String) -> String {
        (0..self.memories.len()).map(|index| part(self, index)).collect()
    }

    /// The task that fills everything with the canary, and ends as it is told to.
    fn fill_function(&self) -> String {
        format!(
            r#"
            (func $fill (export "fill") (param $at i32) (param $len i32) (result i64)
                (local $ending i32) (local $how i32) (local $to i64)
                (local.set $ending (i32.load8_u (local.get $at)))
                (local.set $how (i32.load8_u offset=1 (local.get $at)))
                {fill}
                {everything_else}
                {ending})"#,
            fill = self.each(Shape::fill),
            everything_else = self.fill_beside_memories(),
            ending = self.ending(),
        )
    }

    /// Fills tables, globals, objects, and what the host keeps of a task: logs and streams.
    fn fill_beside_memories(&self) -> String {
        let table_entries = self.table_entries;
        let grown_entries = table_entries * 2;
        let gc_fill = if self.gc { GC_FILL } else { "" };
        let wasi_fill = if self.wasi { WASI_FILL } else { "" };
        format!(
            r#"
                (drop (table.grow $functions (ref.func $spin) (i32.const {table_entries})))
                (drop (table.grow $numbers (ref.i31 (i32.const {CANARY})) (i32.const {table_entries})))
                (table.fill $functions (i32.const 0) (ref.func $spin) (i32.const {grown_entries}))
                (table.fill $numbers (i32.const 0) (ref.i31 (i32.const {CANARY})) (i32.const {grown_entries}))
                (global.set $word (i64.const {CANARY_WORD}))
                (global.set $half (i32.const {CANARY}))
                (global.set $real (f64.reinterpret_i64 (i64.const {CANARY_WORD})))
                (global.set $lanes (i64x2.splat (i64.const {CANARY_WORD})))
                (global.set $function (ref.func $spin))
                (global.set $number (ref.i31 (i32.const {CANARY})))
                (if (local.get $ending) (then (data.drop $passive)))
                {gc_fill}
                ;; Its last kilobyte of the first page is the canary now: a text for the host.
                (memory.fill (i32.const 64512) (i32.const {CANARY}) (i32.const 1024))
                (call $log (i32.const 2) (i32.const 64512) (i32.const 100) (i32.const 64512)
                    (i32.const 1000) (i32.const 64512) (i32.const 100))
                {wasi_fill}"#
        )
    }

    /// Ends the task by the number in `$ending`.
    fn ending(&self) -> String {
        let exit = if self.wasi { WASI_EXIT } else { "unreachable" };
        let sleep = if self.wasi { WASI_SLEEP } else { "unreachable" };
        format!(
            r#"
                (if (i32.eq (local.get $ending) (i32.const 2)) (then (unreachable)))
                (if (i32.eq (local.get $ending) (i32.const 3))
                    (then (drop (i32.load (i32.const -8)))))
                (if (i32.eq (local.get $ending) (i32.const 4)) (then
                    (drop (call $descend (i64.const {CANARY_WORD}) (i64.const {CANARY_WORD})))))
                (if (i32.eq (local.get $ending) (i32.const 5)) (then
                    (call $panic (i32.const 64512) (i32.const 1000) (i32.const 64512) (i32.const 100)
                        (i32.const 1) (i32.const 1))
                    (unreachable)))
                (if (i32.eq (local.get $ending) (i32.const 6))
                    (then (throw $thrown (i64.const {CANARY_WORD}))))
                (if (i32.eq (local.get $ending) (i32.const 8)) (then (call $spin)))
                (if (i32.eq (local.get $ending) (i32.const 9)) (then {exit}))
                (if (i32.eq (local.get $ending) (i32.const 10)) (then {sleep}))
                ;; Status 0 with the canary, status 1 with the canary, or more than is allowed.
                (i32.store8 (i32.const 64511) (i32.eq (local.get $ending) (i32.const 1)))
                (if (i32.eq (local.get $ending) (i32.const 7))
                    (then (return (i64.const {LARGE_OUTPUT}))))
                (i64.const {SMALL_OUTPUT})"#
        )
    }

    /// The task that counts what is not as it began.
    fn scan_function(&self) -> String {
        let table_entries = self.table_entries;
        let gc_scan = if self.gc { GC_SCAN } else { "" };
        let wasi_scan = if self.wasi { WASI_SCAN } else { "" };
        format!(
            r#"
                (func $scan (export "scan") (param $at i32) (param $len i32) (result i64)
                (local $entry i32) (local $to i64)
                ;; The input, of at most two bytes, is the host's own doing.
                (i64.store (i32.const 16) (i64.const 0))
                {scans}
                (i64.store offset=8272 (i32.const 0) (i64.extend_i32_u
                    (i32.ne (i32.const 8) (call $passive_bytes))))
                (i64.store offset=8280 (i32.const 0) (i64.extend_i32_u (i32.add
                    (call $functions_set (i32.const 0) (i32.const {table_entries}))
                    (call $numbers_set (i32.const 0) (i32.const {table_entries})))))
                (drop (table.grow $functions (ref.null func) (i32.const {table_entries})))
                (drop (table.grow $numbers (ref.null any) (i32.const {table_entries})))
                (i64.store offset=8288 (i32.const 0) (i64.extend_i32_u (i32.add
                    (call $functions_set (i32.const {table_entries}) (table.size $functions))
                    (call $numbers_set (i32.const {table_entries}) (table.size $numbers)))))
                (i64.store offset=8296 (i32.const 0) (i64.extend_i32_u (i32.add
                    (i32.add
                        (i32.add (i64.ne (global.get $word) (i64.const 0))
                            (i32.ne (global.get $half) (i32.const 0)))
                        (i32.add (i64.ne (i64.reinterpret_f64 (global.get $real)) (i64.const 0))
                            (v128.any_true (global.get $lanes))))
                    (i32.add (i32.eqz (ref.is_null (global.get $function)))
                        (i32.eqz (ref.is_null (global.get $number)))))))
                {gc_scan}
                {wasi_scan}
                (i32.store8 (i32.const 8255) (i32.const 0))
                (i64.const {FOUND_OUTPUT}))"#,
            scans = self.each(Shape::scan),
        )
    }

    /// Addresses of a memory: its type, a constant of it, and the conversion from i64.
    fn address(index: usize) -> (&'static str, &'static str) {
        if Self::is_64(index) { ("i64", "") } else { ("i32", "i32.wrap_i64") }
    }

    fn helpers(&self, index: usize) -> String {
        let (ty, wrap) = Self::address(index);
        let wrapped = |local: &str| match wrap {
            "" => format!("(local.get {local})"),
            wrap => format!("({wrap} (local.get {local}))"),
        };
        let at = wrapped("$at");
        let len = format!("({ty}.sub {} {at})", wrapped("$to"));
        format!(
            r#"
            ;; Words that differ, and sets them to what they should be.
            (func $differ{index} (param $at i64) (param $to i64) (param $want i64) (result i64)
                (local $found i64)
                (block $done (loop $more
                    (br_if $done (i64.ge_u (local.get $at) (local.get $to)))
                    (if (i64.ne (i64.load $m{index} {at}) (local.get $want)) (then
                        (local.set $found (i64.add (local.get $found) (i64.const 1)))
                        (i64.store $m{index} {at} (local.get $want))))
                    (local.set $at (i64.add (local.get $at) (i64.const 8)))
                    (br $more)))
                (local.get $found))
            (func $fill{index} (param $at i64) (param $to i64)
                (memory.fill $m{index} {at} (i32.const {CANARY}) {len}))
            (func $dot{index} (param $at i64) (param $to i64)
                (block $done (loop $more
                    (br_if $done (i64.ge_u (local.get $at) (local.get $to)))
                    (i64.store $m{index} {at} (i64.const {CANARY_WORD}))
                    (local.set $at (i64.add (local.get $at) (i64.const 12288)))
                    (br $more))))
            (func $grow{index} (param $pages i64) (result i64)
                (drop (memory.grow $m{index} {pages}))
                (i64.shl {size} (i64.const 16)))"#,
            pages = wrapped("$pages"),
            size = match wrap {
                "" => format!("(memory.size $m{index})"),
                _ => format!("(i64.extend_i32_u (memory.size $m{index}))"),
            },
        )
    }

    /// Returns the first byte that a task may fill. The first page of memory 0 is left out, since the input
    /// is there.
    fn first_byte(index: usize) -> u32 {
        if index == 0 { 65536 } else { 0 }
    }

    fn fill(&self, index: usize) -> String {
        let from = Self::first_byte(index);
        let image = self.image_bytes(index).1;
        format!(
            r#"
            (local.set $to (call $grow{index} (i64.const {grown})))
            (if (i32.eq (local.get $how) (i32.const 0))
                (then (call $fill{index} (i64.const {from}) (local.get $to))))
            (if (i32.eq (local.get $how) (i32.const 1))
                (then (call $dot{index} (i64.const {from}) (local.get $to))))
            (if (i32.eq (local.get $how) (i32.const 2))
                (then (call $fill{index} (i64.sub (local.get $to) (i64.const 4096)) (local.get $to))))
            (if (i32.eq (local.get $how) (i32.const 3))
                (then (call $fill{index} (i64.const {from}) (i64.const {image}))))"#,
            grown = self.grown_pages,
            image = image.max(from),
        )
    }

    /// The bytes of a memory that come from data segments.
    fn image_bytes(&self, index: usize) -> (u32, u32) {
        let pages = self.image_pages.min(self.memories[index]);
        (Self::first_byte(index).min(pages * 65536), pages * 65536)
    }

    fn scan(&self, index: usize) -> String {
        let bytes = self.memories[index] * 65536;
        let (image, image_end) = self.image_bytes(index);
        let add = |place: u32, value: String| {
            format!(
                "(i64.store offset={place} (i32.const 0) (i64.add (i64.load offset={place} (i32.const 0)) {value}))\n"
            )
        };
        let differ = |from: u32, to: u32, want: u64| {
            format!("(call $differ{index} (i64.const {from}) (i64.const {to}) (i64.const {want:#x}))")
        };
        // The first page of memory 0 is scanned as well; results are written to it afterwards.
        let page = match index {
            0 => add(8256, differ(0, 65536, 0)),
            _ => String::new(),
        };
        page + &add(8320, differ(image, image_end, u64::from_ne_bytes([IMAGE; 8])))
            + &add(8256, differ(image_end.max(Self::first_byte(index)), bytes, 0))
            + &format!("(local.set $to (call $grow{index} (i64.const {})))\n", self.grown_pages)
            + &add(8264, format!("(call $differ{index} (i64.const {bytes}) (local.get $to) (i64.const 0))"))
    }
}

/// A data segment of whole pages; memory 0 keeps its first one clear.
fn segment(index: usize, pages: u32) -> String {
    let first = Shape::first_byte(index);
    let bytes = (pages * 65536).saturating_sub(first) as usize;
    let offset = if Shape::is_64(index) { "i64.const" } else { "i32.const" };
    match bytes {
        0 => String::new(),
        bytes => format!(
            "(data (memory $m{index}) ({offset} {first}) \"{}\")",
            (IMAGE as char).to_string().repeat(bytes)
        ),
    }
}

const CANARY_WORD: u64 = u64::from_ne_bytes([CANARY; 8]);

/// Packed pointers and lengths of envelopes.
const SMALL_OUTPUT: u64 = 64511 << 32 | 1025;
const LARGE_OUTPUT: u64 = 64511 << 32 | 65536;
const FOUND_OUTPUT: u64 = 8255 << 32 | (1 + 8 * FOUND.len() as u64);

const HELPERS: &str = r#"
    (func $passive_bytes (result i32)
        (memory.init $passive (i32.const 4096) (i32.const 0) (i32.const 8))
        (i32.shl (i64.eq (i64.load (i32.const 4096)) (i64.const 0x2165766973736170)) (i32.const 3)))
    (func $functions_set (param $at i32) (param $to i32) (result i32) (local $set i32)
        (block $done (loop $more
            (br_if $done (i32.ge_u (local.get $at) (local.get $to)))
            (local.set $set (i32.add (local.get $set)
                (i32.eqz (ref.is_null (table.get $functions (local.get $at))))))
            (local.set $at (i32.add (local.get $at) (i32.const 1)))
            (br $more)))
        (local.get $set))
    (func $numbers_set (param $at i32) (param $to i32) (result i32) (local $set i32)
        (block $done (loop $more
            (br_if $done (i32.ge_u (local.get $at) (local.get $to)))
            (local.set $set (i32.add (local.get $set)
                (i32.eqz (ref.is_null (table.get $numbers (local.get $at))))))
            (local.set $at (i32.add (local.get $at) (i32.const 1)))
            (br $more)))
        (local.get $set))"#;

const GC_PARTS: &str = r#"
    (type $words (array (mut i64)))
    (type $pair (struct (field (mut i64)) (field (mut (ref null $words)))))
    (global $kept (mut (ref null $pair)) (ref.null $pair))"#;

/// 64 arrays of 1,000 words, kept reachable one by the other.
const GC_FILL: &str = r#"
    (local.set $how (i32.const 0))
    (loop $more
        (global.set $kept (struct.new $pair (i64.const 0x5a5a5a5a5a5a5a5a)
            (array.new $words (i64.const 0x5a5a5a5a5a5a5a5a) (i32.const 1000))))
        (local.set $how (i32.add (local.get $how) (i32.const 1)))
        (br_if $more (i32.lt_u (local.get $how) (i32.const 64))))"#;

const GC_SCAN: &str = r#"
    (loop $more
        (global.set $kept (struct.new_default $pair))
        (if (i64.ne (struct.get $pair 0 (global.get $kept)) (i64.const 0)) (then
            (i64.store offset=8304 (i32.const 0)
                (i64.add (i64.load offset=8304 (i32.const 0)) (i64.const 1)))))
        (struct.set $pair 1 (global.get $kept) (array.new_default $words (i32.const 1000)))
        (if (i64.ne (array.get $words (struct.get $pair 1 (global.get $kept)) (local.get $entry))
                    (i64.const 0)) (then
            (i64.store offset=8304 (i32.const 0)
                (i64.add (i64.load offset=8304 (i32.const 0)) (i64.const 1)))))
        (local.set $entry (i32.add (local.get $entry) (i32.const 1)))
        (br_if $more (i32.lt_u (local.get $entry) (i32.const 1000))))"#;

const WASI_IMPORTS: &str = r#"
    (import "wasi_snapshot_preview1" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "fd_read" (func $fd_read (param i32 i32 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "args_sizes_get" (func $args (param i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "environ_sizes_get" (func $environ (param i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
    (import "wasi_snapshot_preview1" "poll_oneoff" (func $poll (param i32 i32 i32 i32) (result i32)))"#;

/// Lines to stdout and stderr, of which the last one has no end.
const WASI_FILL: &str = r#"
    (i32.store8 (i32.const 64800) (i32.const 10))
    (i32.store (i32.const 40) (i32.const 64512))
    (i32.store (i32.const 44) (i32.const 1000))
    (drop (call $fd_write (i32.const 1) (i32.const 40) (i32.const 1) (i32.const 48)))
    (drop (call $fd_write (i32.const 2) (i32.const 40) (i32.const 1) (i32.const 48)))"#;

/// Sums of lengths; and a line of its own, to which nothing of another task may be added.
const WASI_SCAN: &str = r#"
    (drop (call $args (i32.const 4096) (i32.const 4100)))
    (drop (call $environ (i32.const 4104) (i32.const 4108)))
    (i32.store (i32.const 4112) (i32.const 4128))
    (i32.store (i32.const 4116) (i32.const 64))
    (drop (call $fd_read (i32.const 0) (i32.const 4112) (i32.const 1) (i32.const 4120)))
    (i64.store offset=8312 (i32.const 0) (i64.extend_i32_u (i32.add
        (i32.add (i32.load (i32.const 4096)) (i32.load (i32.const 4100)))
        (i32.add (i32.load (i32.const 4104)) (i32.add (i32.load (i32.const 4108))
            (i32.load (i32.const 4120)))))))
    (i64.store (i32.const 4096) (i64.const 0x0a6e61656c63))
    (i32.store (i32.const 4112) (i32.const 4096))
    (i32.store (i32.const 4116) (i32.const 6))
    (drop (call $fd_write (i32.const 1) (i32.const 4112) (i32.const 1) (i32.const 4120)))"#;

const WASI_EXIT: &str = "(call $exit (i32.const 7))";

/// A subscription to a clock, an hour from now.
const WASI_SLEEP: &str = r#"
    (memory.fill (i32.const 4096) (i32.const 0) (i32.const 48))
    (i32.store (i32.const 4112) (i32.const 1))
    (i64.store (i32.const 4120) (i64.const 3600000000000))
    (drop (call $poll (i32.const 4096) (i32.const 5000) (i32.const 1) (i32.const 6000)))"#;
