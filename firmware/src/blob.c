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

uint32_t ft_blob_user(const ft_blob *blob, uint32_t param)
{
    for (uint32_t i = 0; i < blob->ops; i++) {
        ft_op op = ft_blob_op(blob, i);
        for (int k = 0; k < 4; k++)
            if (op.param[k] == param)
                return i;
    }
    return FT_NONE;
}

uint32_t ft_blob_writer(const ft_blob *blob, uint32_t tensor)
{
    for (uint32_t i = 0; i < blob->ops; i++)
        if (ft_blob_op(blob, i).out == tensor)
            return i;
    return FT_NONE;
}

uint32_t ft_blob_readers(const ft_blob *blob, uint32_t tensor)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < blob->ops; i++) {
        ft_op op = ft_blob_op(blob, i);
        count += (uint32_t)(op.in[0] == tensor) + (op.in[1] == tensor);
    }
    return count;
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

/* What each kind of operator has besides an input (an add: two) and an output. */
enum { SAME = 1, FLAT = 2, WINDOWED = 4, POOLED = 8, NORM = 16, GROUPED = 32 };
typedef struct {
    uint8_t roles[4]; /* of its parameters, 0: none; a bias may be left out */
    uint8_t rules;
} kind_rules;

static const kind_rules rules_of[] = {
    [FT_OP_CONV2D] = {{FT_ROLE_WEIGHT, FT_ROLE_BIAS}, WINDOWED | GROUPED},
    [FT_OP_LINEAR] = {{FT_ROLE_WEIGHT, FT_ROLE_BIAS}, FLAT},
    [FT_OP_BATCHNORM] = {{FT_ROLE_GAMMA, FT_ROLE_BETA, FT_ROLE_MEAN, FT_ROLE_VAR}, SAME | NORM},
    [FT_OP_GROUPNORM] = {{FT_ROLE_GAMMA, FT_ROLE_BETA}, SAME | NORM | GROUPED},
    [FT_OP_RELU] = {{0}, SAME},
    [FT_OP_RELU6] = {{0}, SAME},
    [FT_OP_MAXPOOL] = {{0}, WINDOWED | POOLED},
    [FT_OP_AVGPOOL] = {{0}, WINDOWED | POOLED},
    [FT_OP_ADD] = {{0}, SAME},
    [FT_OP_FLATTEN] = {{0}, FLAT},
};

static bool same_shape(ft_shape a, ft_shape b) { return a.c == b.c && a.h == b.h && a.w == b.w; }

/* May an operator of so many output channels have this parameter in this role? */
static bool param_fits(const ft_blob *blob, uint32_t index, uint8_t role, uint32_t channels)
{
    if (index == FT_NONE)
        return role == 0 || role == FT_ROLE_BIAS;
    if (index >= blob->params)
        return false;
    ft_param p = ft_blob_param(blob, index);
    return p.role == role && p.dim[0] == channels && (role == FT_ROLE_WEIGHT || p.ndim == 1);
}

static bool is_eps(float eps) { return eps > 0.0f && eps <= 1.0f; }

static ft_status check_weight(const ft_blob *blob, const ft_op *op, ft_shape in, ft_shape out)
{
    ft_param w = ft_blob_param(blob, op->param[0]);
    bool may_standardise = op->kind == FT_OP_CONV2D && ft_load_u16(blob->bytes + 6) == STANDARDISES;
    if (op->eps != 0.0f && !(may_standardise && is_eps(op->eps)))
        return FT_ERR_BLOB;
    if (op->kind == FT_OP_LINEAR)
        return w.ndim == 2 && in.h == 1 && in.w == 1 && w.dim[1] == in.c ? FT_OK : FT_ERR_BLOB;
    if (w.ndim != 4 || out.c % op->groups || w.dim[1] != in.c / op->groups || w.dim[2] != op->kh || w.dim[3] != op->kw)
        return FT_ERR_BLOB;
    /* positions inside one group's padded input, and the count of a row's live weights, are u16 (conv.h) */
    uint32_t phases = (uint32_t)(op->sh < op->kh ? op->sh : op->kh) * (op->sw < op->kw ? op->sw : op->kw);
    uint64_t plane = (uint64_t)phases * (out.h + (op->kh - 1u) / op->sh) * (out.w + (op->kw - 1u) / op->sw);
    return plane * w.dim[1] <= 65535u && plane * in.c <= 1u << 26 ? FT_OK : FT_ERR_UNSUPPORTED;
}

