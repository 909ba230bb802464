"""Inference: networks from torch, ONNX and TFLite, float or int8, to TFLite, ONNX, C and the node's engine."""
