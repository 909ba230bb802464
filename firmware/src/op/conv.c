#include "conv.h"

#include <string.h>

#include "taps.h"

static uint32_t smaller(uint32_t a, uint32_t b) { return a < b ? a : b; }

void ft_conv_derive(ft_conv *c)
{
    c->ph = smaller(c->sh, c->kh);
    c->pw = smaller(c->sw, c->kw);
    c->hq = c->ho + (c->kh - 1) / c->sh;
    c->wq = c->wo + (c->kw - 1) / c->sw;
    c->plane = c->ph * c->pw * c->hq * c->wq;
    c->flat = (c->ho - 1) * c->wq + c->wo;
    c->row_len = c->ci / c->groups * c->kh * c->kw;
    c->direct = c->sh == 1 && c->sw == 1 && c->pt == 0 && c->pl == 0 && c->hq == c->h && c->wq == c->w;
}

uint32_t ft_conv_position(const ft_conv *c, uint32_t element)
{
    uint32_t kx = element % c->kw, ky = element / c->kw % c->kh, ic = element / (c->kw * c->kh);
    uint32_t phase = ky % c->sh * c->pw + kx % c->sw;
    return ic * c->plane + (phase * c->hq + ky / c->sh) * c->wq + kx / c->sw;
}

uint32_t ft_conv_scratch(const ft_conv *c)
{
    return (c->direct ? 0 : c->ci * c->plane) + c->flat + FT_TAPS_SLACK;
}

/* A half-open range of rows or columns. */
typedef struct {
    uint32_t begin, end;
} span;

/* The q in [0, count) for which 0 <= q * stride + offset - pad < size. */
static span covered(uint32_t count, uint32_t stride, uint32_t offset, uint32_t pad, uint32_t size)
{
    span s;
    s.begin = offset >= pad ? 0 : smaller((pad - offset + stride - 1) / stride, count);
    s.end = size + pad > offset ? smaller((size + pad - offset + stride - 1) / stride, count) : 0;
    if (s.end < s.begin)
        s.end = s.begin;
    return s;
}

/* One sample (CI, H, W) into phase planes with a zero border. */
static void pad_sample(float *padded, const float *x, const ft_conv *c)
{
    for (uint32_t ic = 0; ic < c->ci; ic++, x += c->h * c->w)
        for (uint32_t a = 0; a < c->ph; a++)
            for (uint32_t b = 0; b < c->pw; b++) {
                span rows = covered(c->hq, c->sh, a, c->pt, c->h), cols = covered(c->wq, c->sw, b, c->pl, c->w);
                for (uint32_t r = 0; r < c->hq; r++, padded += c->wq) {
                    if (r < rows.begin || r >= rows.end) {
                        memset(padded, 0, c->wq * sizeof *padded);
                        continue;
                    }
                    const float *line = x + (r * c->sh + a - c->pt) * c->w;
                    memset(padded, 0, cols.begin * sizeof *padded);
                    memset(padded + cols.end, 0, (c->wq - cols.end) * sizeof *padded);
                    if (c->sw == 1)
                        memcpy(padded + cols.begin, line + cols.begin + b - c->pl,
                               (cols.end - cols.begin) * sizeof *padded);
                    else
                        for (uint32_t q = cols.begin; q < cols.end; q++)
                            padded[q] = line[q * c->sw + b - c->pl];
                }
            }
}

/* The reverse of pad_sample: dx += what lies at each input position; border and unused columns are dropped. */
static void add_unpadded(float *dx, const float *padded, const ft_conv *c)
{
    for (uint32_t ic = 0; ic < c->ci; ic++, dx += c->h * c->w)
        for (uint32_t a = 0; a < c->ph; a++)
            for (uint32_t b = 0; b < c->pw; b++) {
                span rows = covered(c->hq, c->sh, a, c->pt, c->h), cols = covered(c->wq, c->sw, b, c->pl, c->w);
                for (uint32_t r = 0; r < c->hq; r++, padded += c->wq) {
                    if (r < rows.begin || r >= rows.end)
                        continue;
                    float *line = dx + (r * c->sh + a - c->pt) * c->w;
                    for (uint32_t q = cols.begin; q < cols.end; q++)
                        line[q * c->sw + b - c->pl] += padded[q];
                }
            }
}

