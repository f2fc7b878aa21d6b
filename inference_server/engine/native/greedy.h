/* The likeliest token of each row of logits, found as they come. */
#pragma once
#include <math.h>
#include "numbers.h"

enum { NOT_FINITE = -1 };

/* What one thread has seen of a row: each lane its largest logit, from the first vector that had it, and a sum that is
0 while all were finite. */
typedef struct { floats most, wrong; ints vector; } Best;

static void forget(Best *bests, long rows) {
    for (long row = 0; row < rows; row++) bests[row] = (Best){all(-INFINITY), all(0), (ints){}};
}

/* Logits LANES * vector and on; of one thread each vector comes after those of lower numbers. */
static inline void see(Best *best, floats logits, long vector) {
    ints more = logits > best->most;
    best->most = chosen(more, logits, best->most);
    best->vector = ((int32_t)vector & more) | (best->vector & ~more);
    best->wrong += logits - logits;
}

/* bests: [threads][rows]. The first of the largest, or NOT_FINITE where one is no finite number. */
static int64_t likeliest(const Best *bests, long threads, long rows, long row) {
    float most = -INFINITY, wrong = 0;
    int64_t token = NOT_FINITE;
    for (long thread = 0; thread < threads; thread++) {
        const Best *best = bests + thread * rows + row;
        for (int lane = 0; lane < LANES; lane++) {
            int64_t own = (int64_t)best->vector[lane] * LANES + lane;
            wrong += best->wrong[lane];
            if (best->most[lane] > most || (best->most[lane] == most && own < token)) {
                most = best->most[lane];
                token = own;
            }
        }
    }
    return wrong == 0 ? token : NOT_FINITE;
}
