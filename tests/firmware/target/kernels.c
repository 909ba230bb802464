/* Every kernel that has variants against the definition in its header, on maps of all small shapes: the same bits, or, in a
 * build that fuses multiply and add (TOLERANCE > 0), close to them. Nothing but the result may be written. */
#include <math.h>
#include <string.h>

#include "num.h"
#include "op/pointwise.h"
#include "op/taps.h"
#include "port.h"

#ifndef TOLERANCE
#define TOLERANCE 0.0f
#endif

enum { MOST = 2048 };
static float x[MOST], dy[MOST], w[64], got[MOST], want[MOST], other[MOST], other_want[MOST];
static uint16_t at[64];
static uint32_t state = 1;

static uint32_t draw(void)
{
    state = state * 1664525u + 1013904223u;
    return state >> 8;
}

static void fill(float *to, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        to[i] = (float)(int32_t)draw() / 8388608.0f - 1.0f;
}

static void check(const char *what, uint32_t a, uint32_t b, uint32_t c)
{
    for (uint32_t i = 0; i < MOST; i++)
        if (got[i] != want[i] && TOLERANCE > 0.0f ? !(fabsf(got[i] - want[i]) <= TOLERANCE)
                                              : memcmp(&got[i], &want[i], sizeof *got) != 0 && TOLERANCE == 0.0f) {
            port_print(what);
            for (int k = 0; k < 4; k++) {
                port_print(" ");
                port_print_number(k == 0 ? a : k == 1 ? b : k == 2 ? c : i);
            }
            port_print("\n");
            port_exit(1);
        }
}

static void start(void)
{
    fill(got, MOST);
    memcpy(want, got, sizeof got);
}

static void on_grid(ft_grid g, uint32_t taps)
{
    uint32_t outputs = g.rows * g.cols;
    fill(x, MOST);
    fill(dy, outputs);
    fill(w, 64);
    start();
    ft_taps_forward(got, x, w, at, taps, 0.25f, &g);
    for (uint32_t r = 0; r < g.rows; r++)
        for (uint32_t c = 0; c < g.cols; c++) {
            float sum = 0.25f;
            for (uint32_t k = 0; k < taps; k++)
                sum += w[k] * x[at[k] * g.step + r * g.pitch + c];
            want[r * g.cols + c] = sum;
        }
    check("forward", g.rows, g.cols, taps);
    start();
    ft_taps_backward_input(got, dy, w, at, taps, &g);
    for (uint32_t k = 0; k < taps; k++)
        for (uint32_t i = 0; i < outputs; i++)
            want[at[k] * g.step + i / g.cols * g.pitch + i % g.cols] += w[k] * dy[i];
    check("backward input", g.rows, g.cols, taps);
    start();
    ft_taps_backward_weight(got, dy, x, at, taps, &g);
    for (uint32_t k = 0; k < taps; k++) {
        float lanes[FT_LANES] = {0};
        for (uint32_t i = 0; i < outputs; i++)
            lanes[i % g.cols % FT_LANES] += dy[i] * x[at[k] * g.step + i / g.cols * g.pitch + i % g.cols];
        want[k] += ft_lanes_total(lanes);
    }
    check("backward weight", g.rows, g.cols, taps);
}

static void grids(void)
{
    for (uint32_t cols = 1; cols <= 34; cols++)
        for (uint32_t rows = 1; rows <= 4; rows++) {
            uint32_t pitch = cols + 2;
            for (uint32_t taps = 0; taps <= 5; taps++) {
                for (uint32_t k = 0, next = 0; k < taps; k++)
                    at[k] = (uint16_t)(next += 1 + draw() % (2 * pitch));
                ft_grid g = {rows, cols, pitch, 1, false, taps % 2 ? 2 * pitch + 2 : 0};
                on_grid(g, taps);
            }
            for (uint32_t k = 0; k < 18; k++)
                at[k] = (uint16_t)(k / 9 * (rows + 2) * pitch + k / 3 % 3 * pitch + k % 3);
            ft_grid dense = {rows, cols, pitch, 1, true, 2 * pitch + 2};
            on_grid(dense, 18);
        }
    for (uint32_t n = 1; n <= 41; n++) { /* samples side by side */
        for (uint32_t k = 0; k < 9; k++)
            at[k] = (uint16_t)(k * 3 + draw() % 3);
        ft_grid samples = {.rows = 1, .cols = n, .pitch = n, .step = n};
        on_grid(samples, 9);
    }
}