/* One channel of dy (HO, WO) with the pitch of the padded input, zeros where rows end. */
static const float *spread_rows(float *run, const float *dy, const ft_conv *c)
{
    if (c->wq == c->wo)
        return dy;
    for (uint32_t r = 0; r < c->ho; r++) {
        memcpy(run + r * c->wq, dy + r * c->wo, c->wo * sizeof *run);
        if (r + 1 < c->ho)
            memset(run + r * c->wq + c->wo, 0, (c->wq - c->wo) * sizeof *run);
    }
    return run;
}

/* A walk over the rows of a layer. */
typedef struct {
    const float *values;
    const uint16_t *at;
    uint32_t count;
} row_of;

static row_of first_row(const ft_taps *taps, uint32_t row_len)
{
    row_of r = {taps->values, taps->at, taps->counts ? taps->counts[0] : row_len};
    return r;
}

static void next_row(row_of *r, const ft_taps *taps, uint32_t row, uint32_t rows)
{
    if (r->values)
        r->values += r->count;
    if (taps->counts) {
        r->at += r->count;
        r->count = row < rows ? taps->counts[row] : 0;
    }
}

static uint32_t group_base(const ft_conv *c, uint32_t oc)
{
    return c->groups == 1 ? 0 : oc / (c->co / c->groups) * (c->ci / c->groups) * c->plane;
}

void ft_conv_forward(float *y, const float *x, const ft_taps *taps, const float *bias, const ft_conv *c, uint32_t batch,
                     float *scratch)
{
    float *run = scratch, *padded = scratch + c->flat;
    for (uint32_t b = 0; b < batch; b++, x += c->ci * c->h * c->w) {
        const float *source = x;
        if (!c->direct) {
            pad_sample(padded, x, c);
            source = padded;
        }
        row_of r = first_row(taps, c->row_len);
        for (uint32_t oc = 0; oc < c->co; oc++, y += c->ho * c->wo) {
            bool whole = c->wq == c->wo;
            ft_taps_forward(whole ? y : run, source + group_base(c, oc), r.values, r.at, r.count, 1,
                            bias ? bias[oc] : 0.0f, c->flat);
            if (!whole)
                for (uint32_t row = 0; row < c->ho; row++)
                    memcpy(y + row * c->wo, run + row * c->wq, c->wo * sizeof *y);
            next_row(&r, taps, oc + 1, c->co);
        }
    }
}

void ft_conv_backward_input(float *dx, const float *dy, const ft_taps *taps, const ft_conv *c, uint32_t batch,
                            float *scratch, bool accumulate)
{
    float *run = scratch, *padded = scratch + c->flat;
    uint32_t sample = c->ci * c->h * c->w;
    if (!accumulate)
        memset(dx, 0, batch * sample * sizeof *dx);
    for (uint32_t b = 0; b < batch; b++, dx += sample) {
        float *target = dx;
        if (!c->direct) {
            memset(padded, 0, c->ci * c->plane * sizeof *padded);
            target = padded;
        }
        row_of r = first_row(taps, c->row_len);
        for (uint32_t oc = 0; oc < c->co; oc++, dy += c->ho * c->wo) {
            if (r.count)
                ft_taps_backward_input(target + group_base(c, oc), spread_rows(run, dy, c), r.values, r.at, r.count, 1,
                                       c->flat);
            next_row(&r, taps, oc + 1, c->co);
        }
        if (!c->direct)
            add_unpadded(dx, padded, c);
    }
}

