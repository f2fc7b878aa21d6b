/* Threads that work through a step together, phase by phase. */
#pragma once
#include <sched.h>
#include <stdatomic.h>

typedef struct { atomic_long taken, done; } Phase; /* items; zeros before the step */

/* One for each thread. A phase ends when its items are done, and items are taken one by one: a thread that the system
holds up takes fewer, and the others wait for it only while it has one. Late, it finds nothing left and catches up. */
typedef struct {
    Phase *phase;
    long mine, threads; /* mine: items of this phase that this thread has done */
} Team;

enum { PATIENCE = 1000 };

/* The next of `count` items, or a number above. */
static inline long take(Team *team, long count) {
    long item = atomic_fetch_add_explicit(&team->phase->taken, 1, memory_order_relaxed);
    team->mine += item < count;
    return item;
}

/* Returns when all `count` items are done. To be called with all that were taken done. */
static void finish_phase(Team *team, long count) {
    atomic_fetch_add_explicit(&team->phase->done, team->mine, memory_order_acq_rel);
    for (long waited = 0; atomic_load_explicit(&team->phase->done, memory_order_acquire) < count; waited++) {
        if (waited > PATIENCE)
            sched_yield(); /* another thread of the team may want this very processor */
#ifdef __x86_64__
        else
            __builtin_ia32_pause();
#endif
    }
    team->phase++;
    team->mine = 0;
}
