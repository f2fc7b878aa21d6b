/* A step of a dense Qwen3 model over bfloat16 weights: token ids to logits, one call on all threads.

Source: the Qwen3 technical report; tests compare it with `models/qwen3.py`. Sums and what is added up from layer to
layer are float32. A token's result does not depend on what else is computed in the step, nor on how its prompt was
divided. */
#include "attention.h"
#include "draw.h"
#include "greedy.h"
#include "pack.h"
#include "scratch.h"

enum { MOST_TILES_AT_ONCE = 16 };

/* Of the sources that this was compiled from. */
const char source_digest[] = SOURCE_DIGEST;

static inline long smaller(long one, long other) { return one < other ? one : other; }

typedef struct Worker {
    const Model *model;
    const Step *step;
    Scratch scratch;
    Team team;
    Desk desk;
    Seen *seen_logits; /* of this thread */
    long rows; /* of hidden: the step's tokens, in the end the last of each chunk */
} Worker;

/* What becomes of a product's tile: rows `row` and on, columns of the panel. */
typedef void Finish(Worker *worker, long row, long rows, long panel, float *tile);

static void embed(Worker *worker) {
    const Model *model = worker->model;
    long half = model->head_size / 2, chunk = 0;
    for (long token; (token = take(&worker->team, worker->rows)) < worker->rows;) {
        const uint16_t *from = model->embedding + worker->step->token_ids[token] * model->hidden;
        for (long i = 0; i < model->hidden; i += LANES)
            store(worker->scratch.hidden + token * stride_of(model->hidden) + i, load_widened(from + i));
        if (token < worker->step->chunks[chunk].begin) chunk = 0;
        while (token >= worker->step->chunks[chunk].begin + worker->step->chunks[chunk].count) chunk++;
        long position = worker->step->chunks[chunk].start + token - worker->step->chunks[chunk].begin;
        worker->scratch.spots[token] = (Spot){
            worker->step->block_ids[worker->step->chunks[chunk].blocks + position / BLOCK], position % BLOCK};
        float *turn = worker->scratch.turns + token * model->head_size;
        for (long i = 0; i < half; i++) {
            turn[i] = cosf((float)position * model->frequencies[i]);
            turn[half + i] = sinf((float)position * model->frequencies[i]);
        }
    }
    finish_phase(&worker->team, worker->rows);
}

static void norm_rows(Worker *worker, const float *weight) {
    const Model *model = worker->model;
    for (long row; (row = take(&worker->team, worker->rows)) < worker->rows;) {
        const float *from = worker->scratch.hidden + row * stride_of(model->hidden);
        activation *to = worker->scratch.normed + row * stride_of(model->hidden);
        floats scale = norm_scale(from, model->hidden, model->epsilon);
        for (long i = 0; i < model->hidden; i += LANES)
            store_activations(to + i, load(from + i) * scale * load(weight + i));
    }
    finish_phase(&worker->team, worker->rows);
}

/* Rows of activations times one panel; the next one is read ahead meanwhile. */
static INLINE void multiply_panel(Worker *worker, const activation *left, long rows, long inputs,
                                  const uint32_t *weight, long panel, Finish *finish) {
    long panel_words = inputs / 2 * PANEL;
    const uint32_t *here = weight + panel * panel_words;
    long parts = (rows + MOST_ROWS - 1) / MOST_ROWS, stride = stride_of(inputs);
    long step = PANEL * sizeof *weight / parts;
    Tile tile;
    for (long part = 0, row = 0, count; part < parts; part++, row += count) {
        count = rows_of_tile(rows - row);
        Panel one = {here, (const char *)(here + panel_words) + part * (inputs / 2) * step};
        multiply(count, 1, &(Left){left + row * stride, stride, inputs / 2}, &one, 1, step, 0, tile);
        finish(worker, row, count, panel, tile);
    }
}

