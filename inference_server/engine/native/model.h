/* What Python hands in: a model, and one step of it. Python's side is library.py. */
#pragma once
#include "tile.h"

enum { BLOCK = PANEL }; /* tokens in a block of the cache: its keys are a panel's columns */

/* From row to row of activations: a little more than they are wide, or many rows would want the same lines of the
processor's cache (measured with rows of 2,048: 170 GFLOP/s instead of 223 on one core). */
static inline long stride_of(long width) { return width + PANEL; }

/* Weights are panels, as tile.h has them; gate and up columns lie side by side, half a panel each. */
typedef struct {
    const float *attention_norm, *query_norm, *key_norm, *mlp_norm;
    const uint32_t *query_key_value, *attention_output, *gate_up, *down;
    uint32_t *keys;   /* [blocks][key heads][pairs of places in a head][keys of the block] */
    uint32_t *values; /* [blocks][key heads][panels of a head][pairs of keys][places] */
} Layer;

typedef struct {
    long layer_count, hidden, heads, key_heads, head_size, intermediate, vocabulary;
    double epsilon;
    const uint16_t *embedding; /* [vocabulary][hidden] */
    const float *norm, *frequencies;
    const uint32_t *output;
    const uint8_t *known; /* [vocabulary], 0: the tokenizer has no such token */
    const Layer *layers;
} Model;

/* Tokens `begin` to `begin + count` of the step are a sequence's, `start` and on; block_ids[blocks] is its first. */
typedef struct { int32_t begin, count, start, blocks; } Chunk;

typedef struct {
    long tokens, chunk_count, most_keys; /* most_keys: of any token, all multiples of BLOCK */
    const int32_t *token_ids;            /* [tokens] */
    const Chunk *chunks;
    const int32_t *block_ids;
    char *scratch;
    uint16_t *logits;   /* [chunks][vocabulary] bfloat16, behind each chunk's last token; NULL: they are not kept */
    int64_t *likeliest; /* [chunks], the first of its largest logits, NOT_FINITE where they are not all finite */
} Step;
