// SPDX-License-Identifier: LGPL-2.1-or-later
#include "io/sha256.h"

#include <gtest/gtest.h>

#include "base/error.h"
#include "tests/io/load_all.h"

namespace flashvsr {
namespace {

std::string hash(const std::string& text, bool uses_instructions = true) {
  Sha256 sha(uses_instructions);
  sha.update(text.data(), text.size());
  return sha.hex();
}

TEST(Sha256, PublishedVectors) {
  EXPECT_EQ(hash(""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  EXPECT_EQ(hash("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_EQ(hash("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq"),
            "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
  EXPECT_EQ(hash(std::string(1000000, 'a')), "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
}

TEST(Sha256, PlainRoundsGiveTheSame) {
  std::string text;
  for (int i = 0; i < 1000; ++i) {
    text.push_back(static_cast<char>(i * i + i / 7));
    EXPECT_EQ(hash(text, false), hash(text, true)) << i;
  }
  EXPECT_EQ(hash("abc", false), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
}

TEST(Sha256, PiecesDoNotMatter) {
  std::string text;
  for (int i = 0; i < 300; ++i) text.push_back(static_cast<char>(i * 7));
  for (size_t length : {55u, 56u, 63u, 64u, 65u, 119u, 120u, 128u, 300u}) {
    const std::string whole = text.substr(0, length);
    for (size_t cut = 0; cut <= length; cut += 13) {
      Sha256 sha;
      sha.update(whole.data(), cut);
      sha.update(whole.data() + cut, length - cut);
      EXPECT_EQ(sha.hex(), hash(whole)) << length << " cut at " << cut;
    }
  }
}

TEST(Sha256, Files) {
  TemporaryFolder folder;
  EXPECT_EQ(sha256_of_file(folder.write("a", "abc")), hash("abc"));
  EXPECT_EQ(sha256_of_file(folder.write("b", std::string(3000000, 'b'))), hash(std::string(3000000, 'b')));
  EXPECT_THROW(sha256_of_file(folder.path() + "/none"), Error);
}

}  // namespace
}  // namespace flashvsr
