/* Draw one token per row of logits: the argmax of logit / temperature + Gumbel noise among the tokens that min_p and
top_p keep. `engine/draw.py` is the slow reference.

Nothing is sorted. The argmax over all tokens is also the argmax over the kept ones if it is one of them. Whether top_p
keeps it depends on one sum: the weights of the tokens that rank before it. If it is not kept, neither is any token that
ranks after it, so the search goes on among those before it. Each round keeps its token with a probability of at least
top_p.

exp and log differ from the reference's by a few units in the last place, so every comparison has a margin. A row that a
margin leaves open is UNDECIDED, and the caller takes the slow path for it. */
#pragma once
#include <math.h>
#include <stdatomic.h>
#include "numbers.h"

enum { WIDE = LANES / 2, UNDECIDED = -1 };
typedef double doubles __attribute__((vector_size(8 * WIDE)));
typedef int64_t longs __attribute__((vector_size(8 * WIDE)));
typedef uint64_t hashes __attribute__((vector_size(8 * WIDE)));
typedef float singles __attribute__((vector_size(4 * WIDE)));

static const double LARGEST_WEIGHT = 0x1p34; /* of the most likely token; as in engine/draw.py */
static const double RATIO_MARGIN = 1e-9;     /* relative; exp and the reference's sum err by less than 1e-11 */

typedef struct {
    const float *logits; /* [vocabulary] */
    long vocabulary;
    double best, temperature, top_p, log_min_p;
    uint64_t key;
} Row;

/* Of the tokens that a search looked at: the sum of their weights, the smallest ratio of an exponential variate to its
token's probability, the token that has it, and the next larger ratio. */
typedef struct { double sum, ratio, next_ratio; long token; } Found;

static inline doubles all_doubles(double one) { return one - (doubles){}; }
static inline doubles chosen_doubles(longs where, doubles one, doubles other) {
    return (doubles)(((longs)one & where) | ((longs)other & ~where));
}

/* e to the power, which is at most 0; below -708 the result of -708. Relative error below 1e-12. */
static inline doubles exp_of(doubles power) {
    const doubles magic = all_doubles(0x1.8p52); /* what is added to it is rounded to a whole number */
    doubles bounded = chosen_doubles(power < -708.0, all_doubles(-708.0), power);
    doubles whole = bounded * 0x1.71547652b82fep+0 + magic;
    longs exponent = (longs)whole - (longs)magic;
    whole -= magic;
    doubles rest = bounded - whole * 0x1.62e42fefa39efp-1;
    doubles series = all_doubles(1.0 / 3628800);
    const double terms[] = {1.0 / 362880, 1.0 / 40320, 1.0 / 5040, 1.0 / 720, 1.0 / 120,
                            1.0 / 24,     1.0 / 6,     1.0 / 2,    1.0,       1.0};
    for (int i = 0; i < 10; i++) series = series * rest + terms[i];
    return series * (doubles)((exponent + 1023) << 52);
}

