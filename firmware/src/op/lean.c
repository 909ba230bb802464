#include "lean.h"

#include <string.h>

#include "taps.h"

enum { CHUNK_FLOATS = 1024 }; /* of input channels that the weight gradient holds at once */

static uint32_t smaller(uint32_t a, uint32_t b) { return a < b ? a : b; }
static uint32_t larger(uint32_t a, uint32_t b) { return a > b ? a : b; }
static uint32_t phases(const ft_conv *c) { return c->ph * c->pw; }
static uint32_t unit(const ft_conv *c) { return c->hq * c->wq; }                /* one phase plane of the padded input */
static uint32_t band_rows(const ft_conv *c) { return (c->kh - 1) / c->sh + 1; } /* rows of it that one output row reads */
static uint32_t list_floats(const ft_conv *c) { return (c->row_len + 1) / 2; }  /* one row's positions, as u16s */

bool ft_lean_in_place(const ft_conv *c)
{
    return c->ci == c->co && c->h == c->ho && c->w == c->wo && c->sh == 1 && c->sw == 1 && c->pt < c->kh;
}

/* A 1x1 convolution knows no rows: take the map as rows that are worth a call. */
static ft_conv reshaped(const ft_conv *given)
{
    ft_conv c = *given;
    if (c.kh * c.kw == 1 && c.direct) {
        uint32_t pixels = c.h * c.w, width = smaller(pixels, 64);
        while (pixels % width)
            width--;
        c.w = c.wo = c.wq = width;
        c.h = c.ho = c.hq = pixels / width;
    }
    return c;
}

uint32_t ft_lean_forward_scratch(const ft_conv *given)
{
    ft_conv c = reshaped(given);
    return list_floats(&c) + c.ci * phases(&c) * band_rows(&c) * c.wq;
}

uint32_t ft_lean_input_scratch(const ft_conv *given)
{
    ft_conv c = reshaped(given);
    return c.co * band_rows(&c) * c.wo + c.ci * c.pw * c.wq;
}

uint32_t ft_lean_channels(const ft_conv *c)
{
    uint32_t fit = CHUNK_FLOATS / larger(c->plane, c->h * c->w);
    return fit < 1 ? 1 : smaller(fit, c->ci);
}

uint32_t ft_lean_weight_scratch(const ft_conv *c)
{
    return list_floats(c) + ft_lean_channels(c) * c->plane;
}

/* One padded row, column phase b: what input column q sw + b - pl holds, zero outside of the map. */
static void load_row(float *to, const float *x, uint32_t iy, uint32_t b, const ft_conv *c)
{
    for (uint32_t q = 0; q < c->wq; q++) {
        uint32_t ix = q * c->sw + b - c->pl; /* wraps to a large number left of the map */
        to[q] = iy < c->h && ix < c->w ? x[iy * c->w + ix] : 0.0f;
    }
}

static uint32_t group_channel(const ft_conv *c, uint32_t oc) { return oc / (c->co / c->groups) * (c->ci / c->groups); }

void ft_lean_forward(float *y, const float *x, const ft_taps *taps, const float *bias, const ft_conv *given, float *scratch)
{
    ft_conv c = reshaped(given);
    uint32_t rows = band_rows(&c), per_unit = rows * c.wq, units = phases(&c);
    float *band = scratch + list_floats(&c);
    ft_grid grid = {.rows = 1, .cols = c.wo, .pitch = c.wq, .step = 1};
    uint16_t *list = (uint16_t *)(void *)scratch;
    for (uint32_t oy = 0; oy < c.ho; oy++) {
        float *to = band;
        for (uint32_t ic = 0; ic < c.ci; ic++)
            for (uint32_t u = 0; u < units; u++, to += per_unit) {
                uint32_t from = 0;
                if (oy) { /* rows that an output already written may have replaced live on here */
                    memmove(to, to + c.wq, (rows - 1) * c.wq * sizeof *to);
                    from = rows - 1;
                }
                for (uint32_t r = from; r < rows; r++)
                    load_row(to + r * c.wq, x + ic * c.h * c.w, (oy + r) * c.sh + u / c.pw - c.pt, u % c.pw, &c);
            }
        ft_conv_row r = ft_conv_first_row(taps, c.row_len);
        for (uint32_t oc = 0; oc < c.co; oc++) {
            if (oc == 0 || taps->counts)
                for (uint32_t k = 0; k < r.count; k++)
                    list[k] = (uint16_t)(r.at[k] - r.at[k] / unit(&c) * (unit(&c) - per_unit));
            ft_taps_forward(y + (oc * c.ho + oy) * c.wo, band + group_channel(&c, oc) * units * per_unit, r.values, list,
                            r.count, bias ? bias[oc] : 0.0f, &grid);
            ft_conv_next_row(&r, taps, oc + 1, c.co);
        }
    }
}

