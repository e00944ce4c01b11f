// SPDX-License-Identifier: LGPL-2.1-or-later
//
// SHA-256 (FIPS 180-4) of a file, as 64 lower-case hexadecimal digits.
//
// Errors: throws Error kModelNotFound when the file cannot be read. Thread-safety: safe.
#ifndef FLASHVSR_IO_SHA256_H_
#define FLASHVSR_IO_SHA256_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>

namespace flashvsr {

class Sha256 {
 public:
  // False: the plain C++ rounds, where the processor's own instructions would be used.
  explicit Sha256(bool uses_instructions = true) : uses_instructions_(uses_instructions) {}
  void update(const void* data, size_t size);
  std::string hex();  // finishes

 private:
  void block(const unsigned char* bytes);
  std::array<uint32_t, 8> state_ = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                                    0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
  std::array<unsigned char, 64> pending_{};
  size_t pending_size_ = 0;
  uint64_t total_ = 0;
  bool uses_instructions_;
};

std::string sha256_of_file(const std::string& path);

}  // namespace flashvsr

#endif  // FLASHVSR_IO_SHA256_H_
