#include "standard.h"

#include "../num.h"

ft_standard ft_standard_of(const float *w, uint32_t count, float eps)
{
    ft_standard s = {0.0f, 0.0f, 0.0f, 0.0f, 0.0f};
    float squares = 0.0f;
    for (uint32_t k = 0; k < count; k++) {
        s.mean += w[k];
        s.count += (float)(w[k] != 0.0f);
    }
    if (s.count == 0.0f)
        s.count = 1.0f;
    s.mean /= s.count;
    for (uint32_t k = 0; k < count; k++)
        squares += w[k] != 0.0f ? (w[k] - s.mean) * (w[k] - s.mean) : 0.0f;
    s.scale = 1.0f / ft_num_sqrt(squares / s.count + eps);
    return s;
}

void ft_standard_add(ft_standard *s, float w, float g)
{
    if (w != 0.0f) {
        s->plain += g;
        s->along += g * ((w - s->mean) * s->scale);
    }
}

float ft_standard_gradient(const ft_standard *s, float w, float g)
{
    return (g - s->plain / s->count - (w - s->mean) * s->scale * (s->along / s->count)) * s->scale;
}

static uint32_t row_count(const ft_taps *taps, uint32_t row, uint32_t row_len)
{
    return taps->counts ? taps->counts[row] : row_len;
}

void ft_standard_forward(float *out, const ft_taps *taps, uint32_t rows, uint32_t row_len, float eps)
{
    const float *w = taps->values;
    for (uint32_t r = 0; r < rows; r++) {
        uint32_t count = row_count(taps, r, row_len);
        ft_standard s = ft_standard_of(w, count, eps);
        for (; count; count--, w++)
            *out++ = *w != 0.0f ? (*w - s.mean) * s.scale : 0.0f;
    }
}

void ft_standard_backward(float *dw, const ft_taps *taps, uint32_t rows, uint32_t row_len, float eps)
{
    const float *w = taps->values;
    for (uint32_t r = 0; r < rows; r++) {
        uint32_t count = row_count(taps, r, row_len);
        ft_standard s = ft_standard_of(w, count, eps);
        for (uint32_t k = 0; k < count; k++)
            ft_standard_add(&s, w[k], dw[k]);
        for (; count; count--, w++, dw++)
            *dw = ft_standard_gradient(&s, *w, *dw);
    }
}
