// A guest in C, without SDK and without a C library: the whole byte ABI by
// hand. It has no section `wasmpool.tasks`, so each of its exported functions
// (i32, i32) -> i64 is a task of the raw codec.

#include <stddef.h>
#include <stdint.h>

#define EXPORT(name) __attribute__((export_name(name)))
#define IMPORT(name) __attribute__((import_module("wasmpool"), import_name(name)))

enum { STATUS_OK = 0 /* and 1 is an error, as in `empty` below */ };
enum { LEVEL_INFO = 3 };
enum { PAGE = 65536, BUCKETS = 256 };

IMPORT("log")
void host_log(int32_t level, const char *target, size_t target_len, const char *message,
              size_t message_len, const char *fields, size_t fields_len);

#define TEXT(literal) (literal), sizeof(literal) - 1

// ── The ABI ──────────────────────────────────────────────────────────────────

// The linker puts this symbol behind everything else in the memory.
extern unsigned char __heap_base;

EXPORT("wasmpool_abi_v1") void abi_v1(void) {}

// There is one input at a time, and it begins where the heap does: the next one
// takes the place of the last, so nothing needs to be freed.
EXPORT("wasmpool_alloc") void *alloc(uint32_t len) {
    uint64_t start = ((uintptr_t)&__heap_base + 15) & ~(uint64_t)15;
    uint64_t pages = (start + len + PAGE - 1) / PAGE;
    size_t present = __builtin_wasm_memory_size(0);
    if (pages > present &&
        __builtin_wasm_memory_grow(0, (size_t)(pages - present)) == (size_t)-1) {
        return NULL;
    }
    return (void *)(uintptr_t)start;
}

static uint64_t envelope(const unsigned char *bytes, size_t len) {
    return (uint64_t)(uintptr_t)bytes << 32 | len;
}

// ── The task ─────────────────────────────────────────────────────────────────

// Logs how many bytes were counted, as a field.
static void log_counted(uint32_t len) {
    static const char head[] = "{\"bytes\":";
    char fields[sizeof(head) + 11];
    char digits[10];
    size_t at = 0, count = 0;
    while (head[at] != '\0') {
        fields[at] = head[at];
        at++;
    }
    do {
        digits[count++] = (char)('0' + len % 10);
        len /= 10;
    } while (len > 0);
    while (count > 0) {
        fields[at++] = digits[--count];
    }
    fields[at++] = '}';
    host_log(LEVEL_INFO, TEXT("c_histogram"), TEXT("counted"), fields, at);
}

// Counts how often each byte value occurs: 256 little-endian 64-bit numbers.
EXPORT("histogram") uint64_t histogram(const unsigned char *input, uint32_t len) {
    static unsigned char answer[1 + BUCKETS * 8];
    static uint64_t counts[BUCKETS];
    static const unsigned char empty[] = "\x01there are no bytes to count";
    if (len == 0) {
        return envelope(empty, sizeof(empty) - 1);
    }
    // An instance may serve more than one call.
    for (int i = 0; i < BUCKETS; i++) {
        counts[i] = 0;
    }
    for (uint32_t i = 0; i < len; i++) {
        counts[input[i]]++;
    }
    answer[0] = STATUS_OK;
    for (int i = 0; i < BUCKETS; i++) {
        for (int byte = 0; byte < 8; byte++) {
            answer[1 + i * 8 + byte] = (unsigned char)(counts[i] >> (8 * byte));
        }
    }
    log_counted(len);
    return envelope(answer, sizeof(answer));
}
