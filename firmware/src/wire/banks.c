/* A service whose node has banks beside the one piece: parts of the arena, the busiest first, lie there. */
#include <string.h>

#include "service.h"

static ft_status load(ft_service *s, uint32_t room, const ft_config *config, uint32_t *needed)
{
    ft_bank banks[FT_BANKS_MAX];
    ft_spread spread;
    memcpy(banks, s->banks, s->bank_count * sizeof *banks);
    banks[s->bank_count] = (ft_bank){s->memory + s->arena_at, room};
    ft_status status = ft_load_banks(banks, 1 + s->bank_count, s->memory, s->model_bytes, config, &s->node, &spread);
    if (status == FT_ERR_NOMEM)
        *needed = spread.bytes[spread.missing];
    return status;
}

ft_status ft_service_banks(ft_service *s, const ft_bank *banks, uint32_t count)
{
    if (s->node || !banks || count < 1 || count >= FT_BANKS_MAX)
        return FT_ERR_ARG;
    s->banks = banks;
    s->bank_count = count;
    s->load = load;
    return FT_OK;
}
