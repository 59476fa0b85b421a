//! Tasks for wasmpool in Zig (0.17), in one file.
//!
//!     const wasmpool = @import("wasmpool.zig");
//!     pub const panic = wasmpool.panic;
//!
//!     comptime {
//!         wasmpool.tasks(.{
//!             .{ "total", total, &.{"values"}, "The sum of the numbers." },
//!         });
//!     }
//!
//!     fn total(values: []const f64) !f64 {
//!         if (values.len == 0) return wasmpool.fail("total of no numbers", .{});
//!         var sum: f64 = 0;
//!         for (values) |value| sum += value;
//!         return sum;
//!     }
//!
//! Each task is a name, a function, the names of its parameters and a line for `wasmpool inspect`. The types are
//! Zig's; at compile time they become WIT in the module's section `wasmpool.tasks`, and the pool checks each input and
//! each output by it:
//!
//! | Zig | WIT |
//! |---|---|
//! | `bool`, `u8` … `u64`, `i8` … `i64`, `f32`, `f64`, `u21` | `bool`, `u8` … `u64`, `s8` … `s64`, `f32`, `f64`, `char` |
//! | `[]const u8` | `string` |
//! | `Bytes` | `list<u8>` |
//! | `[]const T`, `?T`, a tuple | `list<T>`, `option<T>`, `tuple<…>` |
//! | `struct`, `enum`, `union(enum)` | `record`, `enum`, `variant`, called as in Zig: `WordCount` is `word-count` |
//! | `!T` | `result<T, string>`: the text of `fail`, or else the error's name |
//!
//! What `allocator` returns, and every input, lives until the next task of the instance: nothing has to be freed.

const std = @import("std");
const builtin = @import("builtin");

const is_wasm = builtin.target.cpu.arch.isWasm();

/// Bytes as they are, and no text.
pub const Bytes = struct { bytes: []const u8 };

var arena: std.heap.ArenaAllocator = .init(if (is_wasm) std.heap.wasm_allocator else std.heap.page_allocator);

/// Memory until the next task.
pub const allocator = arena.allocator();

var failure: ?[]const u8 = null;

/// The task's own error, with a text.
pub fn fail(comptime format: []const u8, arguments: anytype) error{ Failed, OutOfMemory } {
    failure = std.fmt.allocPrint(allocator, format, arguments) catch return error.OutOfMemory;
    return error.Failed;
}

// ── What the host offers ─────────────────────────────────────────────────────

const host = if (is_wasm) struct {
    extern "wasmpool" fn log(u32, [*]const u8, usize, [*]const u8, usize, [*]const u8, usize) void;
    extern "wasmpool" fn panic([*]const u8, usize, [*]const u8, usize, u32, u32) void;
    extern "wasmpool" fn shared_len(u32) i64;
    extern "wasmpool" fn shared_read(u32, u64, [*]u8, usize) i32;
} else struct {};

/// For `pub const panic = wasmpool.panic;` in the root file: the caller is told why a task ended.
pub const panic = std.debug.FullPanic(struct {
    fn call(message: []const u8, first_address: ?usize) noreturn {
        if (!is_wasm) std.debug.defaultPanic(message, first_address);
        host.panic(message.ptr, message.len, "", 0, 0, 0);
        @trap();
    }
}.call);

/// For `pub const std_options: std.Options = .{ .logFn = wasmpool.logFn };` in the root file: `std.log` reaches the
/// log of the pool's host.
pub fn logFn(
    comptime level: std.log.Level,
    comptime scope: @EnumLiteral(),
    comptime format: []const u8,
    arguments: anytype,
) void {
    var room: [4096]u8 = undefined;
    // What is too long for a record is cut.
    const message = std.fmt.bufPrint(&room, format, arguments) catch &room;
    const number: u32 = switch (level) {
        .err => 1,
        .warn => 2,
        .info => 3,
        .debug => 4,
    };
    const target = @tagName(scope);
    if (is_wasm) host.log(number, target, target.len, message.ptr, message.len, "", 0);
}

/// The size of the shared input of this number, from 0 in the order in which the caller gave them.
pub fn sharedLen(index: u32) ?u64 {
    const len = host.shared_len(index);
    return if (len < 0) null else @intCast(len);
}

/// Copies what stands at `offset`, and says how many bytes that were: fewer than there is room only where it ends.
pub fn sharedRead(index: u32, offset: u64, into: []u8) usize {
    var filled: usize = 0;
    while (filled < into.len) {
        const copied = host.shared_read(index, offset + filled, into.ptr + filled, into.len - filled);
        if (copied <= 0) break;
        filled += @intCast(copied);
    }
    return filled;
}

// ── Tasks ────────────────────────────────────────────────────────────────────

