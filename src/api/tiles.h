// SPDX-License-Identifier: LGPL-2.1-or-later
//
// How a picture is cut into overlapping tiles, and how their results are joined.
//
//   length 1408, 2 tiles, overlap 128, multiple 128
//     [0 ............ 768)
//                [640 .......... 1408)
//
// All tiles of an axis have one size. Sizes and places are multiples of `multiple`; neighbours
// share at least `overlap`, at most two tiles cover a sample. In what they share their weights
// go smoothly from 0 to 1 and back, and add up to 1: the sample at a tile's edge, which knows
// least of its surroundings, counts least.
//
// Thread-safety: values and pure functions.
#ifndef FLASHVSR_API_TILES_H_
#define FLASHVSR_API_TILES_H_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

namespace flashvsr {

// What neighbours share at least: one attention window, and about what reaches a decoder's pixel.
constexpr int64_t kTileOverlap = 128;

struct TileAxis {
  int64_t size = 0;            // of every tile
  std::vector<int64_t> begin;  // ascending

  size_t count() const { return begin.size(); }
  // Weight of each sample of tile `index`.
  std::vector<float> weights(size_t index) const;
};

// `length` is a multiple of `multiple`. Nothing when that many tiles do not fit.
std::optional<TileAxis> cut_axis(int64_t length, int64_t count, int64_t overlap, int64_t multiple);

struct TileGrid {
  TileAxis rows, columns;

  size_t count() const { return rows.count() * columns.count(); }
  int64_t tile_pixels() const { return rows.size * columns.size; }
  int64_t pixels() const { return static_cast<int64_t>(count()) * tile_pixels(); }  // of all tiles
};

// The whole picture first, then every grid in the order of the pixels that it computes.
std::vector<TileGrid> tile_grids(int64_t height, int64_t width, int64_t overlap, int64_t multiple);

}  // namespace flashvsr

#endif  // FLASHVSR_API_TILES_H_
