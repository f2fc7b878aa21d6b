/* A step of a dense Qwen3 model over bfloat16 weights: token ids to logits, one call on all threads.

Source: the Qwen3 technical report; tests compare it with `models/qwen3.py`. Sums and what is added up from layer to
layer are float32. A token's result does not depend on what else is computed in the step, nor on how its prompt was
divided. */
#include "attention.h"
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
typedef void Finish(Worker *worker, long row, long rows, long panel, Tile tile);

static void embed(Worker *worker) {
    const Model *model = worker->model;
    long half = model->head_size / 2, chunk = 0;
    for (long token; (token = take(&worker->team, worker->rows)) < worker->rows;) {
        const uint16_t *from = model->embedding + worker->step->token_ids[token] * model->hidden;
        for (long i = 0; i < model->hidden; i += LANES)
            store(worker->scratch.hidden + token * stride_of(model->hidden) + i, load_widened(from + i));
        while (token >= worker->step->chunks[chunk].begin + worker->step->chunks[chunk].count) chunk++;
        long position = worker->step->chunks[chunk].start + token - worker->step->chunks[chunk].begin;
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

/* The worker's rows times one panel; the next one is read ahead meanwhile. */
static void multiply_panel(Worker *worker, const activation *left, long inputs, const uint32_t *weight, long panel,
                           Finish *finish) {
    long panel_words = inputs / 2 * PANEL;
    const uint32_t *here = weight + panel * panel_words;
    long rows = worker->rows, parts = (rows + MOST_ROWS - 1) / MOST_ROWS, stride = stride_of(inputs);
    long step = PANEL * sizeof *weight / parts;
    Tile tile;
    for (long part = 0; part < parts; part++) {
        long row = rows * part / parts, count = rows * (part + 1) / parts - row;
        Panel one = {here, (const char *)(here + panel_words) + part * (inputs / 2) * step};
        multiply(count, 1, (Left){left + row * stride, stride, inputs / 2}, &one, step, 0, tile);
        finish(worker, row, count, panel, tile);
    }
}

/* The worker's rows of activations, as stride_of has them, times a weight of `columns` columns. */
static void product(Worker *worker, const activation *left, long inputs, const uint32_t *weight, long columns,
                    Finish *finish) {
    long panels = (columns + PANEL - 1) / PANEL, tiles = (worker->rows + MOST_ROWS - 1) / MOST_ROWS;
    long at_once = smaller(MOST_TILES_AT_ONCE / tiles, panels / (4 * worker->team.threads));
    at_once = at_once < 1 ? 1 : at_once;
    long items = (panels + at_once - 1) / at_once;
    for (long item; (item = take(&worker->team, items)) < items;)
        for (long panel = item * at_once; panel < smaller((item + 1) * at_once, panels); panel++)
            multiply_panel(worker, left, inputs, weight, panel, finish);
    finish_phase(&worker->team, items);
}

static void keep_projected(Worker *worker, long row, long rows, long panel, Tile tile) {
    const Model *model = worker->model;
    long width = stride_of((model->heads + 2 * model->key_heads) * model->head_size);
    for (long i = 0; i < rows; i++)
        memcpy(worker->scratch.projected + (row + i) * width + panel * PANEL, tile + i * PANEL, PANEL * sizeof *tile);
}

static void add_to_hidden(Worker *worker, long row, long rows, long panel, Tile tile) {
    for (long i = 0; i < rows; i++) {
        float *hidden = worker->scratch.hidden + (row + i) * stride_of(worker->model->hidden) + panel * PANEL;
        for (long k = 0; k < PANEL; k += LANES) store(hidden + k, load(hidden + k) + load(tile + i * PANEL + k));
    }
}

static void gate(Worker *worker, long row, long rows, long panel, Tile tile) {
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
static void see_logits(Worker *worker, long row, long rows, long panel, Tile tile) {
    long vocabulary = worker->model->vocabulary, columns = smaller(vocabulary - panel * PANEL, PANEL);
    for (long i = 0; i < rows; i++) {
        float *logits = tile + i * PANEL;
        uint16_t last[PANEL];
        uint16_t *kept = worker->step->logits ? worker->step->logits + (row + i) * vocabulary + panel * PANEL : NULL;
        uint16_t *to = columns < PANEL ? last : kept;
        Seen seen = worker->seen_logits[row + i];
        for (long k = columns; k < PANEL; k++) logits[k] = logits[0]; /* behind the vocabulary: never the first */
        for (long k = 0; k < PANEL; k += LANES) {
            floats some = rounded(load(logits + k));
            see(&seen, some, (panel * PANEL + k) / LANES);
            if (kept) store_narrowed(to + k, some);
        }
        worker->seen_logits[row + i] = seen;
        if (kept && columns < PANEL) memcpy(kept, last, columns * sizeof *kept);
    }
}

/* How many blocks of the cache a chunk's tokens go into. */
static inline long blocks_of(const Chunk *chunk) {
    return (chunk->start + chunk->count - 1) / BLOCK - chunk->start / BLOCK + 1;
}

/* Queries to where attention reads them, keys and values into the cache. */
static void split_token(Worker *worker, const Layer *layer, long token, long position, long block, long key_head) {
    const Model *model = worker->model;
    long size = model->head_size, group = model->heads / model->key_heads;
    long width = stride_of((model->heads + 2 * model->key_heads) * size);
    long begin = (block * model->key_heads + key_head) * size / 2 * BLOCK;
    const float *from = worker->scratch.projected + token * width, *turn = worker->scratch.turns + token * size;
    float head[MOST_HEAD];
    for (long one = key_head * group; one < (key_head + 1) * group; one++) {
        norm_and_turn(model, from + one * size, layer->query_norm, turn, head);
        activation *query = worker->scratch.query + (token * model->heads + one) * size;
        for (long i = 0; i < size; i += LANES) store_activations(query + i, load(head + i));
    }
    norm_and_turn(model, from + (model->heads + key_head) * size, layer->key_norm, turn, head);
    store_key(head, size, layer->keys + begin, position % BLOCK);
    const float *value = from + (model->heads + model->key_heads + key_head) * size;
    store_value(value, size, layer->values + begin, position % BLOCK);
}

/* An item is a chunk's tokens in one block of the cache, for one key head: no other thread writes there. */
static void split_heads(Worker *worker, const Layer *layer) {
    const Model *model = worker->model;
    const Chunk *chunks = worker->step->chunks, *end = chunks + worker->step->chunk_count;
    long items = 0, before = 0;
    for (const Chunk *chunk = chunks; chunk < end; chunk++) items += blocks_of(chunk) * model->key_heads;
    long item = take(&worker->team, items);
    for (const Chunk *chunk = chunks; chunk < end; chunk++) {
        long behind = before + blocks_of(chunk) * model->key_heads;
        for (; item < behind; item = take(&worker->team, items)) {
            long number = chunk->start / BLOCK + (item - before) / model->key_heads;
            long block = worker->step->block_ids[chunk->blocks + number];
            long first = number * BLOCK < chunk->start ? chunk->start : number * BLOCK;
            long last = smaller((number + 1) * BLOCK, chunk->start + chunk->count);
            for (long position = first; position < last; position++)
                split_token(worker, layer, chunk->begin + position - chunk->start, position, block,
                            (item - before) % model->key_heads);
        }
        before = behind;
    }
    finish_phase(&worker->team, items);
}

static inline long tiles_of(const Chunk *chunk, long queries) { return (chunk->count + queries - 1) / queries; }

/* An item is one key head of one tile of a chunk's queries; the last tile, which sees most keys, comes first. */
static void attend(Worker *worker, const Layer *layer) {
    const Model *model = worker->model;
    const Chunk *chunks = worker->step->chunks, *end = chunks + worker->step->chunk_count;
    long group = model->heads / model->key_heads, heads = smaller(group, MOST_ROWS), most_queries = MOST_ROWS / heads;
    long items = 0, before = 0;
    for (const Chunk *chunk = chunks; chunk < end; chunk++) items += tiles_of(chunk, most_queries) * model->key_heads;
    long item = take(&worker->team, items);
    for (const Chunk *chunk = chunks; chunk < end; chunk++) {
        long tiles = tiles_of(chunk, most_queries), behind = before + tiles * model->key_heads;
        for (; item < behind; item = take(&worker->team, items)) {
            long key_head = (item - before) / tiles, tile = tiles - 1 - (item - before) % tiles;
            long first = chunk->count * tile / tiles, queries = chunk->count * (tile + 1) / tiles - first;
            for (long head = 0; head < group; head += heads)
                attend_tile(model, layer, chunk, worker->step->block_ids, key_head, first, queries,
                            key_head * group + head, smaller(group - head, heads), worker->scratch.query,
                            worker->scratch.seen, worker->desk);
        }
        before = behind;
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
    product(worker, scratch->normed, model->hidden, layer->query_key_value,
            attended + 2 * model->key_heads * model->head_size, keep_projected);
    split_heads(worker, layer);
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
    worker.team = (Team){worker.scratch.phases, 0, call->team_size ? call->team_size() : 1};
    long thread = atomic_fetch_add(&call->arrived, 1), bytes;
    worker.desk = desk_at(worker.scratch.desks + thread * worker.scratch.desk_bytes, model, step->most_keys, &bytes);
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
