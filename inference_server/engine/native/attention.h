/* Keys and values into the cache, and what queries see there.

A tile of queries meets one key head's blocks as products with panels: once for the scores, once for the values. A
query's result depends on its own sequence alone: blocks lie at fixed places of it, keys behind the query weigh 0. */
#pragma once
#include <math.h>
#include "scratch.h"

enum { MOST_HEAD = 256 };

/* What a row is multiplied with to have a mean square of 1. */
static floats norm_scale(const float *row, long size, double epsilon) {
    floats squares = all(0);
    for (long i = 0; i < size; i += LANES) squares += load(row + i) * load(row + i);
    return all(1 / sqrtf(total(squares) / size + (float)epsilon));
}

/* Normalises a head and turns its halves against each other. turn: cosines, then sines. */
static void norm_and_turn(const Model *model, const float *from, const float *weight, const float *turn, float *to) {
    long half = model->head_size / 2;
    floats scale = norm_scale(from, model->head_size, model->epsilon);
    for (long i = 0; i < half; i += LANES) {
        floats first = load(from + i) * scale * load(weight + i);
        floats second = load(from + half + i) * scale * load(weight + half + i);
        floats cosine = load(turn + i), sine = load(turn + half + i);
        store(to + i, first * cosine - second * sine);
        store(to + half + i, second * cosine + first * sine);
    }
}

static void store_key(const float *key, long size, uint32_t *panel, long place) {
    uint16_t narrow[MOST_HEAD];
    for (long i = 0; i < size; i += LANES) store_narrowed(narrow + i, load(key + i));
    for (long pair = 0; pair < size / 2; pair++) memcpy(panel + pair * PANEL + place, narrow + 2 * pair, 4);
}

static void store_value(const float *value, long size, uint32_t *panels, long place) {
    uint16_t narrow[MOST_HEAD];
    for (long i = 0; i < size; i += LANES) store_narrowed(narrow + i, load(value + i));
    for (long panel = 0; panel < size / PANEL; panel++) {
        /* the other half of each word is the neighbour's, which another thread may be writing */
        uint16_t *to = (uint16_t *)(panels + (panel * (BLOCK / 2) + place / 2) * PANEL) + place % 2;
        for (long i = 0; i < PANEL; i++) to[2 * i] = narrow[panel * PANEL + i];
    }
}

/* Scores of `keys` keys to shares that are not yet divided by their sum, which it returns; 0 for the keys behind. */
static float share_out(const float *scores, long keys, long width, float scale, activation *shares) {
    float last[LANES];
    long whole = keys / LANES * LANES;
    for (int i = 0; i < LANES; i++) last[i] = whole + i < keys ? scores[whole + i] : -INFINITY;
    floats most = all(-INFINITY), sum = all(0);
    for (long i = 0; i <= whole && i < width; i += LANES) {
        floats some = load(i < whole ? scores + i : last);
        most = chosen(some > most, some, most);
    }
    floats top = all(largest(most));
    for (long i = 0; i < width; i += LANES) {
        floats some = i > whole ? all(0) : exp2_of((load(i < whole ? scores + i : last) - top) * scale);
        sum += some;
        store_activations(shares + i, some);
    }
    return total(sum);
}

/* Queries `first` to `first + queries` of a chunk, with all heads of a group that share the key head. */
static void attend_tile(const Model *model, const Layer *layer, const Chunk *chunk, const int32_t *block_ids,
                        long key_head, long first, long queries, long head, long heads, const activation *query,
                        activation *seen, Desk desk) {
    long size = model->head_size, rows = queries * heads, keys = chunk->start + first + queries;
    long blocks = (keys + BLOCK - 1) / BLOCK, width = blocks * BLOCK, block_words = size / 2 * BLOCK;
    const long stride = model->key_heads * block_words;
    const int32_t *places = block_ids + chunk->blocks, none = 0;
    Tile tile;
    float sums[MOST_ROWS];
    for (long row = 0; row < rows; row++) {
        long token = chunk->begin + first + row / heads;
        const activation *from = query + (token * model->heads + head + row % heads) * size;
        memcpy(desk.query + row * size, from, size * sizeof *query);
    }
    Left left = {desk.query, size, size / 2};
    for (long block = 0; block < blocks; block++) {
        const uint32_t *panel = layer->keys + places[block] * stride + key_head * block_words;
        multiply(rows, left, (Right){panel, &none, 1, 0}, (Ahead){(const char *)panel, 0}, tile);
        for (long row = 0; row < rows; row++)
            memcpy(desk.scores + row * desk.width + block * BLOCK, tile[row], sizeof *tile);
    }
    float scale = (float)(1.4426950408889634 / sqrt((double)size)); /* of powers of 2 */
    for (long row = 0; row < rows; row++)
        sums[row] = share_out(desk.scores + row * desk.width, chunk->start + first + row / heads + 1, width, scale,
                              desk.shares + row * desk.width);
    for (long panel = 0; panel < size / PANEL; panel++) {
        const uint32_t *values = layer->values + key_head * block_words + panel * (BLOCK / 2) * PANEL;
        multiply(rows, (Left){desk.shares, desk.width, BLOCK / 2}, (Right){values, places, blocks, stride},
                 (Ahead){(const char *)values, 0}, tile);
        for (long row = 0; row < rows; row++) {
            long token = chunk->begin + first + row / heads;
            activation *to = seen + token * stride_of(model->heads * size) + (head + row % heads) * size;
            for (long i = 0; i < PANEL; i += LANES)
                store_activations(to + panel * PANEL + i, load(tile[row] + i) / sums[row]);
        }
    }
}
