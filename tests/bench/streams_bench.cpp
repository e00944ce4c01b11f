// SPDX-License-Identifier: LGPL-2.1-or-later
//
// flashvsr-bench streams: 1, 2, 4 and 8 streams in one process, each as fast as it can. One JSON line
// for each count: frames/s of all together, of the slowest and the fastest stream, and the longest
// that any frame was inside. `ratio` is to one stream of the same run.
//
// The counts are measured in turn, `--rounds` times, so that what else the machine does meets all
// alike. "fps" is the median, minimum and maximum of the rounds; the other figures are of the round
// with the most frames/s.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <map>
#include <memory>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include "tests/bench/json_line.h"
#include "tests/bench/wall_stream.h"

namespace flashvsr {
namespace {

struct Round {
  double fps = 0, slowest = 0, fastest = 0, worst_ms = 0;
};

Round measure(const FlashVsrApi& api, FlashVsrModel* model, const BenchModelOptions& options, int count, double seconds) {
  std::vector<std::unique_ptr<WallStream>> streams;
  for (int i = 0; i < count; ++i) {
    streams.push_back(std::make_unique<WallStream>(api, model, options.width, options.height));
  }
  // Past the larger first chunks: no frame counts that waited for another stream's.
  for (auto& stream : streams) stream->wait_for(61);
  for (auto& stream : streams) stream->begin();
  std::this_thread::sleep_for(std::chrono::duration<double>(seconds));
  Round round;
  round.slowest = 1e9;
  for (auto& stream : streams) {
    const WallStream::Result result = stream->end();
    round.fps += result.fps();
    round.slowest = std::min(round.slowest, result.fps());
    round.fastest = std::max(round.fastest, result.fps());
    round.worst_ms = std::max(round.worst_ms, result.worst_ms);
  }
  return round;
}

int run(int argc, char** argv) {
  BenchModelOptions options;
  std::vector<int> counts = {1, 2, 4, 8};
  double seconds = 10;
  int rounds = 3;
  for (int i = 1; i < argc; i += 2) {
    const std::string name = argv[i], value = i + 1 < argc ? argv[i + 1] : "";
    if (!value.empty() && options.take(name, value)) continue;
    if (!value.empty() && name == "--seconds") seconds = std::stod(value);
    else if (!value.empty() && name == "--rounds") rounds = std::stoi(value);
    else if (!value.empty() && name == "--streams") {
      counts.clear();
      std::istringstream list(value);
      for (std::string count; std::getline(list, count, ',');) counts.push_back(std::stoi(count));
    } else {
      std::fprintf(stderr, "usage: %s [--streams 1,2,4,8] [--seconds 10] [--rounds 3]\n%s", argv[0],
                   BenchModelOptions::usage());
      return name == "--help" ? 0 : 2;
    }
  }
  const FlashVsrApi& api = bench_api();
  FlashVsrModel* model = open_bench_model(api, options);
  FlashVsrModelInfo info = {};
  info.struct_size = sizeof(info);
  api.model_info(model, &info, nullptr);

  std::map<int, std::vector<Round>> results;
  for (int round = 0; round < rounds; ++round) {
    for (int count : counts) results[count].push_back(measure(api, model, options, count, seconds));
  }
  const auto best = [&](int count) {
    const std::vector<Round>& all = results[count];
    return *std::max_element(all.begin(), all.end(), [](const Round& a, const Round& b) { return a.fps < b.fps; });
  };
  const double baseline = best(counts.front()).fps;
  for (int count : counts) {
    std::vector<double> fps;
    for (const Round& round : results[count]) fps.push_back(round.fps);
    const Round top = best(count);
    JsonLine("streams")
        .text("model", info.name)
        .text("device", info.device)
        .text("precision", info.precision)
        .number("width", options.width)
        .number("height", options.height)
        .number("streams", count)
        .number("seconds", seconds, 1)
        .number("rounds", rounds)
        .spread("fps", Spread::of(fps), 2)
        .number("stream_fps_min", top.slowest, 2)
        .number("stream_fps_max", top.fastest, 2)
        .number("worst_ms", top.worst_ms, 1)
        .number("inside", WallStream::kInside)
        .number("baseline_streams", counts.front())
        .number("ratio", top.fps / baseline, 3)
        .print();
  }
  api.model_close(model);
  return 0;
}

}  // namespace
}  // namespace flashvsr

int main(int argc, char** argv) {
  try {
    return flashvsr::run(argc, argv);
  } catch (const std::exception& e) {
    std::fprintf(stderr, "flashvsr-bench: %s\n", e.what());
    return 1;
  }
}