static void reductions(void)
{
    for (uint32_t n = 0; n <= 50; n++) {
        fill(x, n);
        fill(dy, n);
        start();
        ft_lanes_sum(got, x, n);
        ft_lanes_squares(got + 8, x, 0.125f, n);
        ft_lanes_dot(got + 16, dy, x, 0.125f, n);
        for (uint32_t i = 0; i < n; i++) {
            want[i % 8] += x[i];
            want[8 + i % 8] += (x[i] - 0.125f) * (x[i] - 0.125f);
            want[16 + i % 8] += dy[i] * (x[i] - 0.125f);
        }
        check("lanes", n, 0, 0);
        start();
        ft_rows_copy(got, n + 3, x, n / 2, 3, n / 2);
        for (uint32_t i = 0; i < 3 * (n / 2); i++)
            want[i / (n / 2) * (n + 3) + i % (n / 2)] = x[i];
        check("copy", n, 0, 0);
        start();
        ft_zero(got, n);
        memset(want, 0, n * sizeof *want);
        check("zero", n, 0, 0);
    }
}

static void pointwise(void)
{
    static const float odd[] = {0.0f, -0.0f, 7.0f, INFINITY, -INFINITY, 6.0f};
    for (uint32_t n = 0; n <= 30; n++)
        for (int six = 0; six < 2; six++) {
            float limit = six ? 6.0f : INFINITY;
            fill(x, n);
            fill(dy, n);
            for (uint32_t i = 0; i < n; i += 3)
                x[i] = odd[draw() % 6];
            start();
            ft_relu_forward(got, x, limit, n);
            for (uint32_t i = 0; i < n; i++)
                want[i] = !(x[i] > 0.0f) ? 0.0f : x[i] > limit ? limit : x[i];
            check("relu", n, 0, 0);
            memcpy(other, got, sizeof other);
            for (int accumulate = 0; accumulate < 2; accumulate++) {
                start();
                ft_relu_backward(got, dy, other, limit, n, accumulate);
                for (uint32_t i = 0; i < n; i++) {
                    float g = other[i] > 0.0f && (!six || other[i] < limit) ? dy[i] : 0.0f;
                    want[i] = accumulate ? want[i] + g : g;
                }
                check("relu backward", n, accumulate, 0);
            }
            start();
            ft_add_forward(got, dy, w, n);
            for (uint32_t i = 0; i < n; i++)
                want[i] = dy[i] + w[i];
            check("add", n, 0, 0);
            start();
            ft_scale_run(got, dy, 0.25f, 1.5f, -0.125f, n);
            for (uint32_t i = 0; i < n; i++)
                want[i] = (dy[i] - 0.25f) * 1.5f + -0.125f;
            check("scale", n, 0, 0);
            start();
            memcpy(other, dy, sizeof other);
            fill(x, n);
            memcpy(other_want, x, sizeof other_want);
            ft_sgd_step(got, other, x, 0.1f, 0.9f, 0.01f, n);
            for (uint32_t i = 0; i < n; i++) {
                other_want[i] = 0.9f * other_want[i] + (dy[i] + 0.01f * want[i]);
                want[i] = want[i] - 0.1f * other_want[i];
            }
            check("sgd", n, 0, 0);
        }
}

static uint32_t largest(const float *window, uint32_t width)
{
    const uint32_t places[] = {0, 1, width, width + 1};
    uint32_t best = 0;
    for (int i = 0; i < 4; i++)
        if (window[places[i]] != window[places[i]])
            return places[i];
    for (int i = 1; i < 4; i++)
        if (window[places[i]] > window[best])
            best = places[i];
    return best;
}

