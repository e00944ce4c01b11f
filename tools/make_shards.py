#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Media files to shards for flashvsr-train, with OpenCV.

Does what flashvsr-dataset does, for machines without GStreamer:

    make_shards.py OUTPUT.safetensors FILE...

Every file becomes one tensor, uint8 [F, H, W, 3] in RGB, named after the file
without its folder and suffix; F is 1 for a still.
"""
import json
import os
import struct
import sys
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy

STILLS = ('.webp', '.png', '.jpg', '.jpeg', '.bmp')


def decode(path):
    if path.lower().endswith(STILLS):
        picture = cv2.imread(path, cv2.IMREAD_COLOR)
        frames = [] if picture is None else [picture]
    else:
        capture = cv2.VideoCapture(path)
        frames = []
        while True:
            is_good, frame = capture.read()
            if not is_good:
                break
            frames.append(frame)
        capture.release()
    if not frames:
        raise SystemExit(f'make_shards.py: no picture in {path}')
    return numpy.ascontiguousarray(numpy.stack(frames)[..., ::-1])


def main():
    if len(sys.argv) < 3:
        raise SystemExit(__doc__)
    output, paths = sys.argv[1], sorted(sys.argv[2:])
    names = [os.path.splitext(os.path.basename(path))[0] for path in paths]
    if len(set(names)) != len(names):
        raise SystemExit('make_shards.py: two files have one name')
    with ThreadPoolExecutor() as pool:
        clips = list(pool.map(decode, paths))
    header, offset = {}, 0
    for name, clip in zip(names, clips):
        header[name] = {'dtype': 'U8', 'shape': list(clip.shape), 'data_offsets': [offset, offset + clip.nbytes]}
        offset += clip.nbytes
    text = json.dumps(header, separators=(',', ':')).encode()
    text += b' ' * (-len(text) % 8)
    with open(output, 'wb') as out:
        out.write(struct.pack('<Q', len(text)))
        out.write(text)
        for clip in clips:
            out.write(clip.tobytes())
    print(f'{output}: {len(clips)} files, {sum(len(clip) for clip in clips)} frames, {offset / 1e6:.0f} MB')


main()
