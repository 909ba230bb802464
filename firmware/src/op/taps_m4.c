/* taps.h for Cortex-M4, M7 and M33 with a single precision FPU: cuts each map into tiles that fit its registers and leaves
 * the loops to taps_m4.S. Built in place of taps.c, together with taps_m4.S, columns.c and dense.c. */
#include "taps.h"

/* What an inner loop works on; taps_m4.S knows the offsets. Skips and the pitch are in bytes. */
typedef struct {
    float *to;
    const float *from, *w;
    const uint16_t *at;
    uint32_t taps;
    const float *start;  /* a tile of what the accumulators start with */
    uint32_t tiles;      /* per row */
    uint32_t rows;
    uint32_t x_skip, y_skip; /* from the last tile of a row to the next row's first */
    uint32_t pitch;
} job;

typedef void loop(const job *);

loop ft_m4_forward_16, ft_m4_forward_14, ft_m4_forward_8, ft_m4_forward_4, ft_m4_forward_1, ft_m4_forward_2x8,
    ft_m4_forward_2x7, ft_m4_triples_14, ft_m4_triples_8;
loop ft_m4_spread_16, ft_m4_spread_14, ft_m4_spread_1x14, ft_m4_spread_8, ft_m4_spread_7, ft_m4_spread_4, ft_m4_spread_1;
loop ft_m4_correlate_14, ft_m4_correlate;

/* The widest tile for the next `cols` columns of a row; all of a row where one width divides it. */
static uint32_t tile_width(uint32_t cols)
{
    return cols % 16 == 0 || cols == 15 ? 16 - (cols == 15) * 2
           : cols % 14 == 0             ? 14
           : cols > 16                  ? 16
           : cols >= 14                 ? 14
           : cols >= 8                  ? 8
           : cols >= 4                  ? 4
                                        : 1;
}

static uint32_t tiles_of(uint32_t cols, uint32_t width) { return cols / width; }

void ft_taps_forward(float *y, const float *x, const float *w, const uint16_t *at, uint32_t taps, float bias,
                     const ft_grid *g)
{
    float start[16] = {bias, bias, bias, bias, bias, bias, bias, bias, bias, bias, bias, bias, bias, bias, bias, bias};
    job j = {y, x, w, at, taps, start, 1, g->rows, 0, 0, 4 * g->pitch};
    if ((g->cols == 8 || g->cols == 7) && g->rows > 1 && !g->triples) {
        j.rows = g->rows / 2;
        j.x_skip = 8 * g->pitch;
        if (g->cols == 8)
            ft_m4_forward_2x8(&j);
        else
            ft_m4_forward_2x7(&j);
        if (g->rows % 2 == 0)
            return;
        j.to = y + (g->rows - 1) * g->cols;
        j.from = x + (g->rows - 1) * g->pitch;
        j.rows = 1;
    }
    float *row = j.to;
    const float *source = j.from;
    for (uint32_t done = 0; done < g->cols;) {
        uint32_t left = g->cols - done, width = g->triples && left >= 8 ? (left >= 14 ? 14 : 8) : tile_width(left);
        j.tiles = tiles_of(left, width);
        uint32_t covered = j.tiles * width;
        j.to = row + done;
        j.from = source + done;
        j.x_skip = 4 * (g->pitch - covered);
        j.y_skip = 4 * (g->cols - covered);
        if (g->triples && left >= 8) {
            j.taps = taps / 3;
            (width == 14 ? ft_m4_triples_14 : ft_m4_triples_8)(&j);
            j.taps = taps;
        } else {
            (width == 16   ? ft_m4_forward_16
             : width == 14 ? ft_m4_forward_14
             : width == 8  ? ft_m4_forward_8
             : width == 4  ? ft_m4_forward_4
                           : ft_m4_forward_1)(&j);
        }
        done += covered;
    }
}

