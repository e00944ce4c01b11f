// SPDX-License-Identifier: LGPL-2.1-or-later
#include "api/tiles.h"

#include <gtest/gtest.h>

#include <cmath>
#include <set>

namespace flashvsr {
namespace {

// Every axis up to 4096 samples and every count: the promises of the header.
TEST(Tiles, CoverAnAxisAndAddUpToOne) {
  int cut = 0;
  for (const int64_t multiple : {8, 128}) {
    for (int64_t length = multiple; length <= 4096; length += multiple) {
      for (int64_t count = 1; count <= 33; ++count) {
        const auto axis = cut_axis(length, count, 128, multiple);
        if (!axis) continue;
        ++cut;
        ASSERT_EQ(axis->count(), static_cast<size_t>(count));
        ASSERT_EQ(axis->size % multiple, 0);
        ASSERT_EQ(axis->begin.front(), 0);
        ASSERT_EQ(axis->begin.back() + axis->size, length);
        std::vector<double> sum(static_cast<size_t>(length));
        std::vector<int> covered(static_cast<size_t>(length));
        for (size_t i = 0; i < axis->count(); ++i) {
          ASSERT_EQ(axis->begin[i] % multiple, 0);
          if (i > 0) {
            ASSERT_GE(axis->begin[i - 1] + axis->size - axis->begin[i], 128) << length << " " << count;
          }
          const std::vector<float> weights = axis->weights(i);
          ASSERT_EQ(static_cast<int64_t>(weights.size()), axis->size);
          for (int64_t x = 0; x < axis->size; ++x) {
            const float weight = weights[static_cast<size_t>(x)];
            ASSERT_TRUE(weight > 0 && weight <= 1);
            sum[static_cast<size_t>(axis->begin[i] + x)] += static_cast<double>(weight);
            ++covered[static_cast<size_t>(axis->begin[i] + x)];
          }
          // at an edge inside the picture a tile hardly counts
          ASSERT_TRUE(i == 0 || weights.front() < 1e-3f);
          ASSERT_TRUE(i + 1 == axis->count() || weights.back() < 1e-3f);
        }
        for (size_t x = 0; x < sum.size(); ++x) {
          ASSERT_TRUE(std::abs(sum[x] - 1) <= 1e-6) << x;
          ASSERT_TRUE(covered[x] == 1 || covered[x] == 2) << x;
        }
      }
    }
  }
  EXPECT_GT(cut, 2000);
}

TEST(Tiles, AreNoLargerThanNeeded) {
  const auto two = cut_axis(1408, 2, 128, 128);
  ASSERT_TRUE(two);
  EXPECT_EQ(two->size, 768);
  EXPECT_EQ(two->begin, (std::vector<int64_t>{0, 640}));
  const auto three = cut_axis(2688, 3, 128, 128);
  ASSERT_TRUE(three);
  EXPECT_EQ(three->size, 1024);
  EXPECT_EQ(three->begin, (std::vector<int64_t>{0, 768, 1664}));
  EXPECT_FALSE(cut_axis(128, 2, 128, 128));
  EXPECT_FALSE(cut_axis(256, 2, 128, 128));
  EXPECT_TRUE(cut_axis(384, 2, 128, 128));
}

TEST(Tiles, GridsComeInTheOrderOfTheirWork) {
  for (const auto& [height, width] : {std::pair<int64_t, int64_t>{768, 1408}, {1536, 2688}, {2176, 3840}}) {
    const std::vector<TileGrid> grids = tile_grids(height, width, 128, 128);
    ASSERT_GT(grids.size(), 10u);
    EXPECT_EQ(grids[0].count(), 1u);
    EXPECT_EQ(grids[0].tile_pixels(), height * width);
    std::set<std::pair<size_t, size_t>> shapes;
    for (size_t i = 0; i < grids.size(); ++i) {
      EXPECT_TRUE(shapes.insert({grids[i].rows.count(), grids[i].columns.count()}).second);
      if (i == 0) continue;
      EXPECT_TRUE(i == 1 || grids[i].pixels() >= grids[i - 1].pixels());
      EXPECT_LT(grids[i].tile_pixels(), height * width);
    }
  }
  EXPECT_EQ(tile_grids(128, 128, 128, 128).size(), 1u);
}

}  // namespace
}  // namespace flashvsr
