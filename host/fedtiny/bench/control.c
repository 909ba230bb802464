/* The plain dense control: one training step of the reference net as one would write it, nested loops over arrays.
 * control REPEATS FILE OUT: FILE is weights and biases in layer order, 784 floats, a label as u32; OUT gets the weights after
 * REPEATS steps. conv8 3x3, ReLU, pool, conv16 3x3, ReLU, pool, fc10, softmax cross-entropy, SGD with momentum. */
#include <math.h>
#include <string.h>

#include "port.h"

enum { SIDE = 28, HALF = 14, QUARTER = 7, C1 = 8, C2 = 16, CLASSES = 10 };

typedef struct {
    float w1[C1][3][3], b1[C1], w2[C2][C1][3][3], b2[C2], w3[CLASSES][C2 * QUARTER * QUARTER], b3[CLASSES];
} weights;

static struct {
    weights w;
    float x[SIDE][SIDE];
    uint32_t label;
} net;
static weights g, m;
static float a1[C1][SIDE][SIDE], p1[C1][HALF][HALF], a2[C2][HALF][HALF], p2[C2][QUARTER][QUARTER], z[CLASSES];
static float da1[C1][SIDE][SIDE], dp1[C1][HALF][HALF], da2[C2][HALF][HALF], dp2[C2][QUARTER][QUARTER], dz[CLASSES];

/* y[co][n][n] = relu(b + w * x) */
static void conv_forward(float *restrict y, const float *restrict x, const float *restrict w, const float *restrict b,
                         int ci, int co, int n)
{
    for (int o = 0; o < co; o++)
        for (int r = 0; r < n; r++)
            for (int c = 0; c < n; c++) {
                float sum = b[o];
                for (int i = 0; i < ci; i++)
                    for (int kr = 0; kr < 3; kr++)
                        for (int kc = 0; kc < 3; kc++) {
                            int yr = r + kr - 1, yc = c + kc - 1;
                            if (yr >= 0 && yr < n && yc >= 0 && yc < n)
                                sum += w[((o * ci + i) * 3 + kr) * 3 + kc] * x[(i * n + yr) * n + yc];
                        }
                y[(o * n + r) * n + c] = sum > 0.0f ? sum : 0.0f;
            }
}

static void conv_backward(float *restrict dx, float *restrict dw, float *restrict db, const float *restrict dy,
                          const float *restrict x, const float *restrict w, int ci, int co, int n)
{
    for (int o = 0; o < co; o++)
        for (int r = 0; r < n; r++)
            for (int c = 0; c < n; c++) {
                float d = dy[(o * n + r) * n + c];
                if (d == 0.0f)
                    continue;
                db[o] += d;
                for (int i = 0; i < ci; i++)
                    for (int kr = 0; kr < 3; kr++)
                        for (int kc = 0; kc < 3; kc++) {
                            int yr = r + kr - 1, yc = c + kc - 1;
                            if (yr < 0 || yr >= n || yc < 0 || yc >= n)
                                continue;
                            dw[((o * ci + i) * 3 + kr) * 3 + kc] += d * x[(i * n + yr) * n + yc];
                            if (dx)
                                dx[(i * n + yr) * n + yc] += d * w[((o * ci + i) * 3 + kr) * 3 + kc];
                        }
            }
}

static void pool_forward(float *restrict y, const float *restrict x, int c, int n)
{
    for (int i = 0; i < c; i++)
        for (int r = 0; r < n; r++)
            for (int k = 0; k < n; k++) {
                const float *at = x + (i * 2 * n + 2 * r) * 2 * n + 2 * k;
                float top = at[0] > at[1] ? at[0] : at[1], low = at[2 * n] > at[2 * n + 1] ? at[2 * n] : at[2 * n + 1];
                y[(i * n + r) * n + k] = top > low ? top : low;
            }
}

