/* What training keeps of the forward pass, in what form, and how backward gets it again.
 *
 * Kept: what an operator's backward reads and nothing else can give. A tensor is derived, not kept, when channel by channel
 * it follows from kept ones: a norm of a kept input, the ReLU after it, a sum of two such. Derived values have the bits of
 * the forward pass as long as what they follow from is kept whole. A lean plan derives more, and keeps of a max pool one
 * byte a window in place of its input. */
#ifndef FT_KEEP_H
#define FT_KEEP_H

#include "net.h"

/* Planning. first: the operator that backward ends with. until (by tensor): the last time at which backward reads it, 0 if
 * never; times as in place.h. */
void ft_keep_choose(const ft_blob *blob, const ft_config *config, uint32_t first, ft_place *places, uint32_t *until);
uint32_t ft_keep_root(const ft_blob *blob, uint32_t tensor); /* the tensor whose memory a flattened one shares */
/* Does this max pool remember its winners? And does it so apply the mask of the ReLU in front of it? */
bool ft_keep_picks(const ft_config *config, const ft_op *op);
bool ft_keep_masks(const ft_blob *blob, const ft_config *config, const ft_op *relu);
uint32_t ft_keep_floats(const ft_blob *blob, const ft_place *places, uint32_t tensor); /* packed, of one sample */
uint32_t ft_keep_temp(const ft_blob *blob, const ft_place *places, uint32_t tensor);   /* floats, for one channel */

/* Working. */
void ft_keep_save(const ft_net *net, uint32_t tensor, uint32_t batch);    /* packs what was just written, if it is kept so */
const float *ft_keep_whole(const ft_net *net, uint32_t tensor);           /* all samples in place, or NULL */
void ft_keep_channel(const ft_net *net, float *out, uint32_t tensor, uint32_t sample, uint32_t channel, float *temp);
void ft_keep_sample(const ft_net *net, float *out, uint32_t tensor, uint32_t sample, float *temp); /* all channels */

#endif
