#include "topk.h"

#include "backward.h"
#include "num.h"
#include "op/standard.h"

/* a ranks below b: smaller magnitude, or the higher index of equals */
static bool below(ft_topk_entry a, ft_topk_entry b)
{
    float x = ft_num_abs(a.gradient), y = ft_num_abs(b.gradient);
    return x < y || (x == y && a.index > b.index);
}

static bool after(ft_topk_entry a, ft_topk_entry b) { return a.index > b.index; }

/* Restores the heap below i: no entry's child may come `before` it. */
static void sift(ft_topk_entry *heap, uint32_t i, uint32_t n, bool (*before)(ft_topk_entry, ft_topk_entry))
{
    for (uint32_t child = 2 * i + 1; child < n; i = child, child = 2 * i + 1) {
        if (child + 1 < n && before(heap[child + 1], heap[child]))
            child++;
        if (!before(heap[child], heap[i]))
            return;
        ft_topk_entry swapped = heap[i];
        heap[i] = heap[child];
        heap[child] = swapped;
    }
}

static uint32_t offer(ft_topk_entry *heap, uint32_t n, uint32_t k, ft_topk_entry entry)
{
    if (n < k) {
        heap[n++] = entry;
        if (n == k)
            for (uint32_t i = n / 2; i-- > 0;)
                sift(heap, i, n, below);
    } else if (below(heap[0], entry)) {
        heap[0] = entry;
        sift(heap, 0, n, below);
    }
    return n;
}

static void sort_by_index(ft_topk_entry *heap, uint32_t n)
{
    for (uint32_t i = n / 2; i-- > 0;)
        sift(heap, i, n, after);
    while (n > 1) {
        ft_topk_entry last = heap[--n];
        heap[n] = heap[0];
        heap[0] = last;
        sift(heap, 0, n, after);
    }
}

/* Gradient of the rows [row, row + rows), summed over the micro-batches. */
static ft_status sum_rows(ft_net *net, const ft_data *data, uint32_t op, const uint16_t *positions, uint32_t row,
                          uint32_t rows, uint32_t batches, uint32_t seed, float *tile)
{
    uint32_t batch = data->count < net->config.micro_batch ? data->count : net->config.micro_batch;
    ft_moments none = {0, 0};
    for (uint32_t j = 0; j < batches; j++) {
        ft_score_sum ignored = {0};
        ft_status status = ft_net_read(net, FT_PASS_SCORE, data, j * batch, batch, seed, true);
        if (status != FT_OK)
            return status;
        ft_net_forward(net, FT_PASS_SCORE, batch, none);
        status = ft_net_loss(net, FT_PASS_SCORE, batch, &ignored);
        if (status != FT_OK)
            return status;
        ft_backward_run(net, batch, 0, op);
        ft_backward_dense_rows(net, op, batch, positions, row, rows, tile);
    }
    return FT_OK;
}

/* Row of a standardised weight: what turns its gradients into those of the stored weights, pruned ones too. */
static ft_standard standard_of(const float *w, const uint16_t *live, uint32_t count, const float *row,
                               const uint16_t *positions, float eps)
{
    ft_standard s = ft_standard_of(w, count, eps);
    for (uint32_t i = 0, k = 0; k < count; i++)
        if (live[k] == positions[i])
            ft_standard_add(&s, w[k++], row[i]);
    return s;
}

ft_status ft_topk_score(ft_net *net, const ft_data *data, uint32_t param, uint32_t k, uint32_t batches, uint32_t seed,
                        const ft_topk_entry **entries, uint32_t *found)
{
    ft_param p = ft_blob_param(&net->blob, param);
    uint32_t op_index = ft_blob_user(&net->blob, param), row_len = p.elements / p.dim[0], n = 0, most;
    ft_op op = ft_blob_op(&net->blob, op_index);
    ft_taps taps = ft_net_taps(net, param);
    ft_topk_entry *heap = (ft_topk_entry *)(void *)net->topk;
    float *tile = (float *)(void *)(heap + net->config.topk_max);
    uint16_t *positions = (uint16_t *)(void *)(tile + net->layout.tile_floats);
    uint32_t tile_rows = ft_plan_tile_rows(net->config.score_tile_bytes, row_len, p.dim[0]);
    ft_net_positions(net, param, positions);
    most = data->count / net->config.micro_batch;
    if (batches > most)
        batches = most ? most : 1;
    const uint16_t *live = taps.at, *bitmap = ft_net_bitmap(net, param);
    for (uint32_t row = 0; row < p.dim[0] && k; row += tile_rows) {
        uint32_t rows = p.dim[0] - row < tile_rows ? p.dim[0] - row : tile_rows;
        memset(tile, 0, rows * row_len * sizeof *tile);
        ft_status status = sum_rows(net, data, op_index, positions, row, rows, batches, seed, tile);
        if (status != FT_OK)
            return status;
        for (uint32_t r = 0; r < rows; r++) {
            uint32_t count = bitmap ? 0 : taps.counts[row + r];
            const uint16_t *end = live + count;
            ft_standard standard = standard_of(taps.values, live, op.eps > 0.0f ? count : 0, tile + r * row_len, positions, op.eps);
            taps.values += count;
            for (uint32_t i = 0; i < row_len; i++) {
                uint32_t index = (row + r) * row_len + i;
                if (live < end && *live == positions[i]) { /* both lists have the order of the flat index */
                    live++;
                    continue;
                }
                if (bitmap && ft_net_lives(bitmap, index))
                    continue;
                float g = tile[r * row_len + i];
                if (op.eps > 0.0f)
                    g = ft_standard_gradient(&standard, 0.0f, g);
                ft_topk_entry entry = {index, g / (float)batches};
                if (!ft_num_finite(entry.gradient))
                    return FT_ERR_NONFINITE;
                n = offer(heap, n, k, entry);
            }
        }
    }
    sort_by_index(heap, n);
    *entries = heap;
    *found = n;
    return FT_OK;
}