/* Uniform numbers in (0, 1) of engine/gumbel.py. */
static inline doubles uniform_of(uint64_t key, longs token) {
    hashes mixed = key + (hashes)token * 0x9E3779B97F4A7C15u;
    mixed = (mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9u;
    mixed = (mixed ^ (mixed >> 27)) * 0x94D049BB133111EBu;
    mixed ^= mixed >> 31;
    return (__builtin_convertvector((longs)(mixed >> 11), doubles) + 0.5) * 0x1p-53;
}

static inline int any(longs where) {
    int64_t found = 0;
    for (int i = 0; i < WIDE; i++) found |= where[i];
    return found != 0;
}

static void take_ratio(Found *found, double ratio, long token) {
    if (ratio < found->ratio) {
        found->next_ratio = found->ratio;
        found->ratio = ratio;
        found->token = token;
    } else if (ratio < found->next_ratio) {
        found->next_ratio = ratio;
    }
}

/* WIDE tokens from `first` on. before: only tokens that rank before it count, all if it is negative. draws: whether
ratios are wanted. has_min_p: whether log_min_p is finite. */
static INLINE void look(Found *found, doubles *sum, const Row *row, const float *logits, long first, long before,
                        int draws, int has_min_p) {
    singles narrow;
    memcpy(&narrow, logits, sizeof narrow);
    doubles logit = __builtin_convertvector(narrow, doubles);
    longs token = first - (longs){};
    for (int i = 0; i < WIDE; i++) token[i] += i;
    longs counts = ~(longs){};
    if (before >= 0) {
        double limit = row->logits[before];
        counts = (logit > limit) | ((logit == limit) & (token < before));
        if (!any(counts)) return;
    }
    doubles behind = logit - row->best;
    if (has_min_p) { /* the reference's very division, for it decides */
        behind /= row->temperature;
        counts &= behind >= row->log_min_p;
    } else {
        behind *= 1 / row->temperature;
    }
    doubles probability = exp_of(behind);
    doubles weight = probability * LARGEST_WEIGHT + 0x1.8p52 - 0x1.8p52; /* to a whole number, half to even */
    *sum += chosen_doubles(counts, weight, all_doubles(0));
    if (!draws) return;
    doubles uniform = uniform_of(row->key, token);
    /* -log(u) is at least 1 - u, so that few tokens need their logarithm */
    longs may_win = counts & (1 - uniform < probability * (found->ratio * (1 + RATIO_MARGIN)));
    if (!any(may_win)) return;
    for (int i = 0; i < WIDE; i++)
        if (may_win[i]) take_ratio(found, -log(uniform[i]) / probability[i], token[i]);
}

static INLINE Found search_as(const Row *row, long before, int draws, int has_min_p) {
    Found found = {0, INFINITY, INFINITY, UNDECIDED};
    doubles sum = all_doubles(0);
    long whole = row->vocabulary / WIDE * WIDE;
    for (long first = 0; first < whole; first += WIDE)
        look(&found, &sum, row, row->logits + first, first, before, draws, has_min_p);
    if (whole < row->vocabulary) {
        float rest[WIDE];
        for (int i = 0; i < WIDE; i++) rest[i] = whole + i < row->vocabulary ? row->logits[whole + i] : -INFINITY;
        look(&found, &sum, row, rest, whole, before, draws, has_min_p);
    }
    for (int i = 0; i < WIDE; i++) found.sum += sum[i];
    if (!(found.next_ratio > found.ratio * (1 + RATIO_MARGIN))) found.token = UNDECIDED;
    return found;
}

static Found search(const Row *row, long before, int draws) {
    int has_min_p = row->log_min_p > -INFINITY;
    if (before < 0) return has_min_p ? search_as(row, -1, 1, 1) : search_as(row, -1, 1, 0);
    if (draws) return has_min_p ? search_as(row, before, 1, 1) : search_as(row, before, 1, 0);
    return has_min_p ? search_as(row, before, 0, 1) : search_as(row, before, 0, 0);
}

static long draw_row(const Row *row) {
    Found found = search(row, -1, 1);
    if (row->top_p >= 1 && row->log_min_p == -INFINITY) return found.token; /* as draw_from_all */
    double limit = row->top_p * found.sum, margin = (double)row->vocabulary + 2; /* each weight may err by one */
    while (found.token != UNDECIDED) {
        double before = search(row, found.token, 0).sum;
        if (before == 0 || before + margin < limit) return found.token;
        if (before - margin < limit) return UNDECIDED;
        found = search(row, found.token, 1);
    }
    return UNDECIDED;
}

/* rows: one of `rows` for each of `tokens`, which are filled in. */
typedef struct { const Row *rows; int64_t *tokens; long count; atomic_long taken; } Draws;

static void draw_some(void *argument) {
    Draws *draws = argument;
    for (long row; (row = atomic_fetch_add(&draws->taken, 1)) < draws->count;)
        draws->tokens[row] = draw_row(draws->rows + row);
}
