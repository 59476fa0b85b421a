// wasmpool.h: tasks for wasmpool in C (C99 and later) and C++ (17 and later), in one file.
//
//     #include "wasmpool.h"
//
//     WASMPOOL_TASK(total, "The sum of the numbers.",
//                   total: func(values: list<f64>) -> result<f64, string>) {
//         double sum = 0;
//         size_t count = 0;
//         wp_get_list(in);
//         for (; wp_next(in); count++) sum += wp_get_f64(in);
//         if (count == 0) { wp_fail(out, "total of no numbers"); return; }
//         wp_put_f64(out, sum);
//     }
//
// A task is its function, its documentation and its type as WIT spells it, which becomes a part of the module: the
// pool checks each input and each output by it. The function reads the input from `in` and writes the output to
// `out`. It needs no C library and no linker script:
//
//     clang --target=wasm32 -O2 -nostdlib -Wl,--no-entry -o guest.wasm guest.c
//     python3 -m ziglang cc --target=wasm32-wasi -mexec-model=reactor -O2 -o guest.wasm guest.c
//
// Compiled for the machine itself, the tasks can be tested: see `wp_test` at the end.
//
// Memory: what `wp_alloc` returns, each text of the input, and the output live until the next task of the instance.
// Nothing has to be freed. Where there is none left, the task ends with an error that says so.

#ifndef WASMPOOL_H
#define WASMPOOL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#if !defined(__wasm__) || defined(__wasi__)
// There is a C library, and the heap is its own.
#include <stdlib.h>
#define WP_HAS_LIBC 1
#endif
#ifndef __wasm__
#include <stdio.h>
#endif

#ifdef __cplusplus
#define WP_C extern "C"
#else
#define WP_C extern
#endif

// Several files of one module may include this one: the linker keeps one of each.
#define WP_ONCE __attribute__((weak))
#define WP_UNUSED __attribute__((unused))

#ifdef __wasm__
#define WP_EXPORT(name) __attribute__((export_name(name)))
#define WP_IMPORT(name) __attribute__((import_module("wasmpool"), import_name(name)))
#else
#define WP_EXPORT(name)
#define WP_IMPORT(name)
#endif

// ── What the host offers ─────────────────────────────────────────────────────

enum wp_level { WP_ERROR = 1, WP_WARN = 2, WP_INFO = 3, WP_DEBUG = 4, WP_TRACE = 5 };

#ifdef __wasm__
WP_C WP_IMPORT("log") void wp__host_log(uint32_t level, const char *target, size_t target_len, const char *message,
                                        size_t message_len, const char *fields, size_t fields_len);
WP_C WP_IMPORT("panic") void wp__host_panic(const char *message, size_t message_len, const char *file,
                                            size_t file_len, uint32_t line, uint32_t column);
WP_C WP_IMPORT("shared_len") int64_t wp__host_shared_len(uint32_t index);
WP_C WP_IMPORT("shared_read") int32_t wp__host_shared_read(uint32_t index, uint64_t offset, void *into, size_t len);
#endif

// Bytes, or a text in UTF-8; no 0 ends it.
typedef struct wp_text {
    char *ptr;
    size_t len;
} wp_text;

WP_UNUSED static size_t wp__length(const char *text) {
    size_t len = 0;
    while (text[len] != '\0') len++;
    return len;
}

// Ends the task, with a reason and the place in the source that the caller is told.
#define wp_panic(message) wp_panic_at(message, __FILE__, __LINE__)
#define wp_assert(condition) ((condition) ? (void)0 : wp_panic("assertion failed: " #condition))

__attribute__((noreturn)) WP_UNUSED static void wp_panic_at(const char *message, const char *file, uint32_t line) {
#ifdef __wasm__
    wp__host_panic(message, wp__length(message), file, wp__length(file), line, 0);
    __builtin_trap();
#else
    fprintf(stderr, "panicked at %s:%u: %s\n", file, (unsigned)line, message);
    abort();
#endif
}

// A record for the log of the pool's host. `fields` is the text of a JSON object, or empty.
WP_UNUSED static void wp_log_fields(enum wp_level level, const char *target, const char *message, const char *fields) {
#ifdef __wasm__
    wp__host_log(level, target, wp__length(target), message, wp__length(message), fields, wp__length(fields));
#else
    fprintf(stderr, "%d %s: %s %s\n", (int)level, target, message, fields);
#endif
}
WP_UNUSED static void wp_log(enum wp_level level, const char *message) { wp_log_fields(level, "", message, ""); }

