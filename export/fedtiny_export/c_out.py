"""A blob as C sources, for boards that only infer."""

from __future__ import annotations

import re

from fedtiny_export.blob import read_blob
from fedtiny_export.errors import ExportError

_HEADER = """\
/* {name}: a model for inference with the fedtiny core, generated from a .ftm blob. ABI hash 0x{abi_hash:08x}.
 *
 *     static uint64_t arena[({guard}_ARENA_BYTES + 7) / 8];
 *     float logits[{guard}_CLASSES];
 *     ft_node *node;
 *     if ({name}_init(arena, sizeof arena, &node) == FT_OK) {{
 *         {name}_infer(node, x, logits);
 *     }}
 */
#ifndef {guard}_H
#define {guard}_H

#include "fedtiny.h"

#ifdef __cplusplus
extern "C" {{
#endif

#define {guard}_ARENA_BYTES {arena_bytes}u /* RAM that inference takes */
#define {guard}_BLOB_BYTES {blob_bytes}u /* flash that the model takes */
#define {guard}_INPUT_SIZE {input_size}u /* floats of one sample: {c} x {h} x {w} (channels, height, width) */
#define {guard}_CLASSES {classes}u

/* Builds the node in the arena (8-byte aligned, {guard}_ARENA_BYTES or more). */
ft_status {name}_init(void *arena, size_t arena_bytes, ft_node **node);

/* x: {guard}_INPUT_SIZE floats -> logits: {guard}_CLASSES floats. */
ft_status {name}_infer(ft_node *node, const float *x, float *logits);

#ifdef __cplusplus
}}
#endif
#endif
"""

_SOURCE = """\
#include "{name}.h"

/* The union aligns the bytes: the core reads the blob in place. */
static const union {{
    uint32_t align;
    uint8_t bytes[{guard}_BLOB_BYTES];
}} blob = {{.bytes = {{
{rows}
}}}};

ft_status {name}_init(void *arena, size_t arena_bytes, ft_node **node)
{{
    const ft_config config = {{.micro_batch = 1, .modes = FT_MODE_INFER, .norm = FT_NORM_FROZEN}};
    return ft_load(arena, arena_bytes, blob.bytes, sizeof blob.bytes, &config, node, 0);
}}

ft_status {name}_infer(ft_node *node, const float *x, float *logits)
{{
    return ft_infer(node, x, logits);
}}
"""


def to_c(blob: bytes, name: str, arena_bytes: int) -> dict[str, str]:
    """`name`.h and `name`.c (C99) by file name. `arena_bytes`: the planner's peak for inference of one sample.

    Raises BlobError for a damaged blob and ExportError for a name that C does not allow.
    """
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", name):
        raise ExportError(f"{name!r} cannot name C functions. Use letters, digits and underscores, a letter first.")
    read = read_blob(blob)
    source = read.graph.tensors[read.graph.input]
    c, h, w = source.shape
    fields = {
        "name": name,
        "guard": name.upper(),
        "abi_hash": read.abi_hash,
        "arena_bytes": arena_bytes,
        "blob_bytes": len(blob),
        "input_size": source.size,
        "c": c,
        "h": h,
        "w": w,
        "classes": read.graph.classes,
        "rows": ",\n".join("    " + ",".join(map(str, blob[i : i + 28])) for i in range(0, len(blob), 28)),
    }
    return {f"{name}.h": _HEADER.format(**fields), f"{name}.c": _SOURCE.format(**fields)}
