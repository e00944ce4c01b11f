#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Block-sparse attention of others, at the shapes of tests/bench/attention_bench.cu, as JSON lines.

    bench-peers.py [--peers flashinfer,flashinfer_blocks,flex,dense] [--shape PART] [--seconds 0.2] [--commit HASH]
    bench-peers.py --self-check

Runs on a GPU machine with torch >= 2.5, right before or after `flashvsr-bench kernels`, so that both meet
the same card at the same clocks:
    flashinfer         VariableBlockSparseAttentionWrapper, whose plan lists every kept key
    flashinfer_blocks  BlockSparseAttentionWrapper, heads in a row as one sequence, pages of a block
    flex               torch FlexAttention, compiled, with the same BlockMask
    dense              torch scaled_dot_product_attention (cuDNN or FlashAttention) over as many keys as a row
                       keeps on average: what the kept pairs would cost without their pattern
A peer that cannot run has a line with "absent" and the reason instead of times; that is no failure. For a
machine without a network, tools/make-flashinfer-peer packs FlashInfer with its kernels built.
q and k are normal plus a block mean such that pooled scores have a standard deviation of 1.5; the mask
follows the model's rule (local range, softmax over a row, joint top-k of a head and query slot).
flop = 4 * 128 * 128 * head_dim per kept pair. "burst": 5 calls back to back, median, minimum and maximum
of 7. "plan_ms": host time from a mask on the device to a kernel that can start, median of 5; not part of
the other times. "error": the worst relative error of 6 (head, block) pairs to float64 under the same mask
(dense: over its own keys); beyond 0.02 there is no time. "ratio" is to the first peer that ran on that
shape in this run.

--self-check (CPU, seconds): FlexAttention in eager mode with our BlockMask, at a tiny size, against a
dense softmax under the same mask, its block lists against the mask, and whether "error" tells a wrong mask;
exits 1 when one of these fails.
"""
import argparse
import json
import math
import os
import sys
import time

BLOCK = 128
FLASHINFER_BACKEND = 'fa3'  # not 'auto': what is measured must not depend on what was found
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
    wrong = worst_error(torch, got, q, k, v, mask.roll(1, -1))
    is_told = worst_error(torch, got, q, k, v, mask) < 1e-5 and wrong > 0.1
    print(json.dumps({'bench': 'peers', 'case': 'self-check', 'density': round(mask.float().mean().item(), 4),
                      'rows_with_keys': int(rows.sum()), 'error': error, 'error_of_wrong_mask': wrong,
                      'blocks_equal': is_same, 'torch': torch.__version__}))
    return 0 if is_same and is_told and error < 1e-5 else 1


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


def time_plan(torch, plan):
    """Host milliseconds of `plan`, which may return before the device is done."""
    times = []
    for _ in range(6):
        torch.cuda.synchronize()
        begin = time.perf_counter()
        plan()
        torch.cuda.synchronize()
        times.append((time.perf_counter() - begin) * 1e3)
    return round(sorted(times[1:])[2], 3)  # the first also loads the module


def peer_flashinfer(torch, q, k, v, mask):
    from flashinfer.sparse import VariableBlockSparseAttentionWrapper
    workspace = torch.empty(256 << 20, dtype=torch.uint8, device=q.device)
    wrapper = VariableBlockSparseAttentionWrapper(workspace, backend=FLASHINFER_BACKEND)
    heads, q_blocks, k_blocks = mask.shape
    sizes = [torch.full((heads, n), BLOCK, dtype=torch.int32, device=q.device) for n in (q_blocks, k_blocks)]
    plan_ms = time_plan(torch, lambda: wrapper.plan(mask, *sizes, heads, heads, q.shape[-1], q_data_type=q.dtype))
    return lambda: wrapper.run(q, k, v), flashinfer_more(plan_ms)


def peer_flashinfer_blocks(torch, q, k, v, mask):
    """One mask serves all heads there, so a head's blocks become rows and columns of their own."""
    from flashinfer.sparse import BlockSparseAttentionWrapper
    workspace = torch.empty(256 << 20, dtype=torch.uint8, device=q.device)
    wrapper = BlockSparseAttentionWrapper(workspace, backend=FLASHINFER_BACKEND)
    heads, q_blocks, k_blocks = mask.shape
    rows, columns, values = (t.reshape(-1, 1, t.shape[-1]) for t in (q, k, v))

    def plan():
        starts = torch.zeros(heads * q_blocks + 1, dtype=torch.int32, device=q.device)
        torch.cumsum(mask.sum(-1).flatten(), 0, dtype=torch.int32, out=starts[1:])
        head, _, column = mask.nonzero(as_tuple=True)
        wrapper.plan(starts, (head * k_blocks + column).to(torch.int32), len(rows), len(columns), BLOCK, BLOCK, 1, 1,
                     q.shape[-1], q_data_type=q.dtype, kv_data_type=k.dtype, o_data_type=q.dtype)
    plan_ms = time_plan(torch, plan)
    return lambda: wrapper.run(rows, columns, values).view(q.shape), flashinfer_more(plan_ms)


