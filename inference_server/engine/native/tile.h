/* The one product that everything is made of: a few rows of activations times a panel of 32 columns.

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

/* rows x 2 * pairs activations, `stride` from row to row. */
typedef struct { const activation *at; long stride, pairs; } Left;

/* Panels whose inputs follow each other: `count` of them, each of Left's pairs, number n at[places[n] * size]. */
typedef struct { const uint32_t *at; const int32_t *places; long count, size; } Right;

/* What to read ahead into the cache, `step` bytes in the time of a pair. */
typedef struct { const char *at; long step; } Ahead;

typedef float Tile[MOST_ROWS][PANEL];

static inline __attribute__((always_inline)) void multiply_rows(const int rows, Left left, Right right, Ahead ahead,
                                                                Tile out) {
    floats sums[MOST_ROWS][VECTORS];
#pragma GCC unroll 12
    for (int row = 0; row < rows; row++)
#pragma GCC unroll 8
        for (int i = 0; i < VECTORS; i++) sums[row][i] = all(0);
    for (long n = 0; n < right.count; n++) {
        const uint32_t *panel = right.at + right.places[n] * right.size;
        for (long pair = 0; pair < left.pairs; pair++, left.at += 2, panel += PANEL, ahead.at += ahead.step) {
            __builtin_prefetch(ahead.at, 0, 2);
            __builtin_prefetch(ahead.at + 64, 0, 2);
#pragma GCC unroll 8
            for (int i = 0; i < VECTORS; i++) {
                factors by = factors_of(load_words(panel + i * LANES));
#pragma GCC unroll 12
                for (int row = 0; row < rows; row++)
                    sums[row][i] = add_product(sums[row][i], left.at + row * left.stride, by);
            }
        }
    }
#pragma GCC unroll 12
    for (int row = 0; row < rows; row++)
#pragma GCC unroll 8
        for (int i = 0; i < VECTORS; i++) store(out[row] + i * LANES, sums[row][i]);
}

/* rows: 1 to MOST_ROWS. */
static void multiply(int rows, Left left, Right right, Ahead ahead, Tile out) {
#define CASE(count) case count: return multiply_rows(count, left, right, ahead, out)
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
