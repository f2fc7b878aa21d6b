/* The likeliest token of each row of logits, found as they come. */
#pragma once
#include <float.h>
#include <math.h>
#include "tile.h"

enum { NOT_FINITE = -1 };
static const float LARGEST = 0x1.fefffep127f; /* that rounds to a bfloat16 number */

/* What one thread has seen of a row: its largest logit, which token was the first to have it, and whether one was not
finite. A logit of at most `less` rounds to less than the best. */
typedef struct { float best, less; int32_t token, wrong; } Seen;

static void forget(Seen *rows, long count) {
    for (long row = 0; row < count; row++) rows[row] = (Seen){-INFINITY, -INFINITY, 0, 0};
}

static void see_one(Seen *row, float logit, int32_t token, int known) {
    row->wrong |= !isfinite(logit);
    if (!known) return;
    if (logit > row->best || (logit == row->best && token < row->token)) {
        row->best = logit;
        row->token = token;
        row->less = logit - fabsf(logit) * 0x1p-7f - FLT_MIN; /* a bfloat16 number's neighbour is nearer than that */
    }
}

/* PANEL logits, before they are rounded, of tokens `token` and on, of which only the first `count` are. known: of each of
these, whether the tokenizer has it; what it does not have is no answer, but has to be finite as well. A row's best is
beaten a dozen times in a step: whether it may be, or one is not finite, is asked of all of them at once. */
static inline void see(Seen *row, const float *logits, const uint8_t *known, int32_t token, int count) {
    if (row->wrong) return;
    int matters = 0;
    for (int i = 0; i < PANEL; i += LANES) matters |= outside(load(logits + i), -LARGEST, row->less);
    if (!matters) return;
    for (int i = 0; i < count; i++) see_one(row, rounded(all(logits[i]))[0], token + i, known[i]);
}

/* seen: [threads][rows]. The first of the largest, or NOT_FINITE where one is no finite number. */
static int64_t likeliest(const Seen *seen, long threads, long rows, long row) {
    Seen best = seen[row];
    for (long thread = 1; thread < threads; thread++) {
        const Seen *own = seen + thread * rows + row;
        if (own->best > -INFINITY) see_one(&best, own->best, own->token, 1); /* it may have had none of the items */
        best.wrong |= own->wrong;
    }
    return best.wrong ? NOT_FINITE : best.token;
}
