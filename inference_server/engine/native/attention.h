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
        /* the other half of each word is the neighbour's, which another thread may be writing: no whole words */
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
        most = larger(load(i < whole ? scores + i : last), most);
    }
    floats top = all(largest(most));
    for (long i = 0; i < width; i += LANES) {
        floats some = i > whole ? all(0) : exp2_of((load(i < whole ? scores + i : last) - top) * scale);
        sum += some;
        store_activations(shares + i, some);
    }
    return total(sum);
}

/* A chunk's blocks of keys or of values, for one key head. */
typedef struct { const uint32_t *at; const int32_t *places; long stride, count; } Blocks;

/* Of a block, from its word `begin` on; the block that comes `onward` later is what is to be read ahead. */
static inline Panel panel_of(const Blocks *blocks, long block, long onward, long begin) {
    long next = block + onward < blocks->count ? block + onward : block;
    return (Panel){blocks->at + blocks->places[block] * blocks->stride + begin,
                   (const char *)(blocks->at + blocks->places[next] * blocks->stride + begin)};
}

/* scores: [rows][width] */
static void score(int rows, Left left, const Blocks *keys, float *scores, long width) {
    Panel panels[WIDEST];
    Tile tile;
    for (long block = 0, wide; block < keys->count; block += wide) {
        wide = keys->count - block < wide_for(rows) ? 1 : wide_for(rows);
        for (long i = 0; i < wide; i++) panels[i] = panel_of(keys, block + i, wide, 0);
        multiply(rows, wide, &left, panels, 1, PANEL * sizeof *keys->at, 0, tile);
        for (long row = 0; row < rows; row++)
            memcpy(scores + row * width + block * BLOCK, tile + row * wide * PANEL, wide * PANEL * sizeof *tile);
    }
}

/* Queries `first` to `first + queries` of a chunk, with all heads of a group that share the key head. */
static void attend_tile(const Model *model, const Layer *layer, const Chunk *chunk, const int32_t *block_ids,
                        long key_head, long first, long queries, long head, long heads, const activation *query,
                        activation *seen, Desk desk) {
    long size = model->head_size, rows = queries * heads, keys = chunk->start + first + queries;
    long blocks = (keys + BLOCK - 1) / BLOCK, width = blocks * BLOCK, block_words = size / 2 * BLOCK;
    const long stride = model->key_heads * block_words;
    const int32_t *places = block_ids + chunk->blocks;
    Blocks keys_seen = {layer->keys + key_head * block_words, places, stride, blocks};
    Blocks values = {layer->values + key_head * block_words, places, stride, blocks};
    Panel panels[MOST_RUNS * WIDEST];
    Tile tile;
    float sums[MOST_ROWS];
    for (long row = 0; row < rows; row++) {
        long token = chunk->begin + first + row / heads;
        const activation *from = query + (token * model->heads + head + row % heads) * size;
        memcpy(desk.query + row * size, from, size * sizeof *query);
    }
    score(rows, (Left){desk.query, size, size / 2}, &keys_seen, desk.scores, desk.width);
    float scale = (float)(1.4426950408889634 / sqrt((double)size)); /* of powers of 2 */
    for (long row = 0; row < rows; row++)
        sums[row] = share_out(desk.scores + row * desk.width, chunk->start + first + row / heads + 1, width, scale,
                              desk.shares + row * desk.width);
    for (long panel = 0, wide; panel < size / PANEL; panel += wide) {
        wide = size / PANEL - panel < wide_for(rows) ? 1 : wide_for(rows);
        for (long block = 0, runs; block < blocks; block += runs) {
            runs = blocks - block < MOST_RUNS ? blocks - block : MOST_RUNS;
            for (long i = 0; i < runs * wide; i++)
                panels[i] = panel_of(&values, block + i / wide, 1, (panel + i % wide) * (BLOCK / 2) * PANEL);
            multiply(rows, wide, &(Left){desk.shares + block * BLOCK, desk.width, BLOCK / 2}, panels, runs,
                     PANEL * sizeof *values.at, block > 0, tile);
        }
        for (long row = 0; row < rows; row++) {
            long token = chunk->begin + first + row / heads;
            activation *to = seen + token * stride_of(model->heads * size) + (head + row % heads) * size;
            for (long i = 0; i < wide * PANEL; i += LANES)
                store_activations(to + panel * PANEL + i, load(tile + row * wide * PANEL + i) / sums[row]);
        }
    }
}
