"""What others take for the same work: measured with the same emulator and flags, or published by their makers.

Measured: QEMU 7.2 mps2-an386 with -icount, GCC 12, -mcpu=cortex-m4 -mfpu=fpv4-sp-d16 -mfloat-abi=hard; cycles by the
model of cycles.py. RAM as the peer declares it.
"""

from __future__ import annotations

from fedtiny.bench.suite import Peer

O3 = "measured, M4F, GCC 12, -O3"
INT8 = "measured, M4F, GCC 12, -O2, int8"
ESTIMATE = "estimate, batch 1, d = 0.1"
_REF, _RESNET = "ref.train.m4f", "resnet8.infer.m4f.d0.1.f32.fast.instructions"
_DSCNN, _CONV = "dscnn.infer.m4f.d0.1.fast.instructions", "conv64x64.m4f.d0.1.fast.instructions_per_mac"
PEERS = (
    Peer(f"{_REF}.d0.1.instructions", "plain C, dense", 3.38e6, "instructions", O3),
    Peer(f"{_REF}.d0.1.instructions", "AIfES, dense", 37.5e6, "instructions", O3),
    Peer(f"{_REF}.d0.1.cycles", "plain C, dense", 6.2e6, "cycles", O3),
    Peer(f"{_REF}.d0.1.fast.instructions", "prototype of direct kernels", 0.64e6, "instructions", O3),
    Peer(f"{_REF}.d1.fast.instructions", "prototype of direct kernels", 1.52e6, "instructions", O3),
    Peer("ref.train.d0.1.ram_bytes", "plain C, dense", 177e3, "bytes", O3),
    Peer("ref.train.d0.1.ram_bytes", "AIfES, dense", 233e3, "bytes", O3),
    Peer(_RESNET, "TFLite Micro + CMSIS-NN, dense int8", 29.86e6, "instructions", INT8),
    Peer(_RESNET, "TFLite Micro, dense f32", 99.9e6, "instructions", O3),
    Peer(_RESNET, "onnx2c, dense f32", 111.0e6, "instructions", O3),
    Peer(_DSCNN, "TFLite Micro + CMSIS-NN, dense int8", 7.70e6, "instructions", INT8),
    Peer(_DSCNN, "onnx2c, dense f32", 19.0e6, "instructions", O3),
    Peer("resnet8.train.d0.1.ram_bytes", "f32 activations kept", 551e3, "bytes", ESTIMATE),
    Peer("dscnn.train.d0.1.ram_bytes", "f32 activations kept", 334e3, "bytes", ESTIMATE),
    Peer("node.flash_bytes", "TFLite Micro + CMSIS-NN, infers only", 94e3, "bytes", INT8),
    Peer(_CONV, "best dense assembly, per dense MAC", 1.25, "instructions per MAC", O3),
    Peer(_CONV, "naive dense C, per dense MAC", 3.57, "instructions per MAC", O3),
    Peer(_CONV, "CSR dot", 7.2, "instructions per MAC", O3),
)

PUBLISHED = (
    "MLPerf Tiny v1.2, int8 inference: NUCLEO-L4R5ZI (M4, 120 MHz) ResNet8 165 ms, DS-CNN 43 ms; U575 (M33) 110, 29 ms",
    "MCUNetV3: trains under 256 KB by updating a subset of layers, 7 to 9 times less memory",
)