/* The taps of all outputs that reach row q, phase a of the padded input, into sums (CI, PW, WQ). */
static void gather_row(float *sums, const float *band, const ft_taps *taps, const ft_conv *c, uint32_t q, uint32_t a)
{
    uint32_t rows = band_rows(c);
    ft_conv_row r = ft_conv_first_row(taps, c->row_len);
    for (uint32_t oc = 0; oc < c->co; oc++) {
        for (uint32_t k = 0; k < r.count; k++) {
            uint32_t u = r.at[k] / unit(c), rest = r.at[k] - u * unit(c), up = rest / c->wq;
            uint32_t channel = u / phases(c), phase = u - channel * phases(c);
            if (phase / c->pw != a || up > q || q - up >= c->ho)
                continue;
            float *run = sums + ((group_channel(c, oc) + channel) * c->pw + phase % c->pw) * c->wq + rest - up * c->wq;
            const float *dy = band + (oc * rows + up) * c->wo, weight = r.values[k];
            for (uint32_t i = 0; i < c->wo; i++)
                run[i] += weight * dy[i];
        }
        ft_conv_next_row(&r, taps, oc + 1, c->co);
    }
}

void ft_lean_backward_input(float *dx, const float *dy, const ft_taps *taps, const ft_conv *given, float *scratch,
                            bool accumulate)
{
    ft_conv c = reshaped(given);
    uint32_t rows = band_rows(&c);
    float *band = scratch, *sums = scratch + c.co * rows * c.wo; /* band: rows q, q - 1, … of dy */
    if (!accumulate && dx != dy)
        memset(dx, 0, c.ci * c.h * c.w * sizeof *dx);
    for (uint32_t q = 0; q < c.hq; q++) {
        for (uint32_t oc = 0; oc < c.co; oc++) {
            float *line = band + oc * rows * c.wo;
            memmove(line + c.wo, line, (rows - 1) * c.wo * sizeof *line);
            if (q < c.ho)
                memcpy(line, dy + (oc * c.ho + q) * c.wo, c.wo * sizeof *line);
        }
        for (uint32_t a = 0; a < c.ph; a++) {
            uint32_t iy = q * c.sh + a - c.pt;
            if (iy >= c.h)
                continue;
            memset(sums, 0, c.ci * c.pw * c.wq * sizeof *sums);
            for (uint32_t ic = 0; c.direct && accumulate && ic < c.ci; ic++) /* conv.c adds these to dx one by one */
                memcpy(sums + ic * c.wq, dx + (ic * c.h + iy) * c.w, c.w * sizeof *sums);
            gather_row(sums, band, taps, &c, q, a);
            for (uint32_t ic = 0; ic < c.ci; ic++)
                for (uint32_t b = 0; b < c.pw; b++)
                    for (uint32_t i = 0; i < c.wq; i++) {
                        uint32_t ix = i * c.sw + b - c.pl;
                        float *to = dx + (ic * c.h + iy) * c.w + ix;
                        if (ix < c.w)
                            *to = (accumulate && !c.direct ? *to : 0.0f) + sums[(ic * c.pw + b) * c.wq + i];
                    }
        }
    }
}

void ft_lean_backward_weight(float *dw, const float *dy, const float *x, const ft_taps *taps, const ft_conv *c,
                             uint32_t first, uint32_t count, float *scratch)
{
    float *planes = scratch + list_floats(c), *to = planes;
    ft_grid grid = {.rows = c->ho, .cols = c->wo, .pitch = c->wq, .step = 1};
    uint16_t *list = (uint16_t *)(void *)scratch;
    for (uint32_t ic = 0; ic < count; ic++)
        for (uint32_t u = 0; u < phases(c); u++)
            for (uint32_t q = 0; q < c->hq; q++, to += c->wq)
                load_row(to, x + ic * c->h * c->w, q * c->sh + u / c->pw - c->pt, u % c->pw, c);
    ft_conv_row r = ft_conv_first_row(taps, c->row_len);
    const float *start = r.values;
    for (uint32_t oc = 0; oc < c->co; oc++) {
        uint32_t group = group_channel(c, oc), here = 0, from = 0;
        uint32_t low = first > group ? first - group : 0, high = first + count > group ? first + count - group : 0;
        for (uint32_t k = 0; k < r.count; k++) {
            uint32_t channel = r.at[k] / c->plane;
            if (channel < low)
                from++;
            else if (channel < high) /* positions ascend: these are neighbours */
                list[here++] = (uint16_t)(r.at[k] + group * c->plane - first * c->plane);
        }
        if (here)
            ft_taps_backward_weight(dw + (r.values - start) + from, dy + oc * c->ho * c->wo, planes, list, here, &grid);
        ft_conv_next_row(&r, taps, oc + 1, c->co);
    }
}
