// SPDX-License-Identifier: LGPL-2.1-or-later
#include "api/tiles.h"

#include <algorithm>
#include <tuple>

namespace flashvsr {

std::vector<float> TileAxis::weights(size_t index) const {
  std::vector<float> result(static_cast<size_t>(size), 1.0f);
  // What a tile gains on its left is what its left neighbour loses there.
  const auto rise = [&](size_t right, int64_t at) {
    const int64_t shared = begin[right - 1] + size - begin[right];
    const float t = (static_cast<float>(at - begin[right]) + 0.5f) / static_cast<float>(shared);
    return t * t * (3.0f - 2.0f * t);
  };
  if (index > 0) {
    for (int64_t at = begin[index]; at < begin[index - 1] + size; ++at) {
      result[static_cast<size_t>(at - begin[index])] = rise(index, at);
    }
  }
  if (index + 1 < count()) {
    for (int64_t at = begin[index + 1]; at < begin[index] + size; ++at) {
      result[static_cast<size_t>(at - begin[index])] = 1.0f - rise(index + 1, at);
    }
  }
  return result;
}

std::optional<TileAxis> cut_axis(int64_t length, int64_t count, int64_t overlap, int64_t multiple) {
  if (count == 1) return TileAxis{length, {0}};
  const int64_t least = (length + (count - 1) * overlap + count - 1) / count;
  TileAxis axis{(least + multiple - 1) / multiple * multiple, {}};
  if (axis.size >= length) return std::nullopt;
  for (int64_t i = 0; i < count; ++i) {
    axis.begin.push_back(i * (length - axis.size) / (count - 1) / multiple * multiple);
  }
  for (size_t i = 0; i + 2 < axis.begin.size(); ++i) {
    if (axis.begin[i + 2] < axis.begin[i] + axis.size) return std::nullopt;
  }
  return axis;
}

std::vector<TileGrid> tile_grids(int64_t height, int64_t width, int64_t overlap, int64_t multiple) {
  const auto axes = [&](int64_t length) {
    std::vector<TileAxis> result;
    for (int64_t count = 1; count == 1 || count * overlap <= length; ++count) {
      if (auto axis = cut_axis(length, count, overlap, multiple)) result.push_back(std::move(*axis));
    }
    return result;
  };
  std::vector<TileGrid> grids;
  const std::vector<TileAxis> columns = axes(width);
  for (const TileAxis& row : axes(height)) {
    for (const TileAxis& column : columns) grids.push_back({row, column});
  }
  const auto order = [](const TileGrid& grid) {
    return std::make_tuple(grid.count() > 1, grid.pixels(), grid.count(), grid.rows.count());
  };
  std::sort(grids.begin(), grids.end(), [&](const TileGrid& a, const TileGrid& b) { return order(a) < order(b); });
  return grids;
}

}  // namespace flashvsr
