/* The one product that everything is made of: a few rows of activations times a panel of 32 columns, or, where rows are
very few, times up to four panels at once.

A panel holds, for each pair of inputs, the pairs of all its columns. It is read once for all rows of a tile, and each
sum runs over the inputs in their order: a row's result does not depend on the rows beside it. */
#pragma once
#include "numbers.h"

enum { PANEL = 32, VECTORS = PANEL / LANES };
#if defined(__AVX512BF16__)
enum { MOST_ROWS = 12 }; /* 24 of 32 registers hold sums */
#elif defined(__AVX512F__)
enum { MOST_ROWS = 8 };
#else
enum { MOST_ROWS = 2 };
#endif

/* rows x runs * 2 * pairs activations, `stride` from row to row. */
typedef struct { const activation *at; long stride, pairs; } Left;

/* A panel of one run of Left's pairs, and what to read ahead into the cache meanwhile. */
typedef struct { const uint32_t *here; const char *ahead; } Panel;

enum { WIDEST = 4, MOST_RUNS = 8 };

typedef float Tile[MOST_ROWS * PANEL]; /* [rows][panels][PANEL] */

/* How many of the rows that are left the next tile takes: as many as it can, but few at the end would be slow. */
static inline long rows_of_tile(long left) {
    return left <= MOST_ROWS ? left : left < MOST_ROWS * 3 / 2 ? left / 2 : MOST_ROWS;
}

/* How many panels a product of so many rows takes at once, so that its sums fill the registers. */
static inline int wide_for(int rows) { return rows * 4 <= MOST_ROWS ? 4 : rows * 2 <= MOST_ROWS ? 2 : 1; }

static INLINE void multiply_rows(const int rows, const int wide, const Left *left, const Panel *panels, int runs,
                                 long step, int add, float *out) {
    const long pairs = left->pairs, stride = left->stride;
    const activation *at = left->at;
    floats sums[MOST_ROWS * VECTORS];
    const int across = wide * VECTORS;
#pragma GCC unroll 32
    for (int i = 0; i < rows * across; i++) sums[i] = add ? load(out + i * LANES) : all(0);
    for (const Panel *end = panels + runs * wide; panels < end; panels += wide) {
        const uint32_t *here[WIDEST];
        const char *ahead[WIDEST];
#pragma GCC unroll 4
        for (int panel = 0; panel < wide; panel++) here[panel] = panels[panel].here, ahead[panel] = panels[panel].ahead;
        for (long pair = 0; pair < pairs; pair++, at += 2) {
#pragma GCC unroll 4
            for (int panel = 0; panel < wide; panel++) {
                __builtin_prefetch(ahead[panel], 0, 2);
                __builtin_prefetch(ahead[panel] + 64, 0, 2);
                factors by[VECTORS];
#pragma GCC unroll 8
                for (int i = 0; i < VECTORS; i++) by[i] = factors_of(load_words(here[panel] + i * LANES));
#pragma GCC unroll 12
                for (int row = 0; row < rows; row++) { /* outside, or the rows' activations would take registers */
#pragma GCC unroll 8
                    for (int i = 0; i < VECTORS; i++) {
                        floats *sum = &sums[row * across + panel * VECTORS + i];
                        *sum = add_product(*sum, at + row * stride, by[i]);
                    }
                }
                here[panel] += PANEL, ahead[panel] += step;
            }
        }
    }
#pragma GCC unroll 32
    for (int i = 0; i < rows * across; i++) store(out + i * LANES, sums[i]);
}

/* rows: 1 to MOST_ROWS; wide: 1 or wide_for(rows) panels; panels: [runs][wide]; step: bytes that each panel's time of a
pair reads ahead. out: the products, or with `add` what they are added to. */
static __attribute__((noinline)) void multiply(int rows, int wide, const Left *left, const Panel *panels, int runs,
                                               long step, int add, Tile out) {
#define CASE(count) \
    case count: \
        if (wide == 1) return multiply_rows(count, 1, left, panels, runs, step, add, out); \
        return multiply_rows(count, wide_for(count), left, panels, runs, step, add, out)
    switch (rows) {
        CASE(1); CASE(2);
#ifdef __AVX512F__
        CASE(3); CASE(4); CASE(5); CASE(6); CASE(7); CASE(8);
#endif
#ifdef __AVX512BF16__
        CASE(9); CASE(10); CASE(11); CASE(12);
#endif
    }
#undef CASE
}
