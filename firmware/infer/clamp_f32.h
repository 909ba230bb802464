#ifndef FTI_CLAMP_F32_H
#define FTI_CLAMP_F32_H

#include <stdint.h>

/* activation: 0 none, 1 ReLU, 2 ReLU6 */
static inline float fti_active(float x, int32_t activation)
{
    if (activation != 0 && x < 0.0f)
        return 0.0f;
    return activation == 2 && x > 6.0f ? 6.0f : x;
}

#endif