void ft_taps_backward_input(float *dx, const float *dy, const float *w, const uint16_t *at, uint32_t taps,
                            const ft_grid *g)
{
    uint32_t width = g->cols == 7 ? 7 : tile_width(g->cols), tiles = g->cols / width;
    bool whole = tiles * width == g->cols && (tiles == 1 || width >= 14); /* one loop covers a row */
    job j = {dx, dy, w, at, taps, 0, tiles, g->rows, 4 * (g->pitch - g->cols), 0, 0};
    if (!taps)
        return;
    if (whole) {
        (width == 16   ? ft_m4_spread_16
         : width == 14 ? (tiles == 1 ? ft_m4_spread_1x14 : ft_m4_spread_14)
         : width == 8  ? ft_m4_spread_8
         : width == 7  ? ft_m4_spread_7
         : width == 4  ? ft_m4_spread_4
                       : ft_m4_spread_1)(&j);
        return;
    }
    /* several loops a row: tap by tap, so that every sum keeps the order of the list */
    j.taps = 1;
    for (uint32_t k = 0; k < taps; k++, j.w++, j.at++)
        for (uint32_t done = 0; done < g->cols;) {
            uint32_t left = g->cols - done;
            width = tile_width(left);
            j.tiles = width >= 14 ? left / width : 1;
            uint32_t covered = j.tiles * width;
            j.to = dx + done;
            j.from = dy + done;
            j.x_skip = 4 * (g->pitch - covered);
            j.y_skip = 4 * (g->cols - covered);
            (width == 16   ? ft_m4_spread_16
             : width == 14 ? ft_m4_spread_14
             : width == 8  ? ft_m4_spread_8
             : width == 4  ? ft_m4_spread_4
                           : ft_m4_spread_1)(&j);
            done += covered;
        }
}

void ft_taps_backward_weight(float *dw, const float *dy, const float *x, const uint16_t *at, uint32_t taps,
                             const ft_grid *g)
{
    job j = {.to = dw, .from = dy, .w = x, .at = at, .taps = taps, .tiles = g->cols / 8, .rows = g->rows,
             .x_skip = 4 * (g->pitch - g->cols), .y_skip = g->cols % 8};
    (g->cols == 14 ? ft_m4_correlate_14 : ft_m4_correlate)(&j);
}

static inline float lanes_term_square(float x, float mean) { return (x - mean) * (x - mean); }

void ft_lanes_squares(float lanes[FT_LANES], const float *x, float mean, uint32_t n)
{
    float l0 = lanes[0], l1 = lanes[1], l2 = lanes[2], l3 = lanes[3], l4 = lanes[4], l5 = lanes[5], l6 = lanes[6],
          l7 = lanes[7];
    uint32_t i = 0;
    for (; i + 8 <= n; i += 8, x += 8) {
        l0 += lanes_term_square(x[0], mean);
        l1 += lanes_term_square(x[1], mean);
        l2 += lanes_term_square(x[2], mean);
        l3 += lanes_term_square(x[3], mean);
        l4 += lanes_term_square(x[4], mean);
        l5 += lanes_term_square(x[5], mean);
        l6 += lanes_term_square(x[6], mean);
        l7 += lanes_term_square(x[7], mean);
    }
    lanes[0] = l0, lanes[1] = l1, lanes[2] = l2, lanes[3] = l3, lanes[4] = l4, lanes[5] = l5, lanes[6] = l6, lanes[7] = l7;
    for (uint32_t j = 0; i < n; i++, j++)
        lanes[j] += lanes_term_square(*x++, mean);
}

void ft_lanes_dot(float lanes[FT_LANES], const float *a, const float *x, float mean, uint32_t n)
{
    float l0 = lanes[0], l1 = lanes[1], l2 = lanes[2], l3 = lanes[3], l4 = lanes[4], l5 = lanes[5], l6 = lanes[6],
          l7 = lanes[7];
    uint32_t i = 0;
    for (; i + 8 <= n; i += 8, x += 8, a += 8) {
        l0 += a[0] * (x[0] - mean);
        l1 += a[1] * (x[1] - mean);
        l2 += a[2] * (x[2] - mean);
        l3 += a[3] * (x[3] - mean);
        l4 += a[4] * (x[4] - mean);
        l5 += a[5] * (x[5] - mean);
        l6 += a[6] * (x[6] - mean);
        l7 += a[7] * (x[7] - mean);
    }
    lanes[0] = l0, lanes[1] = l1, lanes[2] = l2, lanes[3] = l3, lanes[4] = l4, lanes[5] = l5, lanes[6] = l6, lanes[7] = l7;
    for (uint32_t j = 0; i < n; i++, j++)
        lanes[j] += *a++ * (*x++ - mean);
}

void ft_rows_add(float *to, uint32_t to_pitch, const float *from, uint32_t from_pitch, uint32_t rows, uint32_t cols)
{
    for (uint32_t r = 0; r < rows; r++)
        for (uint32_t c = 0; c < cols; c++)
            to[r * to_pitch + c] += from[r * from_pitch + c];
}