/* Is this tensor the input or what an earlier operator gives? */
static bool is_known(const ft_blob *blob, uint32_t tensor, uint32_t index)
{
    return tensor < blob->tensors && (tensor == blob->input || ft_blob_writer(blob, tensor) < index);
}

static ft_status check_op(const ft_blob *blob, uint32_t index)
{
    ft_op op = ft_blob_op(blob, index);
    bool adds = op.kind == FT_OP_ADD;
    if (op.flags & ~FT_FLAG_COUNT_PAD || (op.flags && op.kind != FT_OP_AVGPOOL))
        return FT_ERR_BLOB;
    if (op.out >= blob->tensors || op.out == blob->input || ft_blob_writer(blob, op.out) != index)
        return FT_ERR_BLOB;
    if (!is_known(blob, op.in[0], index) || !(adds ? is_known(blob, op.in[1], index) : op.in[1] == FT_NONE))
        return FT_ERR_BLOB;
    if (op.kind < FT_OP_CONV2D || op.kind > FT_OP_FLATTEN)
        return FT_ERR_UNSUPPORTED;
    const kind_rules *kind = &rules_of[op.kind];
    ft_shape in = ft_blob_tensor(blob, op.in[0]), out = ft_blob_tensor(blob, op.out);
    bool ok = true;
    for (int k = 0; k < 4; k++)
        ok = ok && param_fits(blob, op.param[k], kind->roles[k], out.c);
    if (kind->rules & SAME)
        ok = ok && same_shape(in, out) && (!adds || same_shape(ft_blob_tensor(blob, op.in[1]), out));
    if (kind->rules & FLAT)
        ok = ok && out.h == 1 && out.w == 1 && (op.kind == FT_OP_LINEAR || ft_shape_size(in) == out.c);
    if (kind->rules & WINDOWED)
        ok = ok && window_matches(&op, in, out);
    if (kind->rules & POOLED)
        ok = ok && in.c == out.c && op.pt < op.kh && op.pb < op.kh && op.pl < op.kw && op.pr < op.kw;
    if (kind->rules & NORM)
        ok = ok && is_eps(op.eps);
    if (kind->rules & GROUPED)
        ok = ok && op.groups && in.c % op.groups == 0;
    if (!ok)
        return FT_ERR_BLOB;
    return kind->roles[0] == FT_ROLE_WEIGHT ? check_weight(blob, &op, in, out) : FT_OK;
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

/* Each parameter belongs to one operator, for its positions are laid out for that operator's geometry: as many uses as
 * parameters, and each is used. */
static bool each_used_once(const ft_blob *blob)
{
    uint32_t uses = 0, used = 0;
    for (uint32_t i = 0; i < blob->ops; i++) {
        ft_op op = ft_blob_op(blob, i);
        for (int k = 0; k < 4; k++)
            uses += op.param[k] != FT_NONE;
    }
    for (uint32_t p = 0; p < blob->params; p++)
        used += ft_blob_user(blob, p) != FT_NONE;
    return uses == blob->params && used == uses;
}

/* The output feeds nothing and every other tensor feeds something: each gradient then has a well-defined first writer. */
static bool each_tensor_flows(const ft_blob *blob)
{
    for (uint32_t t = 0; t < blob->tensors; t++)
        if ((ft_blob_readers(blob, t) != 0) == (t == blob->output))
            return false;
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