#ifdef __wasm__
// The size of a shared input, numbered from 0 as the caller gave them; -1 if there is none.
WP_UNUSED static int64_t wp_shared_len(uint32_t index) { return wp__host_shared_len(index); }

// Copies what stands at `offset`, and returns how many bytes that were: fewer than `len` only where the input ends.
WP_UNUSED static size_t wp_shared_read(uint32_t index, uint64_t offset, void *into, size_t len) {
    size_t filled = 0;
    while (filled < len) {
        int32_t copied = wp__host_shared_read(index, offset + filled, (char *)into + filled, len - filled);
        if (copied <= 0) break;
        filled += (size_t)copied;
    }
    return filled;
}
#endif

// ── Memory ───────────────────────────────────────────────────────────────────

enum { WP__ALIGN = 16, WP__PAGE = 65536 };

#ifdef WP_HAS_LIBC
// What was allocated for a task is a list, which is freed before the next one.
typedef struct wp__block {
    struct wp__block *next;
    char padding[WP__ALIGN - sizeof(void *)];
} wp__block;
WP_ONCE wp__block *wp__blocks;

WP_UNUSED static void wp__reset(void) {
    while (wp__blocks) {
        wp__block *next = wp__blocks->next;
        free(wp__blocks);
        wp__blocks = next;
    }
}

WP_UNUSED static void *wp__try_alloc(size_t size) {
    if (size > SIZE_MAX - sizeof(wp__block)) return NULL;
    wp__block *block = (wp__block *)malloc(sizeof(wp__block) + size);
    if (!block) return NULL;
    block->next = wp__blocks;
    wp__blocks = block;
    return block + 1;
}
#else
// The linker puts this symbol behind everything else in the memory. The heap is a stack that grows from there.
WP_C unsigned char __heap_base;
WP_ONCE uintptr_t wp__top;

WP_UNUSED static void wp__reset(void) { wp__top = 0; }

WP_UNUSED static void *wp__try_alloc(size_t size) {
    uint64_t start = wp__top ? wp__top : (uintptr_t)&__heap_base;
    start = (start + WP__ALIGN - 1) & ~(uint64_t)(WP__ALIGN - 1);
    uint64_t end = start + (size ? size : 1), pages = (end + WP__PAGE - 1) / WP__PAGE;
    size_t present = __builtin_wasm_memory_size(0);
    if (pages > WP__PAGE - 1) return NULL;
    if (pages > present && __builtin_wasm_memory_grow(0, (size_t)(pages - present)) == (size_t)-1) return NULL;
    wp__top = (uintptr_t)end;
    return (void *)(uintptr_t)start;
}

// Compilers call these where they copy and fill. They are weak, so that a C library's go first.
WP_C __attribute__((weak)) void *memcpy(void *to, const void *from, size_t len) {
    for (size_t i = 0; i < len; i++) ((volatile char *)to)[i] = ((const char *)from)[i];
    return to;
}
WP_C __attribute__((weak)) void *memset(void *to, int byte, size_t len) {
    for (size_t i = 0; i < len; i++) ((volatile char *)to)[i] = (char)byte;
    return to;
}
#endif

// `size` bytes, aligned to 16, that live until the next task.
WP_UNUSED static void *wp_alloc(size_t size) {
    void *found = wp__try_alloc(size);
    if (!found) wp_panic("out of memory");
    return found;
}

WP_UNUSED static void wp__copy(char *to, const char *from, size_t len) { __builtin_memcpy(to, from, len); }

// ── Numbers ──────────────────────────────────────────────────────────────────
// A decimal number of up to WP__DIGITS digits that can be shifted by bits without an error: 0.d0d1d2… * 10^point. The
// exact way from text to double and back, where the quick one does not serve.

enum { WP__DIGITS = 800, WP__SHIFT = 28 };

typedef struct wp__decimal {
    int count, point;
    bool more; // Digits that are not 0 were cut off behind the last one.
    uint8_t digits[WP__DIGITS];
} wp__decimal;

WP_UNUSED static void wp__trim(wp__decimal *d) {
    while (d->count > 0 && d->digits[d->count - 1] == 0) d->count--;
    if (d->count == 0) d->point = 0;
}