/// Exports the tasks, and describes them in the module.
pub fn tasks(comptime list: anytype) void {
    comptime {
        @setEvalBranchQuota(100_000);
        var types: []const u8 = "";
        var functions: []const u8 = "";
        for (list) |task| {
            const name: []const u8 = task[0];
            const Function = @TypeOf(task[1]);
            const Arguments = std.meta.ArgsTuple(Function);
            const names: []const []const u8 = task[2];
            var parameters: []const u8 = "";
            const count = std.meta.fieldNames(Arguments).len;
            if (names.len != count) @compileError(name ++ ": name each of its parameters");
            for (std.meta.fieldNames(Arguments), names) |field, parameter| {
                const comma = if (parameters.len == 0) "" else ", ";
                parameters = parameters ++ comma ++ parameter ++ ": " ++ wit(@FieldType(Arguments, field), &types);
            }
            const Return = @typeInfo(Function).@"fn".return_type.?;
            const result = switch (Return) {
                void => "",
                else => " -> " ++ witOfResult(Return, &types),
            };
            functions = functions ++ "/// " ++ task[3] ++ "\n" ++ name ++ ": func(" ++ parameters ++ ")" ++ result ++ ";\n";
            if (is_wasm) @export(&Export(task[1]).call, .{ .name = name });
        }
        if (is_wasm) {
            const text = types ++ functions;
            var quoted: []const u8 = "";
            for (text) |c| quoted = quoted ++ switch (c) {
                '\n' => "\\n",
                '"' => "\\\"",
                '\\' => "\\\\",
                else => &[1]u8{c},
            };
            _ = Section(std.fmt.comptimePrint(
                ".section .custom_section.wasmpool.tasks,\"\",@\n.int32 {d}\n.byte 2\n.ascii \"{s}\"\n.text\n",
                .{ text.len + 1, quoted },
            ));
            @export(&marker, .{ .name = "wasmpool_abi_v1" });
            @export(&roomForInput, .{ .name = "wasmpool_alloc" });
        }
    }
}

/// Assembly that belongs to no function stands in a container.
fn Section(comptime assembly: []const u8) type {
    return struct {
        comptime {
            asm (assembly);
        }
    };
}

fn marker() callconv(.c) void {}

fn roomForInput(len: usize) callconv(.c) ?[*]u8 {
    _ = arena.reset(.{ .retain_with_limit = 1 << 20 });
    const bytes = allocator.alignedAlloc(u8, .@"16", @max(len, 1)) catch return null;
    return bytes.ptr;
}

fn Export(comptime function: anytype) type {
    return struct {
        fn call(input: ?[*]u8, len: usize) callconv(.c) u64 {
            const bytes: []const u8 = if (input) |at| at[0..len] else "";
            const envelope = run(function, bytes) catch @panic("out of memory");
            return @as(u64, @intFromPtr(envelope.ptr)) << 32 | envelope.len;
        }
    };
}

/// Calls a function with an input in JSON, and returns a status and the output in JSON: 0 the output, 1 the task's own
/// error, 2 why the input could not be decoded. A native test may call it.
pub fn run(comptime function: anytype, input: []const u8) error{OutOfMemory}![]const u8 {
    const Arguments = std.meta.ArgsTuple(@TypeOf(function));
    var arguments: Arguments = undefined;
    const names = comptime std.meta.fieldNames(Arguments);
    if (names.len == 1 and @FieldType(Arguments, names[0]) == Bytes) {
        arguments[0] = .{ .bytes = input };
    } else if (names.len > 0) {
        const options: std.json.ParseOptions = .{ .parse_numbers = false };
        const value = std.json.parseFromSliceLeaky(std.json.Value, allocator, input, options) catch |e| return refusal(e);
        if (names.len == 1) {
            arguments[0] = decode(@FieldType(Arguments, names[0]), value) catch |e| return refusal(e);
        } else {
            arguments = decode(Arguments, value) catch |e| return refusal(e);
        }
    }
    const result = @call(.auto, function, arguments);
    const Result = @TypeOf(result);
    if (@typeInfo(Result) != .error_union) return encode(0, Result, result);
    const value = result catch |e| {
        const text = if (e == error.Failed) failure orelse "Failed" else @errorName(e);
        return encode(1, []const u8, text);
    };
    return encode(0, @TypeOf(value), value);
}

fn refusal(reason: anyerror) error{OutOfMemory}![]const u8 {
    return std.mem.concat(allocator, u8, &.{ "\x02the input is not of the parameters' types: ", @errorName(reason) });
}

// ── From JSON and to it ──────────────────────────────────────────────────────

const Wrong = error{ WrongType, NoSuchField, NoSuchCase, OutOfMemory };

