/* Weights as checkpoints have them, into panels. */
#pragma once
#include "tile.h"

enum { PAIRS_OF_A_LINE = 16 };

/* weight: [rows][inputs] bfloat16. Runs of `run` rows become columns beside each other, the first from column `begin`
on, each next one in the next panel. panels: of all columns. */
void pack_rows(const uint16_t *weight, long rows, long inputs, uint32_t *panels, long begin, long run) {
    long pairs = inputs / 2;
    uint32_t lines[PANEL][PAIRS_OF_A_LINE];
    for (long row = 0; row < rows; row += run) {
        long columns = rows - row < run ? rows - row : run;
        uint32_t *panel = panels + (begin / PANEL + row / run) * pairs * PANEL + begin % PANEL;
        for (long first = 0; first < pairs; first += PAIRS_OF_A_LINE) {
            long count = pairs - first < PAIRS_OF_A_LINE ? pairs - first : PAIRS_OF_A_LINE;
            for (long i = 0; i < columns; i++)
                memcpy(lines[i], weight + (row + i) * inputs + 2 * first, count * sizeof **lines);
            for (long pair = 0; pair < count; pair++)
                for (long i = 0; i < columns; i++) panel[(first + pair) * PANEL + i] = lines[i][pair];
        }
    }
}