// Times 2^bits.
WP_UNUSED static void wp__shift_left(wp__decimal *d, unsigned bits) {
    uint8_t front[12];
    int extra = 0;
    uint64_t carry = 0;
    for (int i = d->count - 1; i >= 0; i--) {
        carry += (uint64_t)d->digits[i] << bits;
        d->digits[i] = (uint8_t)(carry % 10);
        carry /= 10;
    }
    for (; carry > 0; carry /= 10) front[extra++] = (uint8_t)(carry % 10);
    int kept = d->count + extra > WP__DIGITS ? WP__DIGITS - extra : d->count;
    for (int i = kept; i < d->count; i++) d->more |= d->digits[i] != 0;
    for (int i = kept - 1; i >= 0; i--) d->digits[i + extra] = d->digits[i];
    for (int i = 0; i < extra; i++) d->digits[i] = front[extra - 1 - i];
    d->count = kept + extra;
    d->point += extra;
    wp__trim(d);
}

// Divided by 2^bits.
WP_UNUSED static void wp__shift_right(wp__decimal *d, unsigned bits) {
    int from = 0, to = 0;
    uint64_t rest = 0;
    while (from < d->count && rest >> bits == 0) rest = rest * 10 + d->digits[from++];
    if (rest == 0) { d->count = d->point = 0; return; }
    while (rest >> bits == 0) { rest *= 10; from++; }
    d->point -= from - 1;
    for (; from < d->count; from++) {
        d->digits[to++] = (uint8_t)(rest >> bits);
        rest = (rest & (((uint64_t)1 << bits) - 1)) * 10 + d->digits[from];
    }
    while (rest > 0) {
        if (to < WP__DIGITS) d->digits[to++] = (uint8_t)(rest >> bits);
        else d->more |= rest >> bits != 0;
        rest = (rest & (((uint64_t)1 << bits) - 1)) * 10;
    }
    d->count = to;
    wp__trim(d);
}

WP_UNUSED static void wp__shift(wp__decimal *d, int bits) {
    for (; bits > WP__SHIFT; bits -= WP__SHIFT) wp__shift_left(d, WP__SHIFT);
    for (; bits < -WP__SHIFT; bits += WP__SHIFT) wp__shift_right(d, WP__SHIFT);
    if (bits > 0) wp__shift_left(d, (unsigned)bits);
    if (bits < 0) wp__shift_right(d, (unsigned)-bits);
}

// Whether what stands from this digit on rounds up: a half goes to the even neighbour.
WP_UNUSED static bool wp__rounds_up(const wp__decimal *d, int at) {
    if (at < 0 || at >= d->count) return false;
    if (d->digits[at] == 5 && at + 1 == d->count && !d->more) return at > 0 && d->digits[at - 1] % 2 != 0;
    return d->digits[at] >= 5;
}

WP_UNUSED static double wp__of_bits(uint64_t bits) {
    double value;
    __builtin_memcpy(&value, &bits, sizeof value);
    return value;
}

// The nearest double, without a sign.
WP_UNUSED static double wp__nearest(wp__decimal *d) {
    if (d->count == 0 || d->point < -330) return 0;
    if (d->point > 310) return wp__of_bits((uint64_t)0x7ff << 52);
    int exponent = 0;
    while (d->point > 0) {
        int bits = d->point > 8 ? WP__SHIFT - 1 : d->point * 3;
        wp__shift(d, -bits);
        exponent += bits;
    }
    while (d->point < 0 || (d->point == 0 && d->digits[0] < 5)) {
        int bits = d->point < -8 ? WP__SHIFT - 1 : d->point < 0 ? -d->point * 3 : 1;
        wp__shift(d, bits);
        exponent -= bits;
    }
    exponent--; // From [0.5, 1) to [1, 2).
    if (exponent < -1022) {
        wp__shift(d, exponent + 1022);
        exponent = -1022;
    }
    wp__shift(d, 53);
    uint64_t mantissa = 0;
    for (int i = 0; i < d->point; i++) mantissa = mantissa * 10 + (i < d->count ? d->digits[i] : 0);
    if (wp__rounds_up(d, d->point)) mantissa++;
    if (mantissa >> 53) { mantissa >>= 1; exponent++; }
    if (exponent > 1023) return wp__of_bits((uint64_t)0x7ff << 52);
    if (!(mantissa >> 52)) exponent = -1023; // A subnormal number.
    return wp__of_bits((mantissa & (((uint64_t)1 << 52) - 1)) | (uint64_t)(exponent + 1023) << 52);
}

