/* Links every public call, so that the linker's section collection leaves all of the core; and what flash_more names. */
#include "fedtiny.h"

typedef void (*call)(void);
#define CALL(f) (call)(void *)(f)

extern const call flash_more; /* flash_none.c, flash_wire.c */

int main(void)
{
    static const call all[] = {
        CALL(ft_plan),           CALL(ft_plan_scratch),   CALL(ft_plan_banks),     CALL(ft_load),
        CALL(ft_load_banks),     CALL(ft_set_data),       CALL(ft_input_size),     CALL(ft_class_count),
        CALL(ft_layer_count),    CALL(ft_value_count),    CALL(ft_trained_count),  CALL(ft_stat_count),
        CALL(ft_abi_hash),       CALL(ft_memory_of),      CALL(ft_set_values),     CALL(ft_get_values),
        CALL(ft_set_stats),      CALL(ft_get_stats),      CALL(ft_set_mask),       CALL(ft_measure_bn),
        CALL(ft_set_thresholds), CALL(ft_evaluate),       CALL(ft_train),          CALL(ft_score),
        CALL(ft_infer),          CALL(ft_gradient),       CALL(ft_shuffle),        CALL(ft_status_text),
    };
    for (unsigned i = 0; i < sizeof all / sizeof *all; i++)
        if (*(const call volatile *)&all[i] == 0)
            return 1;
    if (flash_more)
        flash_more();
    return 0;
}
