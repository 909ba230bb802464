#include "samples.h"

#include <string.h>

static int read_sample(void *ctx, uint32_t index, float *x, uint16_t *label)
{
    const ft_samples *s = ctx;
    memcpy(x, s->x + (size_t)index * s->size, s->size * sizeof *x);
    *label = s->labels[index];
    return 0;
}

ft_status ft_samples_use(ft_node *node, ft_samples *samples, uint32_t count, uint32_t dev_count)
{
    ft_data data = {samples, read_sample, count, dev_count};
    if (!node || !samples || samples->size != ft_input_size(node))
        return FT_ERR_ARG;
    return ft_set_data(node, &data);
}