// The double behind a JSON number.
WP_UNUSED static double wp__parse_f64(const char *text, size_t len) {
    static const double tens[] = {1e0,  1e1,  1e2,  1e3,  1e4,  1e5,  1e6,  1e7,  1e8,  1e9,  1e10, 1e11,
                                  1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22};
    wp__decimal d;
    d.count = d.point = 0;
    d.more = false;
    size_t at = 0;
    bool minus = len > 0 && text[0] == '-', fraction = false;
    uint64_t mantissa = 0;
    int exponent = 0, sign = 1;
    for (at = minus; at < len; at++) {
        char c = text[at];
        if (c == '.') { fraction = true; continue; }
        if (c < '0' || c > '9') break;
        if (d.count == 0 && c == '0') { d.point -= fraction; continue; }
        if (d.count < WP__DIGITS) d.digits[d.count++] = (uint8_t)(c - '0');
        else d.more |= c != '0';
        if (d.count <= 18) mantissa = mantissa * 10 + (uint64_t)(c - '0');
        if (!fraction) d.point++;
    }
    if (at < len) {
        at++; // The e.
        if (at < len && (text[at] == '-' || text[at] == '+')) sign = text[at++] == '-' ? -1 : 1;
        for (; at < len; at++) if (exponent < 100000) exponent = exponent * 10 + (text[at] - '0');
    }
    d.point += sign * exponent;
    int ten = d.point - d.count;
    double value;
    // Both the digits and the power of ten are exact doubles, so one operation rounds once.
    if (d.count <= 15 && ten >= -22 && ten <= 22) {
        value = ten < 0 ? (double)mantissa / tens[-ten] : (double)mantissa * tens[ten];
    } else {
        wp__trim(&d);
        value = wp__nearest(&d);
    }
    return minus ? -value : value;
}

// Writes a finite number to `room`, of 32 bytes, so that reading it gives the same number; returns the length.
WP_UNUSED static size_t wp__format_f64(double value, char *room) {
    uint64_t bits;
    size_t len = 0;
    __builtin_memcpy(&bits, &value, sizeof bits);
    if (bits >> 63) room[len++] = '-';
    int exponent = (int)(bits >> 52 & 0x7ff);
    uint64_t mantissa = bits & (((uint64_t)1 << 52) - 1);
    if (exponent) mantissa |= (uint64_t)1 << 52;
    else exponent = 1;
    wp__decimal exact, d;
    exact.count = exact.point = 0;
    exact.more = false;
    for (uint64_t rest = mantissa; rest; rest /= 10) exact.count++;
    exact.point = exact.count;
    for (int i = exact.count - 1; i >= 0; i--, mantissa /= 10) exact.digits[i] = (uint8_t)(mantissa % 10);
    wp__trim(&exact);
    wp__shift(&exact, exponent - 1075);
    // The fewest digits of 15, 16 and 17 that are read as the same number.
    for (int digits = 15; digits <= 17; digits++) {
        d = exact;
        if (digits < d.count) {
            bool up = wp__rounds_up(&d, digits);
            d.count = digits;
            while (up && d.count > 0 && d.digits[d.count - 1] == 9) d.count--;
            if (up && d.count > 0) d.digits[d.count - 1]++;
            else if (up) { d.digits[0] = 1; d.count = 1; d.point++; }
        }
        d.more = false;
        wp__trim(&d);
        if (digits == 17) break;
        wp__decimal again = d;
        double read = wp__nearest(&again);
        if (read == (value < 0 ? -value : value)) break;
    }
    if (d.count == 0) { room[len++] = '0'; return len; }
    if (d.point > -5 && d.point <= 17) {
        if (d.point <= 0) {
            room[len++] = '0';
            room[len++] = '.';
            for (int i = d.point; i < 0; i++) room[len++] = '0';
        }
        for (int i = 0; i < d.count || i < d.point; i++) {
            if (i == d.point && i > 0) room[len++] = '.';
            room[len++] = (char)('0' + (i < d.count ? d.digits[i] : 0));
        }
        return len;
    }
    room[len++] = (char)('0' + d.digits[0]);
    if (d.count > 1) room[len++] = '.';
    for (int i = 1; i < d.count; i++) room[len++] = (char)('0' + d.digits[i]);
    int power = d.point - 1;
    room[len++] = 'e';
    if (power < 0) { room[len++] = '-'; power = -power; }
    if (power >= 100) room[len++] = (char)('0' + power / 100);
    if (power >= 10) room[len++] = (char)('0' + power / 10 % 10);
    room[len++] = (char)('0' + power % 10);
    return len;
}

