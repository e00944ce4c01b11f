// SPDX-License-Identifier: LGPL-2.1-or-later
//
// What the benchmarks have in common: one JSON line for each result, and the spread of what was
// measured several times.
//
//     JsonLine("streams").text("device", name).number("fps", fps, 2).print();
//     {"bench":"streams","commit":"1a2b3c4","device":"CPU (2 threads)","fps":31.42}
//
// The commit is FLASHVSR_BENCH_COMMIT, which tools/flashvsr-bench sets. Standard library only.
// Thread-safety: none needed; a line belongs to one thread.
#ifndef FLASHVSR_TESTS_BENCH_JSON_LINE_H_
#define FLASHVSR_TESTS_BENCH_JSON_LINE_H_

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

namespace flashvsr {

// Median, least and greatest of at least one value.
struct Spread {
  double median = 0, min = 0, max = 0;

  template <typename Number>
  static Spread of(std::vector<Number> values) {
    if (values.empty()) return {};
    std::sort(values.begin(), values.end());
    return {static_cast<double>(values[values.size() / 2]), static_cast<double>(values.front()),
            static_cast<double>(values.back())};
  }
};

class JsonLine {
 public:
  explicit JsonLine(const std::string& bench) {
    const char* commit = std::getenv("FLASHVSR_BENCH_COMMIT");
    text("bench", bench).text("commit", commit != nullptr ? commit : "unknown");
  }

  JsonLine& text(const std::string& key, const std::string& value) {
    std::string escaped;
    for (const char c : value) {
      if (c == '"' || c == '\\') escaped += '\\';
      escaped += static_cast<unsigned char>(c) < ' ' ? ' ' : c;
    }
    return raw(key, "\"" + escaped + "\"");
  }
  JsonLine& number(const std::string& key, double value, int digits = 0) {
    char text[64];
    std::snprintf(text, sizeof(text), "%.*f", digits, value);
    return raw(key, text);
  }
  JsonLine& flag(const std::string& key, bool value) { return raw(key, value ? "true" : "false"); }
  // KEY, KEY_min and KEY_max.
  JsonLine& spread(const std::string& key, const Spread& value, int digits) {
    return number(key, value.median, digits).number(key + "_min", value.min, digits).number(key + "_max", value.max, digits);
  }
  // `value` is JSON already.
  JsonLine& raw(const std::string& key, const std::string& value) {
    line_ += (line_.empty() ? "{\"" : ",\"") + key + "\":" + value;
    return *this;
  }

  void print() const {
    std::printf("%s}\n", line_.c_str());
    std::fflush(stdout);
  }

 private:
  std::string line_;
};

}  // namespace flashvsr

#endif  // FLASHVSR_TESTS_BENCH_JSON_LINE_H_