def flashinfer_more(plan_ms):
    from flashinfer.version import __version__
    return {'plan_ms': plan_ms, 'version': __version__, 'backend': FLASHINFER_BACKEND}


def peer_dense(torch, q, k, v, mask):
    keys = dense_keys(mask) * BLOCK
    k, v = k[:, :keys].contiguous(), v[:, :keys].contiguous()
    return lambda: torch.nn.functional.scaled_dot_product_attention(q[None], k[None], v[None])[0], {'dense_keys': keys}


def dense_keys(mask):
    return max(1, int(mask.float().sum(-1).mean().item()))


def worst_error(torch, got, q, k, v, mask, pairs=6):
    """The largest relative error of `pairs` random (head, query block) pairs that keep something, to float64."""
    generator = torch.Generator().manual_seed(11)
    kept = mask.any(-1).nonzero()
    worst = 0.0
    for pick in torch.randint(len(kept), (pairs,), generator=generator).tolist():
        head, block = kept[pick].tolist()
        rows = slice(block * BLOCK, (block + 1) * BLOCK)
        keys = mask[head, block].repeat_interleave(BLOCK)
        scores = q[head, rows].double() @ k[head, keys].double().T / math.sqrt(q.shape[-1])
        want = scores.softmax(-1) @ v[head, keys].double()
        worst = max(worst, ((got[head, rows].double() - want).norm() / want.norm()).nan_to_num(nan=math.inf).item())
    return worst


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--self-check', action='store_true', help='the CPU check')
    parser.add_argument('--peers', default='flashinfer,flashinfer_blocks,flex,dense')
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
    peers = {'flashinfer': peer_flashinfer, 'flashinfer_blocks': peer_flashinfer_blocks, 'flex': peer_flex, 'dense': peer_dense}
    for shape in SHAPES:
        if options.shape not in shape[0]:
            continue
        q, k, v, mask = make_inputs(torch, shape, 'cuda', torch.bfloat16, 7)
        flop = 4 * BLOCK * BLOCK * shape[6] * mask.sum().item()
        baseline = None
        for name in options.peers.split(','):
            line = {'bench': 'peers', 'commit': options.commit, 'kernel': name, 'shape': shape[0],
                    'density': round(mask.float().mean().item(), 4)}
            make = peers[name]
            try:
                call, more = make(torch, q, k, v, mask)
                applied = mask
                if name == 'dense':
                    applied = (torch.arange(mask.shape[-1], device='cuda') < dense_keys(mask)).expand(mask.shape)
                error = worst_error(torch, call(), q, k, v, applied)
                if error > 0.02:
                    raise ValueError('relative error %.3g' % error)
                median, least, most, sustained = time_calls(torch, call, options.seconds)
            except Exception as problem:  # whatever it is that the code of others raises
                reason = ' '.join(str(problem).split())[:200]
                print('bench-peers: %s left out at %s: %s' % (name, shape[0], reason), file=sys.stderr)
                print(json.dumps({**line, 'absent': '%s: %s' % (type(problem).__name__, reason)}), flush=True)
                continue
            baseline = baseline or (name, median)
            print(json.dumps({**line, 'burst_ms': round(median, 4),
                              'burst_ms_min': round(least, 4), 'burst_ms_max': round(most, 4),
                              'burst_tflops': round(flop / median * 1e-9, 1), 'sustained_ms': round(sustained, 4),
                              'baseline': baseline[0], 'ratio': round(baseline[1] / median, 3), 'error': round(error, 5), **more,
                              'gpu': torch.cuda.get_device_name(), 'torch': torch.__version__}), flush=True)
    return 0


if __name__ == '__main__':
    sys.exit(main())