// ── The input ────────────────────────────────────────────────────────────────
// JSON, read from front to back. Several parameters are a list: `wp_get_list(in)`, then `wp_next(in)` before each. What
// is not of the wanted type ends the reading: every getter returns nothing from then on, every list is at its end, and
// the caller is told where that was, instead of the output.

typedef struct wp_in {
    char *at, *begin, *end;
    const char *wanted; // What was not there, if anything was not.
    const char *wanted_at;
} wp_in;

WP_UNUSED static void wp__refuse(wp_in *in, const char *wanted) {
    if (in->wanted) return;
    in->wanted = wanted;
    in->wanted_at = in->at;
    in->at = in->end;
}

WP_UNUSED static char wp__peek(wp_in *in) {
    while (in->at < in->end && (*in->at == ' ' || *in->at == '\n' || *in->at == '\t' || *in->at == '\r')) in->at++;
    return in->at < in->end ? *in->at : '\0';
}

WP_UNUSED static bool wp__take(wp_in *in, char c) {
    if (wp__peek(in) != c) return false;
    in->at++;
    return true;
}

WP_UNUSED static bool wp__word(wp_in *in, const char *word) {
    size_t len = wp__length(word);
    wp__peek(in);
    if ((size_t)(in->end - in->at) < len) return false;
    for (size_t i = 0; i < len; i++) if (in->at[i] != word[i]) return false;
    in->at += len;
    return true;
}

// Whether a text is this one.
WP_UNUSED static bool wp_is(wp_text text, const char *other) {
    size_t i = 0;
    for (; i < text.len && other[i] == text.ptr[i] && other[i] != '\0'; i++) {}
    return i == text.len && other[i] == '\0';
}

// The whole input as it came: for a task whose only parameter is `list<u8>`.
WP_UNUSED static wp_text wp_get_bytes(wp_in *in) {
    wp_text all = {in->at, (size_t)(in->end - in->at)};
    in->at = in->end;
    return all;
}

// Takes a null, if there is one: the absent value of an option.
WP_UNUSED static bool wp_get_null(wp_in *in) { return wp__word(in, "null"); }

WP_UNUSED static bool wp_get_bool(wp_in *in) {
    if (wp__word(in, "true")) return true;
    if (!wp__word(in, "false")) wp__refuse(in, "true or false");
    return false;
}

WP_UNUSED static wp_text wp__number(wp_in *in) {
    wp__peek(in);
    wp_text found = {in->at, 0};
    while (in->at < in->end && ((*in->at >= '0' && *in->at <= '9') || *in->at == '-' || *in->at == '+' ||
                                *in->at == '.' || *in->at == 'e' || *in->at == 'E')) {
        in->at++;
        found.len++;
    }
    return found;
}

WP_UNUSED static uint64_t wp__whole(wp_in *in, bool *minus) {
    uint64_t value = 0;
    char *begin = in->at;
    wp_text text = wp__number(in);
    *minus = text.len > 0 && text.ptr[0] == '-';
    for (size_t i = *minus; i < text.len; i++) {
        uint64_t digit = (uint64_t)(text.ptr[i] - '0');
        if (digit > 9 || value > (UINT64_MAX - digit) / 10) text.len = 0;
        else value = value * 10 + digit;
    }
    if (text.len > *minus) return value;
    in->at = begin;
    wp__refuse(in, "a whole number");
    return 0;
}

WP_UNUSED static uint64_t wp_get_u64(wp_in *in) {
    bool minus;
    uint64_t value = wp__whole(in, &minus);
    if (minus && value) wp__refuse(in, "a number that is not negative");
    return minus ? 0 : value;
}

WP_UNUSED static int64_t wp_get_i64(wp_in *in) {
    bool minus;
    uint64_t value = wp__whole(in, &minus);
    if (value > (uint64_t)INT64_MAX + minus) { wp__refuse(in, "a number of 64 bits"); return 0; }
    return (int64_t)(minus ? 0 - value : value);
}

WP_UNUSED static unsigned wp__hex(const char *at) {
    unsigned value = 0;
    for (int i = 0; i < 4; i++) {
        char c = at[i];
        unsigned digit = c >= '0' && c <= '9' ? (unsigned)(c - '0')
                       : c >= 'a' && c <= 'f' ? (unsigned)(c - 'a' + 10)
                       : c >= 'A' && c <= 'F' ? (unsigned)(c - 'A' + 10) : 0;
        value = value << 4 | digit;
    }
    return value;
}

