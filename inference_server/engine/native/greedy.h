/* The likeliest token of each row of logits. */
#pragma once
#include <math.h>
#include "numbers.h"
#include "team.h"

enum { NOT_FINITE = -1 };

/* The first of the largest of `count` bfloat16 numbers, or NOT_FINITE where one is no finite number. */
static int64_t greedy_token(const uint16_t *logits, long count) {
    long whole = count / LANES * LANES, first = 0;
    floats most = all(-INFINITY), wrong = all(0);
    for (long i = 0; i < whole; i += LANES) {
        floats some = load_widened(logits + i);
        most = chosen(some > most, some, most);
        wrong += some - some;
    }
    float top = largest(most), rest = total(wrong);
    for (long i = whole; i < count; i++) {
        float one = widened(logits[i]);
        top = one > top ? one : top;
        rest += one - one;
    }
    if (rest != 0) return NOT_FINITE;
    while (widened(logits[first]) != top) first++;
    return first;
}

typedef struct {
    const uint16_t *logits;
    long rows, vocabulary;
    int64_t *ids;
    atomic_long taken;
} Rows;

static void find_rows(void *argument) {
    Rows *all_rows = argument;
    for (long row; (row = atomic_fetch_add(&all_rows->taken, 1)) < all_rows->rows;)
        all_rows->ids[row] = greedy_token(all_rows->logits + row * all_rows->vocabulary, all_rows->vocabulary);
}
