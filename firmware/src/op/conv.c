#include "conv.h"

#include "taps.h"

static uint32_t smaller(uint32_t a, uint32_t b) { return a < b ? a : b; }

void ft_conv_derive(ft_conv *c)
{
    c->ph = smaller(c->sh, c->kh);
    c->pw = smaller(c->sw, c->kw);
    c->hq = c->ho + (c->kh - 1) / c->sh;
    c->wq = c->wo + (c->kw - 1) / c->sw;
    c->plane = c->ph * c->pw * c->hq * c->wq;
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
    return c->direct ? 0 : c->ci * c->plane;
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

/* Where the inputs of one stride phase lie: the first, and how far from one to the next. */
typedef struct {
    uint32_t first, column, row, channel;
} layout;

typedef enum { PAD, UNPAD, UNPAD_ADD } movement;

/* One sample (CI, H, W) into phase planes, or the reverse: dx (+)= what lies at each input position. Neither touches the
 * border, nor columns that no input has. */
static void move_sample(float *to, const float *from, const ft_conv *c, movement how)
{
    for (uint32_t phase = 0; phase < c->ph * c->pw; phase++) {
        uint32_t a = phase / c->pw, b = phase % c->pw;
        span rows = covered(c->hq, c->sh, a, c->pt, c->h), cols = covered(c->wq, c->sw, b, c->pl, c->w);
        uint32_t height = rows.end - rows.begin, width = cols.end - cols.begin;
        layout map = {(rows.begin * c->sh + a - c->pt) * c->w + cols.begin * c->sw + b - c->pl, c->sw, c->sh * c->w,
                      c->h * c->w};
        layout planes = {(phase * c->hq + rows.begin) * c->wq + cols.begin, 1, c->wq, c->plane};
        layout there = how == PAD ? planes : map, here = how == PAD ? map : planes;
        for (uint32_t ic = 0; height && width && ic < c->ci; ic++) {
            float *out = to + there.first + ic * there.channel;
            const float *in = from + here.first + ic * here.channel;
            if (c->sw == 1 && how != UNPAD_ADD) {
                ft_rows_copy(out, there.row, in, here.row, height, width);
                continue;
            }
            for (uint32_t r = 0; r < height; r++)
                ft_row_move(out + r * there.row, there.column, in + r * here.row, here.column, width, how == UNPAD_ADD);
        }
    }
}

static void pad_sample(float *padded, const float *x, const ft_conv *c)
{
    ft_zero(padded, c->ci * c->plane);
    move_sample(padded, x, c, PAD);
}

ft_conv_row ft_conv_first_row(const ft_taps *taps, uint32_t row_len)
{
    ft_conv_row r = {taps->values, taps->at, taps->counts ? taps->counts[0] : row_len};
    return r;
}

void ft_conv_next_row(ft_conv_row *row, const ft_taps *taps, uint32_t next, uint32_t rows)
{
    if (row->values)
        row->values += row->count;
    if (taps->counts) {
        row->at += row->count;
        row->count = next < rows ? taps->counts[next] : 0;
    }
}

static uint32_t group_base(const ft_conv *c, uint32_t oc)
{
    return c->groups == 1 ? 0 : oc / (c->co / c->groups) * (c->ci / c->groups) * c->plane;
}

static ft_grid grid_of(const ft_conv *c, const ft_taps *taps)
{
    bool plain = c->sh == 1 && c->sw == 1 && !c->direct;
    ft_grid g = {c->ho, c->wo, c->wq, 1, !taps->counts && c->kw == 3 && c->sw == 1,
                 plain ? (c->kh - 1) * c->wq + c->kw - 1 : 0};
    return g;
}

void ft_conv_forward(float *y, const float *x, const ft_taps *taps, const float *bias, const ft_conv *c, uint32_t batch,
                     float *scratch)
{
    ft_grid grid = grid_of(c, taps);
    for (uint32_t b = 0; b < batch; b++, x += c->ci * c->h * c->w) {
        const float *source = x;
        if (!c->direct) {
            pad_sample(scratch, x, c);
            source = scratch;
        }
        ft_conv_row r = ft_conv_first_row(taps, c->row_len);
        for (uint32_t oc = 0; oc < c->co; oc++, y += c->ho * c->wo) {
            ft_taps_forward(y, source + group_base(c, oc), r.values, r.at, r.count, bias ? bias[oc] : 0.0f, &grid);
            ft_conv_next_row(&r, taps, oc + 1, c->co);
        }
    }
}

void ft_conv_backward_input(float *dx, const float *dy, const ft_taps *taps, const ft_conv *c, uint32_t batch,
                            float *scratch, bool accumulate)
{
    ft_grid grid = grid_of(c, taps);
    uint32_t sample = c->ci * c->h * c->w;
    /* a stride larger than the kernel or than what is left at the end leaves inputs that the planes lack */
    bool covers = !c->direct && c->ph == c->sh && c->pw == c->sw && c->hq * c->sh >= c->h + c->pt
                  && c->wq * c->sw >= c->w + c->pl;
    if (!accumulate && !covers)
        ft_zero(dx, batch * sample);
    for (uint32_t b = 0; b < batch; b++, dx += sample) {
        float *target = c->direct ? dx : scratch;
        if (!c->direct)
            ft_zero(scratch, c->ci * c->plane);
        ft_conv_row r = ft_conv_first_row(taps, c->row_len);
        for (uint32_t oc = 0; oc < c->co; oc++, dy += c->ho * c->wo) {
            if (r.count)
                ft_taps_backward_input(target + group_base(c, oc), dy, r.values, r.at, r.count, &grid);
            ft_conv_next_row(&r, taps, oc + 1, c->co);
        }
        if (!c->direct)
            move_sample(dx, scratch, c, accumulate || !covers ? UNPAD_ADD : UNPAD);
    }
}

void ft_conv_backward_weight(float *dw, const float *dy, const float *x, const ft_taps *taps, const ft_conv *c,
                             uint32_t batch, float *scratch, uint32_t row, uint32_t rows)
{
    ft_grid grid = grid_of(c, taps);
    uint32_t pixels = c->ho * c->wo;
    for (uint32_t b = 0; b < batch; b++, x += c->ci * c->h * c->w, dy += c->co * pixels) {
        const float *source = x;
        if (!c->direct) {
            pad_sample(scratch, x, c);
            source = scratch;
        }
        ft_conv_row r = ft_conv_first_row(taps, c->row_len);
        float *target = dw;
        for (uint32_t oc = 0; oc < row + rows; oc++) {
            if (oc >= row && r.count) {
                ft_taps_backward_weight(target, dy + oc * pixels, source + group_base(c, oc), r.at, r.count, &grid);
                target += r.count;
            }
            ft_conv_next_row(&r, taps, oc + 1, c->co);
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

/* A batch lies side by side, (N, B), so that one weight meets a run of samples; one sample lies so anyway. */
static const float *side_by_side(float *out, const float *in, uint32_t n, uint32_t batch)
{
    if (batch == 1)
        return in;
    for (uint32_t b = 0; b < batch; b++)
        for (uint32_t i = 0; i < n; i++)
            out[i * batch + b] = *in++;
    return out;
}

/* One output of every sample, behind the inputs in scratch. */
static const float *gradient_of(float *scratch, const float *dy, uint32_t ci, uint32_t co, uint32_t batch)
{
    if (batch == 1)
        return dy;
    float *run = scratch + ci * batch;
    for (uint32_t b = 0; b < batch; b++)
        run[b] = dy[b * co];
    return run;
}

static ft_grid row_of_samples(uint32_t batch)
{
    ft_grid g = {.rows = 1, .cols = batch, .pitch = batch, .step = batch};
    return g;
}

uint32_t ft_linear_scratch(uint32_t ci, uint32_t batch, bool accumulate)
{
    return batch > 1 ? (ci + 1) * batch : accumulate ? ci : 0;
}

void ft_linear_forward(float *y, const float *x, const ft_taps *taps, const float *bias, uint32_t ci, uint32_t co,
                       uint32_t batch, float *scratch)
{
    if (batch == 1 && !taps->counts) {
        ft_dense_forward(y, x, taps->values, bias, ci, co);
        return;
    }
    ft_grid grid = row_of_samples(batch);
    ft_conv_row r = ft_conv_first_row(taps, ci);
    x = side_by_side(scratch, x, ci, batch);
    for (uint32_t o = 0; o < co; o++) {
        float *run = batch > 1 ? scratch + ci * batch : y + o;
        ft_taps_forward(run, x, r.values, r.at, r.count, bias ? bias[o] : 0.0f, &grid);
        for (uint32_t b = 0; batch > 1 && b < batch; b++)
            y[b * co + o] = run[b];
        ft_conv_next_row(&r, taps, o + 1, co);
    }
}

void ft_linear_backward_input(float *dx, const float *dy, const ft_taps *taps, uint32_t ci, uint32_t co, uint32_t batch,
                              float *scratch, bool accumulate)
{
    bool apart = batch > 1 || accumulate; /* a fresh gradient of one sample is summed where it belongs */
    float *columns = apart ? scratch : dx;
    ft_grid grid = row_of_samples(batch);
    ft_zero(columns, ci * batch);
    if (batch == 1 && !taps->counts) {
        ft_dense_backward_input(columns, dy, taps->values, ci, co);
    } else {
        ft_conv_row r = ft_conv_first_row(taps, ci);
        for (uint32_t o = 0; o < co; o++) {
            const float *run = gradient_of(scratch, dy + o, ci, co, batch);
            for (uint32_t k = 0; batch == 1 && k < r.count; k++)
                columns[r.at[k]] += r.values[k] * *run;
            if (batch > 1)
                ft_taps_backward_input(columns, run, r.values, r.at, r.count, &grid);
            ft_conv_next_row(&r, taps, o + 1, co);
        }
    }
    for (uint32_t b = 0; apart && b < batch; b++)
        for (uint32_t i = 0; i < ci; i++, dx++)
            *dx = accumulate ? *dx + columns[i * batch + b] : columns[i * batch + b];
}

void ft_linear_backward_weight(float *dw, const float *dy, const float *x, const ft_taps *taps, uint32_t ci, uint32_t co,
                               uint32_t batch, float *scratch, uint32_t row, uint32_t rows)
{
    if (batch == 1 && !taps->counts) {
        ft_dense_backward_weight(dw, dy + row, x, ci, rows);
        return;
    }
    ft_grid grid = row_of_samples(batch);
    ft_conv_row r = ft_conv_first_row(taps, ci);
    x = side_by_side(scratch, x, ci, batch);
    for (uint32_t o = 0; o < row + rows; o++) {
        if (o >= row) {
            const float *run = gradient_of(scratch, dy + o, ci, co, batch);
            for (uint32_t k = 0; batch == 1 && k < r.count; k++)
                dw[k] += *run * x[r.at[k]];
            if (batch > 1)
                ft_taps_backward_weight(dw, run, x, r.at, r.count, &grid);
            dw += r.count;
        }
        ft_conv_next_row(&r, taps, o + 1, co);
    }
}
