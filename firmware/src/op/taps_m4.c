/* taps.h for Cortex-M4, M7 and M33 with a single precision FPU: cuts each map into tiles that fit its registers and leaves
 * the loops to taps_m4.S. Built in place of taps.c, together with taps_m4.S. */
#include "taps.h"

/* Bytes from place to place in the input and in the output. */
typedef struct {
    uint32_t x, y;
} bytes;

/* What an inner loop works on; taps_m4.S knows the offsets. */
typedef struct {
    float *to;
    const float *from, *w;
    const uint16_t *at;
    uint32_t taps;
    float bias;         /* forward */
    uint32_t stride;    /* of a position */
    uint32_t tiles;     /* per row */
    uint32_t rows;
    bytes step, skip;   /* behind a tile, behind a row */
    bytes run;          /* forward: from a tile's first run of outputs to its second */
    uint32_t rest;      /* backward: columns behind the tiles, or the width of tiles that are not of 8 */
} job;

typedef void loop(const job *);
loop ft_m4_forward_8, ft_m4_forward_4, ft_m4_triples_14, ft_m4_spread, ft_m4_correlate;

/* Rows that follow each other without a gap are one row. */
static void join(ft_grid *g)
{
    if (g->pitch == g->cols) {
        g->cols *= g->rows;
        g->rows = 1;
    }
}

static void forward_narrow(float *y, const float *x, const float *w, const uint16_t *at, uint32_t taps, float bias,
                           const ft_grid *g)
{
    for (uint32_t r = 0; r < g->rows; r++, x += g->pitch)
        for (uint32_t c = 0; c < g->cols; c++) {
            const float *run = x + c, *weight = w;
            float sum = bias;
            for (const uint16_t *tap = at; tap < at + taps; tap++)
                sum += *weight++ * run[*tap * g->step];
            *y++ = sum;
        }
}

/* Tiles are two runs side by side, or of two rows, or of one row and overlapping. What is left over at the end of a row or of
 * the map gets a tile that begins earlier: an output that is made twice is made the same twice. */
void ft_taps_forward(float *y, const float *x, const float *w, const uint16_t *at, uint32_t taps, float bias,
                     const ft_grid *given)
{
    ft_grid g = *given;
    join(&g);
    job j = {.to = y, .from = x, .w = w, .at = at, .taps = taps, .bias = bias, .stride = 4 * g.step, .rows = g.rows};
    if (g.cols < 4 || !taps) {
        forward_narrow(y, x, w, at, taps, bias, &g);
        return;
    }
    if (g.triples && g.cols % 14 == 0) {
        j.taps = taps / 3;
        j.tiles = g.cols / 14;
        j.skip.x = 4 * (g.pitch - g.cols);
        ft_m4_triples_14(&j);
        return;
    }
    uint32_t n = g.cols > 8 || (g.cols == 8 && g.rows > 1) ? 8 : 4, tiles, left = 0, column = 0, row = 0;
    if (g.cols >= 16) {
        tiles = g.cols / 16;
        left = g.cols % 16;
        column = g.cols - 16;
        j.run = (bytes){32, 32};
        j.step = (bytes){64, 32};
    } else {
        bool pairs = g.cols == n && g.rows > 1;
        tiles = pairs ? g.rows / 2 : g.rows;
        left = pairs ? g.rows % 2 : 0;
        row = g.rows - 2;
        j.rows = 1;
        j.run.x = 4 * (pairs ? g.pitch : g.cols - n);
        j.run.y = 4 * (pairs ? g.cols : g.cols - n);
        j.step = (bytes){4 * g.pitch * (pairs ? 2 : 1), 4 * n};
    }
    for (;;) {
        j.tiles = tiles;
        j.skip = (bytes){4 * (g.pitch - 16 * tiles), 4 * (g.cols - 16 * tiles)};
        (n == 8 ? ft_m4_forward_8 : ft_m4_forward_4)(&j);
        if (!left)
            return;
        left = 0;
        tiles = 1;
        j.to += row * g.cols + column;
        j.from += row * g.pitch + column;
    }
}

/* Tiles of a backward walk; a row of one tile makes the rows tiles. */
static void cut(job *j, const ft_grid *g, uint32_t width)
{
    uint32_t gap = 4 * (g->pitch - g->cols);
    j->tiles = g->cols / width;
    j->rows = g->rows;
    j->rest = width == 8 ? g->cols % 8 : width;
    j->skip.x = gap;
    if (g->cols == width) {
        j->tiles = g->rows;
        j->rows = 1;
        j->step.x = gap;
    }
}

void ft_taps_backward_input(float *dx, const float *dy, const float *w, const uint16_t *at, uint32_t taps,
                            const ft_grid *given)
{
    ft_grid g = *given;
    join(&g);
    job j = {.to = dx, .from = dy, .w = w, .at = at, .taps = taps, .stride = 4 * g.step};
    cut(&j, &g, g.cols % 14 == 0 ? 14 : 8);
    if (taps)
        ft_m4_spread(&j);
}

void ft_taps_backward_weight(float *dw, const float *dy, const float *x, const uint16_t *at, uint32_t taps,
                             const ft_grid *g)
{
    job j = {.to = dw, .from = dy, .w = x, .at = at, .taps = taps, .stride = 4 * g->step, .tiles = g->cols / 8,
             .rows = g->rows, .rest = g->cols % 8, .skip = {4 * (g->pitch - g->cols / 8 * 8), 0}};
    if (taps)
        ft_m4_correlate(&j);
}

void ft_row_move(float *to, uint32_t to_step, const float *from, uint32_t from_step, uint32_t n, bool add)
{
    if (add)
        for (; n; n--, to += to_step, from += from_step)
            *to += *from;
    for (; n; n--, to += to_step, from += from_step)
        *to = *from;
}
