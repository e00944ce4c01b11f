#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""make_random_checkpoint.py DIRECTORY [--layers 30] [--dtype float32|bfloat16]
Writes a FlashVSR checkpoint of the released size with random weights, in the released files' formats and key
names, so that loading and speed can be measured where the real files are not at hand. Needs Python with torch and
safetensors; takes the GPU when there is one."""
import argparse
import math
import os

import torch
from safetensors.torch import save_file

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("directory")
parser.add_argument("--layers", type=int, default=30)
parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"])
options = parser.parse_args()
device = "cuda" if torch.cuda.is_available() else "cpu"
generator = torch.Generator(device).manual_seed(0)


def tensor(key, shape, dtype):
    value = torch.randn(shape, generator=generator, device=device)
    if key.endswith(".bias"):
        value *= 0.02
    elif "norm" in key or "gamma" in key:
        value = 1 + 0.1 * value
    elif "modulation" in key:
        value /= math.sqrt(shape[-1])
    else:
        value /= math.sqrt(math.prod(shape[1:]))
    return value.to(dtype).cpu()


def linear(out, key, rows, columns):
    out[key + ".weight"] = (rows, columns)
    out[key + ".bias"] = (rows,)


dim, ffn = 1536, 8960
dit = {"patch_embedding.weight": (dim, 16, 1, 2, 2), "patch_embedding.bias": (dim,), "head.modulation": (1, 2, dim)}
linear(dit, "text_embedding.0", dim, 4096)
linear(dit, "text_embedding.2", dim, dim)
linear(dit, "time_embedding.0", dim, 256)
linear(dit, "time_embedding.2", dim, dim)
linear(dit, "time_projection.1", 6 * dim, dim)
linear(dit, "head.head", 64, dim)
for n in range(options.layers):
    for attention in ("self_attn", "cross_attn"):
        for name in "qkvo":
            linear(dit, f"blocks.{n}.{attention}.{name}", dim, dim)
        for name in ("norm_q", "norm_k"):
            dit[f"blocks.{n}.{attention}.{name}.weight"] = (dim,)
    dit[f"blocks.{n}.norm3.weight"] = dit[f"blocks.{n}.norm3.bias"] = (dim,)
    linear(dit, f"blocks.{n}.ffn.0", ffn, dim)
    linear(dit, f"blocks.{n}.ffn.2", dim, ffn)
    dit[f"blocks.{n}.modulation"] = (1, 6, dim)

lq = {"conv1.weight": (2048, 768, 4, 3, 3), "conv1.bias": (2048,), "norm1.gamma": (2048, 1, 1, 1),
      "conv2.weight": (3072, 2048, 4, 3, 3), "conv2.bias": (3072,), "norm2.gamma": (3072, 1, 1, 1)}
linear(lq, "linear_layers.0", dim, 3072)

tc = {"decoder.1.weight": (512, 784, 3, 3), "decoder.1.bias": (512,), "decoder.3.weight": (512, 512, 3, 3),
      "decoder.9.conv.weight": (512, 512, 1, 1), "decoder.10.weight": (256, 512, 3, 3),
      "decoder.15.conv.weight": (512, 256, 1, 1), "decoder.16.weight": (128, 256, 3, 3),
      "decoder.21.conv.weight": (256, 128, 1, 1), "decoder.22.weight": (128, 128, 3, 3),
      "decoder.24.weight": (128, 128, 3, 3), "decoder.26.weight": (3, 128, 3, 3), "decoder.26.bias": (3,)}
for first, c in ((5, 512), (11, 256), (17, 128)):
    for i in range(first, first + 3):
        for part, width in ((0, 2 * c), (2, c), (4, c)):
            tc[f"decoder.{i}.conv.{part}.weight"] = (c, width, 3, 3)
            tc[f"decoder.{i}.conv.{part}.bias"] = (c,)

os.makedirs(options.directory, exist_ok=True)
path = lambda name: os.path.join(options.directory, name)
make = lambda shapes, dtype: {key: tensor(key, shape, dtype) for key, shape in sorted(shapes.items())}
save_file(make(dit, getattr(torch, options.dtype)), path("diffusion_pytorch_model_streaming_dmd.safetensors"))
torch.save(make(lq, torch.bfloat16), path("LQ_proj_in.ckpt"))
torch.save(make(tc, torch.float32), path("TCDecoder.ckpt"))
torch.save(torch.randn(1, 512, 4096, generator=generator, device=device).to(torch.bfloat16).cpu(), path("posi_prompt.pth"))
