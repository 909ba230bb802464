#include "blob.h"

#include "bytes.h"
#include "num.h"

enum { HEADER = 64, TENSOR = 8, OP = 32, PARAM = 32, VERSION = 1, STANDARDISES = 1 };
/* What a hostile blob could otherwise inflate: these keep every count below 2^32 and the checks themselves short. */
#define MAX_BYTES (1u << 24)    /* of the blob */
#define MAX_ELEMENTS (1u << 24) /* of a parameter or an activation */
enum { MAX_OPS = 1024 };

static uint32_t crc_update(uint32_t crc, uint8_t byte)
{
    static const uint32_t table[16] = {0x00000000u, 0x1DB71064u, 0x3B6E20C8u, 0x26D930ACu, 0x76DC4190u, 0x6B6B51F4u,
                                       0x4DB26158u, 0x5005713Cu, 0xEDB88320u, 0xF00F9344u, 0xD6D6A3E8u, 0xCB61B38Cu,
                                       0x9B64C2B0u, 0x86D3D2D4u, 0xA00AE278u, 0xBDBDF21Cu};
    crc ^= byte;
    crc = crc >> 4 ^ table[crc & 15];
    return crc >> 4 ^ table[crc & 15];
}

uint32_t ft_blob_crc(uint32_t crc, const uint8_t *p, uint32_t n)
{
    while (n--)
        crc = crc_update(crc, *p++);
    return crc;
}

ft_shape ft_blob_tensor(const ft_blob *blob, uint32_t index)
{
    const uint8_t *p = blob->bytes + blob->tensor_at + index * TENSOR;
    ft_shape shape = {ft_load_u16(p), ft_load_u16(p + 2), ft_load_u16(p + 4)};
    return shape;
}

ft_op ft_blob_op(const ft_blob *blob, uint32_t index)
{
    const uint8_t *p = blob->bytes + blob->op_at + index * OP;
    ft_op op;
    op.kind = p[0];
    op.flags = p[1];
    op.in[0] = ft_load_u16(p + 2);
    op.in[1] = ft_load_u16(p + 4);
    op.out = ft_load_u16(p + 6);
    for (int i = 0; i < 4; i++)
        op.param[i] = ft_load_u16(p + 8 + 2 * i);
    op.kh = ft_load_u16(p + 16);
    op.kw = ft_load_u16(p + 18);
    op.sh = p[20];
    op.sw = p[21];
    op.pt = p[22];
    op.pl = p[23];
    op.pb = p[24];
    op.pr = p[25];
    op.groups = ft_load_u16(p + 26);
    op.eps = ft_load_f32(p + 28);
    return op;
}

ft_param ft_blob_param(const ft_blob *blob, uint32_t index)
{
    const uint8_t *p = blob->bytes + blob->param_at + index * PARAM;
    ft_param param;
    param.role = p[0];
    param.storage = p[1];
    param.ndim = p[2];
    for (int i = 0; i < 4; i++)
        param.dim[i] = ft_load_u16(p + 4 + 2 * i);
    param.elements = ft_load_u32(p + 12);
    param.live = ft_load_u32(p + 16);
    param.mask_at = ft_load_u32(p + 20);
    param.mask_bytes = ft_load_u32(p + 24);
    param.values_at = ft_load_u32(p + 28);
    return param;
}

ft_mask ft_blob_mask(const ft_blob *blob, const ft_param *param)
{
    return ft_mask_open(param->storage, blob->bytes + param->mask_at, param->mask_bytes, param->elements);
}

float ft_blob_value(const ft_blob *blob, const ft_param *param, uint32_t live_index)
{
    return ft_load_f32(blob->bytes + param->values_at + 4 * live_index);
}

static bool inside(const ft_blob *blob, uint32_t at, uint32_t count, uint32_t each)
{
    return at % 4 == 0 && at >= HEADER && at <= blob->size && count <= (blob->size - at) / each;
}

