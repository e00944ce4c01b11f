// SPDX-License-Identifier: LGPL-2.1-or-later
#include "gstflashvsrcut.h"

#include <cstdlib>

namespace flashvsr_gst {

bool CutDetector::is_cut(const CutPlane& plane) {
  std::array<uint8_t, kColumns * kRows> grid;
  std::array<int, kBins> bins{};
  for (int r = 0; r < kRows; r++) {
    const int y0 = first_line(r, plane.height);
    for (int c = 0; c < kColumns; c++) {
      const int x0 = static_cast<int>(static_cast<int64_t>(c) * plane.width / kColumns);
      // Four neighbours: less noise, and fine texture does not alias as much.
      int sum = 0;
      for (int k = 0; k < 4; k++) {
        const int x = x0 + (k & 1) < plane.width ? x0 + (k & 1) : x0;
        const int y = y0 + (k >> 1) < plane.height ? y0 + (k >> 1) : y0;
        const uint8_t* at = plane.data + static_cast<size_t>(y) * plane.stride +
                            static_cast<size_t>(x) * plane.step + plane.offset;
        sum += plane.shift ? ((at[0] | at[1] << 8) >> plane.shift) & 255 : at[0];
      }
      const int level = sum / 4;
      grid[r * kColumns + c] = static_cast<uint8_t>(level);
      ++bins[level * kBins / 256];
    }
  }
  bool found = false;
  if (has_previous_) {
    int difference = 0, moved = 0;
    for (size_t i = 0; i < grid.size(); i++) difference += std::abs(grid[i] - grid_[i]);
    for (size_t i = 0; i < bins.size(); i++) moved += std::abs(bins[i] - bins_[i]);
    const float mean = static_cast<float>(difference) / grid.size();
    const float share = static_cast<float>(moved) / (2 * grid.size());  // 0 same .. 1 disjoint
    // Alike histograms ask for a much stronger change of layout.
    const bool is_strong = (mean > 14 && share > 0.25f) || (mean > 36 && share > 0.12f);
    found = is_strong && mean > 3 * usual_;
    usual_ = found ? 0 : 0.8f * usual_ + 0.2f * mean;
  } else {
    usual_ = 0;
  }
  grid_ = grid;
  bins_ = bins;
  has_previous_ = true;
  return found;
}

}  // namespace flashvsr_gst
