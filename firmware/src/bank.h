/* Spreads the parts of a laid-out node over banks of memory. */
#ifndef FT_BANK_H
#define FT_BANK_H

#include "plan.h"

/* *bank: the first that holds the `planning` bytes of ft_plan_layout. FT_ERR_NOMEM, told by spread, if none does. */
ft_status ft_bank_to_plan_in(uint32_t *bank, ft_spread *spread, const ft_bank *banks, uint32_t count, uint32_t planning);

/* Fills spread and layout->memory.bank. */
ft_status ft_bank_spread(ft_spread *spread, ft_layout *layout, const ft_config *config, const ft_bank *banks,
                         uint32_t count, uint32_t planning);

#endif