static ft_status check_param(const ft_blob *blob, uint32_t index)
{
    ft_param p = ft_blob_param(blob, index);
    const uint8_t *raw = blob->bytes + blob->param_at + index * PARAM;
    uint64_t elements = 1;
    if (p.role < FT_ROLE_WEIGHT || p.role > FT_ROLE_VAR || p.ndim < 1 || p.ndim > 4 || raw[3] != 0)
        return FT_ERR_BLOB;
    for (int i = 0; i < 4; i++) {
        if (p.dim[i] == 0 || (i >= p.ndim && p.dim[i] != 1))
            return FT_ERR_BLOB;
        elements *= p.dim[i];
        if (elements > MAX_ELEMENTS)
            return FT_ERR_UNSUPPORTED;
    }
    if (p.elements != elements || p.live > p.elements || !inside(blob, p.values_at, p.live, 4))
        return FT_ERR_BLOB;
    if (p.storage == FT_STORAGE_DENSE) {
        if (p.live != p.elements || p.mask_at != 0 || p.mask_bytes != 0)
            return FT_ERR_BLOB;
    } else {
        uint32_t live;
        if (p.role != FT_ROLE_WEIGHT || p.storage > FT_MASK_DELTAS || !inside(blob, p.mask_at, p.mask_bytes, 1))
            return FT_ERR_BLOB;
        if (!ft_mask_check(ft_blob_mask(blob, &p), &live) || live != p.live)
            return FT_ERR_BLOB;
    }
    for (uint32_t i = 0; i < p.live; i++)
        if (!ft_num_finite(ft_blob_value(blob, &p, i)))
            return FT_ERR_NONFINITE;
    return FT_OK;
}

static bool is_vector(const ft_blob *blob, uint16_t index, uint8_t role, uint16_t length)
{
    if (index >= blob->params)
        return false;
    ft_param p = ft_blob_param(blob, index);
    return p.role == role && p.ndim == 1 && p.dim[0] == length;
}

/* Output size of a sliding window along one axis; 0 when the window does not fit. */
static uint32_t window_count(uint32_t size, uint32_t before, uint32_t after, uint32_t kernel, uint32_t stride)
{
    uint32_t padded = size + before + after;
    return kernel == 0 || stride == 0 || padded < kernel ? 0 : (padded - kernel) / stride + 1;
}

static bool window_matches(const ft_op *op, ft_shape in, ft_shape out)
{
    return window_count(in.h, op->pt, op->pb, op->kh, op->sh) == out.h
           && window_count(in.w, op->pl, op->pr, op->kw, op->sw) == out.w;
}

static ft_status check_weighted(const ft_blob *blob, const ft_op *op, ft_shape in, ft_shape out)
{
    if (op->param[0] >= blob->params)
        return FT_ERR_BLOB;
    ft_param w = ft_blob_param(blob, op->param[0]);
    if (w.role != FT_ROLE_WEIGHT || w.dim[0] != out.c)
        return FT_ERR_BLOB;
    if (op->param[1] != FT_NONE && !is_vector(blob, op->param[1], FT_ROLE_BIAS, out.c))
        return FT_ERR_BLOB;
    if (op->param[2] != FT_NONE || op->param[3] != FT_NONE)
        return FT_ERR_BLOB;
    if (op->eps != 0.0f
        && !(op->kind == FT_OP_CONV2D && ft_load_u16(blob->bytes + 6) == STANDARDISES && op->eps > 0.0f && op->eps <= 1.0f))
        return FT_ERR_BLOB;
    if (op->kind == FT_OP_LINEAR)
        return w.ndim == 2 && out.h == 1 && out.w == 1 && in.h == 1 && in.w == 1 && w.dim[1] == in.c ? FT_OK : FT_ERR_BLOB;
    if (w.ndim != 4 || op->groups == 0 || in.c % op->groups || out.c % op->groups || w.dim[1] != in.c / op->groups
        || w.dim[2] != op->kh || w.dim[3] != op->kw || !window_matches(op, in, out))
        return FT_ERR_BLOB;
    /* positions inside one group's padded input, and the count of a row's live weights, are u16 (conv.h) */
    uint32_t phases = (uint32_t)(op->sh < op->kh ? op->sh : op->kh) * (op->sw < op->kw ? op->sw : op->kw);
    uint64_t plane = (uint64_t)phases * (out.h + (op->kh - 1u) / op->sh) * (out.w + (op->kw - 1u) / op->sw);
    return plane * w.dim[1] <= 65535u && plane * in.c <= 1u << 26 ? FT_OK : FT_ERR_UNSUPPORTED;
}

