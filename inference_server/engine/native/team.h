/* Threads that work through a step together, phase by phase. */
#pragma once
#include <sched.h>
#include <stdatomic.h>

/* One for each thread. Items of a phase are taken one by one, so a thread that the system holds up takes fewer. */
typedef struct {
    atomic_long *taken;   /* by phase, zeros before the step */
    atomic_long *arrived; /* threads at the end of a phase, all phases added up */
    long threads, phase;
} Team;

enum { PATIENCE = 20000 };

static inline long take(Team *team) { return atomic_fetch_add_explicit(team->taken + team->phase, 1, memory_order_relaxed); }

/* Ends the phase when all threads have. */
static void finish_phase(Team *team) {
    team->phase++;
    atomic_fetch_add_explicit(team->arrived, 1, memory_order_acq_rel);
    for (long waited = 0; atomic_load_explicit(team->arrived, memory_order_acquire) < team->phase * team->threads; waited++) {
        if (waited > PATIENCE)
            sched_yield(); /* another thread of the team may want this very processor */
#ifdef __x86_64__
        else
            __builtin_ia32_pause();
#endif
    }
}
