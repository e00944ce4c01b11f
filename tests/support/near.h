// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Comparison of tensors that NaN and a wrong shape fail, and a table of what was
// used of each tolerance, printed when the tests are over.
//
//     expect_near("dit/x0", actual, expected, {2e-3, 1e-4});
#ifndef FLASHVSR_TESTS_SUPPORT_NEAR_H_
#define FLASHVSR_TESTS_SUPPORT_NEAR_H_

#include <ATen/core/Tensor.h>

#include <limits>
#include <string>

namespace flashvsr {

struct Tolerance {
  double max = 0;
  double mean = std::numeric_limits<double>::infinity();
};

// Adds a row to the table and a GoogleTest failure if max |a - e| > tolerance.max, the mean is
// larger than tolerance.mean, a value is NaN or the shapes differ.
void expect_near(const std::string& stage, const at::Tensor& actual, const at::Tensor& expected,
                 const Tolerance& tolerance);

// Bit-equal values (any dtype, compared in double).
void expect_equal(const std::string& stage, const at::Tensor& actual, const at::Tensor& expected);

// Adds a row for a figure that was computed otherwise; fails unless value <= limit.
void expect_at_most(const std::string& stage, double value, double limit);

// Registers the table's printing; call once from main.
void print_table_at_exit();

}  // namespace flashvsr

#endif  // FLASHVSR_TESTS_SUPPORT_NEAR_H_
