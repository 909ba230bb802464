/* taps.h for hosts, eight floats at a time: the additions of taps.c in the same order. */
#include "taps.h"

#include "vector.h"

/* N pieces of eight outputs of one row, first[i] the piece's place in x. */
#define PIECES(N)                                                                                                        \
    FT_INLINE void pieces_##N(v8 *out, const float *x, const float *w, const uint16_t *at, uint32_t taps, float bias,    \
                              const uint32_t *first)                                                                     \
    {                                                                                                                    \
        const float *from[N];                                                                                            \
        v8 acc[N];                                                                                                       \
        for (int i = 0; i < N; i++) {                                                                                    \
            from[i] = x + first[i];                                                                                      \
            acc[i] = splat(bias);                                                                                        \
        }                                                                                                                \
        for (uint32_t k = 0; k < taps; k++) {                                                                            \
            const v8 weight = splat(w[k]);                                                                               \
            const uint32_t offset = at[k];                                                                               \
            for (int i = 0; i < N; i++)                                                                                  \
                acc[i] += weight * load(from[i] + offset);                                                               \
        }                                                                                                                \
        for (int i = 0; i < N; i++)                                                                                      \
            out[i] = acc[i];                                                                                             \
    }
PIECES(8)
PIECES(4)
PIECES(2)

/* Pieces in order of their outputs. A row's last piece may reach into the next row, whose own first one comes later. */
FT_TARGETS void ft_taps_forward(float *y, const float *x, const float *w, const uint16_t *at, uint32_t taps, float bias,
                                const ft_grid *g)
{
    uint32_t outputs = g->rows * g->cols, row = 0, col = 0;
    while (row < g->rows) {
        uint32_t first[8], where[8], n = 0;
        v8 out[8];
        for (; n < 8 && row < g->rows; n++) {
            first[n] = row * g->pitch + col;
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
            pieces_8(out, x, w, at, taps, bias, first);
        else if (n > 2)
            pieces_4(out, x, w, at, taps, bias, first);
        else
            pieces_2(out, x, w, at, taps, bias, first);
        for (uint32_t i = 0; i < n; i++) {
            if (where[i] + 8 <= outputs)
                store(y + where[i], out[i]);
            else
                memcpy(y + where[i], &out[i], (outputs - where[i]) * sizeof *y);
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
        if (rest > 4) {
            const v8 old = load(run + whole);
            store(run + whole, choose(some, old + weight * load(dy + whole), old));
        } else if (rest == 4) {
            add_four(run + whole, dy + whole, w);
        } else {
            for (uint32_t c = whole; c < g->cols; c++)
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
            spread(dx + at[k], dy, w[k], g);
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

/* N taps share each load of dy. */
#define CORRELATE(N)                                                                                                     \
    FT_INLINE void correlate_##N(float *dw, const float *dy, const float *x, const uint16_t *at, const ft_grid *g)       \
    {                                                                                                                    \
        const uint32_t rest = g->cols % 8, whole = g->cols - rest;                                                       \
        const v8i some = first_lanes(rest);                                                                              \
        const float *from[N];                                                                                            \
        v8 acc[N];                                                                                                       \
        for (int i = 0; i < N; i++) {                                                                                    \
            from[i] = x + at[i];                                                                                         \
            acc[i] = splat(0.0f);                                                                                        \
        }                                                                                                                \
        for (uint32_t r = 0; r < g->rows; r++, dy += g->cols) {                                                          \
            const uint32_t row = r * g->pitch;                                                                           \
            for (uint32_t c = 0; c < whole; c += 8) {                                                                    \
                const v8 d = load(dy + c);                                                                               \
                for (int i = 0; i < N; i++)                                                                              \
                    acc[i] += d * load(from[i] + row + c);                                                               \
            }                                                                                                            \
            if (rest) {                                                                                                  \
                const v8 d = only(load(dy + whole), some);                                                               \
                for (int i = 0; i < N; i++)                                                                              \
                    acc[i] += d * only(load(from[i] + row + whole), some);                                               \
            }                                                                                                            \
        }                                                                                                                \
        for (int i = 0; i < N; i++) {                                                                                    \
            float lanes[FT_LANES];                                                                                       \
            store(lanes, acc[i]);                                                                                        \
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

FT_TARGETS void ft_rows_add(float *to, uint32_t to_pitch, const float *from, uint32_t from_pitch, uint32_t rows,
                            uint32_t cols)
{
    for (; rows; rows--, to += to_pitch, from += from_pitch) {
        uint32_t c = 0;
        for (; c + 8 <= cols; c += 8)
            store(to + c, load(to + c) + load(from + c));
        for (; c < cols; c++)
            to[c] += from[c];
    }
}

void ft_zero(float *to, uint32_t n) { memset(to, 0, n * sizeof *to); }
