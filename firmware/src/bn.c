#include "bn.h"

#include "num.h"

ft_status ft_bn_measure(ft_net *net, const ft_data *data, uint32_t samples, float *moments)
{
    ft_moments seen = {moments, 0};
    while (seen.samples < samples) {
        uint32_t left = samples - seen.samples;
        uint32_t batch = left < net->config.micro_batch ? left : net->config.micro_batch;
        ft_status status = ft_net_read(net, FT_PASS_MEASURE, data, seen.samples, batch, 0, false);
        if (status != FT_OK)
            return status;
        ft_net_forward(net, FT_PASS_MEASURE, batch, seen);
        seen.samples += batch;
    }
    return ft_num_all_finite(moments, net->layout.stat_count) ? FT_OK : FT_ERR_NONFINITE;
}

ft_status ft_bn_evaluate(ft_net *net, const ft_data *data, uint32_t samples, ft_score_sum *sum)
{
    ft_moments none = {0, 0};
    memset(sum, 0, sizeof *sum);
    for (uint32_t i = 0; i < samples; i++) {
        ft_status status = ft_net_read(net, FT_PASS_INFER, data, i, 1, 0, false);
        if (status != FT_OK)
            return status;
        ft_net_forward(net, FT_PASS_INFER, 1, none);
        status = ft_net_loss(net, FT_PASS_INFER, 1, sum);
        if (status != FT_OK)
            return status;
    }
    return FT_OK;
}
