/* A QEMU plugin: how often each block of instructions ran and left by a taken branch.
 * -plugin blocks.so,out=FILE writes a line "start instructions executions taken" per block. The declarations are those of
 * QEMU's plugin interface, version 1; its header is in no Debian package. */
#include <inttypes.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef uint64_t qemu_plugin_id_t;
typedef struct qemu_info_t qemu_info_t;
struct qemu_plugin_tb;
struct qemu_plugin_insn;
enum qemu_plugin_cb_flags { QEMU_PLUGIN_CB_NO_REGS };
typedef void (*when_translated)(qemu_plugin_id_t, struct qemu_plugin_tb *);
typedef void (*when_executed)(unsigned int, void *);
typedef void (*when_ended)(qemu_plugin_id_t, void *);
void qemu_plugin_register_vcpu_tb_trans_cb(qemu_plugin_id_t, when_translated);
void qemu_plugin_register_vcpu_tb_exec_cb(struct qemu_plugin_tb *, when_executed, enum qemu_plugin_cb_flags, void *);
void qemu_plugin_register_atexit_cb(qemu_plugin_id_t, when_ended, void *);
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *);
uint64_t qemu_plugin_tb_vaddr(const struct qemu_plugin_tb *);
struct qemu_plugin_insn *qemu_plugin_tb_get_insn(const struct qemu_plugin_tb *, size_t);
uint64_t qemu_plugin_insn_vaddr(const struct qemu_plugin_insn *);
size_t qemu_plugin_insn_size(const struct qemu_plugin_insn *);

#define PUBLIC __attribute__((visibility("default")))
PUBLIC int qemu_plugin_version = 1;

typedef struct block {
    struct block *next;
    uint64_t start, end, instructions, executions, taken;
} block;

static block *blocks, *last;
static FILE *out;

static void execute(unsigned int cpu, void *data)
{
    block *b = data;
    (void)cpu;
    b->executions++;
    if (last && last->end != b->start)
        last->taken++;
    last = b;
}

static void translate(qemu_plugin_id_t id, struct qemu_plugin_tb *tb)
{
    (void)id;
    size_t n = qemu_plugin_tb_n_insns(tb);
    struct qemu_plugin_insn *final = qemu_plugin_tb_get_insn(tb, n - 1);
    uint64_t start = qemu_plugin_tb_vaddr(tb), end = qemu_plugin_insn_vaddr(final) + qemu_plugin_insn_size(final);
    block *b = blocks;
    while (b && !(b->start == start && b->end == end)) /* the same code translated again */
        b = b->next;
    if (!b) {
        b = calloc(1, sizeof *b);
        if (!b)
            abort();
        b->next = blocks;
        b->start = start;
        b->end = end;
        b->instructions = n;
        blocks = b;
    }
    qemu_plugin_register_vcpu_tb_exec_cb(tb, execute, QEMU_PLUGIN_CB_NO_REGS, b);
}

static void finish(qemu_plugin_id_t id, void *data)
{
    (void)id;
    (void)data;
    for (block *b = blocks; b; b = b->next)
        fprintf(out, "%" PRIu64 " %" PRIu64 " %" PRIu64 " %" PRIu64 "\n", b->start, b->instructions, b->executions, b->taken);
    fclose(out);
}

PUBLIC int qemu_plugin_install(qemu_plugin_id_t id, const qemu_info_t *info, int argc, char **argv)
{
    (void)info;
    if (argc != 1 || strncmp(argv[0], "out=", 4) != 0 || !(out = fopen(argv[0] + 4, "w")))
        return 1;
    qemu_plugin_register_vcpu_tb_trans_cb(id, translate);
    qemu_plugin_register_atexit_cb(id, finish, NULL);
    return 0;
}
