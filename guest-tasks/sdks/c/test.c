// Tests of the tasks, compiled for the machine itself: cc -o test test.c && ./test

#include "tasks.c"

#include <string.h>

static int failures;

static void expect(wp_task *task, const char *name, const char *input, const char *wanted) {
    const char *got = wp_test(task, input);
    if (strcmp(got, wanted) == 0) return;
    printf("%s(%s): expected %s, got %s\n", name, input, wanted, got);
    failures++;
}
#define EXPECT(task, input, wanted) expect(task, #task, input, wanted)

int main(void) {
    EXPECT(count_words, "\"a b a\"", "[{\"word\":\"a\",\"times\":2},{\"word\":\"b\",\"times\":1}]");
    EXPECT(count_words, "\"\"", "[]");
    EXPECT(count_words, "\"\\u00e4\\ud83d\\ude00 \\\"q\\\"\"",
           "[{\"word\":\"\\\"q\\\"\",\"times\":1},{\"word\":\"ä😀\",\"times\":1}]");
    EXPECT(count_words, "7", "undecodable: expected a string at byte 0");
    EXPECT(total, "[1, 2.5, -1e3]", "-996.5");
    EXPECT(total, "[0.1, 0.2]", "0.30000000000000004");
    EXPECT(total, "[\"inf\"]", "\"inf\"");
    EXPECT(total, "[]", "error: \"total of no numbers\"");
    EXPECT(total, "[1,", "undecodable: expected the end of a list at byte 3");
    EXPECT(total, "{}", "undecodable: expected a list at byte 0");
    EXPECT(invert, "P5 2 1 255\n\x01\xfe", "P5 2 1 255\n\xfe\x01");
    EXPECT(invert, "GIF", "error: \"not a PGM picture\"");
    printf("%d failed\n", failures);
    return failures > 0;
}
