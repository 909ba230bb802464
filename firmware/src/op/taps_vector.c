/* taps.h for hosts, eight floats at a time: the additions of taps.c in the same order. */
#include "taps.h"

#include "vector.h"

/* N pieces of eight outputs of one row, first[i] the piece's place in x. */
#define PIECES(N)                                                                                                        \
    FT_INLINE void pieces_##N(v8 *out, const float *x, const float *w, const uint16_t *at, uint32_t taps, float bias,    \
                              uint32_t step, const uint32_t *first)                                                                     \
    {                                                                                                                    \
        const float *from[N];                                                                                            \
        v8 acc[N];                                                                                                       \
        for (int i = 0; i < N; i++) {                                                                                    \
            from[i] = x + first[i];                                                                                      \
            acc[i] = splat(bias);                                                                                        \
        }                                                                                                                \
        for (uint32_t k = 0; k < taps; k++) {                                                                            \
            const v8 weight = splat(w[k]);                                                                               \
            const uint32_t offset = at[k] * step;                                                                        \
            for (int i = 0; i < N; i++)                                                                                  \
                acc[i] += weight * load(from[i] + offset);                                                               \
        }                                                                                                                \
        for (int i = 0; i < N; i++)                                                                                      \
            out[i] = acc[i];                                                                                             \
    }
PIECES(8)
PIECES(4)
PIECES(2)

/* Outputs that lie closer to the input's end than eight floats. */
FT_INLINE void forward_small(float *y, const float *x, const float *w, const uint16_t *at, uint32_t taps, float bias,
                             const ft_grid *g)
{
    for (uint32_t r = 0; r < g->rows; r++)
        for (uint32_t c = 0; c < g->cols; c++) {
            float sum = bias;
            for (uint32_t k = 0; k < taps; k++)
                sum += w[k] * x[at[k] * g->step + r * g->pitch + c];
            *y++ = sum;
        }
}

/* Pieces in order of their outputs. A row's last piece may reach into the next row, whose own first one comes later; one
 * that would reach past the map begins earlier, and its first outputs are dropped. */
FT_TARGETS void ft_taps_forward(float *y, const float *x, const float *w, const uint16_t *at, uint32_t taps, float bias,
                                const ft_grid *g)
{
    const uint32_t outputs = g->rows * g->cols, run = (g->rows - 1) * g->pitch + g->cols;
    uint32_t row = 0, col = 0;
    if (run < 8) {
        forward_small(y, x, w, at, taps, bias, g);
        return;
    }
    while (row < g->rows) {
        uint32_t first[8], where[8], early[8], n = 0;
        v8 out[8];
        for (; n < 8 && row < g->rows; n++) {
            first[n] = row * g->pitch + col;
            early[n] = first[n] + 8 > run ? first[n] + 8 - run : 0;
            first[n] -= early[n];
            where[n] = row * g->cols + col;
            col += 8;
            if (col >= g->cols) {
                col = 0;
                row++;
            }
        }
        for (uint32_t i = n; i < 8; i++)
            first[i] = first[n - 1];
        if (n > 4)
            pieces_8(out, x, w, at, taps, bias, g->step, first);
        else if (n > 2)
            pieces_4(out, x, w, at, taps, bias, g->step, first);
        else
            pieces_2(out, x, w, at, taps, bias, g->step, first);
        for (uint32_t i = 0; i < n; i++) {
            if (!early[i] && where[i] + 8 <= outputs) {
                store(y + where[i], out[i]);
                continue;
            }
            float lanes[8];
            store(lanes, out[i]);
            for (uint32_t k = early[i]; k < 8 && where[i] + k - early[i] < outputs; k++)
                y[where[i] + k - early[i]] = lanes[k];
        }
    }
}

/* Eight would reach into the next row, which would then wait for the store. */
FT_INLINE void add_four(float *run, const float *dy, float w)
{
    v4 sum, from;
    memcpy(&sum, run, sizeof sum);
    memcpy(&from, dy, sizeof from);
    sum += (v4){w, w, w, w} * from;
    memcpy(run, &sum, sizeof sum);
}

FT_INLINE void spread(float *run, const float *dy, float w, const ft_grid *g)
{
    const uint32_t rest = g->cols % 8, whole = g->cols - rest;
    const v8i some = first_lanes(rest);
    const v8 weight = splat(w);
    for (uint32_t r = 0; r < g->rows; r++, dy += g->cols, run += g->pitch) {
        for (uint32_t c = 0; c < whole; c += 8)
            store(run + c, load(run + c) + weight * load(dy + c));
        if (rest > 4 && r + 1 < g->rows) {
            const v8 old = load(run + whole);
            store(run + whole, choose(some, old + weight * load(dy + whole), old));
        } else {
            uint32_t c = whole;
            if (rest >= 4) {
                add_four(run + c, dy + c, w);
                c += 4;
            }
            for (; c < g->cols; c++)
                run[c] += w * dy[c];
        }
    }
}

