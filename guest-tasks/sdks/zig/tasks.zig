//! Three tasks: the words of a text, the sum of numbers, and a picture turned into its negative.

const std = @import("std");
const wasmpool = @import("wasmpool.zig");

pub const panic = wasmpool.panic;
pub const std_options: std.Options = .{ .logFn = wasmpool.logFn };

comptime {
    wasmpool.tasks(.{
        .{ "count-words", countWords, &.{"text"}, "How often each word occurs, the commonest first." },
        .{ "total", total, &.{"values"}, "The sum of the numbers; of none there is an error." },
        .{ "invert", invert, &.{"picture"}, "The negative of a grey picture (PGM, P5)." },
    });
}

const Count = struct { word: []const u8, times: u32 };

fn countWords(text: []const u8) ![]const Count {
    var times: std.StringArrayHashMapUnmanaged(u32) = .empty;
    var words = std.mem.tokenizeAny(u8, text, &std.ascii.whitespace);
    while (words.next()) |word| {
        const entry = try times.getOrPutValue(wasmpool.allocator, word, 0);
        entry.value_ptr.* += 1;
    }
    const counts = try wasmpool.allocator.alloc(Count, times.count());
    for (counts, times.keys(), times.values()) |*count, word, n| count.* = .{ .word = word, .times = n };
    std.mem.sort(Count, counts, {}, before);
    return counts;
}

fn before(_: void, a: Count, b: Count) bool {
    return if (a.times != b.times) a.times > b.times else std.mem.lessThan(u8, a.word, b.word);
}

fn total(values: []const f64) !f64 {
    if (values.len == 0) return wasmpool.fail("total of no numbers", .{});
    var sum: f64 = 0;
    for (values) |value| sum += value;
    return sum;
}

fn invert(picture: wasmpool.Bytes) !wasmpool.Bytes {
    // The head is `P5`, width, height and maximum, and one space behind them.
    if (!std.mem.startsWith(u8, picture.bytes, "P5")) return wasmpool.fail("not a PGM picture", .{});
    var words = std.mem.tokenizeAny(u8, picture.bytes, &std.ascii.whitespace);
    for (0..4) |_| _ = words.next();
    const negative = try wasmpool.allocator.dupe(u8, picture.bytes);
    for (negative[@min(words.index + 1, negative.len)..]) |*grey| grey.* = 255 - grey.*;
    return .{ .bytes = negative };
}

test "words are counted, the commonest first" {
    const counts = try countWords("a b a");
    try std.testing.expectEqual(2, counts.len);
    try std.testing.expectEqualStrings("a", counts[0].word);
    try std.testing.expectEqual(2, counts[0].times);
}

test "of no numbers there is no sum" {
    try std.testing.expectEqual(3.5, try total(&.{ 1, 2.5 }));
    try std.testing.expectError(error.Failed, total(&.{}));
}

test "a picture is inverted behind its head" {
    const negative = try invert(.{ .bytes = "P5 2 1 255\n\x01\xfe" });
    try std.testing.expectEqualStrings("P5 2 1 255\n\xfe\x01", negative.bytes);
}

test "JSON in, JSON out" {
    const json = try wasmpool.run(countWords, "\"b \\u00e4\"");
    try std.testing.expectEqualStrings("\x00[{\"word\":\"b\",\"times\":1},{\"word\":\"ä\",\"times\":1}]", json);
    try std.testing.expectEqualStrings("\x01\"total of no numbers\"", try wasmpool.run(total, "[]"));
}