// What an escape stands for is never longer than the escape, so the text takes its place.
WP_UNUSED static wp_text wp_get_text(wp_in *in) {
    wp_text none = {in->at, 0};
    if (!wp__take(in, '"')) { wp__refuse(in, "a string"); return none; }
    char *begin = in->at, *to = in->at;
    while (in->at < in->end && *in->at != '"') {
        char c = *in->at++;
        if (c != '\\' || in->at == in->end) { *to++ = c; continue; }
        c = *in->at++;
        if (c == 'u' && in->end - in->at >= 4) {
            uint32_t code = wp__hex(in->at);
            in->at += 4;
            if (code >> 10 == 0x36 && in->end - in->at >= 6 && in->at[0] == '\\' && in->at[1] == 'u') {
                code = 0x10000 + ((code & 0x3ff) << 10) + (wp__hex(in->at + 2) & 0x3ff);
                in->at += 6;
            }
            if (code < 0x80) { *to++ = (char)code; continue; }
            int more = code < 0x800 ? 1 : code < 0x10000 ? 2 : 3;
            *to++ = (char)((0xff00 >> (more + 1) & 0xff) | code >> 6 * more);
            while (more-- > 0) *to++ = (char)(0x80 | (code >> 6 * more & 0x3f));
        } else {
            *to++ = c == 'n' ? '\n' : c == 't' ? '\t' : c == 'r' ? '\r' : c == 'b' ? '\b' : c == 'f' ? '\f' : c;
        }
    }
    if (!wp__take(in, '"')) wp__refuse(in, "the end of a string");
    wp_text found = {begin, (size_t)(to - begin)};
    return found;
}

WP_UNUSED static double wp_get_f64(wp_in *in) {
    if (wp__peek(in) == '"') {
        wp_text text = wp_get_text(in);
        if (wp_is(text, "NaN")) return __builtin_nan("");
        if (wp_is(text, "inf")) return __builtin_inf();
        if (wp_is(text, "-inf")) return -__builtin_inf();
        text.len = 0;
    } else {
        wp_text text = wp__number(in);
        if (text.len > 0) return wp__parse_f64(text.ptr, text.len);
    }
    wp__refuse(in, "a number");
    return 0;
}

// Begins a list or a tuple; `wp_next` before each element says whether there is one.
WP_UNUSED static void wp_get_list(wp_in *in) {
    if (!wp__take(in, '[')) wp__refuse(in, "a list");
}

WP_UNUSED static bool wp_next(wp_in *in) {
    if (wp__take(in, ']')) return false;
    wp__take(in, ',');
    if (wp__peek(in) == '\0') wp__refuse(in, "the end of a list");
    return !in->wanted;
}

// Begins a record; `wp_next_field` before each value says whether there is one, and what it is called.
WP_UNUSED static void wp_get_record(wp_in *in) {
    if (!wp__take(in, '{')) wp__refuse(in, "a record");
}

WP_UNUSED static bool wp_next_field(wp_in *in, wp_text *name) {
    if (wp__take(in, '}')) return false;
    wp__take(in, ',');
    *name = wp_get_text(in);
    if (!wp__take(in, ':')) wp__refuse(in, "a field");
    return !in->wanted;
}

// Passes over a value of whatever type.
WP_UNUSED static void wp_skip(wp_in *in) {
    size_t depth = 0;
    do {
        char c = wp__peek(in);
        if (c == '[' || c == '{') { depth++; in->at++; }
        else if ((c == ']' || c == '}') && depth > 0) { depth--; in->at++; }
        else if (c == ',' || c == ':') in->at++;
        else if (c == '"') wp_get_text(in);
        else if (!wp__word(in, "null") && !wp__word(in, "true") && !wp__word(in, "false") && !wp__number(in).len)
            wp__refuse(in, "a value");
    } while (depth > 0 && !in->wanted);
}

// ── The output ───────────────────────────────────────────────────────────────
// JSON. Commas are put where they belong.

typedef struct wp_out {
    char *bytes; // The status, and the payload behind it.
    size_t len, room;
} wp_out;

enum { WP__OK = 0, WP__FAILED = 1, WP__UNDECODABLE = 2 };

