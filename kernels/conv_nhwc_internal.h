// SPDX-License-Identifier: LGPL-2.1-or-later
//
// What launch_conv_nhwc shares with its two kernels.
#ifndef FLASHVSR_KERNELS_CONV_NHWC_INTERNAL_H_
#define FLASHVSR_KERNELS_CONV_NHWC_INTERNAL_H_

#include "kernels/conv_nhwc.h"

namespace flashvsr {

int launch_conv_nhwc_sm90(const ConvNhwcParams& params, void* stream);

}  // namespace flashvsr

#endif  // FLASHVSR_KERNELS_CONV_NHWC_INTERNAL_H_
