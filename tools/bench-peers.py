#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Block-sparse attention of others, at the shapes of tests/bench/attention_bench.cu, as JSON lines.

    bench-peers.py [--peers flashinfer,flex,dense] [--shape PART] [--seconds 0.2] [--commit HASH]
    bench-peers.py --self-check

Runs on a GPU machine with torch >= 2.5, right before or after `flashvsr-bench kernels`, so that both meet
the same card at the same clocks. Peers that cannot be imported are named on stderr and left out:
    flashinfer   BlockSparseAttentionWrapper, its planning apart ("plan_ms")
    flex         torch FlexAttention, compiled, with the same BlockMask
    dense        torch scaled_dot_product_attention (cuDNN or FlashAttention) over as many keys as a row
                 keeps on average: what the kept pairs would cost without their pattern
q and k are normal plus a block mean such that pooled scores have a standard deviation of 1.5; the mask
follows the model's rule (local range, softmax over a row, joint top-k of a head and query slot).
flop = 4 * 128 * 128 * head_dim per kept pair. "burst": 5 calls back to back, median, minimum and maximum
of 7. "ratio" is to the first peer that ran on that shape in this run.

Run on an H200 with torch 2.11, where FlashInfer was not to be had (2026-11-28).
--self-check (CPU, seconds): FlexAttention in eager mode with our BlockMask, at a tiny size, against a
dense softmax under the same mask, and its block lists against the mask; exits 1 when they differ.
"""
import argparse
import json
import math
import os
import sys

BLOCK = 128
# name, windows down and across, query slots, key slots, heads, head_dim, local range (0: none), kept a row
SHAPES = [
    ('768x1408 steady', 6, 11, 1, 4, 12, 128, 11, 120),
    ('768x1408 first', 6, 11, 3, 3, 12, 128, 11, 120),
    ('1536x2688 steady', 12, 21, 1, 4, 12, 128, 11, 120),
    ('768x1408 density .1', 6, 11, 1, 4, 12, 128, 0, 26.4),
    ('768x1408 density 1', 6, 11, 1, 4, 12, 128, 0, 1e9),
    ('nano 1152x1920 steady', 9, 15, 1, 4, 3, 64, 11, 12),
]


def make_inputs(torch, shape, device, dtype, seed):
    """q, k, v as [heads, tokens, head_dim] and the mask as [heads, q_blocks, k_blocks]."""
    _, down, across, q_slots, k_slots, heads, dim, reach, kept = shape
    windows = down * across
    generator = torch.Generator().manual_seed(seed)
    means = [torch.randn(heads, slots * windows, dim, generator=generator) * math.sqrt(1.5) for slots in (q_slots, k_slots)]
    scores = means[0] @ means[1].transpose(1, 2) / math.sqrt(dim)
    if reach:
        place = torch.arange(windows)
        y, x = place // across, place % across
        dy, dx = y[None] - y[:, None], x[None] - x[:, None]
        half = reach // 2
        near = (dy >= -half) & (dy < reach - half) & (dx >= -half) & (dx < reach - half)
        scores = scores.masked_fill(~near.repeat(q_slots, k_slots), -math.inf)
    p = scores.softmax(-1).view(heads, q_slots, -1)
    keep = int(min(kept * windows, p.shape[-1]))
    if keep < p.shape[-1]:
        mask = p > p.topk(keep, -1).values[..., -1:]
    else:
        mask = torch.ones_like(p, dtype=torch.bool)
    mask = mask.view(scores.shape)
    tokens = [m.repeat_interleave(BLOCK, 1) + torch.randn(heads, m.shape[1] * BLOCK, dim, generator=generator) for m in means]
    value = torch.randn(tokens[1].shape, generator=generator)
    return [t.to(device, dtype) for t in (*tokens, value)] + [mask.to(device)]


def flex_mask(torch, mask):
    from torch.nn.attention.flex_attention import BlockMask
    counts = mask.sum(-1, dtype=torch.int32)
    # Kept columns first, in order.
    order = torch.argsort((~mask).to(torch.int8), dim=-1, stable=True).to(torch.int32)
    nothing = torch.zeros_like(counts)
    # The compiled kernel takes whole blocks from the lists; eager mode asks mask_mod alone.
    return BlockMask.from_kv_blocks(nothing[None], torch.zeros_like(order)[None], counts[None], order[None], BLOCK_SIZE=BLOCK,
                                    mask_mod=lambda b, h, q, k: mask[h, q // BLOCK, k // BLOCK])


def self_check(torch):
    from torch.nn.attention.flex_attention import flex_attention
    shape = ('tiny', 2, 3, 1, 2, 2, 32, 3, 4)
    q, k, v, mask = make_inputs(torch, shape, 'cpu', torch.float32, 7)
    rows = mask.any(-1)
    assert 0.05 < mask.float().mean() < 0.95, 'the mask says nothing'
    block_mask = flex_mask(torch, mask)
    is_same = torch.equal(block_mask.to_dense()[0].bool(), mask)
    got = flex_attention(q[None], k[None], v[None], block_mask=block_mask)[0]
    full = mask.repeat_interleave(BLOCK, 1).repeat_interleave(BLOCK, 2)
    scores = (q @ k.transpose(1, 2) / math.sqrt(q.shape[-1])).masked_fill(~full, -math.inf)
    want = scores.softmax(-1).nan_to_num() @ v
    error = ((got - want).norm() / want.norm()).item()
    print(json.dumps({'bench': 'peers', 'case': 'self-check', 'density': round(mask.float().mean().item(), 4),
                      'rows_with_keys': int(rows.sum()), 'error': error, 'blocks_equal': is_same, 'torch': torch.__version__}))
    return 0 if is_same and error < 1e-5 else 1


def time_calls(torch, call, seconds):
    def timed(calls):
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        for _ in range(calls):
            call()
        end.record()
        end.synchronize()
        return begin.elapsed_time(end) / calls
    timed(3)
    bursts = sorted(timed(5) for _ in range(7))
    return bursts[3], bursts[0], bursts[-1], timed(int(seconds * 1000 / bursts[3]) + 1)


def peer_flex(torch, q, k, v, mask):
    from torch.nn.attention.flex_attention import flex_attention
    compiled = torch.compile(flex_attention)
    block_mask = flex_mask(torch, mask)
    return lambda: compiled(q[None], k[None], v[None], block_mask=block_mask)[0], {}


def peer_flashinfer(torch, q, k, v, mask):
    import flashinfer
    q, k, v = (t.transpose(0, 1).contiguous() for t in (q, k, v))  # [tokens, heads, head_dim]
    workspace = torch.empty(256 << 20, dtype=torch.uint8, device=q.device)
    wrapper = flashinfer.VariableBlockSparseAttentionWrapper(workspace, backend='auto')
    heads, q_blocks, k_blocks = mask.shape
    sizes = [torch.full((heads, n), BLOCK, dtype=torch.int32, device=q.device) for n in (q_blocks, k_blocks)]
    begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    for _ in range(2):  # the first builds
        begin.record()
        wrapper.plan(mask, sizes[0], sizes[1], heads, heads, q.shape[-1], q_data_type=q.dtype)
        end.record()
        end.synchronize()
    by_head = [t.transpose(0, 1).contiguous() for t in (q, k, v)]
    return lambda: wrapper.run(*by_head), {'plan_ms': round(begin.elapsed_time(end), 3)}


def peer_dense(torch, q, k, v, mask):
    keys = max(BLOCK, int(mask.float().sum(-1).mean().item()) * BLOCK)
    k, v = k[:, :keys].contiguous(), v[:, :keys].contiguous()
    return lambda: torch.nn.functional.scaled_dot_product_attention(q[None], k[None], v[None])[0], {'dense_keys': keys}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--self-check', action='store_true', help='the CPU check')
    parser.add_argument('--peers', default='flashinfer,flex,dense')
    parser.add_argument('--shape', default='', help='part of a shape\'s name')
    parser.add_argument('--seconds', type=float, default=0.2, help='of the sustained figure')
    parser.add_argument('--commit', default=os.environ.get('FLASHVSR_BENCH_COMMIT', 'unknown'))
    options = parser.parse_args()
    import torch
    if options.self_check:
        return self_check(torch)
    if not torch.cuda.is_available():
        print('bench-peers: no GPU', file=sys.stderr)
        return 77
    peers = {'flashinfer': peer_flashinfer, 'flex': peer_flex, 'dense': peer_dense}
    for shape in SHAPES:
        if options.shape not in shape[0]:
            continue
        q, k, v, mask = make_inputs(torch, shape, 'cuda', torch.bfloat16, 7)
        flop = 4 * BLOCK * BLOCK * shape[6] * mask.sum().item()
        baseline = None
        for name in options.peers.split(','):
            try:
                call, more = peers[name](torch, q, k, v, mask)
                median, least, most, sustained = time_calls(torch, call, options.seconds)
            except (ImportError, AttributeError, RuntimeError, TypeError, ValueError) as error:
                print('bench-peers: %s left out at %s: %s' % (name, shape[0], error), file=sys.stderr)
                continue
            baseline = baseline or (name, median)
            print(json.dumps({'bench': 'peers', 'commit': options.commit, 'kernel': name, 'shape': shape[0],
                              'density': round(mask.float().mean().item(), 4), 'burst_ms': round(median, 4),
                              'burst_ms_min': round(least, 4), 'burst_ms_max': round(most, 4),
                              'burst_tflops': round(flop / median * 1e-9, 1), 'sustained_ms': round(sustained, 4),
                              'baseline': baseline[0], 'ratio': round(baseline[1] / median, 3), **more,
                              'gpu': torch.cuda.get_device_name(), 'torch': torch.__version__}), flush=True)
    return 0


if __name__ == '__main__':
    sys.exit(main())
