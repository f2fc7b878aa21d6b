/* Threads that work through a step together, phase by phase. */
#pragma once
#include <sched.h>
#include <stdatomic.h>

/* One for each thread. Items of a phase lie in as many runs as there are threads. Each thread takes its own run's one
by one, which reads on where it has read ahead, and then those that are left of the others': a thread that the system
holds up takes fewer, and the others wait for it only while it has one. */
typedef struct {
    atomic_long *phase;  /* items done, and of each run those taken; zeros before the step */
    long threads, thread; /* how many, and which this one is */
    long passed, taken;  /* of this phase: runs that are at their end, items that this thread has had */
} Team;

enum { PATIENCE = 1000 };

static inline long phase_words(long threads) { return 1 + threads; }

/* The next of `count` items, or `count`. */
static inline long take(Team *team, long count) {
    for (; team->passed < team->threads; team->passed++) {
        long run = (team->thread + team->passed) % team->threads;
        long begin = count * run / team->threads, end = count * (run + 1) / team->threads;
        atomic_long *taken = team->phase + 1 + run;
        if (begin + atomic_load_explicit(taken, memory_order_relaxed) >= end) continue; /* reading disturbs nobody */
        long item = begin + atomic_fetch_add_explicit(taken, 1, memory_order_relaxed);
        if (item < end) {
            team->taken++;
            return item;
        }
    }
    return count;
}

/* Returns when all `count` items are done, not when all threads have come: who is late finds nothing left and catches
up. To be called with all done that this thread has had. */
static void finish_phase(Team *team, long count) {
    atomic_fetch_add_explicit(team->phase, team->taken, memory_order_acq_rel);
    for (long waited = 0; atomic_load_explicit(team->phase, memory_order_acquire) < count; waited++) {
        if (waited > PATIENCE)
            sched_yield(); /* another thread of the team may want this very processor */
#ifdef __x86_64__
        else
            __builtin_ia32_pause();
#endif
    }
    team->phase += phase_words(team->threads);
    team->passed = team->taken = 0;
}
