/* Softmax cross-entropy in nats over (B, C) logits. */
#ifndef FT_LOSS_H
#define FT_LOSS_H

#include <stdint.h>

/* Loss of one sample; its gradient times `weight` goes to dlogits (NULL: not wanted; may be logits). hit: the label has the
 * largest logit (the first of equals). */
float ft_loss_cross_entropy(float *dlogits, uint32_t *hit, const float *logits, uint32_t label, float weight,
                            uint32_t classes);

#endif
