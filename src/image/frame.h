// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Pictures outside the model: the callers' pixel formats, and the engine's own
// planar R'G'B' in which everything between them is done.
//
// Thread-safety: unsafe; values.
#ifndef FLASHVSR_IMAGE_FRAME_H_
#define FLASHVSR_IMAGE_FRAME_H_

#include <cstddef>
#include <cstdint>
#include <vector>

namespace flashvsr {

// Values and memory layouts are those of FlashVsrPixelFormat.
enum class PixelFormat {
  kI420 = 0,
  kNv12 = 1,
  kRgb = 2,
  kBgr = 3,
  kRgbx = 4,
  kBgrx = 5,
  kXrgb = 6,
  kXbgr = 7,
  kRgba = 8,
  kBgra = 9,
  kArgb = 10,
  kAbgr = 11,
  kGbr = 12,
  kY42b = 13,
  kY444 = 14,
  kGray8 = 15,
  kI420_10le = 16,
  kP010_10le = 17,
};
constexpr int kPixelFormatCount = 18;

// How Y'CbCr maps to R'G'B': H.273 matrix coefficients; 0, 2 and unknown codes are taken as BT.601.
struct ColorSpec {
  int matrix = 6;
  bool full_range = false;
};

// Borrowed planes in one of the pixel formats; stride in bytes.
struct FramePlanes {
  void* data[4] = {nullptr, nullptr, nullptr, nullptr};
  size_t stride[4] = {0, 0, 0, 0};
};

// Bits of a component: 8 or 10.
int format_depth(PixelFormat format);
bool format_has_alpha(PixelFormat format);
int format_planes(PixelFormat format);
// Bytes of one row of a plane without padding, and the number of its rows.
size_t plane_row_bytes(PixelFormat format, int plane, int width);
int plane_rows(PixelFormat format, int plane, int height);

// Planes R, G, B and, with has_alpha, straight A; rows without padding. Samples are
// uint8_t (depth 8, 0 .. 255) or uint16_t (depth 10, 0 .. 1023).
class PlanarImage {
 public:
  PlanarImage() = default;
  PlanarImage(int width, int height, int depth, bool has_alpha) { reset(width, height, depth, has_alpha); }

  // Changes the shape; the contents are undefined afterwards. Keeps the memory when it suffices.
  void reset(int width, int height, int depth, bool has_alpha) {
    width_ = width;
    height_ = height;
    depth_ = depth;
    planes_ = has_alpha ? 4 : 3;
    bytes_.resize(plane_bytes() * static_cast<size_t>(planes_));
  }

  // Adds an alpha plane of undefined contents behind R, G and B, which stay.
  void add_alpha() {
    planes_ = 4;
    bytes_.resize(plane_bytes() * 4);
  }

  int width() const { return width_; }
  int height() const { return height_; }
  int depth() const { return depth_; }
  int max_value() const { return (1 << depth_) - 1; }
  int planes() const { return planes_; }
  bool has_alpha() const { return planes_ == 4; }
  bool empty() const { return bytes_.empty(); }
  size_t bytes() const { return bytes_.size(); }
  size_t plane_samples() const { return static_cast<size_t>(width_) * static_cast<size_t>(height_); }

  // T is uint8_t with depth 8, uint16_t with depth 10.
  template <typename T>
  T* plane(int index) {
    return reinterpret_cast<T*>(bytes_.data() + plane_bytes() * static_cast<size_t>(index));
  }
  template <typename T>
  const T* plane(int index) const {
    return reinterpret_cast<const T*>(bytes_.data() + plane_bytes() * static_cast<size_t>(index));
  }

 private:
  size_t plane_bytes() const { return plane_samples() * (depth_ > 8 ? 2 : 1); }

  int width_ = 0;
  int height_ = 0;
  int depth_ = 8;
  int planes_ = 3;
  std::vector<uint8_t> bytes_;
};

}  // namespace flashvsr

#endif  // FLASHVSR_IMAGE_FRAME_H_