static ft_status check_op(const ft_blob *blob, uint32_t index)
{
    ft_op op = ft_blob_op(blob, index);
    uint32_t inputs = op.kind == FT_OP_ADD ? 2 : 1;
    if (op.flags & ~FT_FLAG_COUNT_PAD || (op.flags && op.kind != FT_OP_AVGPOOL))
        return FT_ERR_BLOB;
    if (op.out >= blob->tensors || op.out == blob->input || op.in[0] >= blob->tensors)
        return FT_ERR_BLOB;
    if (inputs == 2 ? op.in[1] >= blob->tensors : op.in[1] != FT_NONE)
        return FT_ERR_BLOB;
    for (uint32_t i = 0; i < inputs; i++) {
        bool written = op.in[i] == blob->input;
        for (uint32_t j = 0; j < index && !written; j++)
            written = ft_blob_op(blob, j).out == op.in[i];
        if (!written)
            return FT_ERR_BLOB;
    }
    for (uint32_t j = 0; j < index; j++)
        if (ft_blob_op(blob, j).out == op.out)
            return FT_ERR_BLOB;
    ft_shape in = ft_blob_tensor(blob, op.in[0]), out = ft_blob_tensor(blob, op.out);
    bool same = in.c == out.c && in.h == out.h && in.w == out.w;
    bool bare = op.param[0] == FT_NONE && op.param[1] == FT_NONE && op.param[2] == FT_NONE && op.param[3] == FT_NONE;
    bool affine = is_vector(blob, op.param[0], FT_ROLE_GAMMA, in.c) && is_vector(blob, op.param[1], FT_ROLE_BETA, in.c)
                  && op.eps > 0.0f && op.eps <= 1.0f;
    bool ok;
    switch (op.kind) {
    case FT_OP_CONV2D:
    case FT_OP_LINEAR:
        return check_weighted(blob, &op, in, out);
    case FT_OP_BATCHNORM:
        ok = same && affine && is_vector(blob, op.param[2], FT_ROLE_MEAN, in.c)
             && is_vector(blob, op.param[3], FT_ROLE_VAR, in.c);
        break;
    case FT_OP_GROUPNORM:
        ok = same && affine && op.param[2] == FT_NONE && op.param[3] == FT_NONE && op.groups && in.c % op.groups == 0;
        break;
    case FT_OP_RELU:
    case FT_OP_RELU6:
        ok = same && bare;
        break;
    case FT_OP_MAXPOOL:
    case FT_OP_AVGPOOL:
        ok = bare && in.c == out.c && window_matches(&op, in, out) && op.pt < op.kh && op.pb < op.kh && op.pl < op.kw
             && op.pr < op.kw;
        break;
    case FT_OP_ADD: {
        ft_shape other = ft_blob_tensor(blob, op.in[1]);
        ok = same && bare && other.c == in.c && other.h == in.h && other.w == in.w;
        break;
    }
    case FT_OP_FLATTEN:
        ok = bare && out.h == 1 && out.w == 1 && ft_shape_size(in) == out.c;
        break;
    default:
        return FT_ERR_UNSUPPORTED;
    }
    return ok ? FT_OK : FT_ERR_BLOB;
}

/* Parameters may not share values: all of them then fit what the blob's own size bounds. */
static bool values_fit(const ft_blob *blob)
{
    uint32_t left = blob->size / 4;
    for (uint32_t p = 0; p < blob->params; p++) {
        uint32_t live = ft_blob_param(blob, p).live;
        if (live > left)
            return false;
        left -= live;
    }
    return true;
}

/* Each parameter belongs to one operator: its positions are laid out for that operator's geometry. */
static bool each_used_once(const ft_blob *blob)
{
    for (uint32_t p = 0; p < blob->params; p++) {
        uint32_t uses = 0;
        for (uint32_t i = 0; i < blob->ops; i++) {
            ft_op op = ft_blob_op(blob, i);
            for (int k = 0; k < 4; k++)
                uses += op.param[k] == p;
        }
        if (uses != 1)
            return false;
    }
    return true;
}

