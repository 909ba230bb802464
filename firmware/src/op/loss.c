#include "loss.h"

#include "../num.h"

float ft_loss_cross_entropy(float *dlogits, uint32_t *hit, const float *logits, uint32_t label, float weight,
                            uint32_t classes)
{
    uint32_t best = 0;
    for (uint32_t c = 1; c < classes; c++)
        if (logits[c] > logits[best] || logits[c] != logits[c])
            best = c;
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
