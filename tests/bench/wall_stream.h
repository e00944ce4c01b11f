// SPDX-License-Identifier: LGPL-2.1-or-later
//
// One stream through the C interface as an application drives it: a thread that sends, one that
// runs, one that receives; I420 in host memory, the same few moving pictures again and again.
//
//     WallStream stream(api, model, 160, 90);
//     stream.wait_for(29);                  // the first and one steady chunk have come out
//     stream.begin();  sleep;  WallStream::Result result = stream.end();
//
// At most kInside frames are inside: what a steady run needs, the next chunk, and a finished one.
// Sending never waits for anything else, so the stream is as fast as the engine lets it be.
//
// Errors: the first failure of a call ends the stream; `wait_for` and `end` throw it.
// Thread-safety: begin, end and wait_for from one thread.
#ifndef FLASHVSR_TESTS_BENCH_WALL_STREAM_H_
#define FLASHVSR_TESTS_BENCH_WALL_STREAM_H_

#include <flashvsr/flashvsr.h>

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

namespace flashvsr {

// Planes Y, U, V of a generated picture, rows without padding.
class BenchPicture {
 public:
  BenchPicture(int width, int height, int time);
  // Half a second of movement, there and back: where it began again with a jump, the element would see
  // a scene cut and begin anew too.
  static std::vector<BenchPicture> loop(int width, int height);
  FlashVsrFrame frame(uint64_t id);
  const std::vector<uint8_t>& bytes() const { return bytes_; }

 private:
  int width_, height_;
  std::vector<uint8_t> bytes_;
};

// The model that --model, --device and --precision name; closed with the last copy. Throws.
struct BenchModelOptions {
  std::string model, device = "cpu", precision = "auto";
  int width = 160, height = 90;
  // Takes `name value` when it is one of these options.
  bool take(const std::string& name, const std::string& value);
  static const char* usage();
};
FlashVsrModel* open_bench_model(const FlashVsrApi& api, const BenchModelOptions& options);
const FlashVsrApi& bench_api();

class WallStream {
 public:
  static constexpr int kInside = 28;
  static constexpr int kScale = 4;

  struct Result {
    double seconds = 0;
    uint64_t frames = 0;    // that came out between begin and end
    double worst_ms = 0;    // the longest of them from the call of send to the end of receive
    double fps() const { return static_cast<double>(frames) / seconds; }
  };

  WallStream(const FlashVsrApi& api, FlashVsrModel* model, int width, int height);
  ~WallStream();
  WallStream(const WallStream&) = delete;
  WallStream& operator=(const WallStream&) = delete;

  void wait_for(uint64_t frames);
  void begin();
  Result end();

 private:
  using Clock = std::chrono::steady_clock;
  void send_frames();
  void run_chunks();
  void receive_frames();
  bool check(FlashVsrStatus status, const FlashVsrError& error);  // false: the thread ends
  void check_failure();

  const FlashVsrApi& api_;
  FlashVsrSession* session_ = nullptr;
  std::vector<BenchPicture> pictures_;
  BenchPicture result_;

  std::mutex mutex_;  // all below
  std::condition_variable changed_;
  bool is_stopping_ = false;
  std::string failure_;
  uint64_t sent_ = 0, runs_ = 0, received_ = 0;
  std::vector<Clock::time_point> sent_at_;
  Clock::time_point begin_;
  Result measured_;

  std::vector<std::thread> threads_;
};

}  // namespace flashvsr

#endif  // FLASHVSR_TESTS_BENCH_WALL_STREAM_H_