/* Through the pool and the ReLU before it: the gradient goes to the first maximum, where that is positive. */
static void pool_backward(float *restrict dx, const float *restrict dy, const float *restrict y, const float *restrict x,
                          int c, int n)
{
    memset(dx, 0, (size_t)(c * 4 * n * n) * sizeof *dx);
    for (int i = 0; i < c; i++)
        for (int r = 0; r < n; r++)
            for (int k = 0; k < n; k++) {
                int at = (i * 2 * n + 2 * r) * 2 * n + 2 * k, to[4] = {at, at + 1, at + 2 * n, at + 2 * n + 1};
                float best = y[(i * n + r) * n + k];
                for (int q = 0; q < 4 && best > 0.0f; q++)
                    if (x[to[q]] == best) {
                        dx[to[q]] = dy[(i * n + r) * n + k];
                        break;
                    }
            }
}

static void step(void)
{
    enum { FEATURES = C2 * QUARTER * QUARTER };
    const float *features = &p2[0][0][0];
    conv_forward(&a1[0][0][0], &net.x[0][0], &net.w.w1[0][0][0], net.w.b1, 1, C1, SIDE);
    pool_forward(&p1[0][0][0], &a1[0][0][0], C1, HALF);
    conv_forward(&a2[0][0][0], &p1[0][0][0], &net.w.w2[0][0][0][0], net.w.b2, C1, C2, HALF);
    pool_forward(&p2[0][0][0], &a2[0][0][0], C2, QUARTER);
    float top = -INFINITY, sum = 0.0f;
    for (int o = 0; o < CLASSES; o++) {
        z[o] = net.w.b3[o];
        for (int i = 0; i < FEATURES; i++)
            z[o] += net.w.w3[o][i] * features[i];
        top = z[o] > top ? z[o] : top;
    }
    for (int o = 0; o < CLASSES; o++)
        sum += dz[o] = expf(z[o] - top);
    for (int o = 0; o < CLASSES; o++)
        dz[o] = dz[o] / sum - ((uint32_t)o == net.label ? 1.0f : 0.0f);

    memset(&g, 0, sizeof g);
    memset(dp2, 0, sizeof dp2);
    memset(dp1, 0, sizeof dp1);
    for (int o = 0; o < CLASSES; o++) {
        g.b3[o] = dz[o];
        for (int i = 0; i < FEATURES; i++) {
            g.w3[o][i] = dz[o] * features[i];
            (&dp2[0][0][0])[i] += dz[o] * net.w.w3[o][i];
        }
    }
    pool_backward(&da2[0][0][0], &dp2[0][0][0], &p2[0][0][0], &a2[0][0][0], C2, QUARTER);
    conv_backward(&dp1[0][0][0], &g.w2[0][0][0][0], g.b2, &da2[0][0][0], &p1[0][0][0], &net.w.w2[0][0][0][0], C1, C2, HALF);
    pool_backward(&da1[0][0][0], &dp1[0][0][0], &p1[0][0][0], &a1[0][0][0], C1, HALF);
    conv_backward(0, &g.w1[0][0][0], g.b1, &da1[0][0][0], &net.x[0][0], &net.w.w1[0][0][0], 1, C1, SIDE);

    float *w = (float *)(void *)&net.w, *gradient = (float *)(void *)&g, *momentum = (float *)(void *)&m;
    for (unsigned i = 0; i < sizeof net.w / sizeof *w; i++) {
        momentum[i] = 0.9f * momentum[i] + gradient[i];
        w[i] -= 0.01f * momentum[i];
    }
}

int main(int argc, char **argv)
{
    if (argc < 4 || port_read_file(argv[2], &net, sizeof net) != sizeof net)
        return 1;
    uint64_t before = port_count();
    for (int i = 0; i < argv[1][0] - '0'; i++)
        step();
    uint64_t count = port_count() - before;
    port_print("case ");
    port_print_number(count);
    port_print("\nstack 0\n");
    return port_write_file(argv[3], &net.w, sizeof net.w);
}