WP_UNUSED static char *wp__more(wp_out *out, size_t len) {
    if (len > out->room - out->len) {
        if (len > SIZE_MAX / 4 || out->len > SIZE_MAX / 4) wp_panic("out of memory: the output is too long");
        size_t room = 2 * (out->len + len) + 64;
        char *bytes = (char *)wp_alloc(room);
        if (out->len) wp__copy(bytes, out->bytes, out->len);
        out->bytes = bytes;
        out->room = room;
    }
    char *at = out->bytes + out->len;
    out->len += len;
    return at;
}

WP_UNUSED static void wp__add(wp_out *out, const char *bytes, size_t len) {
    if (len) wp__copy(wp__more(out, len), bytes, len);
}

WP_UNUSED static void wp__comma(wp_out *out) {
    if (out->len < 2) return;
    char last = out->bytes[out->len - 1];
    if (last != '[' && last != '{' && last != ':') *wp__more(out, 1) = ',';
}

// Ends the task with its own error: a text. A task may have an error of another type: `wp_fail_begin`, and then that.
WP_UNUSED static void wp_fail_begin(wp_out *out) {
    out->len = 0;
    *wp__more(out, 1) = WP__FAILED;
}

// Bytes as they are: room for the whole output of a task that returns `list<u8>`.
WP_UNUSED static char *wp_put_bytes(wp_out *out, size_t len) { return wp__more(out, len); }

WP_UNUSED static void wp_put_null(wp_out *out) { wp__comma(out); wp__add(out, "null", 4); }
WP_UNUSED static void wp_put_bool(wp_out *out, bool value) {
    wp__comma(out);
    wp__add(out, value ? "true" : "false", value ? 4 : 5);
}

WP_UNUSED static void wp__digits(wp_out *out, uint64_t value) {
    char digits[20];
    size_t at = sizeof digits;
    do digits[--at] = (char)('0' + value % 10); while (value /= 10);
    wp__add(out, digits + at, sizeof digits - at);
}

WP_UNUSED static void wp_put_u64(wp_out *out, uint64_t value) { wp__comma(out); wp__digits(out, value); }

WP_UNUSED static void wp_put_i64(wp_out *out, int64_t value) {
    wp__comma(out);
    if (value < 0) *wp__more(out, 1) = '-';
    wp__digits(out, value < 0 ? 0 - (uint64_t)value : (uint64_t)value);
}

WP_UNUSED static void wp_put_text(wp_out *out, wp_text text) {
    static const char hex[] = "0123456789abcdef";
    wp__comma(out);
    *wp__more(out, 1) = '"';
    size_t begin = 0;
    for (size_t i = 0; i < text.len; i++) {
        unsigned char c = (unsigned char)text.ptr[i];
        if (c >= 0x20 && c != '"' && c != '\\') continue;
        wp__add(out, text.ptr + begin, i - begin);
        begin = i + 1;
        char escape[6] = {'\\', (char)c, '0', '0', hex[c >> 4], hex[c & 15]};
        if (c < 0x20) escape[1] = 'u';
        wp__add(out, escape, c < 0x20 ? 6 : 2);
    }
    wp__add(out, text.ptr + begin, text.len - begin);
    *wp__more(out, 1) = '"';
}

WP_UNUSED static void wp_put_string(wp_out *out, const char *text) {
    wp_text borrowed = {(char *)(uintptr_t)text, wp__length(text)};
    wp_put_text(out, borrowed);
}

WP_UNUSED static void wp_put_f64(wp_out *out, double value) {
    char room[32];
    if (value != value) { wp_put_string(out, "NaN"); return; }
    if (value - value != 0) { wp_put_string(out, value > 0 ? "inf" : "-inf"); return; }
    wp__comma(out);
    wp__add(out, room, wp__format_f64(value, room));
}

WP_UNUSED static void wp_put_list(wp_out *out) { wp__comma(out); *wp__more(out, 1) = '['; }
WP_UNUSED static void wp_end_list(wp_out *out) { *wp__more(out, 1) = ']'; }
WP_UNUSED static void wp_put_record(wp_out *out) { wp__comma(out); *wp__more(out, 1) = '{'; }
WP_UNUSED static void wp_end_record(wp_out *out) { *wp__more(out, 1) = '}'; }

// The name of the value that is put next.
WP_UNUSED static void wp_put_field(wp_out *out, const char *name) {
    wp_put_string(out, name);
    *wp__more(out, 1) = ':';
}

WP_UNUSED static void wp_fail(wp_out *out, const char *text) {
    wp_fail_begin(out);
    wp_put_string(out, text);
}