/* One row times several panels at once, for the sums of one panel would wait for each other; as many are read ahead. */
static INLINE void multiply_row(Worker *worker, const activation *left, long inputs, const uint32_t *weight,
                                long panel, Finish *finish) {
    const int wide = wide_for(1);
    long panel_words = inputs / 2 * PANEL;
    Panel panels[WIDEST];
    Tile tile;
    for (long i = 0; i < wide; i++) {
        const uint32_t *here = weight + (panel + i) * panel_words;
        panels[i] = (Panel){here, (const char *)(here + wide * panel_words)};
    }
    multiply(1, wide, &(Left){left, 0, inputs / 2}, panels, 1, PANEL * sizeof *weight, 0, tile);
    for (long i = 0; i < wide; i++) finish(worker, 0, 1, panel + i, tile + i * PANEL);
}

/* The worker's rows of activations, as stride_of has them, times a weight of `columns` columns. */
static INLINE void product(Worker *worker, const activation *left, long inputs, const uint32_t *weight, long columns,
                           Finish *finish) {
    long panels = (columns + PANEL - 1) / PANEL, tiles = (worker->rows + MOST_ROWS - 1) / MOST_ROWS;
    long at_once = smaller(MOST_TILES_AT_ONCE / tiles, panels / (4 * worker->team.threads));
    at_once = at_once < 1 ? 1 : at_once;
    long items = (panels + at_once - 1) / at_once;
    for (long item; (item = take(&worker->team, items)) < items;) {
        long panel = item * at_once, end = smaller(panel + at_once, panels);
        for (; worker->rows == 1 && panel + wide_for(1) <= end; panel += wide_for(1))
            multiply_row(worker, left, inputs, weight, panel, finish);
        for (; panel < end; panel++) multiply_panel(worker, left, worker->rows, inputs, weight, panel, finish);
    }
    finish_phase(&worker->team, items);
}

static void add_to_hidden(Worker *worker, long row, long rows, long panel, float *tile) {
    for (long i = 0; i < rows; i++) {
        float *hidden = worker->scratch.hidden + (row + i) * stride_of(worker->model->hidden) + panel * PANEL;
        for (long k = 0; k < PANEL; k += LANES) store(hidden + k, load(hidden + k) + load(tile + i * PANEL + k));
    }
}

static void gate(Worker *worker, long row, long rows, long panel, float *tile) {
    const long half = PANEL / 2;
    for (long i = 0; i < rows; i++) {
        activation *gated = worker->scratch.gated + (row + i) * stride_of(worker->model->intermediate) + panel * half;
        for (long k = 0; k < half; k += LANES) {
            floats given = load(tile + i * PANEL + k), silu = given / (1 + exp2_of(given * -1.44269504f));
            store_activations(gated + k, silu * load(tile + i * PANEL + half + k));
        }
    }
}

/* Logits are bfloat16 numbers, whether they are kept or only looked at. */
static void see_logits(Worker *worker, long row, long rows, long panel, float *tile) {
    long vocabulary = worker->model->vocabulary, columns = smaller(vocabulary - panel * PANEL, PANEL);
    for (long i = 0; i < rows; i++) {
        float *logits = tile + i * PANEL;
        for (long k = columns; k < PANEL; k++) logits[k] = logits[0]; /* behind the vocabulary */
        see(worker->seen_logits + row + i, logits, worker->model->known + panel * PANEL, panel * PANEL, columns);
        if (worker->step->logits) {
            uint16_t narrow[PANEL];
            for (long k = 0; k < PANEL; k += LANES) store_narrowed(narrow + k, load(logits + k));
            memcpy(worker->step->logits + (row + i) * vocabulary + panel * PANEL, narrow, columns * sizeof *narrow);
        }
    }
}

/* A panel of a head, beside the head's others. */
static void keep_head(Worker *worker, long row, long rows, long panel, float *tile) {
    long size = worker->model->head_size;
    float *to = worker->desk.head + row * size + panel * PANEL % size;
    for (long i = 0; i < rows; i++) memcpy(to + i * size, tile + i * PANEL, PANEL * sizeof *tile);
}

