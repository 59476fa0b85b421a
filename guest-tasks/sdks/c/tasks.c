// Three tasks: the words of a text, the sum of numbers, and a picture turned into its negative.

#include "wasmpool.h"

WASMPOOL_TYPES(record count { word: string, times: u32 })

typedef struct word { wp_text text; uint32_t times; } word;

static int before(const word *a, const word *b) {
    if (a->times != b->times) return a->times > b->times;
    for (size_t i = 0; i < a->text.len && i < b->text.len; i++) {
        if (a->text.ptr[i] != b->text.ptr[i]) return (unsigned char)a->text.ptr[i] < (unsigned char)b->text.ptr[i];
    }
    return a->text.len < b->text.len;
}

static bool is_space(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }

static bool same(wp_text a, wp_text b) {
    size_t i = 0;
    while (i < a.len && i < b.len && a.ptr[i] == b.ptr[i]) i++;
    return i == a.len && i == b.len;
}

WASMPOOL_TASK(count_words, "How often each word occurs, the commonest first.",
              count-words: func(text: string) -> list<count>) {
    wp_text text = wp_get_text(in);
    word *words = (word *)wp_alloc((text.len / 2 + 1) * sizeof *words);
    size_t len = 0, at = 0;
    while (at < text.len) {
        while (at < text.len && is_space(text.ptr[at])) at++;
        wp_text found = {text.ptr + at, 0};
        while (at < text.len && !is_space(text.ptr[at])) { at++; found.len++; }
        if (found.len == 0) break;
        size_t i = 0;
        while (i < len && !same(words[i].text, found)) i++;
        if (i == len) { words[i].text = found; words[i].times = 0; len++; }
        words[i].times++;
        // It moves forward past those that are less common.
        for (; i > 0 && before(&words[i], &words[i - 1]); i--) {
            word moved = words[i];
            words[i] = words[i - 1];
            words[i - 1] = moved;
        }
    }
    wp_put_list(out);
    for (size_t i = 0; i < len; i++) {
        wp_put_record(out);
        wp_put_field(out, "word");
        wp_put_text(out, words[i].text);
        wp_put_field(out, "times");
        wp_put_u64(out, words[i].times);
        wp_end_record(out);
    }
    wp_end_list(out);
}

WASMPOOL_TASK(total, "The sum of the numbers; of none there is an error.",
              total: func(values: list<f64>) -> result<f64, string>) {
    double sum = 0;
    size_t count = 0;
    wp_get_list(in);
    for (; wp_next(in); count++) sum += wp_get_f64(in);
    if (count == 0) { wp_fail(out, "total of no numbers"); return; }
    wp_put_f64(out, sum);
}

WASMPOOL_TASK(invert, "The negative of a grey picture (PGM, P5).",
              invert: func(picture: list<u8>) -> result<list<u8>, string>) {
    wp_text picture = wp_get_bytes(in);
    // The head is `P5`, width, height and maximum, and one space behind them.
    size_t at = 0;
    if (picture.len < 2 || picture.ptr[0] != 'P' || picture.ptr[1] != '5') { wp_fail(out, "not a PGM picture"); return; }
    for (int words = 0; words < 4 && at < picture.len; words++) {
        while (at < picture.len && is_space(picture.ptr[at])) at++;
        while (at < picture.len && !is_space(picture.ptr[at])) at++;
    }
    char *negative = wp_put_bytes(out, picture.len);
    for (size_t i = 0; i < picture.len; i++) {
        negative[i] = i <= at ? picture.ptr[i] : (char)(255 - (unsigned char)picture.ptr[i]);
    }
}
