// SPDX-License-Identifier: LGPL-2.1-or-later
#include "io/sha256.h"

#if defined(__x86_64__)
#include <cpuid.h>
#include <immintrin.h>
#endif

#include <algorithm>
#include <cmath>
#include <cstring>
#include <fstream>
#include <vector>

#include "base/error.h"

namespace flashvsr {
namespace {

// First 32 bits of the fractional parts of the cube roots of the first 64 primes.
const std::array<uint32_t, 64>& round_constants() {
  static const auto constants = [] {
    std::array<uint32_t, 64> k{};
    size_t count = 0;
    for (uint32_t n = 2; count < k.size(); ++n) {
      bool is_prime = true;
      for (uint32_t d = 2; d * d <= n; ++d) is_prime = is_prime && n % d != 0;
      if (!is_prime) continue;
      const long double root = std::cbrt(static_cast<long double>(n));
      k[count++] = static_cast<uint32_t>((root - std::floor(root)) * 4294967296.0L);
    }
    return k;
  }();
  return constants;
}

uint32_t rotate(uint32_t x, int bits) { return x >> bits | x << (32 - bits); }

#if defined(__x86_64__)
// The released transformer has 5.7 GB: with the processor's own instructions that is seconds.
bool has_sha_instructions() {
  static const bool has = [] {
    unsigned a = 0, b = 0, c = 0, d = 0;
    if (__get_cpuid(1, &a, &b, &c, &d) == 0 || (c & bit_SSSE3) == 0 || (c & bit_SSE4_1) == 0) return false;
    return __get_cpuid_count(7, 0, &a, &b, &c, &d) != 0 && (b & bit_SHA) != 0;
  }();
  return has;
}

__attribute__((target("sha,ssse3,sse4.1"))) void block_by_instructions(uint32_t* state, const unsigned char* bytes) {
  const auto& k = round_constants();
  const auto load = [](const void* from) __attribute__((target("sha,ssse3,sse4.1"))) {
    return _mm_loadu_si128(static_cast<const __m128i*>(from));
  };
  // The instructions want the state as (a b e f) and (c d g h), highest word first.
  const __m128i cdab = _mm_shuffle_epi32(load(state), 0xB1), efgh = _mm_shuffle_epi32(load(state + 4), 0x1B);
  const __m128i abef_in = _mm_alignr_epi8(cdab, efgh, 8), cdgh_in = _mm_blend_epi16(efgh, cdab, 0xF0);
  __m128i abef = abef_in, cdgh = cdgh_in, w[4];
  const __m128i swap = _mm_set_epi64x(0x0C0D0E0F08090A0B, 0x0405060700010203);
  for (int group = 0; group < 16; ++group) {  // of four rounds
    __m128i& next = w[group % 4];
    if (group < 4) {
      next = _mm_shuffle_epi8(load(bytes + 16 * group), swap);
    } else {
      const __m128i last = w[(group + 3) % 4];
      next = _mm_add_epi32(_mm_sha256msg1_epu32(next, w[(group + 1) % 4]), _mm_alignr_epi8(last, w[(group + 2) % 4], 4));
      next = _mm_sha256msg2_epu32(next, last);
    }
    const __m128i sum = _mm_add_epi32(next, load(&k[static_cast<size_t>(4 * group)]));
    cdgh = _mm_sha256rnds2_epu32(cdgh, abef, sum);
    abef = _mm_sha256rnds2_epu32(abef, cdgh, _mm_shuffle_epi32(sum, 0x0E));
  }
  abef = _mm_add_epi32(abef, abef_in);
  cdgh = _mm_add_epi32(cdgh, cdgh_in);
  const __m128i feba = _mm_shuffle_epi32(abef, 0x1B), dchg = _mm_shuffle_epi32(cdgh, 0xB1);
  _mm_storeu_si128(reinterpret_cast<__m128i*>(state), _mm_blend_epi16(feba, dchg, 0xF0));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(state + 4), _mm_alignr_epi8(dchg, feba, 8));
}
#endif

}  // namespace

void Sha256::block(const unsigned char* bytes) {
#if defined(__x86_64__)
  if (uses_instructions_ && has_sha_instructions()) return block_by_instructions(state_.data(), bytes);
#endif
  const auto& k = round_constants();
  uint32_t w[64];
  for (int i = 0; i < 16; ++i) {
    w[i] = static_cast<uint32_t>(bytes[4 * i]) << 24 | static_cast<uint32_t>(bytes[4 * i + 1]) << 16 |
           static_cast<uint32_t>(bytes[4 * i + 2]) << 8 | bytes[4 * i + 3];
  }
  for (int i = 16; i < 64; ++i) {
    const uint32_t s0 = rotate(w[i - 15], 7) ^ rotate(w[i - 15], 18) ^ w[i - 15] >> 3;
    const uint32_t s1 = rotate(w[i - 2], 17) ^ rotate(w[i - 2], 19) ^ w[i - 2] >> 10;
    w[i] = w[i - 16] + s0 + w[i - 7] + s1;
  }
  auto [a, b, c, d, e, f, g, h] = state_;
  for (int i = 0; i < 64; ++i) {
    const uint32_t s1 = rotate(e, 6) ^ rotate(e, 11) ^ rotate(e, 25);
    const uint32_t t1 = h + s1 + ((e & f) ^ (~e & g)) + k[static_cast<size_t>(i)] + w[i];
    const uint32_t s0 = rotate(a, 2) ^ rotate(a, 13) ^ rotate(a, 22);
    const uint32_t t2 = s0 + ((a & b) ^ (a & c) ^ (b & c));
    h = g, g = f, f = e, e = d + t1, d = c, c = b, b = a, a = t1 + t2;
  }
  const std::array<uint32_t, 8> add = {a, b, c, d, e, f, g, h};
  for (size_t i = 0; i < 8; ++i) state_[i] += add[i];
}

void Sha256::update(const void* data, size_t size) {
  const auto* bytes = static_cast<const unsigned char*>(data);
  total_ += size;
  while (size > 0) {
    if (pending_size_ == 0 && size >= 64) {
      block(bytes);
      bytes += 64;
      size -= 64;
      continue;
    }
    const size_t take = std::min(size, 64 - pending_size_);
    std::memcpy(&pending_[pending_size_], bytes, take);
    pending_size_ += take;
    bytes += take;
    size -= take;
    if (pending_size_ == 64) {
      block(pending_.data());
      pending_size_ = 0;
    }
  }
}

std::string Sha256::hex() {
  const uint64_t bits = total_ * 8;
  const unsigned char one = 0x80, zero = 0;
  update(&one, 1);
  while (pending_size_ != 56) update(&zero, 1);
  unsigned char length[8];
  for (int i = 0; i < 8; ++i) length[i] = static_cast<unsigned char>(bits >> (56 - 8 * i));
  update(length, 8);
  static const char* const kDigits = "0123456789abcdef";
  std::string out;
  for (const uint32_t word : state_) {
    for (int shift = 28; shift >= 0; shift -= 4) out += kDigits[word >> shift & 15];
  }
  return out;
}

std::string sha256_of_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  FLASHVSR_CHECK(file.is_open(), ErrorCode::kModelNotFound, path, ": cannot be opened");
  Sha256 sha;
  std::vector<char> buffer(1 << 20);
  while (file) {
    file.read(buffer.data(), static_cast<std::streamsize>(buffer.size()));
    sha.update(buffer.data(), static_cast<size_t>(file.gcount()));
  }
  return sha.hex();
}

}  // namespace flashvsr
