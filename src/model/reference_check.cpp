// SPDX-License-Identifier: LGPL-2.1-or-later
#include "model/reference_check.h"

#include <ATen/ATen.h>

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <limits>

#include "base/error.h"
#include "base/log.h"
#include "model/ops.h"

namespace flashvsr {

bool ReferenceCheck::is_wanted() {
  const char* value = std::getenv("FLASHVSR_COMPARE");
  return value != nullptr && value[0] != '\0' && value[0] != '0';
}

double ReferenceCheck::compare(const at::Tensor& lq, const RunOptions& options, const at::Tensor& frames,
                               const std::atomic<bool>* cancel) {
  FLASHVSR_CHECK(!options.decode_stream, ErrorCode::kInternal, "reference_check: the frames are another stream's");
  RunOptions plain = options;
  plain.record_stages = false;
  const int64_t chunk = state_.runs;
  at::Tensor expected;
  {
    const ops::ReferenceGuard guard;
    expected = upscaler_.run(lq, plain, state_, {}, cancel);
  }
  const at::Tensor difference = frames.to(at::kFloat) - expected.to(at::kFloat);
  const double square = difference.square().mean().item<double>(), largest = difference.abs().max().item<double>();
  const double psnr = square == 0 ? std::numeric_limits<double>::infinity() : 10 * std::log10(4 / square);
  char text[128];
  std::snprintf(text, sizeof(text), "%.1f dB, largest difference %.4f of 2", psnr, largest);
  log(psnr >= 40 ? LogLevel::kInfo : LogLevel::kWarning, "chunk ", chunk, " against the reference operations: ", text);
  return psnr;
}

}  // namespace flashvsr
