// SPDX-License-Identifier: LGPL-2.1-or-later
//
// A thread makes 16 bytes of each plane of samples: one row of them, or the two that a row of chroma covers.
// Runs are 32-bit words in registers, so that bytes are taken out by shifts and nothing lies in local memory.
#include "kernels/color_convert.h"

#include <cuda_runtime.h>

namespace flashvsr {
namespace {

constexpr int kThreads = 128;
template <typename Sample>
constexpr int kRunOf = 16 / int(sizeof(Sample));

// N values of type T; kGroup of them belong together.
template <typename T, int N, int kGroup = 1>
struct Run {
  static constexpr int kWords = N * int(sizeof(T)) / 4, kBits = 8 * int(sizeof(T));
  uint32_t word[kWords];

  __device__ __forceinline__ void clear() {
#pragma unroll
    for (int i = 0; i < kWords; ++i) word[i] = 0;
  }
  __device__ __forceinline__ int at(int i) const { return T(word[i * kBits / 32] >> (i * kBits % 32)); }
  // Into a cleared place.
  __device__ __forceinline__ void put(int i, int value) { word[i * kBits / 32] |= uint32_t(value) << (i * kBits % 32); }

  // `left` values lie from `from` on, at least a group; behind them the last group repeats.
  __device__ __forceinline__ void load(const T* from, int left) {
    constexpr int kStep = kWords % 4 == 0 ? 4 : 2;
    if (left >= N && reinterpret_cast<uintptr_t>(from) % (4 * kStep) == 0) {
#pragma unroll
      for (int i = 0; i < kWords; i += kStep) {
        if constexpr (kStep == 4) {
          const uint4 part = reinterpret_cast<const uint4*>(from)[i / 4];
          word[i] = part.x, word[i + 1] = part.y, word[i + 2] = part.z, word[i + 3] = part.w;
        } else {
          const uint2 part = reinterpret_cast<const uint2*>(from)[i / 2];
          word[i] = part.x, word[i + 1] = part.y;
        }
      }
      return;
    }
    clear();
#pragma unroll
    for (int i = 0; i < N; ++i) put(i, from[i < left ? i : left - kGroup + i % kGroup]);
  }
  // The first `left` values.
  __device__ __forceinline__ void store(T* to, int left) const {
    constexpr int kStep = kWords % 4 == 0 ? 4 : 2;
    if (left >= N && reinterpret_cast<uintptr_t>(to) % (4 * kStep) == 0) {
#pragma unroll
      for (int i = 0; i < kWords; i += kStep) {
        if constexpr (kStep == 4) {
          reinterpret_cast<uint4*>(to)[i / 4] = make_uint4(word[i], word[i + 1], word[i + 2], word[i + 3]);
        } else {
          reinterpret_cast<uint2*>(to)[i / 2] = make_uint2(word[i], word[i + 1]);
        }
      }
      return;
    }
#pragma unroll
    for (int i = 0; i < N; ++i) {
      if (i < left) to[i] = T(at(i));
    }
  }
};

__device__ __forceinline__ int clip(int value, int max) { return value < 0 ? 0 : value > max ? max : value; }

template <typename Sample>
__device__ __forceinline__ Sample* plane_row(const ConvertPlanesParams& p, int frame, int plane, int y) {
  return reinterpret_cast<Sample*>(static_cast<uint8_t*>(p.planes[frame][plane]) + p.strides[frame][plane] * y);
}

template <typename Sample>
__device__ __forceinline__ Sample* samples_row(const ConvertPlanesParams& p, int frame, int plane, int y) {
  return static_cast<Sample*>(p.samples) + ((int64_t(frame) * 3 + plane) * p.height + y) * p.width;
}

// Column of chroma from the nearer and the farther row, times 4, for the run's columns and the one behind.
template <typename Sample, PlanesKind kKind, int kColumns>
__device__ __forceinline__ void load_chroma(const ConvertPlanesParams& p, int frame, int near, int far, int begin,
                                            int chroma_width, int (&u)[kColumns + 1], int (&v)[kColumns + 1]) {
  const int behind = begin + kColumns < chroma_width ? begin + kColumns : chroma_width - 1, s = p.shift;
  if constexpr (kKind == PlanesKind::kYuvPaired) {
    const Sample *a = plane_row<Sample>(p, frame, 1, near), *b = plane_row<Sample>(p, frame, 1, far);
    Run<Sample, 2 * kColumns, 2> run_a, run_b;
    run_a.load(a + 2 * begin, 2 * (chroma_width - begin));
    run_b.load(b + 2 * begin, 2 * (chroma_width - begin));
#pragma unroll
    for (int i = 0; i < kColumns; ++i) {
      u[i] = 3 * (run_a.at(2 * i) >> s) + (run_b.at(2 * i) >> s);
      v[i] = 3 * (run_a.at(2 * i + 1) >> s) + (run_b.at(2 * i + 1) >> s);
    }
    u[kColumns] = 3 * (a[2 * behind] >> s) + (b[2 * behind] >> s);
    v[kColumns] = 3 * (a[2 * behind + 1] >> s) + (b[2 * behind + 1] >> s);
  } else {
#pragma unroll
    for (int plane = 1; plane < 3; ++plane) {
      const Sample *a = plane_row<Sample>(p, frame, plane, near), *b = plane_row<Sample>(p, frame, plane, far);
      int(&out)[kColumns + 1] = plane == 1 ? u : v;
      Run<Sample, kColumns> run_a, run_b;
      run_a.load(a + begin, chroma_width - begin);
      run_b.load(b + begin, chroma_width - begin);
#pragma unroll
      for (int i = 0; i < kColumns; ++i) out[i] = 3 * (run_a.at(i) >> s) + (run_b.at(i) >> s);
      out[kColumns] = 3 * (a[behind] >> s) + (b[behind] >> s);
    }
  }
}

template <typename Sample, PlanesKind kKind>
__device__ __forceinline__ void yuv_to_samples(const ConvertPlanesParams& p, int frame, int y, int begin) {
  constexpr int kRun = kRunOf<Sample>;
  constexpr bool kHalved = kKind != PlanesKind::kYuvFull;
  constexpr int kColumns = kHalved ? kRun / 2 : kRun;
  const int left = p.width - begin;
  int near = y, far = y;
  if (p.halved_down) {
    near = y / 2;
    far = clip(y % 2 == 0 ? near - 1 : near + 1, (p.height + 1) / 2 - 1);
  }
  int u[kColumns + 1], v[kColumns + 1];
  load_chroma<Sample, kKind, kColumns>(p, frame, near, far, kHalved ? begin / 2 : begin,
                                       kHalved ? (p.width + 1) / 2 : p.width, u, v);
  Run<Sample, kRun> luma, red, green, blue;
  luma.load(plane_row<Sample>(p, frame, 0, y) + begin, left);
  red.clear();
  green.clear();
  blue.clear();
  const ToRgb& c = p.to_rgb;
  constexpr int kBits = kColorBits + kChromaBits, kHalf = 1 << (kBits - 1);
#pragma unroll
  for (int i = 0; i < kRun; ++i) {
    const int at = kHalved ? i / 2 : i;
    const int cu = (kHalved && i % 2 ? u[at] + u[at + 1] : 2 * u[at]) - c.chroma_offset;
    const int cv = (kHalved && i % 2 ? v[at] + v[at + 1] : 2 * v[at]) - c.chroma_offset;
    const int level = ((luma.at(i) >> p.shift) - c.luma_offset) * kChromaScale * c.luma + kHalf;
    red.put(i, clip((level + c.red_v * cv) >> kBits, c.max));
    green.put(i, clip((level + c.green_u * cu + c.green_v * cv) >> kBits, c.max));
    blue.put(i, clip((level + c.blue_u * cu) >> kBits, c.max));
  }
  red.store(samples_row<Sample>(p, frame, 0, y) + begin, left);
  green.store(samples_row<Sample>(p, frame, 1, y) + begin, left);
  blue.store(samples_row<Sample>(p, frame, 2, y) + begin, left);
}

template <int kStep>
__device__ __forceinline__ void packed_to_samples(const ConvertPlanesParams& p, int frame, int y, int begin) {
  constexpr int kRun = kRunOf<uint8_t>;
  const int left = p.width - begin;
  Run<uint8_t, kRun * kStep, kStep> pixels;
  pixels.load(plane_row<uint8_t>(p, frame, 0, y) + kStep * begin, kStep * left);
#pragma unroll
  for (int plane = 0; plane < 3; ++plane) {
    const int place = plane == 0 ? p.red : plane == 1 ? p.green : p.blue;
    Run<uint8_t, kRun> out;
    out.clear();
#pragma unroll
    for (int i = 0; i < kRun; ++i) {
      int value = pixels.at(kStep * i);
#pragma unroll
      for (int k = 1; k < kStep; ++k) value = place == k ? pixels.at(kStep * i + k) : value;
      out.put(i, value);
    }
    out.store(samples_row<uint8_t>(p, frame, plane, y) + begin, left);
  }
}

template <typename Sample, PlanesKind kKind, int kStep>
__global__ void __launch_bounds__(kThreads) planes_to_samples_kernel(const ConvertPlanesParams p) {
  constexpr int kRun = kRunOf<Sample>;
  const unsigned runs = (p.width + kRun - 1) / kRun;
  const unsigned at = blockIdx.x * kThreads + threadIdx.x;
  if (at >= runs * p.height) return;
  const int begin = int(at % runs) * kRun, y = int(at / runs), frame = blockIdx.y;
  if constexpr (kKind == PlanesKind::kPacked) {
    packed_to_samples<kStep>(p, frame, y, begin);
  } else if constexpr (kKind == PlanesKind::kGbr) {
#pragma unroll
    for (int plane = 0; plane < 3; ++plane) {
      Run<Sample, kRun> run;
      run.load(plane_row<Sample>(p, frame, plane, y) + begin, p.width - begin);
      run.store(samples_row<Sample>(p, frame, (plane + 1) % 3, y) + begin, p.width - begin);
    }
  } else if constexpr (kKind == PlanesKind::kGrey) {
    Run<Sample, kRun> run, out;
    run.load(plane_row<Sample>(p, frame, 0, y) + begin, p.width - begin);
    out.clear();
#pragma unroll
    for (int i = 0; i < kRun; ++i) out.put(i, p.grey[run.at(i)]);
    for (int plane = 0; plane < 3; ++plane) out.store(samples_row<Sample>(p, frame, plane, y) + begin, p.width - begin);
  } else {
    yuv_to_samples<Sample, kKind>(p, frame, y, begin);
  }
}

template <typename Sample>
__device__ __forceinline__ void store_luma(const ConvertPlanesParams& p, int frame, int y, int begin,
                                           const Run<Sample, kRunOf<Sample>> (&color)[3]) {
  constexpr int kRun = kRunOf<Sample>;
  const FromRgb& c = p.from_rgb;
  Run<Sample, kRun> luma;
  luma.clear();
#pragma unroll
  for (int i = 0; i < kRun; ++i) {
    const int value = c.y_r * color[0].at(i) + c.y_g * color[1].at(i) + c.y_b * color[2].at(i) + c.luma_offset;
    luma.put(i, clip(value >> kColorBits, c.max) << p.shift);
  }
  luma.store(plane_row<Sample>(p, frame, 0, y) + begin, p.width - begin);
}

// `y` is a row of chroma.
template <typename Sample, PlanesKind kKind>
__device__ __forceinline__ void samples_to_yuv(const ConvertPlanesParams& p, int frame, int y, int begin) {
  constexpr int kRun = kRunOf<Sample>;
  constexpr bool kHalved = kKind != PlanesKind::kYuvFull;
  constexpr int kColumns = kHalved ? kRun / 2 : kRun;
  const int left = p.width - begin;
  const int first = p.halved_down ? 2 * y : y;
  const int second = p.halved_down && first + 1 < p.height ? first + 1 : first;
  Run<Sample, kRun> upper[3], lower[3];
  int sum[3][kColumns];  // times 8
#pragma unroll
  for (int plane = 0; plane < 3; ++plane) {
    const Sample *a = samples_row<Sample>(p, frame, plane, first), *b = samples_row<Sample>(p, frame, plane, second);
    upper[plane].load(a + begin, left);
    lower[plane].load(b + begin, left);
    int before = begin > 0 ? a[begin - 1] + b[begin - 1] : upper[plane].at(0) + lower[plane].at(0);
#pragma unroll
    for (int i = 0; i < kColumns; ++i) {
      if constexpr (kHalved) {
        const int middle = upper[plane].at(2 * i) + lower[plane].at(2 * i);
        const int after = upper[plane].at(2 * i + 1) + lower[plane].at(2 * i + 1);
        sum[plane][i] = before + 2 * middle + after;
        before = after;
      } else {
        sum[plane][i] = 4 * (upper[plane].at(i) + lower[plane].at(i));
      }
    }
  }
  store_luma<Sample>(p, frame, first, begin, upper);
  if (second != first) store_luma<Sample>(p, frame, second, begin, lower);

  const FromRgb& c = p.from_rgb;
  constexpr int kBits = kColorBits + kChromaBits;
  const int from = kHalved ? begin / 2 : begin, columns = (kHalved ? (p.width + 1) / 2 : p.width) - from;
  const auto u = [&](int i) {
    return clip((c.u_r * sum[0][i] + c.u_g * sum[1][i] + c.u_b * sum[2][i] + c.chroma_offset) >> kBits, c.max) << p.shift;
  };
  const auto v = [&](int i) {
    return clip((c.v_r * sum[0][i] + c.v_g * sum[1][i] + c.v_b * sum[2][i] + c.chroma_offset) >> kBits, c.max) << p.shift;
  };
  if constexpr (kKind == PlanesKind::kYuvPaired) {
    Run<Sample, 2 * kColumns, 2> pairs;
    pairs.clear();
#pragma unroll
    for (int i = 0; i < kColumns; ++i) {
      pairs.put(2 * i, u(i));
      pairs.put(2 * i + 1, v(i));
    }
    pairs.store(plane_row<Sample>(p, frame, 1, y) + 2 * from, 2 * columns);
  } else {
    Run<Sample, kColumns> run_u, run_v;
    run_u.clear();
    run_v.clear();
#pragma unroll
    for (int i = 0; i < kColumns; ++i) {
      run_u.put(i, u(i));
      run_v.put(i, v(i));
    }
    run_u.store(plane_row<Sample>(p, frame, 1, y) + from, columns);
    run_v.store(plane_row<Sample>(p, frame, 2, y) + from, columns);
  }
}

template <int kStep>
__device__ __forceinline__ void store_packed(const ConvertPlanesParams& p, int frame, int y, int begin,
                                             const Run<uint8_t, kRunOf<uint8_t>> (&color)[3]) {
  constexpr int kRun = kRunOf<uint8_t>;
  Run<uint8_t, kRun * kStep, kStep> pixels;
  pixels.clear();
#pragma unroll
  for (int i = 0; i < kRun; ++i) {
#pragma unroll
    for (int k = 0; k < kStep; ++k) {
      pixels.put(kStep * i + k, k == p.red     ? color[0].at(i)
                                : k == p.green ? color[1].at(i)
                                : k == p.blue  ? color[2].at(i)
                                               : 255);
    }
  }
  pixels.store(plane_row<uint8_t>(p, frame, 0, y) + kStep * begin, kStep * (p.width - begin));
}

template <typename Sample, PlanesKind kKind, int kStep>
__global__ void __launch_bounds__(kThreads) samples_to_planes_kernel(const ConvertPlanesParams p) {
  constexpr int kRun = kRunOf<Sample>;
  const unsigned runs = (p.width + kRun - 1) / kRun, rows = p.halved_down ? (p.height + 1) / 2 : p.height;
  const unsigned at = blockIdx.x * kThreads + threadIdx.x;
  if (at >= runs * rows) return;
  const int begin = int(at % runs) * kRun, y = int(at / runs), frame = blockIdx.y;
  if constexpr (kKind == PlanesKind::kYuvPaired || kKind == PlanesKind::kYuvHalved || kKind == PlanesKind::kYuvFull) {
    samples_to_yuv<Sample, kKind>(p, frame, y, begin);
  } else {
    Run<Sample, kRun> color[3];
#pragma unroll
    for (int plane = 0; plane < 3; ++plane) {
      color[plane].load(samples_row<Sample>(p, frame, plane, y) + begin, p.width - begin);
    }
    if constexpr (kKind == PlanesKind::kPacked) {
      store_packed<kStep>(p, frame, y, begin, color);
    } else if constexpr (kKind == PlanesKind::kGbr) {
#pragma unroll
      for (int plane = 0; plane < 3; ++plane) {
        color[(plane + 1) % 3].store(plane_row<Sample>(p, frame, plane, y) + begin, p.width - begin);
      }
    } else {
      store_luma<Sample>(p, frame, y, begin, color);
    }
  }
}

template <typename Sample, PlanesKind kKind, int kStep = 0>
void launch(const ConvertPlanesParams& p, bool to_samples, cudaStream_t stream) {
  const unsigned runs = (p.width + kRunOf<Sample> - 1) / kRunOf<Sample>;
  const unsigned rows = !to_samples && p.halved_down ? (p.height + 1) / 2 : p.height;
  const dim3 grid((runs * rows + kThreads - 1) / kThreads, p.frames);
  if (to_samples) {
    planes_to_samples_kernel<Sample, kKind, kStep><<<grid, kThreads, 0, stream>>>(p);
  } else {
    samples_to_planes_kernel<Sample, kKind, kStep><<<grid, kThreads, 0, stream>>>(p);
  }
}

int convert(const ConvertPlanesParams& p, bool to_samples, void* stream) {
  if (check_convert_planes(p)) return cudaErrorInvalidValue;
  const auto s = static_cast<cudaStream_t>(stream);
  switch (p.kind) {
    case PlanesKind::kYuvPaired:
      if (p.is_16_bit) launch<uint16_t, PlanesKind::kYuvPaired>(p, to_samples, s);
      else launch<uint8_t, PlanesKind::kYuvPaired>(p, to_samples, s);
      break;
    case PlanesKind::kYuvHalved:
      if (p.is_16_bit) launch<uint16_t, PlanesKind::kYuvHalved>(p, to_samples, s);
      else launch<uint8_t, PlanesKind::kYuvHalved>(p, to_samples, s);
      break;
    case PlanesKind::kYuvFull: launch<uint8_t, PlanesKind::kYuvFull>(p, to_samples, s); break;
    case PlanesKind::kGbr: launch<uint8_t, PlanesKind::kGbr>(p, to_samples, s); break;
    case PlanesKind::kGrey: launch<uint8_t, PlanesKind::kGrey>(p, to_samples, s); break;
    case PlanesKind::kPacked:
      if (p.step == 3) launch<uint8_t, PlanesKind::kPacked, 3>(p, to_samples, s);
      else launch<uint8_t, PlanesKind::kPacked, 4>(p, to_samples, s);
      break;
  }
  return cudaGetLastError();
}

}  // namespace

int launch_planes_to_samples(const ConvertPlanesParams& p, void* stream) { return convert(p, true, stream); }
int launch_samples_to_planes(const ConvertPlanesParams& p, void* stream) { return convert(p, false, stream); }

}  // namespace flashvsr
