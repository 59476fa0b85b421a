#include "words.h"
#include <ctype.h>
#include <stdlib.h>
#include <string.h>
static int is_w(unsigned char c) { return c >= 0x80 || isalnum(c) || c == '_'; }
static int cmp(const void *a, const void *b) {
  const words_count_t *x = a, *y = b;
  if (x->times != y->times) return x->times < y->times ? 1 : -1;
  size_t n = x->word.len < y->word.len ? x->word.len : y->word.len;
  int r = memcmp(x->word.ptr, y->word.ptr, n);
  return r ? r : x->word.len < y->word.len ? -1 : x->word.len > y->word.len;
}
void exports_words_count(words_string_t *text, words_list_count_t *ret) {
  size_t i = 0, cap = 0; ret->ptr = NULL; ret->len = 0;
  while (i < text->len) {
    while (i < text->len && !is_w(text->ptr[i])) i++;
    size_t s = i;
    while (i < text->len && is_w(text->ptr[i])) { text->ptr[i] = tolower(text->ptr[i]); i++; }
    if (i == s) break;
    size_t k = 0;
    for (; k < ret->len; k++)
      if (ret->ptr[k].word.len == i - s && !memcmp(ret->ptr[k].word.ptr, text->ptr + s, i - s)) break;
    if (k == ret->len) {
      if (ret->len == cap) ret->ptr = realloc(ret->ptr, (cap = cap ? 2 * cap : 8) * sizeof *ret->ptr);
      words_string_dup_n(&ret->ptr[k].word, (char *)text->ptr + s, i - s);
      ret->ptr[k].times = 0; ret->len++;
    }
    ret->ptr[k].times++;
  }
  qsort(ret->ptr, ret->len, sizeof *ret->ptr, cmp);
  words_string_free(text);
}
bool exports_words_mean(words_list_f64_t *xs, double *ret, words_string_t *err) {
  if (!xs->len) { words_string_dup(err, "mean of no numbers"); return false; }
  double s = 0; for (size_t i = 0; i < xs->len; i++) s += xs->ptr[i];
  *ret = s / xs->len; words_list_f64_free(xs); return true;
}
void exports_words_invert(words_list_u8_t *picture, words_list_u8_t *ret) {
  for (size_t i = 0; i < picture->len; i++) picture->ptr[i] = 255 - picture->ptr[i];
  *ret = *picture;
}
