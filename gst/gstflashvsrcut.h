// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Is this frame the first of a new scene?  A cheap look at the LQ picture: a grid of sampled
// levels and their histogram.
//
//   plane     first plane of the frame (Y, or packed R'G'B'): one sample of 0..255 each `step` bytes,
//             taken from byte `offset`; for 10 bit the two bytes are shifted right by `shift` (2 or 8)
//
// A cut needs both a different layout (mean |difference| of the grid) and another histogram,
// and must stand out against the differences of the frames before it: panning and noise do
// neither, a fade moves slowly, and a flash that returns within one frame is two cuts.
//
// Thread-safety: unsafe; belongs to the upstream thread.
#ifndef FLASHVSR_GST_GSTFLASHVSRCUT_H_
#define FLASHVSR_GST_GSTFLASHVSRCUT_H_

#include <array>
#include <cstddef>
#include <cstdint>

namespace flashvsr_gst {

struct CutPlane {
  const uint8_t* data = nullptr;
  size_t stride = 0;
  int width = 0;
  int height = 0;
  int step = 1;
  int offset = 0;
  int shift = 0;  // 0: 8 bit
};

class CutDetector {
 public:
  bool is_cut(const CutPlane& plane);
  void reset() { has_previous_ = false; }

  // Of each row of the grid this line of the picture is looked at, and the one below, where there is one.
  static constexpr int kRows = 27;
  static int first_line(int row, int height) { return static_cast<int>(static_cast<int64_t>(row) * height / kRows); }

 private:
  static constexpr int kColumns = 48;
  static constexpr int kBins = 32;
  std::array<uint8_t, kColumns * kRows> grid_{};
  std::array<int, kBins> bins_{};
  float usual_ = 0;  // running mean of the grid differences
  bool has_previous_ = false;
};

}  // namespace flashvsr_gst

#endif  // FLASHVSR_GST_GSTFLASHVSRCUT_H_