/* Adds N pieces' sums over the taps; wide: dy with the pitch of dx between zeros, at its first output. */
#define GATHER(N)                                                                                                        \
    FT_INLINE void gather_##N(float *run, const float *wide, const float *w, const uint16_t *at, uint32_t taps)          \
    {                                                                                                                    \
        v8 acc[N];                                                                                                       \
        for (int i = 0; i < N; i++)                                                                                      \
            acc[i] = load(run + 8 * i);                                                                                  \
        for (uint32_t k = 0; k < taps; k++) {                                                                            \
            const v8 weight = splat(w[k]);                                                                               \
            const float *from = wide - (uint32_t)(at[k] - at[0]);                                                        \
            for (int i = 0; i < N; i++)                                                                                  \
                acc[i] += weight * load(from + 8 * i);                                                                   \
        }                                                                                                                \
        for (int i = 0; i < N; i++)                                                                                      \
            store(run + 8 * i, acc[i]);                                                                                  \
    }
GATHER(8)
GATHER(1)

enum { WIDE = 1024 }; /* floats of a map that several taps of a channel gather from; larger maps are spread tap by tap */

/* On a small map, spreading the next tap of a channel would wait for the last one's stores: gather such taps together. */
FT_TARGETS void ft_taps_backward_input(float *dx, const float *dy, const float *w, const uint16_t *at, uint32_t taps,
                                       const ft_grid *g)
{
    float wide[WIDE];
    const uint32_t run = (g->rows - 1) * g->pitch + g->cols;
    const bool fits = g->reach && run + 2 * g->reach + 8 <= WIDE;
    bool filled = false;
    for (uint32_t k = 0, n; k < taps; k += n) {
        for (n = 1; fits && k + n < taps && (uint32_t)(at[k + n] - at[k]) <= g->reach;)
            n++;
        if (n == 1 || (n == 2 && run > 64)) {
            spread(dx + at[k] * g->step, dy, w[k], g);
            if (n == 2)
                spread(dx + at[k + 1], dy, w[k + 1], g);
            continue;
        }
        if (!filled) {
            memset(wide, 0, (run + 2 * g->reach + 8) * sizeof *wide);
            ft_rows_copy(wide + g->reach, g->pitch, dy, g->cols, g->rows, g->cols);
            filled = true;
        }
        float *to = dx + at[k];
        const float *from = wide + g->reach;
        uint32_t length = run + (uint32_t)(at[k + n - 1] - at[k]), i = 0;
        for (; i + 64 <= length; i += 64)
            gather_8(to + i, from + i, w + k, at + k, n);
        for (; i + 8 <= length; i += 8)
            gather_1(to + i, from + i, w + k, at + k, n);
        for (; i < length; i++)
            for (uint32_t t = 0; t < n; t++)
                to[i] += w[k + t] * *(from + i - (uint32_t)(at[k + t] - at[k]));
    }
}

/* Rows whose last columns may be loaded as eight: those behind them are too near the end of dy. */
FT_INLINE uint32_t loadable_rows(const ft_grid *g)
{
    const uint32_t behind = (g->cols / 8 * 8 + 8 + g->cols - 1) / g->cols;
    return g->rows + 1 > behind ? g->rows + 1 - behind : 0;
}

/* The last columns of the other rows. */
FT_INLINE void correlate_end(float lanes[FT_LANES], const float *dy, const float *x, const ft_grid *g, uint32_t row)
{
    const uint32_t whole = g->cols / 8 * 8;
    for (; row < g->rows; row++) {
        const float *d = dy + row * g->cols, *from = x + row * g->pitch;
        uint32_t c = whole;
        if (c + 4 <= g->cols) {
            v4 sum, a, b;
            memcpy(&sum, lanes, sizeof sum);
            memcpy(&a, d + c, sizeof a);
            memcpy(&b, from + c, sizeof b);
            sum += a * b;
            memcpy(lanes, &sum, sizeof sum);
            c += 4;
        }
        for (; c < g->cols; c++)
            lanes[c - whole] += d[c] * from[c];
    }
}

