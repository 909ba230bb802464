#include <string.h>

#include "load.h"

static fti_kernel *const kernels[FTI_CODES] = {
    [FTI_CONV_S8] = fti_conv_s8, [FTI_DEPTHWISE_S8] = fti_depthwise_s8, [FTI_DENSE_S8] = fti_dense_s8,
    [FTI_ADD_S8] = fti_add_s8, [FTI_MOVE_S8] = fti_move_s8, [FTI_AVERAGE_POOL_S8] = fti_average_pool_s8,
    [FTI_MAX_POOL_S8] = fti_max_pool_s8, [FTI_MEAN_S8] = fti_mean_s8, [FTI_SOFTMAX_S8] = fti_softmax_s8,
    [FTI_RESCALE_S8] = fti_rescale_s8, [FTI_QUANTIZE_S8] = fti_quantize_s8, [FTI_DEQUANTIZE_S8] = fti_dequantize_s8,
    [FTI_SPARSE_CONV_S8] = fti_sparse_conv_s8, [FTI_SPARSE_DENSE_S8] = fti_sparse_dense_s8,
    [FTI_CONV_F32] = fti_conv_f32, [FTI_DEPTHWISE_F32] = fti_depthwise_f32, [FTI_DENSE_F32] = fti_dense_f32,
    [FTI_ADD_F32] = fti_add_f32, [FTI_MOVE_F32] = fti_move_f32, [FTI_AVERAGE_POOL_F32] = fti_average_pool_f32,
    [FTI_MAX_POOL_F32] = fti_max_pool_f32, [FTI_MEAN_F32] = fti_mean_f32, [FTI_SOFTMAX_F32] = fti_softmax_f32,
    [FTI_CLAMP_F32] = fti_clamp_f32,
};

enum { AT_OPS = 36, AT_PORTS = 40 }; /* where the header says where they are */