/* Of a token: a query to where attention reads it, a key or a value into the cache. Queries come before keys. */
static void put_head(Worker *worker, const Layer *layer, long head, long token, const float *from) {
    const Model *model = worker->model;
    const float *turn = worker->scratch.turns + token * model->head_size;
    float turned[MOST_HEAD];
    if (head < model->heads) {
        activation *query = worker->scratch.query + (token * model->heads + head) * model->head_size;
        norm_and_turn(model, from, layer->query_norm, turn, turned);
        for (long i = 0; i < model->head_size; i += LANES) store_activations(query + i, load(turned + i));
        return;
    }
    long key_head = (head - model->heads) % model->key_heads;
    Spot spot = worker->scratch.spots[token];
    long begin = (spot.block * model->key_heads + key_head) * model->head_size / 2 * BLOCK;
    if (head < model->heads + model->key_heads) {
        norm_and_turn(model, from, layer->key_norm, turn, turned);
        store_key(turned, model->head_size, layer->keys + begin, spot.place);
    } else {
        store_value(from, model->head_size, layer->values + begin, spot.place);
    }
}

/* An item is one head of some rows: what its thread has computed it puts away while it is in the cache. */
static void project(Worker *worker, const Layer *layer) {
    const Model *model = worker->model;
    long heads = model->heads + 2 * model->key_heads, panels = model->head_size / PANEL;
    long groups = (worker->rows + MOST_HEAD_ROWS - 1) / MOST_HEAD_ROWS, stride = stride_of(model->hidden);
    for (long item; (item = take(&worker->team, heads * groups)) < heads * groups;) {
        long head = item / groups, first = worker->rows * (item % groups) / groups;
        long rows = worker->rows * (item % groups + 1) / groups - first;
        for (long panel = head * panels; panel < (head + 1) * panels; panel++)
            multiply_panel(worker, worker->scratch.normed + first * stride, rows, model->hidden,
                           layer->query_key_value, panel, keep_head);
        for (long row = 0; row < rows; row++)
            put_head(worker, layer, head, first + row, worker->desk.head + row * model->head_size);
    }
    finish_phase(&worker->team, heads * groups);
}

static inline long tiles_of(const Chunk *chunk, long queries) { return (chunk->count + queries - 1) / queries; }

/* An item is one key head of one tile of a chunk's queries; the last tile, which sees most keys, comes first. */
static void attend(Worker *worker, const Layer *layer) {
    const Model *model = worker->model;
    const Chunk *chunks = worker->step->chunks, *end = chunks + worker->step->chunk_count, *chunk = chunks;
    long group = model->heads / model->key_heads, heads = smaller(group, MOST_ROWS), most_queries = MOST_ROWS / heads;
    long items = 0, before = 0;
    for (const Chunk *one = chunks; one < end; one++) items += tiles_of(one, most_queries) * model->key_heads;
    for (long item; (item = take(&worker->team, items)) < items;) {
        if (item < before) before = 0, chunk = chunks;
        for (; item >= before + tiles_of(chunk, most_queries) * model->key_heads; chunk++)
            before += tiles_of(chunk, most_queries) * model->key_heads;
        long tiles = tiles_of(chunk, most_queries);
        long key_head = (item - before) / tiles, tile = tiles - 1 - (item - before) % tiles;
        long first = chunk->count * tile / tiles, queries = chunk->count * (tile + 1) / tiles - first;
        for (long head = 0; head < group; head += heads)
            attend_tile(model, layer, chunk, worker->step->block_ids, key_head, first, queries,
                        key_head * group + head, smaller(group - head, heads), worker->scratch.query,
                        worker->scratch.seen, worker->desk);
    }
    finish_phase(&worker->team, items);
}

