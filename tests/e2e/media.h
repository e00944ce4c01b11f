// SPDX-License-Identifier: LGPL-2.1-or-later
//
// What the end-to-end tests need of GStreamer: run a launch line, decode a file into gray frames, look at
// what passes the element's pads, take a stream out of a file without decoding it.
#ifndef FLASHVSR_TESTS_E2E_MEDIA_H_
#define FLASHVSR_TESTS_E2E_MEDIA_H_

#include <cstdint>
#include <string>
#include <vector>

namespace flashvsr {

struct Stamp {
  uint64_t pts;       // ns
  uint64_t duration;  // ns, UINT64_MAX when the buffer has none
  bool operator==(const Stamp& other) const { return pts == other.pts && duration == other.duration; }
};

// What one run of a launch line showed. `error` is empty when it ended by itself.
struct Passage {
  std::string error;
  std::vector<Stamp> in, out;  // at the pads of the element called "f", when there is one
  int in_width = 0, in_height = 0, out_width = 0, out_height = 0;
};
Passage run_pipeline(const std::string& launch_line);

struct GrayFrame {
  uint64_t pts;  // ns
  int width, height;
  std::vector<uint8_t> pixels;
};
// All frames of the first video stream, or an empty vector with `error` set. `more` goes before the
// conversion to gray ("deinterlace fields=top ! videoconvert !").
std::vector<GrayFrame> decode_gray(const std::string& path, std::string* error, const std::string& more = "");

// Nanoseconds as the container tells them; 0 when it does not.
uint64_t container_duration(const std::string& path);

// The bytes of the first coded sound stream, one string for each packet.
std::vector<std::string> audio_packets(const std::string& path, std::string* error);

// dB between `small` and the mean of the factor x factor pixels of `large` above each of its pixels.
double psnr_of_reduced(const GrayFrame& large, const GrayFrame& small);

}  // namespace flashvsr

#endif  // FLASHVSR_TESTS_E2E_MEDIA_H_