fn decode(comptime T: type, value: std.json.Value) Wrong!T {
    if (T == Bytes) return decodeBytes(value);
    if (T == []const u8 or T == []u8) return if (value == .string) @constCast(value.string) else error.WrongType;
    if (T == u21) return std.unicode.utf8Decode(value.string) catch error.WrongType;
    switch (@typeInfo(T)) {
        .void => return {},
        .bool => return if (value == .bool) value.bool else error.WrongType,
        .int => {
            if (value != .number_string) return error.WrongType;
            return std.fmt.parseInt(T, value.number_string, 10) catch error.WrongType;
        },
        .float => {
            const text = switch (value) {
                .number_string, .string => |text| text,
                else => return error.WrongType,
            };
            return std.fmt.parseFloat(T, text) catch error.WrongType;
        },
        .optional => |optional| return if (value == .null) null else try decode(optional.child, value),
        .pointer => |pointer| {
            if (value != .array) return error.WrongType;
            const list = try allocator.alloc(pointer.child, value.array.items.len);
            for (list, value.array.items) |*element, item| element.* = try decode(pointer.child, item);
            return list;
        },
        .@"struct" => |info| {
            var made: T = undefined;
            inline for (comptime std.meta.fieldNames(T), 0..) |name, i| {
                const Field = @FieldType(T, name);
                if (info.is_tuple) {
                    if (value != .array or value.array.items.len <= i) return error.WrongType;
                    @field(made, name) = try decode(Field, value.array.items[i]);
                } else {
                    if (value != .object) return error.WrongType;
                    @field(made, name) = try decode(Field, value.object.get(comptime kebab(name)) orelse return error.NoSuchField);
                }
            }
            return made;
        },
        .@"enum" => {
            if (value != .string) return error.WrongType;
            inline for (comptime std.meta.fieldNames(T)) |name| {
                if (std.mem.eql(u8, value.string, comptime kebab(name))) return @field(T, name);
            }
            return error.NoSuchCase;
        },
        .@"union" => {
            inline for (comptime std.meta.fieldNames(T)) |name| {
                const Content = @FieldType(T, name);
                const wanted = comptime kebab(name);
                if (Content == void) {
                    if (value == .string and std.mem.eql(u8, value.string, wanted)) return @unionInit(T, name, {});
                } else if (value == .object) {
                    if (value.object.get(wanted)) |content| return @unionInit(T, name, try decode(Content, content));
                }
            }
            return error.NoSuchCase;
        },
        else => @compileError(@typeName(T) ++ " is no type of a task"),
    }
}

fn decodeBytes(value: std.json.Value) Wrong!Bytes {
    if (value != .object) return error.WrongType;
    const text = value.object.get("base64") orelse return error.NoSuchField;
    if (text != .string) return error.WrongType;
    const decoder = std.base64.standard.Decoder;
    const bytes = try allocator.alloc(u8, decoder.calcSizeForSlice(text.string) catch return error.WrongType);
    decoder.decode(bytes, text.string) catch return error.WrongType;
    return .{ .bytes = bytes };
}

fn encode(status: u8, comptime T: type, value: T) error{OutOfMemory}![]const u8 {
    var out: std.Io.Writer.Allocating = .init(allocator);
    const writer = &out.writer;
    writer.writeByte(status) catch return error.OutOfMemory;
    if (T == Bytes) {
        writer.writeAll(value.bytes) catch return error.OutOfMemory;
    } else if (T != void) {
        write(writer, T, value) catch return error.OutOfMemory;
    }
    return out.written();
}

