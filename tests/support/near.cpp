// SPDX-License-Identifier: LGPL-2.1-or-later
#include "tests/support/near.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cstdio>
#include <vector>

namespace flashvsr {
namespace {

struct Row {
  std::string stage;
  double error, tolerance, mean_error, mean_tolerance;
};

std::vector<Row>& rows() {
  static std::vector<Row> table;
  return table;
}

class TablePrinter : public testing::Environment {
 public:
  void TearDown() override {
    std::printf("\n%-58s %11s %11s %6s %11s\n", "stage", "max error", "tolerance", "used", "mean error");
    for (const Row& row : rows()) {
      const double used = row.tolerance > 0 ? 100 * row.error / row.tolerance : 0;
      std::printf("%-58s %11.3g %11.3g %5.0f%% %11.3g\n", row.stage.c_str(), row.error,
                  row.tolerance, used, row.mean_error);
    }
  }
};

}  // namespace

void expect_near(const std::string& stage, const at::Tensor& actual, const at::Tensor& expected,
                 const Tolerance& tolerance) {
  ASSERT_EQ(actual.sizes(), expected.sizes()) << stage;
  const at::Tensor a = actual.detach().cpu().to(at::kDouble), e = expected.cpu().to(at::kDouble);
  at::Tensor difference = (a - e).abs();
  // Equal infinities (the local mask's scores) differ by nothing.
  difference = difference.masked_fill(a == e, 0);
  const double max = difference.numel() == 0 ? 0 : difference.max().item<double>();
  const double mean = difference.numel() == 0 ? 0 : difference.mean().item<double>();
  rows().push_back({stage, max, tolerance.max, mean, tolerance.mean});
  EXPECT_TRUE(!difference.isnan().any().item<bool>()) << stage << ": NaN";
  if (!(max <= tolerance.max)) {
    const int64_t at = difference.flatten().argmax().item<int64_t>();
    ADD_FAILURE() << stage << ": max error " << max << " > " << tolerance.max << " at flat index "
                  << at << ": " << a.flatten()[at].item<double>() << ", expected "
                  << e.flatten()[at].item<double>();
  }
  EXPECT_TRUE(mean <= tolerance.mean) << stage << ": mean error " << mean << " > " << tolerance.mean;
}

void expect_equal(const std::string& stage, const at::Tensor& actual, const at::Tensor& expected) {
  expect_near(stage, actual, expected, {0});
}

void expect_at_most(const std::string& stage, double value, double limit) {
  rows().push_back({stage, value, limit, 0, 0});
  EXPECT_TRUE(value <= limit) << stage << ": " << value << " > " << limit;
}

void print_table_at_exit() { testing::AddGlobalTestEnvironment(new TablePrinter); }

}  // namespace flashvsr