// ── Tasks ────────────────────────────────────────────────────────────────────

// Text for the section `wasmpool.tasks`. The assembler counts it: a length of 32 bits, the version 2, the text.
#ifdef __wasm__
#define WP__TEXT(text)                                                                                                 \
    __asm__("\t.section .custom_section.wasmpool.tasks,\"\",@\n"                                                       \
            "\t.int32 8f-7f\n7:\t.byte 2\n\t.ascii \"" text "\"\n8:\n\t.text\n");
#else
#define WP__TEXT(text)
#endif

// The types that tasks speak of, as WIT spells them: WASMPOOL_TYPES(record count { word: string, times: u32 })
#define WASMPOOL_TYPES(...) WP__TEXT(#__VA_ARGS__)

// A task: the name of its function, a line that `wasmpool inspect` prints (without quotes inside of it), and its type as
// WIT spells it. `word-count` is the task of the function `word_count`.
#define WASMPOOL_TASK(function, doc, ...)                                                                              \
    WP__TEXT("/// " doc "\\n" #__VA_ARGS__ ";")                                                                        \
    static void function(wp_in *in, wp_out *out);                                                                      \
    WP_C WP_EXPORT(#function) uint64_t wp__task_##function(char *input, size_t len);                                   \
    uint64_t wp__task_##function(char *input, size_t len) { return wp__run(function, input, len); }                    \
    static void function(WP_UNUSED wp_in *in, WP_UNUSED wp_out *out)

// What prepares an instance before its first task: WASMPOOL_INIT { … } with `out` for `wp_fail`.
#define WASMPOOL_INIT                                                                                                  \
    static void wp__init(wp_in *in, wp_out *out);                                                                      \
    WP_C WP_EXPORT("wasmpool_init") uint64_t wp__run_init(char *input, size_t len);                                    \
    uint64_t wp__run_init(char *input, size_t len) { return wp__run(wp__init, input, len); }                           \
    static void wp__init(WP_UNUSED wp_in *in, WP_UNUSED wp_out *out)

typedef void wp_task(wp_in *in, wp_out *out);

WP_UNUSED static wp_out wp__answer(wp_task *task, char *input, size_t len) {
    wp_in in = {input, input, input + len, NULL, NULL};
    wp_out out = {NULL, 0, 0};
    *wp__more(&out, 1) = WP__OK;
    task(&in, &out);
    if (in.wanted) {
        out.len = 0;
        *wp__more(&out, 1) = WP__UNDECODABLE;
        wp__add(&out, "expected ", 9);
        wp__add(&out, in.wanted, wp__length(in.wanted));
        wp__add(&out, " at byte ", 9);
        wp__digits(&out, (uint64_t)(in.wanted_at - in.begin));
    }
    return out;
}

#ifdef __wasm__
WP_UNUSED static uint64_t wp__run(wp_task *task, char *input, size_t len) {
    // An input without bytes may come without an allocation.
    if (!input) wp__reset();
    wp_out out = wp__answer(task, input, len);
    return (uint64_t)(uintptr_t)out.bytes << 32 | out.len;
}

WP_C WP_ONCE WP_EXPORT("wasmpool_abi_v1") void wp__abi_v1(void) {}
WP_C WP_ONCE WP_EXPORT("wasmpool_alloc") void *wp__room(size_t len) {
    wp__reset();
    return wp__try_alloc(len);
}
#else
WP_UNUSED static uint64_t wp__run(wp_task *task, char *input, size_t len) {
    (void)task, (void)input, (void)len;
    return 0;
}

// In a native test: what a task makes of an input, as a text of C. The task's own error begins with "error: ", what
// could not be decoded with "undecodable: ".
WP_UNUSED static const char *wp_test(wp_task *task, const char *input) {
    wp__reset();
    size_t len = wp__length(input);
    char *copy = (char *)wp_alloc(len + 1);
    wp__copy(copy, input, len);
    wp_out out = wp__answer(task, copy, len);
    static const char *const begins[] = {"", "error: ", "undecodable: "};
    const char *begin = begins[(unsigned char)out.bytes[0]];
    size_t begins_len = wp__length(begin);
    char *text = (char *)wp_alloc(begins_len + out.len);
    wp__copy(text, begin, begins_len);
    wp__copy(text + begins_len, out.bytes + 1, out.len - 1);
    text[begins_len + out.len - 1] = '\0';
    return text;
}
#endif

#endif // WASMPOOL_H
