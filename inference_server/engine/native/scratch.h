/* A step's memory beside weights and cache, divided. */
#pragma once
#include "greedy.h"
#include "model.h"
#include "team.h"

enum { PHASES_A_LAYER = 7, OTHER_PHASES = 4, LINE = 64, MOST_HEAD_ROWS = 96 };

/* One thread's. For a tile of queries, `width` scores and shares a row, a multiple of BLOCK; head: of up to
MOST_HEAD_ROWS tokens, [tokens][head size]. */
typedef struct { activation *query, *shares; float *scores, *head; long width; } Desk;

typedef struct { int32_t block, place; } Spot; /* in the cache, of a token's key and value */

typedef struct {
    atomic_long *phases;
    float *hidden;      /* [tokens][stride_of(hidden)], added up from layer to layer */
    float *turns;       /* [tokens][head size], cosines before sines */
    Spot *spots;        /* [tokens] */
    activation *normed; /* [tokens][stride_of(hidden)] */
    activation *query;  /* [tokens][heads][head size] */
    activation *seen;   /* [tokens][stride_of(heads * head size)] */
    activation *gated;  /* [tokens][stride_of(intermediate)] */
    Seen *seen_logits;  /* [threads][chunks] */
    char *desks;        /* [threads][desk_bytes] */
    long desk_bytes, bytes;
} Scratch;

static void *part_of(char *base, long *used, long bytes) {
    char *part = base + *used;
    *used += (bytes + LINE - 1) / LINE * LINE;
    return part;
}

/* With its size in bytes. */
static Desk desk_at(char *base, const Model *model, long tokens, long most_keys, long *bytes) {
    Desk desk = {.width = most_keys};
    long head_rows = tokens < MOST_HEAD_ROWS ? tokens : MOST_HEAD_ROWS;
    *bytes = 0;
    desk.query = part_of(base, bytes, MOST_ROWS * model->head_size * sizeof(activation));
    desk.scores = part_of(base, bytes, MOST_ROWS * most_keys * sizeof(float));
    desk.shares = part_of(base, bytes, MOST_ROWS * most_keys * sizeof(activation));
    desk.head = part_of(base, bytes, head_rows * model->head_size * sizeof(float));
    return desk;
}

/* base: on a line of the processor's cache, or NULL to learn the size. */
static Scratch divide(char *base, const Model *model, long tokens, long chunks, long most_keys, long threads) {
    long used = 0, attended = model->heads * model->head_size;
    Scratch scratch;
    scratch.phases = part_of(base, &used, (model->layer_count * PHASES_A_LAYER + OTHER_PHASES) *
                                               phase_words(threads) * sizeof(atomic_long));
    scratch.hidden = part_of(base, &used, tokens * stride_of(model->hidden) * sizeof(float));
    scratch.turns = part_of(base, &used, tokens * model->head_size * sizeof(float));
    scratch.spots = part_of(base, &used, tokens * sizeof(Spot));
    scratch.normed = part_of(base, &used, tokens * stride_of(model->hidden) * sizeof(activation));
    scratch.query = part_of(base, &used, tokens * attended * sizeof(activation));
    scratch.seen = part_of(base, &used, tokens * stride_of(attended) * sizeof(activation));
    scratch.gated = part_of(base, &used, tokens * stride_of(model->intermediate) * sizeof(activation));
    scratch.seen_logits = part_of(base, &used, threads * chunks * sizeof(Seen));
    desk_at(NULL, model, tokens, most_keys, &scratch.desk_bytes);
    scratch.desks = part_of(base, &used, threads * scratch.desk_bytes);
    scratch.bytes = used;
    return scratch;
}
