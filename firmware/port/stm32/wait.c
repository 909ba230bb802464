#include "registers.h"

int stm32_wait(stm32_register *at, uint32_t mask, uint32_t wanted, uint32_t looks)
{
    while ((*at & mask) != wanted)
        if (looks-- == 0)
            return 1;
    return 0;
}
