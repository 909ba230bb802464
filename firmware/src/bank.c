#include "bank.h"

#include <string.h>

enum { NOWHERE = 0xFF }; /* one more is bank 0 */

static uint32_t larger(uint32_t a, uint32_t b) { return a > b ? a : b; }

ft_status ft_bank_to_plan_in(uint32_t *bank, ft_spread *spread, const ft_bank *banks, uint32_t count, uint32_t planning)
{
    for (*bank = 0; *bank < count; ++*bank)
        if (banks[*bank].bytes >= planning)
            return FT_OK;
    spread->missing = FT_PART_NODE;
    spread->bytes[FT_PART_NODE] = planning;
    return FT_ERR_NOMEM;
}

static void measure_parts(uint32_t *bytes, const ft_layout *layout, const ft_config *config)
{
    const ft_memory *m = &layout->memory;
    uint32_t trained = config->modes & FT_MODE_TRAIN ? m->weights - 4 * ft_plan_first_value(layout) : 0;
    uint32_t training = 4 * layout->train_floats;
    bytes[FT_PART_NODE] = m->node - layout->label_bytes;
    bytes[FT_PART_WEIGHTS] = m->weights;
    bytes[FT_PART_INDICES] = m->indices;
    bytes[FT_PART_STATISTICS] = m->statistics + layout->label_bytes;
    bytes[FT_PART_WORK] = larger(larger(m->mode_work[0], m->mode_work[1]), training);
    bytes[FT_PART_TOPK] = config->modes & FT_MODE_SCORE ? m->mode_work[3] - training : 0;
    bytes[FT_PART_GRADIENTS] = config->layerwise ? 0 : trained;
    bytes[FT_PART_MOMENTUM] = config->plain_sgd ? 0 : trained;
}

/* Stacks the parts that have a bank; parts of one mode stand where another mode has its own. Does each bank hold its stack? */
static bool fits(ft_spread *spread, ft_layout *layout, const ft_bank *banks)
{
    uint32_t used[FT_BANKS_MAX] = {0}, *most = layout->memory.bank;
    memset(most, 0, sizeof used);
    for (uint32_t part = 0; part < FT_PARTS; part++) {
        uint32_t b = spread->bank[part];
        if (b == NOWHERE)
            continue;
        spread->at[part] = used[b];
        most[b] = larger(most[b], used[b] + spread->bytes[part]);
        if (part != FT_PART_TOPK) /* behind the work of training stands this or the next two */
            used[b] += part == FT_PART_WORK ? 4 * layout->train_floats : spread->bytes[part];
        if (most[b] > banks[b].bytes)
            return false;
    }
    return true;
}

/* Every spreading is tried, those first that give the busiest part the first bank; what begins like one that did not fit is
 * left out. So one that fits is found if there is any. */
ft_status ft_bank_spread(ft_spread *spread, ft_layout *layout, const ft_config *config, const ft_bank *banks,
                         uint32_t count, uint32_t planning)
{
    static const uint8_t busiest_first[FT_PARTS] = {FT_PART_WORK, FT_PART_WEIGHTS,  FT_PART_INDICES, FT_PART_GRADIENTS,
                                                    FT_PART_TOPK, FT_PART_MOMENTUM, FT_PART_NODE,    FT_PART_STATISTICS};
    uint32_t placed = 0, deepest = 0, first;
    if (ft_bank_to_plan_in(&first, spread, banks, count, planning) != FT_OK)
        return FT_ERR_NOMEM;
    measure_parts(spread->bytes, layout, config);
    memset(spread->bank, NOWHERE, sizeof spread->bank);
    while (placed < FT_PARTS) {
        uint8_t *bank = &spread->bank[busiest_first[placed]];
        deepest = larger(deepest, placed);
        if (++*bank == count) {
            *bank = NOWHERE;
            if (placed-- == 0) {
                spread->missing = (ft_part)busiest_first[deepest];
                return FT_ERR_NOMEM;
            }
        } else if (fits(spread, layout, banks)) {
            placed++;
        }
    }
    spread->missing = FT_PARTS;
    layout->memory.bank[first] = larger(layout->memory.bank[first], planning);
    return FT_OK;
}