void ft_conv_backward_weight(float *dw, const float *dy, const float *x, const ft_taps *taps, const ft_conv *c,
                             uint32_t batch, float *scratch, uint32_t row, uint32_t rows)
{
    float *run = scratch, *padded = scratch + c->flat;
    uint32_t pixels = c->ho * c->wo;
    for (uint32_t b = 0; b < batch; b++, x += c->ci * c->h * c->w, dy += c->co * pixels) {
        const float *source = x;
        if (!c->direct) {
            pad_sample(padded, x, c);
            source = padded;
        }
        row_of r = first_row(taps, c->row_len);
        float *target = dw;
        for (uint32_t oc = 0; oc < row + rows; oc++) {
            if (oc >= row && r.count) {
                ft_taps_backward_weight(target, spread_rows(run, dy + oc * pixels, c), source + group_base(c, oc), r.at,
                                        r.count, 1, c->flat);
                target += r.count;
            }
            next_row(&r, taps, oc + 1, c->co);
        }
    }
}

void ft_conv_backward_bias(float *dbias, const float *dy, uint32_t channels, uint32_t pixels, uint32_t batch)
{
    for (uint32_t ch = 0; ch < channels; ch++) {
        float lanes[FT_LANES] = {0};
        for (uint32_t b = 0; b < batch; b++)
            ft_lanes_sum(lanes, dy + (b * channels + ch) * pixels, pixels);
        dbias[ch] += ft_lanes_total(lanes);
    }
}

/* (B, N) -> (N, B): samples side by side, so that one weight meets a run of them. */
static void interleave(float *out, const float *in, uint32_t n, uint32_t batch)
{
    for (uint32_t b = 0; b < batch; b++)
        for (uint32_t i = 0; i < n; i++)
            out[i * batch + b] = in[b * n + i];
}

uint32_t ft_linear_scratch(uint32_t ci, uint32_t batch) { return (ci + 1) * batch + FT_TAPS_SLACK; }

void ft_linear_forward(float *y, const float *x, const ft_taps *taps, const float *bias, uint32_t ci, uint32_t co,
                       uint32_t batch, float *scratch)
{
    float *run = scratch, *columns = scratch + batch;
    interleave(columns, x, ci, batch);
    row_of r = first_row(taps, ci);
    for (uint32_t o = 0; o < co; o++) {
        ft_taps_forward(run, columns, r.values, r.at, r.count, batch, bias ? bias[o] : 0.0f, batch);
        for (uint32_t b = 0; b < batch; b++)
            y[b * co + o] = run[b];
        next_row(&r, taps, o + 1, co);
    }
}

void ft_linear_backward_input(float *dx, const float *dy, const ft_taps *taps, uint32_t ci, uint32_t co, uint32_t batch,
                              float *scratch, bool accumulate)
{
    float *run = scratch, *columns = scratch + batch;
    memset(columns, 0, ci * batch * sizeof *columns);
    row_of r = first_row(taps, ci);
    for (uint32_t o = 0; o < co; o++) {
        for (uint32_t b = 0; b < batch; b++)
            run[b] = dy[b * co + o];
        ft_taps_backward_input(columns, run, r.values, r.at, r.count, batch, batch);
        next_row(&r, taps, o + 1, co);
    }
    for (uint32_t b = 0; b < batch; b++)
        for (uint32_t i = 0; i < ci; i++)
            dx[b * ci + i] = accumulate ? dx[b * ci + i] + columns[i * batch + b] : columns[i * batch + b];
}

void ft_linear_backward_weight(float *dw, const float *dy, const float *x, const ft_taps *taps, uint32_t ci, uint32_t co,
                               uint32_t batch, float *scratch, uint32_t row, uint32_t rows)
{
    float *run = scratch, *columns = scratch + batch;
    interleave(columns, x, ci, batch);
    row_of r = first_row(taps, ci);
    for (uint32_t o = 0; o < row + rows; o++) {
        if (o >= row) {
            for (uint32_t b = 0; b < batch; b++)
                run[b] = dy[b * co + o];
            ft_taps_backward_weight(dw, run, columns, r.at, r.count, batch, batch);
            dw += r.count;
        }
        next_row(&r, taps, o + 1, co);
    }
}
