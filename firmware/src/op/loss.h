/* Losses of one sample, and their gradients times `weight` (NULL: not wanted; may be the outputs themselves).
 *
 * hit: the label has the largest output (the first of equals). */
#ifndef FT_LOSS_H
#define FT_LOSS_H

#include <stdint.h>

/* Softmax cross-entropy in nats. */
float ft_loss_cross_entropy(float *dlogits, uint32_t *hit, const float *logits, uint32_t label, float weight,
                            uint32_t classes);
/* Mean of (y - target)^2 over n outputs; target NULL: the label's one-hot vector. */
float ft_loss_squared(float *dy, uint32_t *hit, const float *y, const float *target, uint32_t label, float weight, uint32_t n);

#endif