static void halves(void)
{
    static const float few[] = {0.0f, -0.0f, 1.0f, INFINITY, -INFINITY, -1.0f};
    for (uint32_t n = 1; n <= 18; n++)
        for (uint32_t extra = 0; extra < 2; extra++)
            for (uint32_t rows = 1; rows <= 3; rows++) {
                uint32_t width = 2 * n + extra;
                fill(x, MOST);
                fill(dy, n * rows);
                for (uint32_t i = 0; i < 2 * width * rows; i++)
                    if (draw() % 2)
                        x[i] = few[draw() % 6];
                start();
                ft_halves_backward(got, dy, x, width, n, rows);
                for (uint32_t i = 0; i < rows * n; i++) {
                    uint32_t from = i / n * 2 * width + i % n * 2;
                    want[from] = want[from + 1] = want[from + width] = want[from + width + 1] = 0.0f;
                    want[from + largest(x + from, width)] = dy[i];
                }
                check("halves backward", n, extra, rows);
                for (uint32_t i = 0; i < 2 * width * rows; i += 5)
                    x[i] = NAN;
                start();
                ft_halves_forward(got, x, width, n, rows);
                for (uint32_t i = 0; i < rows * n; i++) {
                    const float *window = x + i / n * 2 * width + i % n * 2;
                    want[i] = window[largest(window, width)];
                    if (got[i] != got[i] && want[i] != want[i])
                        got[i] = want[i] = 0.0f;
                }
                check("halves", n, extra, rows);
            }
}

static void dense(void)
{
    for (uint32_t ci = 1; ci <= 20; ci++)
        for (uint32_t co = 1; co <= 9; co++) {
            fill(x, ci);
            fill(dy, co);
            fill(other, ci * co);
            start();
            ft_dense_forward(got, x, other, co % 2 ? w : 0, ci, co);
            for (uint32_t o = 0; o < co; o++) {
                want[o] = co % 2 ? w[o] : 0.0f;
                for (uint32_t k = 0; k < ci; k++)
                    want[o] += other[o * ci + k] * x[k];
            }
            check("dense forward", ci, co, 0);
            start();
            ft_dense_backward_input(got, dy, other, ci, co);
            for (uint32_t o = 0; o < co; o++)
                for (uint32_t k = 0; k < ci; k++)
                    want[k] += other[o * ci + k] * dy[o];
            check("dense backward input", ci, co, 0);
            start();
            ft_dense_backward_weight(got, dy, x, ci, co);
            for (uint32_t o = 0; o < co; o++)
                for (uint32_t k = 0; k < ci; k++)
                    want[o * ci + k] += dy[o] * x[k];
            check("dense backward weight", ci, co, 0);
        }
}

/* The compiler's binary64 is the answer from outside. */
static void sums(void)
{
    static const uint32_t bits[] = {0u, 1u, 0x80000001u, 0x00400000u, 0x33800000u, 0x7F7FFFFFu, 0xFF7FFFFFu, 0x80000000u};
    double sum = 0.0, right = 0.0;
    for (uint32_t i = 0; i < 4000; i++) {
        uint32_t any = draw() << 8 | (draw() & 255), exponent = i / 200 % 2 ? 100 + draw() % 56 : draw() % 255;
        float term = ft_num_from_bits(i % 5 == 0 ? bits[draw() % 8] : (any & 0x807FFFFFu) | exponent << 23);
        if (i % 50 == 0)
            sum = right = 0.0;
        if (i % 7 == 0)
            term = -(float)right; /* cancels */
        if (!ft_num_finite(term))
            continue;
        ft_num_add(&sum, term);
        right += (double)term;
        if (memcmp(&sum, &right, sizeof sum)) {
            port_print("sum ");
            port_print_number(i);
            port_exit(1);
        }
    }
}

int main(int argc, char **argv)
{
    (void)argc, (void)argv;
    dense();
    sums();
    grids();
    reductions();
    pointwise();
    halves();
    port_print("ok\n");
    return 0;
}