/* The output feeds nothing and every other tensor feeds something: each gradient then has a well-defined first writer. */
static bool each_tensor_flows(const ft_blob *blob)
{
    for (uint32_t t = 0; t < blob->tensors; t++) {
        bool read = false;
        for (uint32_t i = 0; i < blob->ops && !read; i++) {
            ft_op op = ft_blob_op(blob, i);
            read = op.in[0] == t || op.in[1] == t;
        }
        if (read == (t == blob->output))
            return false;
    }
    return true;
}

static uint32_t abi_hash(const ft_blob *blob)
{
    uint32_t crc = 0xFFFFFFFFu;
    crc = ft_blob_crc(crc, blob->bytes + blob->tensor_at, (uint32_t)blob->tensors * TENSOR);
    crc = ft_blob_crc(crc, blob->bytes + blob->op_at, (uint32_t)blob->ops * OP);
    for (uint32_t i = 0; i < blob->params; i++) {
        const uint8_t *p = blob->bytes + blob->param_at + i * PARAM;
        for (int k = 0; k < 16; k++)
            crc = crc_update(crc, k == 1 ? 0 : p[k]);
    }
    return ~crc;
}

ft_status ft_blob_open(ft_blob *blob, const uint8_t *bytes, size_t size)
{
    if (!bytes || size < HEADER || memcmp(bytes, "FTM1", 4) != 0)
        return FT_ERR_BLOB;
    if (ft_load_u16(bytes + 4) != VERSION || ft_load_u16(bytes + 6) > STANDARDISES)
        return FT_ERR_VERSION;
    if (size > MAX_BYTES)
        return FT_ERR_UNSUPPORTED;
    blob->bytes = bytes;
    blob->size = ft_load_u32(bytes + 8);
    if (blob->size != size || ~ft_blob_crc(0xFFFFFFFFu, bytes + 16, blob->size - 16) != ft_load_u32(bytes + 12))
        return FT_ERR_BLOB;
    blob->abi = ft_load_u32(bytes + 16);
    blob->tensors = ft_load_u16(bytes + 20);
    blob->ops = ft_load_u16(bytes + 22);
    blob->params = ft_load_u16(bytes + 24);
    blob->input = ft_load_u16(bytes + 26);
    blob->output = ft_load_u16(bytes + 28);
    blob->tensor_at = ft_load_u32(bytes + 32);
    blob->op_at = ft_load_u32(bytes + 36);
    blob->param_at = ft_load_u32(bytes + 40);
    if (ft_load_u16(bytes + 30) || ft_load_u32(bytes + 52) || ft_load_u32(bytes + 56) || ft_load_u32(bytes + 60))
        return FT_ERR_BLOB;
    if (!inside(blob, blob->tensor_at, blob->tensors, TENSOR) || !inside(blob, blob->op_at, blob->ops, OP)
        || !inside(blob, blob->param_at, blob->params, PARAM))
        return FT_ERR_BLOB;
    if (blob->tensors == 0 || blob->ops == 0 || blob->tensors != blob->ops + 1 || blob->input >= blob->tensors
        || blob->output >= blob->tensors || blob->input == blob->output)
        return FT_ERR_BLOB;
    if (blob->ops > MAX_OPS)
        return FT_ERR_UNSUPPORTED;
    if (blob->params > 4u * blob->ops || abi_hash(blob) != blob->abi)
        return FT_ERR_BLOB;
    for (uint32_t i = 0; i < blob->tensors; i++) {
        ft_shape s = ft_blob_tensor(blob, i);
        uint64_t elements = (uint64_t)s.c * s.h * s.w;
        if (elements == 0 || ft_load_u16(bytes + blob->tensor_at + i * TENSOR + 6) != 0)
            return FT_ERR_BLOB;
        if (elements > MAX_ELEMENTS)
            return FT_ERR_UNSUPPORTED;
    }
    for (uint32_t i = 0; i < blob->params; i++) {
        ft_status status = check_param(blob, i);
        if (status != FT_OK)
            return status;
    }
    for (uint32_t i = 0; i < blob->ops; i++) {
        ft_status status = check_op(blob, i);
        if (status != FT_OK)
            return status;
    }
    ft_shape logits = ft_blob_tensor(blob, blob->output);
    if (logits.h != 1 || logits.w != 1)
        return FT_ERR_BLOB;
    return values_fit(blob) && each_used_once(blob) && each_tensor_flows(blob) ? FT_OK : FT_ERR_BLOB;
}