/* From here on only the last token of each chunk counts: one thread moves them to the front. */
static void keep_ends(Worker *worker) {
    const Model *model = worker->model;
    Scratch *scratch = &worker->scratch;
    long wide = stride_of(model->heads * model->head_size), narrow = stride_of(model->hidden);
    float *hidden = scratch->hidden;
    activation *seen = scratch->seen;
    long chunks = worker->step->chunk_count;
    for (long chunk = take(&worker->team, 1) ? chunks : 0; chunk < chunks; chunk++) {
        long end = worker->step->chunks[chunk].begin + worker->step->chunks[chunk].count - 1;
        memmove(hidden + chunk * narrow, hidden + end * narrow, narrow * sizeof *hidden);
        memmove(seen + chunk * wide, seen + end * wide, wide * sizeof *seen);
    }
    worker->rows = chunks;
    finish_phase(&worker->team, 1);
}

static void run_layer(Worker *worker, const Layer *layer) {
    const Model *model = worker->model;
    Scratch *scratch = &worker->scratch;
    long attended = model->heads * model->head_size;
    norm_rows(worker, layer->attention_norm);
    project(worker, layer);
    attend(worker, layer);
    if (layer == model->layers + model->layer_count - 1) keep_ends(worker);
    product(worker, scratch->seen, attended, layer->attention_output, model->hidden, add_to_hidden);
    norm_rows(worker, layer->mlp_norm);
    product(worker, scratch->normed, model->hidden, layer->gate_up, 2 * model->intermediate, gate);
    product(worker, scratch->gated, model->intermediate, layer->down, model->hidden, add_to_hidden);
}

typedef struct {
    const Model *model;
    const Step *step;
    Scratch scratch;
    int (*team_size)(void);
    atomic_long arrived;
} Call;

/* What every thread of the team does. */
static void work(void *argument) {
    Call *call = argument;
    const Model *model = call->model;
    const Step *step = call->step;
    Worker worker = {.model = model, .step = step, .scratch = call->scratch, .rows = step->tokens};
    long thread = atomic_fetch_add(&call->arrived, 1), bytes;
    worker.team = (Team){worker.scratch.phases, call->team_size ? call->team_size() : 1, thread, 0, 0};
    char *desk = worker.scratch.desks + thread * worker.scratch.desk_bytes;
    worker.desk = desk_at(desk, model, step->tokens, step->most_keys, &bytes);
    worker.seen_logits = worker.scratch.seen_logits + thread * step->chunk_count;
    forget(worker.seen_logits, step->chunk_count);
    embed(&worker);
    for (long layer = 0; layer < model->layer_count; layer++) run_layer(&worker, model->layers + layer);
    norm_rows(&worker, model->norm);
    product(&worker, worker.scratch.normed, model->hidden, model->output, model->vocabulary, see_logits);
}

/* Bytes that a step of such sizes wants as scratch. */
long scratch_bytes(const Model *model, long tokens, long chunks, long most_keys, long threads) {
    return divide(NULL, model, tokens, chunks, most_keys, threads).bytes;
}

typedef void Parallel(void (*work)(void *), void *argument, unsigned threads, unsigned flags);

/* parallel: OpenMP's GOMP_parallel, team_size: its omp_get_num_threads; without them the caller's thread is alone. */
void forward(const Model *model, const Step *step, Parallel *parallel, int (*team_size)(void), long threads) {
    Scratch scratch = divide(step->scratch, model, step->tokens, step->chunk_count, step->most_keys, threads);
    Call call = {model, step, scratch, parallel ? team_size : NULL, 0};
    memset(scratch.phases, 0, (char *)scratch.hidden - (char *)scratch.phases);
    if (parallel)
        parallel(work, &call, threads, 0);
    else
        work(&call);
    for (long row = 0; row < step->chunk_count; row++)
        step->likeliest[row] = likeliest(scratch.seen_logits, call.arrived, step->chunk_count, row);
}

/* Draw a token for each row, UNDECIDED where the slow path is needed. parallel, threads: as for `forward`. */
void draw_rows(const Row *rows, int64_t *tokens, long count, Parallel *parallel, long threads) {
    Draws draws = {rows, tokens, count, 0};
    if (parallel && count > 1)
        parallel(draw_some, &draws, threads, 0); /* the team of `forward`: OpenMP would end threads that a call leaves out */
    else
        draw_some(&draws);
}