static float f32(const uint8_t *p)
{
    const uint32_t bits = fti_u32(p);
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static uint32_t crc(const uint8_t *p, uint32_t n)
{
    static const uint32_t table[16] = {
        0x00000000, 0x1DB71064, 0x3B6E20C8, 0x26D930AC, 0x76DC4190, 0x6B6B51F4, 0x4DB26158, 0x5005713C,
        0xEDB88320, 0xF00F9344, 0xD6D6A3E8, 0xCB61B38C, 0x9B64C2B0, 0x86D3D2D4, 0xA00AE278, 0xBDBDF21C};
    uint32_t sum = 0xFFFFFFFFu;
    for (; n > 0; n--) {
        sum ^= *p++;
        sum = sum >> 4 ^ table[sum & 15];
        sum = sum >> 4 ^ table[sum & 15];
    }
    return ~sum;
}

static const void *constant(const fti_program *program, const uint8_t *offset)
{
    const uint32_t at = fti_u32(offset);
    return at ? program->blob + at : 0;
}

fti_op fti_decode(const fti_program *program, uint32_t index, fti_code *code, uint32_t *weight_bytes)
{
    const uint8_t *p = program->blob + fti_u32(program->blob + AT_OPS) + index * FTI_OP;
    fti_op op;
    *code = (fti_code)p[0];
    *weight_bytes = fti_u32(p + 84);
    op.kernel = p[0] < FTI_CODES ? kernels[p[0]] : 0;
    op.kh = p[4], op.kw = p[5], op.sh = p[6], op.sw = p[7], op.dh = p[8], op.dw = p[9], op.top = p[10], op.left = p[11];
    op.xh = fti_u16(p + 12), op.xw = fti_u16(p + 14), op.xc = fti_u16(p + 16);
    op.yh = fti_u16(p + 18), op.yw = fti_u16(p + 20), op.yc = fti_u16(p + 22);
    op.x = fti_u32(p + 24), op.x2 = fti_u32(p + 28), op.y = fti_u32(p + 32), op.work = fti_u32(p + 36);
    op.weight = constant(program, p + 40), op.bias = constant(program, p + 44);
    op.multiplier = constant(program, p + 48), op.shift = constant(program, p + 52);
    op.x_zero = fti_i32(p + 56), op.x2_zero = fti_i32(p + 60), op.y_zero = fti_i32(p + 64);
    op.low = fti_i32(p + 68), op.high = fti_i32(p + 72), op.a = fti_i32(p + 76), op.b = fti_i32(p + 80);
    return op;
}

static fti_port port(const fti_program *program, uint32_t index)
{
    const uint8_t *p = program->blob + fti_u32(program->blob + AT_PORTS) + index * FTI_PORT;
    const fti_port found = {fti_u32(p), fti_u32(p + 4), (fti_type)p[8], f32(p + 12), fti_i32(p + 16)};
    return found;
}

static int port_fits(const fti_port *p, uint32_t arena_bytes)
{
    const uint32_t size = p->type == FTI_INT8 ? 1 : 4;
    return (p->type == FTI_INT8 || p->type == FTI_FLOAT32) && p->at % size == 0 && p->elements <= 1u << 24 &&
           (uint64_t)p->at + (uint64_t)p->elements * size <= arena_bytes;
}

fti_status fti_load(fti_program *program, const void *blob, size_t bytes)
{
    const uint8_t *p = blob;
    if ((uintptr_t)blob % 4)
        return FTI_ERR_ALIGN;
    if (bytes < FTI_HEADER || memcmp(p, "FTI1", 4) != 0)
        return FTI_ERR_FORMAT;
    if (fti_u16(p + 4) != 1 || fti_u16(p + 6) != 0)
        return FTI_ERR_VERSION;
    if (fti_u32(p + 8) != bytes || bytes > 1u << 28 || fti_u32(p + 12) != crc(p + 16, (uint32_t)bytes - 16))
        return FTI_ERR_FORMAT;
    const fti_program found = {p, fti_u32(p + 20), fti_u32(p + 24), fti_u32(p + 28), fti_u32(p + 16)};
    const uint64_t ops_end = (uint64_t)fti_u32(p + AT_OPS) + (uint64_t)found.ops * FTI_OP;
    const uint64_t ports_end = fti_u32(p + AT_PORTS) + ((uint64_t)found.inputs + found.outputs) * FTI_PORT;
    if (ops_end > bytes || ports_end > bytes)
        return FTI_ERR_FORMAT;
    if (found.ops > 4096 || found.arena_bytes > 1u << 28)
        return FTI_ERR_UNSUPPORTED;
    for (uint32_t i = 0; i < found.ops; i++) {
        fti_code code;
        uint32_t weight_bytes;
        const fti_op op = fti_decode(&found, i, &code, &weight_bytes);
        if (!op.kernel)
            return FTI_ERR_UNSUPPORTED;
        if (!fti_check(&op, code, weight_bytes, &found, (uint32_t)bytes))
            return FTI_ERR_FORMAT;
    }
    for (uint32_t i = 0; i < found.inputs + found.outputs; i++) {
        const fti_port one = port(&found, i);
        if (!port_fits(&one, found.arena_bytes))
            return FTI_ERR_FORMAT;
    }
    *program = found;
    return FTI_OK;
}

fti_port fti_input(const fti_program *program, uint32_t index) { return port(program, index); }

fti_port fti_output(const fti_program *program, uint32_t index) { return port(program, program->inputs + index); }

void fti_run_op(const fti_program *program, void *arena, uint32_t index)
{
    fti_code code;
    uint32_t weight_bytes;
    const fti_op op = fti_decode(program, index, &code, &weight_bytes);
    op.kernel(arena, &op);
}

void fti_run(const fti_program *program, void *arena)
{
    for (uint32_t i = 0; i < program->ops; i++)
        fti_run_op(program, arena, i);
}
