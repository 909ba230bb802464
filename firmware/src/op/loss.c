#include "loss.h"

#include "../num.h"
#include "taps.h"

static uint32_t largest(const float *y, uint32_t n)
{
    uint32_t best = 0;
    for (uint32_t c = 1; c < n; c++)
        if (y[c] > y[best] || y[c] != y[c])
            best = c;
    return best;
}

float ft_loss_squared(float *dy, uint32_t *hit, const float *y, const float *target, uint32_t label, float weight, uint32_t n)
{
    float lanes[FT_LANES] = {0};
    *hit = !target && largest(y, n) == label;
    for (uint32_t i = 0; i < n; i++) {
        float difference = y[i] - (target ? target[i] : (float)(i == label));
        lanes[i % FT_LANES] += difference * difference;
        if (dy)
            dy[i] = difference * (2.0f * weight / (float)n);
    }
    return ft_lanes_total(lanes) / (float)n;
}

float ft_loss_cross_entropy(float *dlogits, uint32_t *hit, const float *logits, uint32_t label, float weight,
                            uint32_t classes)
{
    uint32_t best = largest(logits, classes);
    *hit = best == label;
    float top = logits[best], of_label = logits[label], sum = 0.0f;
    for (uint32_t c = 0; c < classes; c++)
        sum += ft_num_exp(logits[c] - top);
    if (dlogits)
        for (uint32_t c = 0; c < classes; c++) {
            float p = ft_num_exp(logits[c] - top) / sum;
            dlogits[c] = (c == label ? p - 1.0f : p) * weight;
        }
    return ft_num_log(sum) - (of_label - top);
}