/* N taps share each load of dy. */
#define CORRELATE(N)                                                                                                     \
    FT_INLINE void correlate_##N(float *dw, const float *dy, const float *x, const uint16_t *at, const ft_grid *g)       \
    {                                                                                                                    \
        const uint32_t rest = g->cols % 8, whole = g->cols - rest, loadable = rest ? loadable_rows(g) : g->rows;         \
        const v8i some = first_lanes(rest);                                                                              \
        const float *from[N], *line = dy;                                                                                \
        v8 acc[N];                                                                                                       \
        for (int i = 0; i < N; i++) {                                                                                    \
            from[i] = x + at[i] * g->step;                                                                               \
            acc[i] = splat(0.0f);                                                                                        \
        }                                                                                                                \
        for (uint32_t r = 0; r < g->rows; r++, line += g->cols) {                                                        \
            const uint32_t row = r * g->pitch;                                                                           \
            for (uint32_t c = 0; c < whole; c += 8) {                                                                    \
                const v8 d = load(line + c);                                                                             \
                for (int i = 0; i < N; i++)                                                                              \
                    acc[i] += d * load(from[i] + row + c);                                                               \
            }                                                                                                            \
            if (rest && r < loadable) {                                                                                  \
                const v8 d = only(load(line + whole), some);                                                             \
                for (int i = 0; i < N; i++)                                                                              \
                    acc[i] += d * only(load(from[i] + row + whole), some);                                               \
            }                                                                                                            \
        }                                                                                                                \
        for (int i = 0; i < N; i++) {                                                                                    \
            float lanes[FT_LANES];                                                                                       \
            store(lanes, acc[i]);                                                                                        \
            if (loadable < g->rows) /* of rows with eights only the last: its end comes after everything */              \
                correlate_end(lanes, dy, from[i], g, loadable);                                                          \
            dw[i] += ft_lanes_total(lanes);                                                                              \
        }                                                                                                                \
    }
CORRELATE(4)
CORRELATE(1)

FT_TARGETS void ft_taps_backward_weight(float *dw, const float *dy, const float *x, const uint16_t *at, uint32_t taps,
                                        const ft_grid *g)
{
    uint32_t k = 0;
    for (; k + 4 <= taps; k += 4)
        correlate_4(dw + k, dy, x, at + k, g);
    for (; k < taps; k++)
        correlate_1(dw + k, dy, x, at + k, g);
}

FT_TARGETS void ft_lanes_sum(float lanes[FT_LANES], const float *x, uint32_t n)
{
    v8 sum = load(lanes);
    uint32_t i = 0;
    for (; i + 8 <= n; i += 8)
        sum += load(x + i);
    store(lanes, sum);
    for (uint32_t j = 0; i < n; i++, j++)
        lanes[j] += x[i];
}

FT_TARGETS void ft_lanes_squares(float lanes[FT_LANES], const float *x, float mean, uint32_t n)
{
    v8 sum = load(lanes), centre = splat(mean);
    uint32_t i = 0;
    for (; i + 8 <= n; i += 8) {
        v8 d = load(x + i) - centre;
        sum += d * d;
    }
    store(lanes, sum);
    for (uint32_t j = 0; i < n; i++, j++)
        lanes[j] += (x[i] - mean) * (x[i] - mean);
}

FT_TARGETS void ft_lanes_dot(float lanes[FT_LANES], const float *a, const float *x, float mean, uint32_t n)
{
    v8 sum = load(lanes), centre = splat(mean);
    uint32_t i = 0;
    for (; i + 8 <= n; i += 8)
        sum += load(a + i) * (load(x + i) - centre);
    store(lanes, sum);
    for (uint32_t j = 0; i < n; i++, j++)
        lanes[j] += a[i] * (x[i] - mean);
}

FT_TARGETS void ft_rows_copy(float *to, uint32_t to_pitch, const float *from, uint32_t from_pitch, uint32_t rows,
                             uint32_t cols)
{
    for (; rows; rows--, to += to_pitch, from += from_pitch) {
        uint32_t c = 0;
        for (; c + 8 <= cols; c += 8)
            store(to + c, load(from + c));
        for (; c < cols; c++)
            to[c] = from[c];
    }
}

FT_TARGETS void ft_row_move(float *to, uint32_t to_step, const float *from, uint32_t from_step, uint32_t n, bool add)
{
    for (; add && to_step == 1 && from_step == 1 && n >= 8; n -= 8, to += 8, from += 8)
        store(to, load(to) + load(from));
    for (; n; n--, to += to_step, from += from_step)
        *to = add ? *to + *from : *from;
}

void ft_zero(float *to, uint32_t n) { memset(to, 0, n * sizeof *to); }