fn write(writer: *std.Io.Writer, comptime T: type, value: T) std.Io.Writer.Error!void {
    if (T == Bytes) {
        try writer.writeAll("{\"base64\":\"");
        try std.base64.standard.Encoder.encodeWriter(writer, value.bytes);
        return writer.writeAll("\"}");
    }
    if (T == []const u8 or T == []u8) return std.json.Stringify.encodeJsonString(value, .{}, writer);
    if (T == u21) {
        var bytes: [4]u8 = undefined;
        const len = std.unicode.utf8Encode(value, &bytes) catch 0;
        return std.json.Stringify.encodeJsonString(bytes[0..len], .{}, writer);
    }
    switch (@typeInfo(T)) {
        .void => try writer.writeAll("null"),
        .bool => try writer.writeAll(if (value) "true" else "false"),
        .int => try writer.print("{d}", .{value}),
        .float => {
            if (std.math.isNan(value)) return writer.writeAll("\"NaN\"");
            if (std.math.isInf(value)) return writer.writeAll(if (value > 0) "\"inf\"" else "\"-inf\"");
            try writer.print("{e}", .{value});
        },
        .optional => |optional| if (value) |content| try write(writer, optional.child, content) else try writer.writeAll("null"),
        .pointer => |pointer| {
            try writer.writeByte('[');
            for (value, 0..) |element, i| {
                if (i > 0) try writer.writeByte(',');
                try write(writer, pointer.child, element);
            }
            try writer.writeByte(']');
        },
        .@"struct" => |info| {
            try writer.writeByte(if (info.is_tuple) '[' else '{');
            inline for (comptime std.meta.fieldNames(T), 0..) |name, i| {
                if (i > 0) try writer.writeByte(',');
                if (!info.is_tuple) try writer.writeAll("\"" ++ comptime kebab(name) ++ "\":");
                try write(writer, @FieldType(T, name), @field(value, name));
            }
            try writer.writeByte(if (info.is_tuple) ']' else '}');
        },
        .@"enum" => switch (value) {
            inline else => |tag| try writer.writeAll("\"" ++ comptime kebab(@tagName(tag)) ++ "\""),
        },
        .@"union" => switch (value) {
            inline else => |content, tag| {
                const name = "\"" ++ comptime kebab(@tagName(tag)) ++ "\"";
                if (@TypeOf(content) == void) return writer.writeAll(name);
                try writer.writeAll("{" ++ name ++ ":");
                try write(writer, @TypeOf(content), content);
                try writer.writeByte('}');
            },
        },
        else => @compileError(@typeName(T) ++ " is no type of a task"),
    }
}

// ── From Zig's types to WIT's ────────────────────────────────────────────────

/// `WordCount` and `word_count` are `word-count`.
fn kebab(comptime name: []const u8) []const u8 {
    var text: []const u8 = "";
    for (name, 0..) |c, i| {
        if (c == '_') {
            text = text ++ "-";
        } else if (std.ascii.isUpper(c)) {
            text = text ++ (if (i == 0) "" else "-") ++ &[1]u8{std.ascii.toLower(c)};
        } else {
            text = text ++ &[1]u8{c};
        }
    }
    return text;
}

fn witOfResult(comptime T: type, comptime types: *[]const u8) []const u8 {
    if (@typeInfo(T) != .error_union) return wit(T, types);
    const Payload = @typeInfo(T).error_union.payload;
    return "result<" ++ (if (Payload == void) "_" else wit(Payload, types)) ++ ", string>";
}

/// How WIT spells a type. Types that have a name are added to `types`, once.
fn wit(comptime T: type, comptime types: *[]const u8) []const u8 {
    if (T == Bytes) return "list<u8>";
    if (T == []const u8 or T == []u8) return "string";
    if (T == u21) return "char";
    switch (@typeInfo(T)) {
        .bool => return "bool",
        .int => |int| {
            const sign = if (int.signedness == .signed) "s" else "u";
            switch (int.bits) {
                8, 16, 32, 64 => return std.fmt.comptimePrint("{s}{d}", .{ sign, int.bits }),
                else => @compileError(@typeName(T) ++ ": say which, u32 or u64"),
            }
        },
        .float => return @typeName(T),
        .optional => |optional| return "option<" ++ wit(optional.child, types) ++ ">",
        .pointer => |pointer| {
            if (pointer.size != .slice) @compileError(@typeName(T) ++ " is no type of a task");
            return "list<" ++ wit(pointer.child, types) ++ ">";
        },
        .@"struct" => |info| if (info.is_tuple) {
            var parts: []const u8 = "";
            for (std.meta.fieldNames(T), 0..) |name, i| {
                parts = parts ++ (if (i == 0) "" else ", ") ++ wit(@FieldType(T, name), types);
            }
            return "tuple<" ++ parts ++ ">";
        },
        .@"enum", .@"union" => {},
        else => @compileError(@typeName(T) ++ " is no type of a task"),
    }
    const full = @typeName(T);
    const name = kebab(full[if (std.mem.lastIndexOfScalar(u8, full, '.')) |dot| dot + 1 else 0..]);
    const kind = switch (@typeInfo(T)) {
        .@"struct" => "record ",
        .@"enum" => "enum ",
        else => "variant ",
    };
    var text: []const u8 = kind ++ name ++ " {";
    if (std.mem.indexOf(u8, types.*, " " ++ name ++ " {") != null) return name;
    for (std.meta.fieldNames(T)) |field| {
        text = text ++ " " ++ kebab(field);
        switch (@typeInfo(T)) {
            .@"struct" => text = text ++ ": " ++ wit(@FieldType(T, field), types),
            .@"union" => if (@FieldType(T, field) != void) {
                text = text ++ "(" ++ wit(@FieldType(T, field), types) ++ ")";
            },
            else => {},
        }
        text = text ++ ",";
    }
    types.* = types.* ++ text ++ " }\n";
    return name;
}
