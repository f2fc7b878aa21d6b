/* The likeliest token of each row of logits, found as they come. */
#pragma once
#include <math.h>
#include "numbers.h"

enum { NOT_FINITE = -1 };

/* What one thread has seen of a row: each lane its best, and a sum that is 0 while all were finite.

A bfloat16 number has 16 bits to spare. They say which vector it came from, so that of equal ones the first is the
largest: which of two is better is one comparison. */
typedef struct { floats best, wrong; } Seen;

static void forget(Seen *rows, long count) {
    for (long row = 0; row < count; row++) rows[row] = (Seen){all(-INFINITY), all(0)};
}

/* Logits LANES * vector and on, which are bfloat16 numbers. */
static inline void see(Seen *row, floats logits, int32_t vector) {
    floats positive = logits + 0.0f; /* there are two zeros */
    words order = ((words)((ints)positive >> 31) ^ ~vector) & 0xffff;
    row->best = larger((floats)((words)positive | order), row->best);
    row->wrong += logits * 0.0f;
}

/* seen: [threads][rows]. The first of the largest, or NOT_FINITE where one is no finite number. */
static int64_t likeliest(const Seen *seen, long threads, long rows, long row) {
    float best = -INFINITY, wrong = 0;
    long best_lane = 0;
    for (long thread = 0; thread < threads; thread++) {
        const Seen *own = seen + thread * rows + row;
        for (int lane = 0; lane < LANES; lane++) {
            wrong += own->wrong[lane];
            if (own->best[lane] > best) {
                best = own->best[lane];
                best_lane = lane;
            }
        }
    }
    uint32_t word;
    memcpy(&word, &best, sizeof word);
    int64_t vector = (best < 0 ? word : ~word) & 0xffff;
    return wrong == 0 ? vector * LANES + best_lane : NOT_FINITE;
}
