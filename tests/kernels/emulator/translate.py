#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""translate.py IN.cu OUT.cpp: launches become calls of the emulator, dynamic shared memory a pointer."""
import re
import sys

text = open(sys.argv[1]).read()
text = re.sub(r'extern __shared__ (?:__align__\(\d+\) )?(\w+) (\w+)\[\];', r'\1* const \2 = emulator::dynamic_shared<\1>();', text)


def arguments(launch):
    parts, depth, start = [], 0, 0
    for i, c in enumerate(launch):
        depth += c in '([{'
        depth -= c in ')]}'
        if c == ',' and depth == 0:
            parts.append(launch[start:i].strip())
            start = i + 1
    return parts + [launch[start:].strip()]


def call(match):
    kernel, launch, passed = match.groups()
    grid, block, shared = (arguments(launch) + ['0'])[:3]
    return f'emulator::launch({grid}, {block}, {shared}, [=] {{ {kernel}({passed}); }});'


text = re.sub(r'(\w+_kernel(?:<[^;<>]*>)?)<<<(.*?)>>>\((.*?)\);', call, text, flags=re.S)
if '<<<' in text:
    sys.exit(f'{sys.argv[1]}: a launch that this script does not understand')
open(sys.argv[2], 'w').write('#include "tests/kernels/emulator/emulator.h"\n' + text)
